"""`run.py transitions` with a size of batch that no option has: for the table of settings alone.

python -m bench.stream_job BATCH transitions --input ...
"""

from __future__ import annotations

import sys
from functools import partial

import run
from pipelines import transitions
from transforms.sources.kafka import ReadKafka


def main() -> int:
    """Run the command line after the first argument."""
    batch = int(sys.argv.pop(1))
    # The module of the pipeline takes the class by this name when it is built.
    vars(transitions)["ReadKafka"] = partial(ReadKafka, batch=batch)
    return run.command()


if __name__ == "__main__":
    sys.exit(main())
