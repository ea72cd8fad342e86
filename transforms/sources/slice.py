"""Which part of a source a reader has, and how it reads it, whichever broker it is of."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Slice:
    """A slice of what an address holds.

    Attributes:
        address: what is read.
        disorder_ms: D: how far event times may be behind record times.
        splits: slices; None: as many as the runner wants, within what the source has.
        batch: most messages of an element.
        linger_ms: how long to wait for a batch to fill.
        stop: a file; once it exists, the reader ends.
        marks_ms: if not 0, batches say up to which time the slice has given everything, and an
            empty one says so when nothing comes for so long.
        rest_every_s: if not 0, a reader says that it has nothing once in so many seconds, at the
            same time as all others of its process, and each time it has read all there is: for
            Flink, see `transforms.sources.reading`.
        reads: names what is read, over all versions of a job; empty for no name.
        number: of this slice.
        of: number of slices.
        place: says nothing; chosen so that Flink spreads slices evenly: see `ReadBatches.ahead`.
    """

    address: object
    disorder_ms: int = 30_000
    splits: int | None = None
    batch: int = 5000
    linger_ms: int = 20
    stop: str = ""
    marks_ms: int = 0
    rest_every_s: float = 0.0
    reads: str = ""
    number: int = 0
    of: int = 1
    place: int = 0
