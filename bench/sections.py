"""What is measured: each section makes its inputs, runs its contestants and returns raw figures.

The command under test is `run.py transitions`, as a user starts it. Every run's output is
checked: a fast wrong answer counts as a failure.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from bench.agreement import differences
from bench.analytics import ANALYTICS_SECTIONS, beside_duckdb, beside_pm4py
from bench.data import WORK, business_log
from bench.flink import FLINK_SECTIONS, FlinkMatch, flink_matches, measure_flink
from bench.formats import FORMAT_SECTIONS, contestants
from bench.inputs import documents_folder, read_through, xes_logs
from bench.measure import CommandFailed, Contestant, compete, python, run
from bench.pubsub import PUBSUB_SECTIONS, PubSubMatch, measure_pubsub, pubsub_matches
from bench.stream_analytics import STREAM_ANALYTICS_SECTIONS
from bench.stream_analytics import matches as stream_analytics
from bench.streams import STREAM_SECTIONS, StreamMatch, matches, measure_stream

ROOT = Path(__file__).parent.parent
OURS, DUCKDB, POLARS = "run.py transitions", "DuckDB", "Polars"
BATCH_SECTIONS = (
    "jsonl",
    "parquet",
    "jsonl_output",
    "xml",
    "xes",
    "elementwise",
    "scale",
    *FORMAT_SECTIONS,
    *ANALYTICS_SECTIONS,
)
SECTIONS = (
    *BATCH_SECTIONS,
    *STREAM_SECTIONS,
    *STREAM_ANALYTICS_SECTIONS,
    *FLINK_SECTIONS,
    *PUBSUB_SECTIONS,
)
CHECKED_EVENTS = 200_000
PLAIN, PATCHED = "as Beam comes", "cache weighing patched out"
START = ", start only"
MILLION = 1_000_000


@dataclass(frozen=True)
class Entry:
    """A contestant and how much work its input is.

    Attributes:
        contestant: the command.
        count: events or documents in its input.
    """

    contestant: Contestant
    count: int


@dataclass(frozen=True)
class Match:
    """Contestants that run in turns.

    Attributes:
        key: section and case, such as `jsonl/2M`.
        unit: what is counted, `events` or `documents`.
        input: the input in a few words.
        prepare: makes the inputs, before anything is timed, and returns the entries.
        warm_up: whether a first round does not count.
        runs: rounds, if not as many as asked for.
    """

    key: str
    unit: str
    input: str
    prepare: Callable[[], Sequence[Entry]]
    warm_up: bool = True
    runs: int | None = None


@dataclass
class Plan:
    """What to run.

    Attributes:
        only: names from `SECTIONS`.
        events: sizes of the logs that are compared with the peers.
        runs: rounds that count.
        quick: small inputs, to see that everything works.
        stream_events: events of each stream, if not as many as its section has.
        cores: cores that each contestant may use.
        told: called with what is being done.
    """

    only: Sequence[str] = SECTIONS
    events: Sequence[int] = (2 * MILLION, 10 * MILLION)
    runs: int = 3
    quick: bool = False
    stream_events: int | None = None
    cores: int = 2
    told: Callable[[str], Any] = field(default=lambda text: None)

    def matches(self) -> Iterator[Match | StreamMatch | FlinkMatch | PubSubMatch]:
        """Yield what is to be measured, section by section."""
        makers = {
            "jsonl": lambda: self._against_peers("jsonl"),
            "parquet": lambda: self._against_peers("parquet"),
            "jsonl_output": self._jsonl_output,
            "xml": self._xml,
            "xes": self._xes,
            "elementwise": self._elementwise,
            "scale": self._scale,
            "formats": self._formats,
            "analytics": self._analytics,
            "analytics_map": self._analytics_map,
        }
        for name in BATCH_SECTIONS:
            if name in self.only:
                yield from makers[name]()
        events = self.stream_events or (200_000 if self.quick else None)
        for name in STREAM_SECTIONS:
            if name in self.only:
                yield from matches(name, events, self.runs)
        if "stream_analytics" in self.only:
            yield from stream_analytics(events, self.runs)
        for name in FLINK_SECTIONS:
            if name in self.only:
                yield from flink_matches(name, events, self.runs)
        for name in PUBSUB_SECTIONS:
            if name in self.only:
                messages = self.stream_events or (10_000 if self.quick else None)
                yield from pubsub_matches(name, messages, self.runs)

    def _against_peers(self, kind: str) -> Iterator[Match]:
        for events in self.events:

            def prepare(events: int = events) -> list[Entry]:
                check_agreement(kind, self.told)
                log = read_through(business_log(kind, events))
                return [
                    Entry(self.ours(log, events), events),
                    Entry(self.peer(DUCKDB, log, events), events),
                    Entry(self.peer(POLARS, log, events), events),
                ]

            yield Match(
                f"{kind}/{size(events)}",
                "events",
                f"{kind}, {size(events)}",
                prepare,
                warm_up=events <= 2 * MILLION,
            )

    def _jsonl_output(self) -> Iterator[Match]:
        events = min(self.events)

        def prepare() -> list[Entry]:
            log = business_log("parquet", events)
            return [
                Entry(self.ours(log, events, "--output_format", "jsonl"), events),
                Entry(self.peer(DUCKDB, log, events, "--lines"), events),
            ]

        text = f"Parquet to JSON Lines, {size(events)}"
        yield Match(f"jsonl_output/{size(events)}", "events", text, prepare)

    def _xml(self) -> Iterator[Match]:
        single, collected = (2_000, 5_000) if self.quick else (300_000, 300_000)
        for key, documents, collections, text in (
            ("files", single, False, "a file each"),
            ("collections", collected, True, "`<data>` files of 1,000"),
        ):

            def prepare(n: int = documents, collections: bool = collections) -> list[Entry]:
                folder = documents_folder(n, collections)
                return [Entry(self.ours(folder / "**" / "*.xml", n * 10), n)]

            yield Match(f"xml/{key}", "documents", f"{documents:,} documents, {text}", prepare)

    def _xes(self) -> Iterator[Match]:
        one, each = (100_000, 50_000) if self.quick else (MILLION, 500_000)
        for key, files, events, cores in (("one", 1, one, 1), ("parallel", 4, each, self.cores)):

            def prepare(
                files: int = files, events: int = events, cores: int = cores
            ) -> list[Entry]:
                folder = xes_logs(events, files)
                ours = self.ours(folder / "*.xes", events * files, cores=cores)
                return [Entry(ours, events * files)]

            amount = f"{size(events)} events"
            text = f"one file of {amount}, 1 core" if files == 1 else f"{files} files of {amount}"
            yield Match(f"xes/{key}", "events", text, prepare)

    def _elementwise(self) -> Iterator[Match]:
        few = 1_000
        plain, patched, ours = (
            (3_000, 5_000, 200_000) if self.quick else (20_000, 50_000, 2 * MILLION)
        )

        def prepare() -> list[Entry]:
            entries = [Entry(self.ours(business_log("jsonl", ours), ours), ours)]
            for name, many, flags in (
                (PLAIN, plain, ()),
                (PATCHED, patched, ("--constant_weight",)),
            ):
                for label, events in ((name + START, few), (name, many)):
                    command = python(
                        "-m",
                        "bench.elementwise",
                        str(business_log("jsonl", events)),
                        "{output}",
                        *flags,
                    )
                    check = _row_counter(events)
                    entries.append(Entry(Contestant(label, command, check, self.cores), events))
            return entries

        yield Match("elementwise/jsonl", "events", "JSON Lines", prepare)

    def _scale(self) -> Iterator[Match]:
        sizes = (0.1, 0.2) if self.quick else (1, 2, 5, 10, 20)
        for events in (int(millions * MILLION) for millions in sizes):

            def prepare(events: int = events) -> list[Entry]:
                log = read_through(business_log("parquet", events))
                return [Entry(self.ours(log, events), events)]

            yield Match(
                f"scale/{size(events)}",
                "events",
                f"Parquet, {size(events)}",
                prepare,
                runs=1 if events > 5 * MILLION else None,
                warm_up=events <= MILLION,
            )

    def _formats(self) -> Iterator[Match]:
        def prepare() -> list[Entry]:
            return [Entry(program, count) for program, count in contestants(self.quick)]

        yield Match("formats/decode", "messages", "messages as a broker has them", prepare)

    def _analytics(self) -> Iterator[Match]:
        for events in self.events:

            def prepare(events: int = events) -> list[Entry]:
                found = beside_duckdb(events, self.cores, self.told)
                return [Entry(program, count) for program, count in found]

            text = f"Parquet, {size(events)}, hourly windows"
            small = events <= 2 * MILLION
            yield Match(f"analytics/{size(events)}", "events", text, prepare, warm_up=small)

    def _analytics_map(self) -> Iterator[Match]:
        events = min(self.events)

        def prepare() -> list[Entry]:
            return [Entry(program, count) for program, count in beside_pm4py(events, self.cores)]

        text = f"Parquet, {size(events)}, directly-follows graph"
        yield Match(f"analytics_map/{size(events)}", "events", text, prepare)

    def ours(self, log: Path, events: int, *flags: str, cores: int | None = None) -> Contestant:
        """Return the command under test."""
        return Contestant(
            OURS,
            our_command(log, "{output}", *flags),
            _manifest_checker(events),
            cores or self.cores,
        )

    def peer(self, name: str, log: Path, events: int, *flags: str) -> Contestant:
        """Return a peer's command."""
        threads = ("--threads", str(self.cores))
        return Contestant(
            name,
            python("-m", "bench.peers", name.lower(), str(log), "{output}", *threads, *flags),
            _row_counter(events),
            self.cores,
        )


def our_command(log: Path, output: str, *flags: str) -> list[str]:
    """Return the words of `run.py transitions` on a log."""
    script = str(ROOT / "run.py")
    return python(script, "transitions", "--input", str(log), "--output", output, *flags)


def size(events: int) -> str:
    """Write 2,000,000 as `2M`."""
    if events % MILLION == 0:
        return f"{events // MILLION}M"
    return f"{events // 1000}k"


def measure(match: Match | StreamMatch | FlinkMatch | PubSubMatch, plan: Plan) -> dict[str, Any]:
    """Run a match.

    Returns:
        Its raw figures: `unit`, `input`, and `entries` of `name`, `count`, `runs`, `failure`.
    """
    if not isinstance(match, Match):
        return {
            "unit": "messages" if isinstance(match, PubSubMatch) else "events",
            "input": match.input,
            "cores": plan.cores,
            "quick": plan.quick,
            "entries": _stream_entries(match, plan),
        }
    plan.told(f"{match.key}: inputs")
    entries = match.prepare()
    plan.told(match.key)
    figures = compete(
        [entry.contestant for entry in entries],
        WORK / "runs",
        match.runs or plan.runs,
        match.warm_up,
        lambda name: plan.told(f"{match.key}: {name}"),
    )
    return {
        "unit": match.unit,
        "input": match.input,
        "cores": plan.cores,
        "quick": plan.quick,
        "entries": [
            {
                "name": entry.contestant.name,
                "count": entry.count,
                "runs": [asdict(r) for r in figures[entry.contestant.name].runs],
                "failure": figures[entry.contestant.name].failure,
            }
            for entry in entries
        ],
    }


def _stream_entries(
    match: StreamMatch | FlinkMatch | PubSubMatch, plan: Plan
) -> list[dict[str, Any]]:
    if isinstance(match, StreamMatch):
        return measure_stream(match, plan.told)
    if isinstance(match, FlinkMatch):
        return measure_flink(match, plan.told, plan.cores)
    return measure_pubsub(match, plan.told, plan.cores)


_agreed: set[str] = set()


def check_agreement(kind: str, told: Callable[[str], Any]) -> None:
    """See that our tables equal DuckDB's on a smaller log, once a process.

    Raises:
        CommandFailed: they differ, or one of the programs failed.
    """
    if kind in _agreed:
        return
    told(f"{kind}: same rows as DuckDB?")
    log = business_log(kind, CHECKED_EVENTS)
    WORK.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=WORK) as folder:
        ours, theirs = Path(folder, "ours"), Path(folder, "theirs")
        run(our_command(log, str(ours)))
        run(python("-m", "bench.peers", "duckdb", str(log), str(theirs)))
        found = differences(ours, theirs)
    if found:
        reason = f"{kind}: not the same rows as DuckDB's\n" + "\n".join(found)
        raise CommandFailed(reason)
    _agreed.add(kind)


def _manifest_checker(events: int) -> Callable[[Path], None]:
    def check(output: Path) -> None:
        counts = json.loads((output / "_run.json").read_text())["events"]
        out = counts["transitions"] + counts["duplicates"] + counts["late"] + counts["rejected"]
        if counts["in"] != events or out != events or counts["rejected"]:
            reason = f"{events} events were to come through, the manifest says {counts}"
            raise CommandFailed(reason)
        _expect_rows(output / "transitions", counts["transitions"])

    return check


def _row_counter(events: int) -> Callable[[Path], None]:
    return lambda output: _expect_rows(output, events)


def _expect_rows(folder: Path, expected: int) -> None:
    """Count the rows in a folder's files, but those of `cases`."""
    written = 0
    for file in folder.iterdir():
        if file.suffix == ".parquet" and file.stem != "cases":
            written += pq.read_metadata(file).num_rows
        elif file.suffix == ".jsonl" and file.stem != "cases":
            with file.open("rb") as lines:
                written += sum(block.count(b"\n") for block in iter(lambda: lines.read(2**20), b""))
    if written != expected:
        reason = f"{expected} transitions were to be written, {written} are there"
        raise CommandFailed(reason)
