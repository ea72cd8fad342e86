"""Which subscriptions a reader of Pub/Sub has, and how it reads them."""

from __future__ import annotations

from dataclasses import dataclass

from transforms.pubsub import PubSubAddress
from transforms.sources.slice import Slice


@dataclass(frozen=True)
class PubSubSlice(Slice):
    """A slice of the messages of some subscriptions: see `Slice`.

    Attributes:
        address: the subscriptions.
        account: names the run that keeps account of what is delivered (`transforms.receipts`);
            empty: what a runner finalizes is durable.
    """

    address: PubSubAddress
    account: str = ""

    def subscriptions(self) -> tuple[str, ...]:
        """Return those that this slice reads, alone or with others."""
        readers = [name for name in self.address.subscriptions for _ in range(self.address.readers)]
        own = readers[self.number :: self.of]
        return tuple(dict.fromkeys(own))
