"""What readings of this process have given away and nobody has finalized.

A reading has a name and counts its batches, and its marks say both. So a mark that is finalized
says which messages are to be acknowledged, and a reader that begins at an older mark, as when a
runner repeats a bundle or restores a checkpoint, says which ones must be delivered again. In
another process nothing is known of either: the service itself delivers again what is not
acknowledged there.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from transforms.receipts import account_of
from transforms.sources.pubsub.leases import Keeper, Lot


@dataclass(frozen=True)
class Batch:
    """Messages that were given away together.

    Attributes:
        keeper: of their subscription.
        lots: they.
        scratch: names the run that keeps account of its delivery; empty: finalization is enough.
    """

    keeper: Keeper
    lots: tuple[Lot, ...]
    scratch: str = ""


_lock = threading.Lock()
_given: dict[str, OrderedDict[int, Batch]] = {}


def give(reading: str, number: int, batch: Batch) -> None:
    """A reading gives a batch away."""
    with _lock:
        _given.setdefault(reading, OrderedDict())[number] = batch


def finalize(reading: str, number: int) -> None:
    """All batches up to a number are durable, as far as the runner says."""
    for at, batch in _take(reading, lambda each: each <= number):
        account = account_of(batch.scratch)
        if account is None:
            batch.keeper.acknowledge(batch.lots)
        else:
            account.when_delivered(at, _Acknowledge(batch))


def take_back(reading: str, number: int) -> None:
    """The batches after a number were given away in vain: they are to be delivered again."""
    for _, batch in _take(reading, lambda each: each > number):
        batch.keeper.give_back(batch.lots)


def _take(reading: str, wanted: object) -> list[tuple[int, Batch]]:
    with _lock:
        batches = _given.get(reading, OrderedDict())
        found = [(at, batch) for at, batch in batches.items() if wanted(at)]  # type: ignore[operator]
        for at, _ in found:
            del batches[at]
        if not batches:
            _given.pop(reading, None)
    return found


@dataclass(frozen=True)
class _Acknowledge:
    batch: Batch

    def __call__(self) -> None:
        self.batch.keeper.acknowledge(self.batch.lots)
