"""How workers report what they have done, while they do it: small files in the scratch folder.

Each worker, a thread or a process, overwrites a file of its own with its totals, at most
five times a second; whoever shows the progress adds the files up. No Beam, so that it is
the same in threads, processes and tests. Figures are for the eye: what a run has really
done stands in its manifest.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

INTERVAL_S = 0.2
"""A worker writes its file at most once in so many seconds."""

FOLDER = "progress"


@dataclass
class Totals:
    """What has been done so far.

    Attributes:
        bytes: input read, as stored.
        messages: messages decoded, skipped or dead.
        events: events found in them.
        shards: shards of the fold that are finished.
        rows: rows written to output tables.
    """

    bytes: int = 0
    messages: int = 0
    events: int = 0
    shards: int = 0
    rows: int = 0

    def add(self, other: Totals) -> None:
        """Add another's figures to these."""
        for part in fields(self):
            setattr(self, part.name, getattr(self, part.name) + getattr(other, part.name))


class Reporter:
    """One worker's counter. Not shared between threads.

    Args:
        path: the worker's own file.
        clock: seconds that never go back; an argument for tests.
    """

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.totals = Totals()
        self.counts: Counter[str] = Counter()
        self._path = path
        self._clock = clock
        self._due = clock()

    @property
    def folder(self) -> str:
        """The folder of its file, which a run has for itself."""
        return os.path.dirname(self._path)

    def add(
        self, *, bytes: int = 0, messages: int = 0, events: int = 0, shards: int = 0, rows: int = 0
    ) -> None:
        """Count what was done since the last call, and write the file if it is time."""
        self.totals.add(Totals(bytes, messages, events, shards, rows))
        self._flush_if_due()

    def count(self, counts: Mapping[str, int]) -> None:
        """Add to counts by name, and write the file if it is time."""
        self.counts.update(counts)
        self._flush_if_due()

    def _flush_if_due(self) -> None:
        if self._clock() >= self._due:
            self.flush()

    def flush(self) -> None:
        """Write the file now (at the end of a bundle: what follows may be long)."""
        self._due = self._clock() + INTERVAL_S
        half = f"{self._path}.half"
        try:
            with open(half, "w", encoding="utf-8") as file:
                json.dump({**asdict(self.totals), "counts": dict(self.counts)}, file)
            os.replace(half, self._path)
        except FileNotFoundError:
            # The folder is gone: the run was interrupted, and nobody reads this any more.
            return


_reporters = threading.local()
_everyone: list[Reporter] = []
_registering = threading.Lock()
_numbers = itertools.count()


def prepare(scratch: str) -> None:
    """Make the folder that workers report to; where it is not, they report nothing."""
    os.makedirs(os.path.join(scratch, FOLDER), exist_ok=True)


def reporter(scratch: str) -> Reporter | None:
    """Return this thread's counter of a run, or None if there is nowhere to report to.

    Args:
        scratch: the run's scratch folder (`RunContext.scratch`); empty if workers are elsewhere.
    """
    if not scratch:
        return None
    known: dict[tuple[str, int], Reporter] = _reporters.__dict__.setdefault("known", {})
    # A forked process must not go on with its parent's file.
    key = (scratch, os.getpid())
    if key not in known:
        known.clear()
        # A thread's number may come again after its end, so the files are counted too.
        name = f"{os.getpid()}-{threading.get_ident()}-{next(_numbers)}.json"
        known[key] = Reporter(os.path.join(scratch, FOLDER, name))
        with _registering:
            # Two at once would drop one of them, and with it what it has not written yet.
            _everyone[:] = [each for each in _everyone if each.folder == known[key].folder]
            _everyone.append(known[key])
    return known[key]


def report(
    scratch: str,
    *,
    bytes: int = 0,
    messages: int = 0,
    events: int = 0,
    shards: int = 0,
    rows: int = 0,
    flush: bool = False,
) -> None:
    """Count what this worker has done since its last call; cheap, and never fails a run.

    Args:
        scratch: the run's scratch folder; nothing happens if it is empty.
        bytes: input read, as stored.
        messages: messages decoded, skipped or dead.
        events: events found in them.
        shards: shards of the fold that are finished.
        rows: rows written to output tables.
        flush: write at once, however lately it was written.
    """
    counter = reporter(scratch)
    if counter is not None:
        counter.add(bytes=bytes, messages=messages, events=events, shards=shards, rows=rows)
        if flush:
            counter.flush()


def tally(scratch: str, counts: Mapping[str, int]) -> None:
    """Add to the counts of a stream, whose elements can't carry them to an end.

    Args:
        scratch: the run's scratch folder; nothing happens if it is empty.
        counts: by name (`transforms.counts`).
    """
    counter = reporter(scratch)
    if counter is not None and counts:
        counter.count(counts)


def flush_all() -> None:
    """Write the files of all threads of this process: for when their work is over."""
    with _registering:
        everyone = list(_everyone)
    for each in everyone:
        each.flush()


def read_counts(scratch: str) -> Counter[str]:
    """Add up the counts that all workers of a run have made."""
    counts: Counter[str] = Counter()
    for written in _read_files(scratch):
        found = written.get("counts")
        if isinstance(found, dict):
            counts.update({k: v for k, v in found.items() if isinstance(v, int)})
    return counts


def read_progress(scratch: str) -> Totals:
    """Add up what all workers of a run have reported; unreadable files count as nothing."""
    totals = Totals()
    known = {part.name for part in fields(Totals)}
    for written in _read_files(scratch):
        totals.add(
            Totals(**{k: v for k, v in written.items() if k in known and isinstance(v, int)})
        )
    return totals


def _read_files(scratch: str) -> Iterator[dict[str, Any]]:
    if not scratch:
        return
    folder = os.path.join(scratch, FOLDER)
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in names:
        if not name.endswith(".json"):
            continue
        try:
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                written = json.load(file)
        except (OSError, json.JSONDecodeError):
            continue
        if isinstance(written, dict):
            yield written
