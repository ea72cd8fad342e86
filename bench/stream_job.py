"""`run.py transitions` with a size of batch that no option has: for the table of settings alone.

python -m bench.stream_job BATCH transitions --input ...
"""

from __future__ import annotations

import sys

import run
from pipelines import stream_io


def main() -> int:
    """Run the command line after the first argument."""
    stream_io.MARKED_BATCH = int(sys.argv.pop(1))
    return run.command()


if __name__ == "__main__":
    sys.exit(main())
