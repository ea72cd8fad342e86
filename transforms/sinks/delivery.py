"""What brokers have taken, by target and table: counted by their sinks, compared at a run's end."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

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
