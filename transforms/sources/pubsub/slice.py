"""Which subscriptions a reader of Pub/Sub has, and how it reads them."""

from __future__ import annotations

from dataclasses import dataclass

from transforms.pubsub import PubSubAddress


@dataclass(frozen=True)
class PubSubSlice:
    """A slice of the messages of some subscriptions.

    Attributes:
        address: the subscriptions.
        disorder_ms: D: how far event times may be behind record times.
        splits: slices; None: as many as the runner wants, but not more than readers.
        batch: most messages of an element.
        linger_ms: how long to wait for a batch to fill.
        stop: a file; once it exists, the reader ends.
        marks_ms: if not 0, batches say up to which time the slice has given everything, and an
            empty one says so when nothing comes for so long.
        rest_every_s: if not 0, a reader has nothing once in so many seconds: for Flink,
            see `transforms.sources.kafka`.
        account: names the run that keeps account of what is delivered (`transforms.receipts`);
            empty: what a runner finalizes is durable.
        reads: names what is read, over all versions of a job; empty for no name.
        number: of this slice.
        of: number of slices.
    """

    address: PubSubAddress
    disorder_ms: int = 30_000
    splits: int | None = None
    batch: int = 5000
    linger_ms: int = 20
    stop: str = ""
    marks_ms: int = 0
    rest_every_s: float = 0.0
    account: str = ""
    reads: str = ""
    number: int = 0
    of: int = 1

    def subscriptions(self) -> tuple[str, ...]:
        """Return those that this slice reads, alone or with others."""
        readers = [name for name in self.address.subscriptions for _ in range(self.address.readers)]
        own = readers[self.number :: self.of]
        return tuple(dict.fromkeys(own))
