"""What brokers have taken, by target and table: counted by their sinks, compared at a run's end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from apache_beam.metrics import Metrics

from transforms.progress import tally
from transforms.receipts import Delivered, acknowledge

DELIVERED = "delivered:"
"""Prefix of the counts of rows that a broker has taken: behind it the target and the table."""


def taken(number: int, rows: Mapping[str, int]) -> dict[str, int]:
    """Return the counts of what a target has taken.

    Args:
        number: of the target among those of the run.
        rows: table -> how many.
    """
    return {f"{DELIVERED}{number}:{name}": n for name, n in rows.items()}


def delivered(counts: Mapping[str, int], number: int, tables: Iterable[str]) -> dict[str, int]:
    """Return how many rows of each table a target has taken, from a run's counts."""
    return {name: counts.get(f"{DELIVERED}{number}:{name}", 0) for name in tables}


@dataclass
class Bundle:
    """What a sink was given in a bundle; counted, and acknowledged, when all of it is taken.

    Attributes:
        step: the sink's step, the namespace of its metrics.
        number: of the target among those of the run.
        scratch: where delivered rows are counted; empty for nowhere.
    """

    step: type
    number: int
    scratch: str
    _rows: Counter[str] = field(default_factory=Counter)
    _elements: list[Delivered] = field(default_factory=list)

    def begin(self) -> None:
        """Forget one that failed."""
        self._rows.clear()
        self._elements = []

    def hold(self, element: tuple[str, int, int, bytes], rows: int) -> None:
        """Note an element of `fold.streaming.Rows`, and how many rows it has."""
        self._rows[element[0]] += rows
        self._elements.append(element[:3])

    def close(self) -> None:
        """All of it has been taken for good."""
        for name, rows in self._rows.items():
            Metrics.counter(self.step, f"rows_{name}").inc(rows)
        tally(self.scratch, taken(self.number, self._rows))
        acknowledge(self.scratch, self._elements)
