"""What is measured of Pub/Sub: reading alone, and whole streams on both local engines.

The service is the test double of Google's Go client. It runs on the same cores, and its CPU is told
besides: it looks through all that is not acknowledged at every pull, so more messages tell more of
it than of us, and a core of ours says more than wall time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from bench.measure import CommandFailed, held_to
from bench.pubsub_runs import PubSubRun, run_reading, run_stream
from bench.streams import Contestant, Told, take_turns
from examples.simulator.stream import Disturbance
from tests.pipelines.streams import json_messages
from tests.services import prism, pubsub
from tests.services.provision import Missing

PUBSUB_SECTIONS = ("pubsub",)
READING = "reading alone"
FN_API, PRISM = "FnApiRunner", "PrismRunner"
MESSAGES = 50_000
SPAN_S = 590
"""Seconds that the events happen in; then none is as young as D, and none waits for a clock."""


@dataclass(frozen=True)
class PubSubMatch:
    """Programs that run in turns, each with a service of its own.

    Attributes:
        key: section and size.
        input: in a few words.
        rounds: how many count.
        contestants: makes the messages and returns what to run.
    """

    key: str
    input: str
    rounds: int
    contestants: Callable[[], Sequence[Contestant]]


def pubsub_matches(name: str, messages: int | None, rounds: int) -> Iterator[PubSubMatch]:
    """Yield what a section measures; `messages` makes its input smaller."""
    many = messages or MESSAGES
    text = f"{many:,} JSON messages of 270 bytes"
    yield PubSubMatch(f"{name}/{many}", text, rounds, lambda: _contestants(many))


def measure_pubsub(match: PubSubMatch, told: Told, cores: int) -> list[dict[str, Any]]:
    """Run a match, services included, on so many cores.

    Returns:
        Its entries, as `bench.streams.take_turns` has them.

    Raises:
        CommandFailed: there is no service.
    """
    try:
        told(f"{match.key}: a service")
        pubsub.provision()
    except Missing as error:
        raise CommandFailed(str(error)) from None
    told(f"{match.key}: inputs")
    contestants = match.contestants()
    with held_to(cores):
        return take_turns(match.key, contestants, match.rounds, told)


def whole(engine: str) -> str:
    """Return the name of a whole stream."""
    return f"run.py transitions, {engine}"


def _contestants(messages: int) -> list[Contestant]:
    start = time.time_ns() // 1000 - (SPAN_S + 10) * 1_000_000
    drawn = json_messages(messages, Disturbance(), seed=1, start=start, rate=messages / SPAN_S)
    payloads = [record.payload for record in drawn.records]
    rows = drawn.truth.transitions

    def on_prism() -> PubSubRun:
        try:
            binary = prism.provision()
        except Missing as error:
            raise CommandFailed(str(error)) from None
        return run_stream(payloads, rows, "--runner", PRISM, "--prism_location", str(binary))

    return [
        Contestant(READING, messages, partial(run_reading, payloads)),
        Contestant(
            whole(FN_API), messages, partial(run_stream, payloads, rows, "--runner", FN_API)
        ),
        Contestant(whole(PRISM), messages, on_prism),
    ]
