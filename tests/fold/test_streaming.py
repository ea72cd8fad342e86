"""The streaming fold on real runners: equal to the backfill over the same messages."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Any

import apache_beam as beam
import numpy as np
import orjson
import pytest
from apache_beam.io.unbounded_source import ReadFromUnboundedSource
from apache_beam.options.pipeline_options import PipelineOptions

from pipelines.prism_engine import whole_bundles
from schemas.coders import unpack
from schemas.tables import TABLES
from tests.fold.scripted import Said, Scripted
from tests.fold.test_bounded import fold as fold_bounded
from transforms import progress
from transforms.decode import DEAD
from transforms.decode_messages import DecodeMessages
from transforms.fold import streaming
from transforms.fold.granules import GranuleFold
from transforms.fold.streaming import FoldStream, _Host
from transforms.formats import registry
from transforms.formats.base import Context, Message
from transforms.kernels.case_state import Rules
from transforms.kernels.transitions import TransitionsKernel
from transforms.sources.messages import DRAIN, pack_messages

SECOND = 1_000_000
START = 1_700_000_000 * SECOND
DISORDER_MS = 5_000
RULES = Rules(end_states=frozenset({"end"}))
CONTEXT = Context(columns={"event_id": "event_id"})


def topic(seed: int, events: int = 400) -> list[Message]:
    """Make the messages of two partitions: duplicates, delays beyond D, garbage."""
    chance = random.Random(seed)
    clock = [START, START]
    messages = []
    for i in range(events):
        partition = chance.randrange(2)
        clock[partition] += chance.choice([0, 1000, SECOND, 3 * SECOND])
        delay = chance.choice([0, SECOND, 4 * SECOND, 4 * SECOND, 60 * SECOND])
        case = chance.randrange(20)
        body = {
            "event_id": str(chance.choice([i, i, i, case])),
            "case_id": f"case{case}",
            "event_time": (clock[partition] - delay) // 1000,
            "activity": chance.choice(["go", "wait", "end"]),
            "actor": chance.choice(["anna", None]),
        }
        payload = orjson.dumps(body) if i % 50 else b"{broken"
        messages.append(Message(payload, f"orders/{partition}", i, record_time=clock[partition]))
    return messages


def script(messages: list[Message], seed: int, say: bool) -> tuple[Said, ...]:
    """Deliver partitions at different speeds, each in its order, in batches of any size."""
    chance = random.Random(seed)
    waiting = [[m for m in messages if m.source == f"orders/{p}"] for p in range(2)]
    said = []
    while any(waiting):
        partition = chance.choice([p for p in range(2) if waiting[p]])
        size = chance.randrange(1, 30)
        batch, waiting[partition] = waiting[partition][:size], waiting[partition][size:]
        times = [m.record_time or 0 for m in batch]
        ahead = min((m.record_time or 0 for rest in waiting for m in rest), default=0)
        complete = (ahead or max(times)) // 1000 - DISORDER_MS
        packed = pack_messages(
            [m.payload for m in batch],
            ([batch[0].source], np.zeros(len(batch), np.int32)),
            np.array([m.offset for m in batch], np.int64),
            np.array(times, np.int64),
            said=(0, 1, complete if ahead else DRAIN) if say else (),
        )
        said.append(Said(packed, min(times) // 1000 - DISORDER_MS, complete))
    return tuple(said)


class Collect(beam.DoFn):
    """Writes what it gets to a file each: the runner may copy the object itself."""

    def __init__(self, folder: str) -> None:
        self._folder = folder

    def process(self, rows: tuple[str, int, int, bytes]) -> None:
        name, shard, until, packed = rows
        path = Path(self._folder, f"{name}-{shard}-{until}-{random.random()}")
        path.write_bytes(packed)


def collected(folder: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    newest: dict[tuple[Any, ...], tuple[int, str]] = {}
    for path in sorted(folder.iterdir()):
        name, _, until = path.name.split("-")[:3]
        table = unpack(path.read_bytes())
        for row in table.to_pylist():  # type: ignore[union-attr]
            if name in TABLES and TABLES[name].mode == "upsert":
                key = (name, *(row[k] for k in TABLES[name].key))
                newest[key] = max(newest.get(key, (0, "")), (int(until), repr(row)))
            else:
                found.setdefault(name, []).append(repr(row))
    for (name, *_), (_, text) in newest.items():
        found.setdefault(name, []).append(text)
    return {name: sorted(rows) for name, rows in found.items()}


def build(
    root: beam.Pipeline, said: tuple[Said, ...], folder: Path, granule_ms: int, by_marks: bool
) -> None:
    out, scratch = folder / "rows", folder / "scratch"
    out.mkdir()
    scratch.mkdir()
    progress.prepare(str(scratch))
    decoded = (
        root
        | ReadFromUnboundedSource(Scripted(said), max_records_per_bundle=5)
        | DecodeMessages(
            CONTEXT,
            "json_lines",
            "case_id",
            4,
            DISORDER_MS,
            86_400_000,
            granule_ms=granule_ms if by_marks else 0,
            scratch=str(scratch),
        )
    )
    fold = GranuleFold(TransitionsKernel(RULES), DISORDER_MS * 1000, granule_ms, by_marks)
    folded = decoded.events | FoldStream(fold, str(folder), str(scratch))
    (folded, decoded[DEAD]) | beam.Flatten() | beam.ParDo(Collect(str(out)))


def check(messages: list[Message], folder: Path) -> None:
    progress.flush_all()
    counts = progress.read_counts(str(folder / "scratch"))
    decoded = registry.get("json_lines").decode(messages, CONTEXT)
    whole, whole_counts = fold_bounded(decoded.events, "", RULES)
    found = collected(folder / "rows")
    dead = found.pop(DEAD)
    assert found == whole
    assert len(dead) == len(decoded.failures) == counts["dead"] == 8
    assert counts["messages"] == len(messages) == counts["decoded"] + counts["dead"]
    kept = ("transitions", "duplicates", "late", "rejected")
    assert counts["events"] == sum(counts[name] for name in kept) == len(messages) - 8
    assert {name: counts[name] for name in whole_counts} == dict(whole_counts)


@pytest.mark.parametrize(("seed", "granule_ms"), [(1, 1000), (2, 200), (3, 60_000)])
def test_the_stream_on_the_fn_api_runner_equals_the_backfill(
    tmp_path: Path, seed: int, granule_ms: int
) -> None:
    messages = topic(seed)
    options = PipelineOptions(["--runner=FnApiRunner", "--streaming"])
    with beam.Pipeline(options=options) as root:
        build(root, script(messages, seed, True), tmp_path, granule_ms, by_marks=True)
    check(messages, tmp_path)


class _SlowNow(_Host):
    """The fold's step, now and then so slow that Prism wants to give the rest to somebody else."""

    def _give(self, *arguments: Any, **named: Any) -> Any:
        if random.random() < 0.05:
            time.sleep(0.5)
        return super()._give(*arguments, **named)


@pytest.mark.parametrize(
    ("seed", "granule_ms", "say", "host"),
    [(4, 1000, True, _Host), (5, 60_000, False, _Host), (6, 1000, False, _SlowNow)],
)
def test_the_stream_on_prism_equals_the_backfill(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    prism: Path,
    seed: int,
    granule_ms: int,
    say: bool,
    host: type[_Host],
) -> None:
    monkeypatch.setattr(streaming, "_Host", host)
    messages = topic(seed)
    options = PipelineOptions(
        [
            "--runner=PrismRunner",
            f"--prism_location={prism}",
            "--environment_type=LOOPBACK",
            "--streaming",
        ]
    )
    with whole_bundles(), beam.Pipeline(options=options) as root:
        build(root, script(messages, seed, say), tmp_path, granule_ms, by_marks=False)
    check(messages, tmp_path)
