"""The source of Pub/Sub alone: `python -m bench.pubsub_read ADDRESS MESSAGES OUTPUT`.

It reads and acknowledges so many messages, every fourth batch as a runner does, and writes how long
that took and what CPU it used, the start of the process left out.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from transforms.pubsub import PubSubAddress
from transforms.sources.messages import extent
from transforms.sources.pubsub import PubSubSource, end_all

BATCH = 10_000
FINALIZED = 4
"""Batches to a checkpoint."""
PATIENCE_S = 60.0
"""Without any message for so long it gives up."""


def main(argv: Sequence[str]) -> int:
    """Read; the exit code is 1 if not all messages came."""
    address, messages, output = PubSubAddress.parse(argv[0]), int(argv[1]), Path(argv[2])
    began = came = time.monotonic()
    before = time.process_time()
    seen, batches = 0, 0
    reader = PubSubSource(address, batch=BATCH).create_reader(None, None)
    found = reader.start()
    while True:
        if found:
            seen += extent(reader.get_current()).messages
            batches += 1
            came = time.monotonic()
        if seen >= messages:
            break
        if time.monotonic() > came + PATIENCE_S:
            print(f"{messages} messages were to be read; {seen} came", file=sys.stderr)
            return 1
        if batches % FINALIZED == 0:
            reader.get_checkpoint_mark().finalize_checkpoint()
        found = reader.advance()
    reader.get_checkpoint_mark().finalize_checkpoint()
    reader.close()
    end_all()
    figures = {"took_s": time.monotonic() - began, "used_s": time.process_time() - before}
    output.write_text(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
