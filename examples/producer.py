"""Send the simulated engine's messages to a Kafka topic, at a rate, with the truth about them.

python -m examples.producer --broker localhost:9092 --topic imixs --rate 1000 --seconds 60
"""

from __future__ import annotations

import argparse
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

try:
    from confluent_kafka import KafkaError, KafkaException, Message, Producer
    from confluent_kafka.admin import (  # type: ignore[attr-defined]
        AdminClient,
        NewTopic,
    )
except ImportError:
    sys.exit("error: Kafka needs its client: pip install 'imixs-data-streaming[kafka]'")

from examples.avro_events import AvroWriter, RegistryError, register
from examples.simulator.json_stream import EventWitness, json_events
from examples.simulator.processes import PROCESSES
from examples.simulator.scenario import Faults
from examples.simulator.stream import Disturbance, Record, arrivals, calls, documents
from examples.simulator.truth import Truth, Witness
from examples.simulator.worktime import SECOND

FLAT_OUT_RATE = 1000.0
"""Events a second on the events' own clock if they are sent flat out."""

_MODEL = "{model}"
_TICK = 0.002
_PATIENCE = 30.0
_METADATA_TRIES = 10
_REFUSED = (KafkaError._AUTHENTICATION, KafkaError.SASL_AUTHENTICATION_FAILED, KafkaError._SSL)
"""Errors that trying again does not mend."""

_EXAMPLES = """examples:
  a stream of Imixs documents for a minute, some out of order, late, twice or unreadable:
    python -m examples.producer --broker localhost:9092 --topic imixs --rate 1000 --seconds 60 \\
      --duplicates 0.01 --disorder 5s --delays 0.001:60s --garbage 0.001 --truth truth.json
  a topic for each model version, as the engine's Kafka adapter has them:
    python -m examples.producer --broker localhost:9092 --topic '{model}' --rate 100
  a million small JSON events, flat out, with a quarter of a million cases open at a time:
    python -m examples.producer --broker localhost:9092 --topic events --format json_lines \\
      --rate 0 --messages 1000000 --cases 2000 --copies 600
  the same events as Avro, by a schema registry:
    python -m examples.producer --broker localhost:9092 --topic orders --format avro \\
      --schema-registry http://localhost:8085 --seconds 60
  a sparse day, ten events a second, sent at once:
    python -m examples.producer --broker localhost:9092 --topic day --format json_lines \\
      --rate 0 --event-rate 10 --messages 864000 --times create

The events' clock starts now (or at --start) and runs as fast as they are sent. Ctrl-C draws no
more events, and sends at once those that are held back: the truth holds for what was sent.
"""


class _Ready(NamedTuple):
    topic: str
    key: bytes | None
    payload: bytes
    arrival: int


class DeliveryError(Exception):
    """The broker did not take all messages."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command: 0 all sent, 1 not all sent, 2 a wrong option, or no broker."""
    parser = _parser()
    options = parser.parse_args(argv)
    try:
        _check(options)
        settings = _client_settings(options)
        disturbance = Disturbance(
            disordered=options.disorder[0],
            disorder=options.disorder[1],
            delays=options.delays[0],
            delay=options.delays[1],
            duplicates=options.duplicates,
            repeat_within=options.repeat_within,
        )
        faults = Faults(
            **{name: 0.0 for name in ("duplicate", "empty", "old_log")},
            phantom=options.phantoms,
            missing=options.missing,
            broken=options.garbage,
            profile=options.profiles,
            unreadable=options.unreadable,
        )
        prepare_topics(settings, _topics(options.topic), options.partitions, options.times)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KafkaException as error:
        print(f"error: {options.broker}: {_reason(error)}", file=sys.stderr)
        return 2
    try:
        truth = _send(options, settings, disturbance, faults)
    except (DeliveryError, RegistryError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if truth is not None:
        options.truth.parent.mkdir(parents=True, exist_ok=True)
        truth.save(options.truth)
        print(
            f"messages {truth.messages:,} = {truth.decoded:,} decoded + {truth.skipped:,} skipped"
            f" + {truth.dead:,} dead\n"
            f"events {truth.events:,} = {truth.transitions:,} transitions"
            f" + {truth.duplicates:,} duplicates + {truth.rejected:,} rejected\n"
            f"truth: {options.truth}"
        )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.producer",
        description="Send a simulated Imixs-Workflow engine's messages to a Kafka topic.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--broker", required=True, metavar="HOST:PORT", help="where the broker is")
    add(
        "--topic",
        required=True,
        help="is made if it is not there; {model} in it stands for the model version",
    )
    add("--partitions", type=int, default=4, help="of a topic that is made (default: 4)")
    add(
        "--config",
        type=Path,
        metavar="FILE",
        help="a properties file with client settings, such as TLS and credentials",
    )
    add(
        "--format",
        choices=("imixs_xml", "json_lines", "avro"),
        default="imixs_xml",
        help="whole documents of some 4 KB, or an event of 270 bytes, as JSON or by a schema"
        " registry (default: imixs_xml)",
    )
    add("--schema-registry", metavar="URL", help="avro: where the schema of the events goes")
    add("--keys", choices=("case", "none"), default="case", help="default: case")
    add(
        "--times",
        choices=("create", "append"),
        default="append",
        help="record times: the broker's clock, or when the record arrives on the events' own"
        " clock, which a seed and a --start repeat (default: append)",
    )
    add("--rate", type=float, default=1000.0, help="a second; 0: flat out (default: 1000)")
    add(
        "--event-rate",
        type=float,
        metavar="RATE",
        help="events a second on their own clock (default: --rate, or 1000 flat out)",
    )
    add("--seconds", type=float, help="how long (default: until Ctrl-C)")
    add("--messages", type=int, metavar="N", help="how many, before what is sent twice")
    add("--start", type=_time, metavar="TIME", help="of the events' clock, ISO 8601")
    add("--seed", type=int, default=7, help="the same seed draws the same cases (default: 7)")
    add("--cases", type=int, default=2000, help="simulated at once; others follow (default: 2000)")
    add(
        "--copies",
        type=int,
        default=1,
        metavar="N",
        help="json_lines, avro: N cases take each simulated way at the same time",
    )
    add(
        "--again",
        action="store_true",
        help="json_lines, avro: cases whose way has ended take it again; no others follow",
    )
    add(
        "--prerender",
        action="store_true",
        help="draw all messages before the first is sent, as flat out always does",
    )
    add("--truth", type=Path, metavar="FILE", help="what a correct pipeline finds, as JSON")
    faults = parser.add_argument_group("faults", "rates between 0 and 1; durations such as 5s")
    fault = faults.add_argument
    fault("--duplicates", type=float, default=0.0, metavar="RATE", help="come a second time")
    fault(
        "--repeat-within",
        type=duration,
        default=30 * SECOND,
        metavar="TIME",
        help="and that up to TIME later (default: 30s)",
    )
    fault(
        "--disorder",
        type=_disorder,
        default=(1.0, 0),
        metavar="[RATE:]TIME",
        help="each comes up to TIME late, or some do",
    )
    fault(
        "--delays",
        type=_delays,
        default=(0.0, 0),
        metavar="RATE:TIME",
        help="some come TIME later still",
    )
    fault("--garbage", type=float, default=0.0, metavar="RATE", help="cannot be decoded")
    for name, title in (
        ("missing", "never come"),
        ("phantoms", "imixs_xml: calls rolled back after their message"),
        ("profiles", "imixs_xml: documents that are no workitems, for each message"),
        ("unreadable", "imixs_xml: log lines that nobody can read"),
    ):
        fault(f"--{name}", type=float, default=0.0, metavar="RATE", help=title)
    return parser


def duration(text: str) -> int:
    """Return a duration such as `200ms`, `5s`, `2m` or `1h` in microseconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h)", text)
    if match is None:
        reason = f"{text!r} is no duration, such as 200ms, 5s, 2m or 1h"
        raise argparse.ArgumentTypeError(reason)
    unit = {"ms": 1000, "s": SECOND, "m": 60 * SECOND, "h": 3600 * SECOND}[match[2]]
    return round(float(match[1]) * unit)


def _disorder(text: str) -> tuple[float, int]:
    return _delays(text) if ":" in text else (1.0, duration(text))


def _delays(text: str) -> tuple[float, int]:
    rate, colon, time_ = text.partition(":")
    try:
        share = float(rate)
    except ValueError:
        colon = ""
    if not colon:
        reason = f"{text!r} is no rate and duration, such as 0.001:60s"
        raise argparse.ArgumentTypeError(reason)
    return share, duration(time_)


def _time(text: str) -> int:
    try:
        # Python 3.10 does not know Z.
        value = datetime.fromisoformat(re.sub(r"[Zz]$", "+00:00", text))
    except ValueError:
        reason = f"{text!r} is no ISO 8601 time, such as 2024-09-30T08:00Z"
        raise argparse.ArgumentTypeError(reason) from None
    value = value if value.tzinfo else value.replace(tzinfo=timezone.utc)
    return round(value.timestamp() * SECOND)


def _check(options: argparse.Namespace) -> None:
    if options.rate < 0 or (options.event_rate is not None and options.event_rate <= 0):
        reason = "--rate must not be negative, and --event-rate must be positive"
        raise ValueError(reason)
    for name in ("seconds", "messages", "partitions", "cases", "copies"):
        value = getattr(options, name)
        if value is not None and value <= 0:
            reason = f"--{name} must be positive, not {value}"
            raise ValueError(reason)
    if options.seconds is not None and options.messages is not None:
        reason = "--seconds and --messages both say how many: leave one out"
        raise ValueError(reason)
    if options.rate == 0 and options.messages is None:
        reason = "flat out (--rate 0) needs --messages N"
        raise ValueError(reason)
    if options.prerender and options.messages is None and options.seconds is None:
        reason = "--prerender needs --seconds or --messages"
        raise ValueError(reason)
    if not 0 <= options.garbage <= 1:
        reason = f"--garbage is a rate between 0 and 1, not {options.garbage}"
        raise ValueError(reason)
    only_xml = [options.missing, options.phantoms, options.profiles, options.unreadable]
    if options.format != "imixs_xml" and any(only_xml):
        reason = "--missing, --phantoms, --profiles and --unreadable need --format imixs_xml"
        raise ValueError(reason)
    if options.format == "imixs_xml" and (options.copies != 1 or options.again):
        reason = f"--{'again' if options.again else 'copies'} needs --format json_lines"
        raise ValueError(reason)
    if (options.format == "avro") != (options.schema_registry is not None):
        reason = "--format avro and --schema-registry URL go together"
        raise ValueError(reason)
    if options.format == "avro" and _MODEL in options.topic:
        reason = f"--format avro has one topic: leave {_MODEL} out of --topic"
        raise ValueError(reason)


def _client_settings(options: argparse.Namespace) -> dict[str, str]:
    settings = {"bootstrap.servers": options.broker, "log_level": "0"}
    if options.config is not None:
        for number, line in enumerate(options.config.read_text("utf-8").splitlines(), 1):
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            name, equals, value = text.partition("=")
            if not equals:
                reason = f"{options.config}:{number}: not NAME=VALUE"
                raise ValueError(reason)
            settings[name.strip()] = value.strip()
    return settings


def _topics(name: str) -> list[str]:
    if _MODEL not in name:
        return [name]
    models = sorted({process.version for process in PROCESSES} | {"system-1.0.0"})
    return [name.replace(_MODEL, model) for model in models]


def prepare_topics(
    settings: Mapping[str, str], names: Sequence[str], partitions: int, times: str
) -> None:
    """Make the topics that are not there, without retention.

    Args:
        settings: of the client.
        names: of the topics.
        partitions: of each.
        times: `create` or `append`; a topic that is there must have them.

    Raises:
        KafkaException: no broker answers, or it refuses.
    """
    refusals: list[KafkaError] = []
    heard: dict[str, Any] = {**settings, "error_cb": refusals.append}
    admin = AdminClient(heard)
    there = _there(admin, refusals)
    kind = {"create": "CreateTime", "append": "LogAppendTime"}[times]
    # Events may be years old: with the default retention they would be gone in minutes.
    config = {"retention.ms": "-1", "message.timestamp.type": kind}
    wanted = [
        NewTopic(name, num_partitions=partitions, replication_factor=1, config=config)
        for name in names
        if name not in there
    ]
    if wanted:
        for done in admin.create_topics(wanted).values():
            done.result(_PATIENCE)


def _there(admin: AdminClient, refusals: Sequence[KafkaError]) -> set[str]:
    for left in reversed(range(_METADATA_TRIES)):
        try:
            return set(admin.list_topics(timeout=1).topics)
        except KafkaException as error:
            admin.poll(0)
            final = [each for each in refusals if each.code() in _REFUSED]
            # What the client met says more than its time-out.
            met = [each for each in refusals if each.code() != KafkaError._ALL_BROKERS_DOWN]
            if final or not left:
                raise KafkaException([*final, *met, error.args[0]][0]) from None
    raise AssertionError


def _reason(error: KafkaException) -> str:
    found = error.args[0]
    return str(found.str()) if isinstance(found, KafkaError) else str(found)


def _send(
    options: argparse.Namespace,
    settings: Mapping[str, str],
    disturbance: Disturbance,
    faults: Faults,
) -> Truth | None:
    event_rate = options.event_rate or options.rate or FLAT_OUT_RATE
    total: int | None = options.messages
    if options.seconds is not None:
        total = max(1, round(options.seconds * options.rate))
    start = options.start
    if start is None:
        start = time.time_ns() // 1000
        if options.rate == 0 and total is not None:
            # So that the last events are of now, and none are of the future.
            start -= int(total / event_rate * SECOND)
    drawing = _Drawing(options, event_rate, disturbance, faults, start, total)
    with _interruptible(drawing):
        ready: Iterator[_Ready] = drawing.records()
        if options.rate == 0 or options.prerender:
            began = time.perf_counter()
            ready = iter(list(ready))
            print(f"drawn in {time.perf_counter() - began:.1f} s", file=sys.stderr)
        pace = options.rate / event_rate
        _deliver(ready, settings, drawing, pace, options.times == "create")
    return drawing.truth() if options.truth is not None else None


class _Drawing:
    """Draws the messages, until there are enough or it is told to end."""

    def __init__(
        self,
        options: argparse.Namespace,
        rate: float,
        disturbance: Disturbance,
        faults: Faults,
        start: int,
        total: int | None,
    ) -> None:
        self.start = start
        self.ended = False
        self._options = options
        self._disturbance = disturbance
        self._total = total
        self._witness: Witness | EventWitness
        seed = options.seed
        self._drawn: Iterator[Record[Any]]
        self._write: Callable[[bytes], bytes] = bytes
        if options.format == "avro":
            self._write = AvroWriter(register(options.schema_registry, options.topic)).write
        if options.format != "imixs_xml":
            self._witness = EventWitness()
            self._drawn = json_events(
                seed,
                options.cases,
                start=start,
                rate=rate,
                copies=options.copies,
                again=options.again,
                garbage=options.garbage,
            )
        else:
            self._witness = Witness()
            snapshots = calls(seed, options.cases, start=start, rate=rate, faults=faults)
            self._drawn = documents(snapshots, seed=seed, faults=faults)

    def records(self) -> Iterator[_Ready]:
        """Yield what arrives, in that order."""
        observe: Any = self._witness.observe if self._options.truth is not None else _ignore
        found: Iterator[Record[Any]] = arrivals(
            self._until_ended(), self._disturbance, seed=self._options.seed, observe=observe
        )
        topic = self._options.topic
        by_model, keyed = _MODEL in topic, self._options.keys == "case"
        for record in found:
            yield _Ready(
                topic.replace(_MODEL, record.topic) if by_model else topic,
                record.key if keyed else None,
                self._write(record.payload),
                record.arrival,
            )

    def _until_ended(self) -> Iterator[Record[Any]]:
        for record in islice(self._drawn, self._total):
            if self.ended:
                return
            yield record

    def truth(self) -> Truth:
        """Return the truth about what was drawn, and so sent."""
        return self._witness.truth()


def _ignore(fact: object) -> None:
    """Observe nothing: no truth is wanted."""


def _deliver(
    ready: Iterator[_Ready],
    settings: Mapping[str, str],
    drawing: _Drawing,
    pace: float,
    own_times: bool,
) -> None:
    """Send records when they are due.

    Args:
        ready: in the order of arrival.
        settings: of the client.
        drawing: where they come from, and when its clock started.
        pace: seconds of the events' clock a second; 0 is flat out.
        own_times: the record's time is its arrival.

    Raises:
        DeliveryError: the broker did not take all of them.
    """
    refused: list[str] = []

    def report(error: KafkaError | None, _: Message) -> None:
        if error is not None:
            refused.append(error.str())

    producer = Producer(
        {
            "enable.idempotence": True,
            "linger.ms": 5,
            "batch.num.messages": 10_000,
            "queue.buffering.max.messages": 1_000_000,
            "queue.buffering.max.kbytes": 256 * 1024,
            # As Kafka's own clients: a case has the partition that they would choose.
            "partitioner": "murmur2_random",
            "delivery.report.only.error": True,
            "on_delivery": report,
            "error_cb": _ignore,
            **settings,
        }
    )
    produce, poll = producer.produce, producer.poll
    progress = _Progress()
    began = time.monotonic()
    due = now = 0.0
    for topic, key, payload, arrival in ready:
        if pace:
            due = began + (arrival - drawing.start) / SECOND / pace
            if due > now:
                now = _wait(due, producer, drawing)
        # 0 is how the client says: the time of now.
        at = arrival // 1000 if own_times else 0
        while True:
            try:
                produce(topic, payload, key, timestamp=at)
                break
            except BufferError:
                poll(0.1)
            except KafkaException as error:
                # Such as a topic that was deleted meanwhile.
                reason = f"{progress.sent:,} messages were sent, and no more are taken"
                reason = f"{reason}: {topic}: {_reason(error)}"
                raise DeliveryError(reason) from None
        progress.sent += 1
        if not progress.sent & 1023 or pace:
            poll(0)
            progress.show(due)
    left = producer.flush(_PATIENCE)
    took = time.monotonic() - began
    progress.clear()
    if left or refused:
        reason = f"{left + len(refused):,} of {progress.sent:,} messages were not taken"
        raise DeliveryError(f"{reason}: {refused[0]}" if refused else reason)
    print(
        f"{progress.sent:,} messages sent in {took:.1f} s, "
        f"{progress.sent / max(took, 1e-9):,.0f} a second"
    )


def _wait(due: float, producer: Producer, drawing: _Drawing) -> float:
    """Wait until a time has come, and return the time: what was due before it may go at once."""
    while (now := time.monotonic()) < due and not drawing.ended:
        producer.poll(0)
        # At high rates some records go together, or waking up would cost more than sending.
        time.sleep(min(max(due - now, _TICK), 0.1))
    return now


@contextmanager
def _interruptible(drawing: _Drawing) -> Iterator[None]:
    """Let the first Ctrl-C (or SIGTERM) end the drawing, and the second the program."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: object) -> None:
        if drawing.ended:
            raise KeyboardInterrupt
        drawing.ended = True

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Progress:
    """A line on a terminal, at most four times a second."""

    def __init__(self) -> None:
        self.sent = 0
        self._began = self._shown = time.monotonic()
        self._terminal = sys.stderr.isatty()

    def show(self, due: float) -> None:
        """Print the line: how many, how fast, and whether the pace is kept.

        Args:
            due: when the last one should have been sent; 0 flat out.
        """
        now = time.monotonic()
        if not self._terminal or now - self._shown < 0.25:
            return
        self._shown = now
        late = f", {now - due:.1f} s behind" if due and now - due > 0.5 else ""
        rate = self.sent / (now - self._began)
        print(f"\r\x1b[K{self.sent:,} sent, {rate:,.0f} a second{late}", end="", file=sys.stderr)
        sys.stderr.flush()

    def clear(self) -> None:
        """Remove the line."""
        if self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
