"""What happens in a run, drawn from its seed: what is killed, in which order, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Literal

Victim = Literal["task manager", "worker pool", "harness", "job manager", "broker"]

VICTIMS: tuple[Victim, ...] = ("task manager", "worker pool", "harness", "job manager", "broker")
FORMATS = ("json_lines", "imixs_xml")


@dataclass(frozen=True)
class Kill:
    """One `kill -9`.

    Attributes:
        victim: what is killed.
        choice: which one, where there are several: 0 is the first of them, 1 behind the last.
        delay_s: from the second checkpoint after the kill before to this kill.
        away_s: from the kill until it is started again; of no meaning for a harness, which the
            cluster itself starts again.
    """

    victim: Victim
    choice: float
    delay_s: float
    away_s: float


@dataclass(frozen=True)
class Scenario:
    """One run.

    Attributes:
        seed: all of it is drawn from this.
        kills: in their order.
        format: of the messages.
        rate: messages a second, before what is sent twice.
        disorder_s: D.
        checkpoint_ms: from checkpoint to checkpoint.
    """

    seed: int
    kills: tuple[Kill, ...]
    format: str
    rate: int
    disorder_s: int
    checkpoint_ms: int

    @property
    def high_availability(self) -> bool:
        """Whether the cluster must outlive its job manager."""
        return any(kill.victim == "job manager" for kill in self.kills)

    def faults(self) -> list[str]:
        """Return the producer's options for what goes wrong: the issue's shares.

        A hundredth comes later than D, so late that some of it is late for its case, too.
        """
        return [
            *("--duplicates", "0.05", "--repeat-within", f"{2 * self.disorder_s}s"),
            *("--disorder", f"0.2:{self.disorder_s}s"),
            *("--delays", f"0.01:{3 * self.disorder_s}s", "--garbage", "0.01"),
        ]


def draw(
    seed: int,
    victims: Sequence[Victim] = VICTIMS,
    *,
    format_: str = FORMATS[0],
    rate: int = 300,
    disorder_s: int = 5,
    checkpoint_ms: int = 10_000,
) -> Scenario:
    """Draw a run in which each of the victims is killed once.

    Args:
        seed: the same one draws the same.
        victims: what is killed, in any order; one that is named twice is killed twice.
        format_: of the messages.
        rate: see `Scenario`, as are the following.
        disorder_s: D.
        checkpoint_ms: from checkpoint to checkpoint.
    """
    chance = Random(f"kills {seed}")
    order = chance.sample(list(victims), len(victims))
    kills = tuple(
        # Anywhere between two checkpoints: just before one most is repeated.
        Kill(
            victim,
            chance.random(),
            round(chance.uniform(0.0, checkpoint_ms / 1000), 1),
            round(chance.uniform(0.5, 4.0), 1),
        )
        for victim in order
    )
    return Scenario(seed, kills, format_, rate, disorder_s, checkpoint_ms)
