"""What goes into a run and what comes out of it: the laws, and how a run ended by them.

The figures come from the run's manifest, OUTPUT/_run.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.text import Text

from pipelines.exit_codes import ExitCode
from pipelines.screen import Screen, counted
from pipelines.settings import Settings


@dataclass(frozen=True)
class Law:
    """What goes in must come out: `total = the sum of the parts`.

    Attributes:
        unit: what is counted.
        total: how many went in.
        parts: what became of them.
    """

    unit: str
    total: int
    parts: tuple[tuple[str, int], ...]

    @property
    def holds(self) -> bool:
        """Whether it adds up."""
        return self.total == sum(count for _, count in self.parts)

    def __str__(self) -> str:
        first, *others = self.parts
        sum_ = f"{first[1]:,} {first[0]}"
        for name, count in others:
            sum_ += f" {'-' if count < 0 else '+'} {abs(count):,} {name}"
        return f"{self.unit:<9} {self.total:,} {'=' if self.holds else '≠'} {sum_}"


def laws(manifest: Mapping[str, Any]) -> list[Law]:
    """Return the laws of a run: of its messages, of its events, and of each table's rows."""
    messages, events = manifest["messages"], manifest["events"]
    found = [
        Law("messages", messages["in"], _parts(messages, ("decoded", "skipped", "dead"))),
        Law(
            "events",
            events["in"],
            _parts(
                events,
                ("transitions", "duplicates", "late", "rejected"),
                # Only where --since or --until leaves some out; and where a stream goes on
                # later: those that wait in its state, less those that waited when it began.
                ("outside", "waiting"),
            ),
        ),
    ]
    sums = {
        "transitions": (("transitions", events["transitions"]),),
        "late": (("late", events["late"]),),
        "retracted": (("retracted", manifest.get("retracted", 0)),),
        "dead_letters": (("dead", messages["dead"]), ("rejected", events["rejected"])),
    }
    for name, parts in sums.items():
        if name in manifest["tables"]:
            found.append(Law(f"rows of {name}", manifest["tables"][name]["rows"], parts))
    return found


def _parts(
    counts: Mapping[str, int], always: tuple[str, ...], sometimes: tuple[str, ...] = ()
) -> tuple[tuple[str, int], ...]:
    shown = [*always, *(name for name in sometimes if counts.get(name))]
    return tuple((name, counts.get(name, 0)) for name in shown)


def verdict(
    screen: Screen, settings: Settings, manifest: Mapping[str, Any], checked: list[Law]
) -> ExitCode:
    """Return how a run ended: whether its laws hold, and whether too much of it is dead."""
    broken = [law for law in checked if not law.holds]
    if broken:
        sentence = "; ".join(" ".join(str(law).split()) for law in broken)
        screen.fail(f"LAW VIOLATED: {sentence}. The output is incomplete: please report it")
        return ExitCode.LAW
    dead = manifest["messages"]["dead"] + manifest["events"]["rejected"]
    limit = dead_letter_limit(settings, manifest["messages"]["in"])
    if limit is not None and dead > limit:
        screen.fail(
            f"{counted(dead, 'dead letter')}, more than --max_dead_letters allows ({limit:,})"
        )
        return ExitCode.DEAD_LETTERS
    return ExitCode.OK


def dead_letter_limit(settings: Settings, messages: int) -> int | None:
    """Return how many dead letters a run may have; None if any number."""
    if settings.max_dead_percent is not None:
        return int(messages * settings.max_dead_percent / 100)
    return settings.max_dead_letters


def show_laws(screen: Screen, checked: list[Law]) -> None:
    """Print the laws of messages and events, and others where they are broken."""
    for number, law in enumerate(checked):
        if number < 2 or not law.holds:
            mark = ("✓", "green") if law.holds else ("✗ LAW VIOLATED", "bold red")
            screen.say(Text.assemble(str(law), "  ", mark))
    screen.say()
