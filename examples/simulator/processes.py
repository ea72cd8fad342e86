"""The two processes that the simulator runs: an invoice approval and a service ticket.

The same processes are drawn in `examples/processes/*.bpmn`; a test compares them. Weights and
durations are invented.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Task:
    """A state in which a case waits.

    Attributes:
        id: the model's processid.
        status: as in `$workflowstatus`.
        role: who works on it.
        hours: median working hours until its next event.
        spread: sigma of the log-normal duration.
        abandon: share of the visits after which nothing happens any more.
        end: whether the case is over.
    """

    id: int
    status: str
    role: str = ""
    hours: float = 1.0
    spread: float = 0.9
    abandon: float = 0.0
    end: bool = False


@dataclass(frozen=True)
class Move:
    """One way out of a task.

    Attributes:
        events: the event's activityid and those of its follow-up events; all of them happen in
            one processing call.
        target: the task it leads to.
        weight: how often it is taken, relative to the task's other moves.
        small: None: any case; else only cases whose amount is (not) below `Process.small_amount`.
        timer_days: None: an actor does it; else the scheduler, that many days later.
        pace: factor on the task's duration.
        comments: whether it deserves a comment.
    """

    events: tuple[int, ...]
    target: int
    weight: float
    small: bool | None = None
    timer_days: float | None = None
    pace: float = 1.0
    comments: bool = False


@dataclass(frozen=True)
class Process:
    """One version of a process.

    Attributes:
        version: as in `$modelversion`.
        group: as in `$workflowgroup`.
        start: id of the task in which a new case is.
        tasks: by id.
        moves: the ways out of each task, by id; none for end tasks.
        small_amount: limit of the condition `Move.small`.
    """

    version: str
    group: str
    start: int
    tasks: Mapping[int, Task]
    moves: Mapping[int, tuple[Move, ...]]
    small_amount: float = 0.0


def _tasks(*tasks: Task) -> dict[int, Task]:
    return {task.id: task for task in tasks}


_INVOICE_TASKS = _tasks(
    Task(1000, "New", "requester", hours=0.3, spread=1.2, abandon=0.012),
    Task(1100, "Check", "clerk", hours=5, spread=1.0, abandon=0.006),
    Task(1200, "Approval", "manager", hours=9, spread=1.1, abandon=0.012),
    Task(1300, "Clarification", "requester", hours=14, spread=1.0, abandon=0.05),
    Task(1400, "Payment", "accounting", hours=20, spread=0.6, abandon=0.002),
    Task(1900, "Paid", end=True),
    Task(1950, "Declined", end=True),
)

_FORWARD = Move((10,), 1200, 78)
_INVOICE_MOVES: dict[int, tuple[Move, ...]] = {
    1000: (Move((1,), 1000, 12, pace=0.5), Move((10,), 1100, 88)),
    1100: (
        _FORWARD,
        Move((20,), 1300, 14, comments=True),
        Move((30,), 1950, 4, comments=True),
        Move((1,), 1100, 4, pace=0.4),
    ),
    1200: (
        Move((10,), 1400, 84, comments=True),
        Move((20,), 1100, 11, comments=True),
        Move((30,), 1950, 5, comments=True),
    ),
    1300: (
        Move((10,), 1100, 80, comments=True),
        Move((80,), 1300, 14, timer_days=5),
        Move((30,), 1950, 6, comments=True),
    ),
    1400: (Move((10,), 1900, 97), Move((20,), 1100, 3, comments=True)),
}

INVOICE_1_0 = Process("invoice-1.0.0", "Invoice", 1000, _INVOICE_TASKS, _INVOICE_MOVES)

# From 1.1.0 on a small invoice needs no manager: a follow-up event approves it.
INVOICE_1_1 = Process(
    "invoice-1.1.0",
    "Invoice",
    1000,
    _INVOICE_TASKS,
    {
        **_INVOICE_MOVES,
        1100: (
            Move((10,), 1200, 78, small=False),
            Move((10, 90), 1400, 78, small=True),
            *_INVOICE_MOVES[1100][1:],
        ),
    },
    small_amount=250.0,
)

TICKET_1_0 = Process(
    "ticket-1.0.0",
    "Service Ticket",
    2000,
    _tasks(
        Task(2000, "New", "customer", hours=0.1, spread=0.8),
        Task(2100, "Triage", "dispatcher", hours=0.8, spread=0.9, abandon=0.004),
        Task(2200, "In Progress", "agent", hours=4.5, spread=1.2, abandon=0.008),
        Task(2300, "Waiting for Customer", "customer", hours=11, spread=1.0, abandon=0.01),
        Task(2400, "Solved", "customer", hours=6, spread=0.8, abandon=0.01),
        Task(2900, "Closed", end=True),
    ),
    {
        2000: (Move((10,), 2100, 100, comments=True),),
        2100: (Move((10,), 2200, 94), Move((30,), 2900, 6, comments=True)),
        2200: (
            Move((10,), 2400, 60, comments=True),
            Move((20,), 2300, 20, comments=True),
            Move((40,), 2100, 6, comments=True),
            Move((1,), 2200, 14, pace=0.3),
        ),
        2300: (
            Move((10,), 2200, 85, comments=True),
            # Nobody answers: the timer gives up, and its follow-up event closes the ticket.
            Move((80, 95), 2900, 15, timer_days=14),
        ),
        2400: (
            Move((10,), 2900, 55),
            Move((20,), 2200, 10, comments=True),
            Move((80, 95), 2900, 35, timer_days=7),
        ),
    },
)

PROCESSES = (INVOICE_1_0, INVOICE_1_1, TICKET_1_0)

END_STATES = tuple(
    str(id_)
    for id_ in sorted(
        {task.id for process in PROCESSES for task in process.tasks.values() if task.end}
    )
)
"""Task ids as text in which a case is over, for `--end_states`."""

ACTORS: Mapping[str, tuple[str, ...]] = {
    "requester": tuple(
        f"{name}@example.org"
        for name in ("anna", "bülent", "chiara", "dmitri", "eva", "farah", "götz", "hana", "ivo")
    ),
    "clerk": tuple(f"{name}@example.org" for name in ("jule", "kofi", "lena", "mats")),
    "manager": tuple(f"{name}@example.org" for name in ("nora", "otto", "pilar")),
    "accounting": tuple(f"{name}@example.org" for name in ("quirin", "rosa")),
    "dispatcher": tuple(f"{name}@example.org" for name in ("sven", "tilda", "uwe")),
    "agent": tuple(
        f"{name}@example.org"
        for name in ("vera", "willem", "xenia", "yusuf", "zoé", "ada", "björn")
    ),
    "customer": tuple(f"customer{number}@example.com" for number in range(1, 60)),
    # Some engines log the scheduler's calls without a name.
    "scheduler": ("scheduler@example.org", ""),
}
