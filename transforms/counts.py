"""Counts of a run: what the laws are made of, carried as elements so that they are exact.

Beam's metrics may count a repeated bundle twice; elements do not. Each count is also a Beam
counter (namespace = the step's class), for whoever watches a runner's own page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from apache_beam.metrics import Metrics

Count = tuple[str, int]

COUNTS = "counts"
"""The side output of steps that count."""

MESSAGES = ("decoded", "skipped", "dead")
EVENTS = ("transitions", "duplicates", "late", "rejected", "outside")
QUALITY = ("gaps", "ties", "reversals")
WARNING = "warning:"
"""Prefix of a count whose name is a sentence for the user."""
ITEM = "item:"
"""Prefix of a count that says that a business item was found."""
UNFIT = "unfit:"
"""Prefix of a count of values that were not of their item's declared type."""
ENDED = "ended:"
"""Prefix of a count of transitions to one of the end states that were given."""
REASON = "reason:"
"""Prefix of a count of dead letters of a stream with one class of error."""


def counted(namespace: type, counts: Mapping[str, int]) -> Iterator[Count]:
    """Yield the counts that are not zero, and add them to Beam's counters."""
    for name, number in counts.items():
        if number:
            if not name.startswith((WARNING, ITEM, UNFIT, ENDED)):
                Metrics.counter(namespace, name).inc(number)
            yield name, number
