"""What is simulated, and what goes wrong: the settings of the simulator."""

from __future__ import annotations

from dataclasses import dataclass, fields

from examples.simulator.worktime import Zone


@dataclass(frozen=True)
class Faults:
    """What goes wrong, each as a rate between 0 and 1.

    Attributes:
        duplicate: messages that come a second time, the same bytes.
        phantom: processing calls after a case's first that are rolled back after their message.
        missing: messages that never come.
        broken: messages that come in a state in which nobody can read them.
        empty: messages that come without a byte.
        profile: documents that are no workitems, for each message.
        unreadable: log lines that are written unreadable, and stay so in every later snapshot.
        old_log: cases that start on an old engine; half of them move to a new one later.
    """

    duplicate: float = 0.02
    phantom: float = 0.004
    missing: float = 0.005
    broken: float = 0.003
    empty: float = 0.0005
    profile: float = 0.01
    unreadable: float = 0.0005
    old_log: float = 0.03

    def __post_init__(self) -> None:
        for rate in fields(self):
            value = getattr(self, rate.name)
            if not 0 <= value <= 1:
                reason = f"{rate.name} is a rate between 0 and 1, not {value}"
                raise ValueError(reason)

    @classmethod
    def none(cls) -> Faults:
        """Return faults that never happen."""
        return cls(**{rate.name: 0.0 for rate in fields(cls)})


@dataclass(frozen=True)
class Scenario:
    """What is simulated.

    Attributes:
        days: length; what would happen later is left out, so some cases stay open.
        invoices: share of the cases that are invoices; the others are tickets.
        new_version: share of `days` after which new invoices follow invoice-1.1.0.
        chatty: share of the tickets that are updated dozens of times.
        out_of_hours: share of calls out of hours, about a third of them on weekends.
        files: share of the cases that carry a file.
        file_kib: its smallest and largest size.
        nanos: whether log times have nine digits, as some Java platforms give, and not six.
        old_zone: zone of the times in old logs, which do not say it.
    """

    days: float = 60.0
    invoices: float = 0.6
    new_version: float = 0.4
    chatty: float = 0.015
    out_of_hours: float = 0.03
    files: float = 0.04
    file_kib: tuple[int, int] = (2, 12)
    nanos: bool = False
    old_zone: Zone = "UTC"

    def __post_init__(self) -> None:
        if self.days <= 0:
            reason = f"days must be positive, not {self.days}"
            raise ValueError(reason)
