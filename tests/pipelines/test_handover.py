"""A backfill leaves its state, a stream goes on from it: together they are one backfill."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import run
from examples.simulator.scenario import Faults
from examples.simulator.stream import Disturbance, Record
from tests.pipelines import streams
from tests.pipelines.test_transitions import transitions
from tests.services.kafka import KafkaBroker
from transforms.sinks.text import json_lines

SECOND = 1_000_000
PAST = 1_704_096_000 * SECOND
D = 10 * SECOND
DISTURBED = Disturbance(disorder=D, duplicates=0.05, repeat_within=30 * SECOND)
# A snapshot that is repeated later than D denies later in a topic than in an archive, which
# does not know when its messages came: `cases.updated_at` tells.
PUNCTUAL = Disturbance(disorder=D // 2, duplicates=0.05, repeat_within=D // 2)
CLEAN = {each: 0.0 for each in ("duplicate", "empty", "missing", "old_log")} | {
    each: 0.0 for each in ("broken", "profile", "unreadable")
}
APPENDED = ("transitions", "late", "retracted")


def json_events(start: int = PAST) -> streams.Sent:
    """Draw events with ids of their own: by these the stream knows what the archive had."""
    sent = streams.json_messages(2000, DISTURBED, seed=7, start=start)
    numbers: dict[bytes, int] = {}
    records = []
    for record in sent.records:
        number = numbers.setdefault(record.payload, len(numbers))
        payload = orjson.dumps({**orjson.loads(record.payload), "event_id": f"e{number}"})
        records.append(record._replace(payload=payload))
    return streams.Sent(records, sent.truth)


def documents() -> streams.Sent:
    return streams.imixs_messages(800, PUNCTUAL, Faults(**CLEAN, phantom=0.05), seed=8, start=PAST)


def archive(folder: Path, records: list[Record[Any]]) -> str:
    """Write messages as an archive has them; return the pattern of its files."""
    folder.mkdir()
    if records[0].payload.startswith(b"{"):
        lines = b"\n".join(record.payload for record in records)
        (folder / "events.jsonl").write_bytes(lines)
    else:
        for number, record in enumerate(records):
            (folder / f"{number:05d}.xml").write_bytes(record.payload)
    return f"{folder}/*"


def table(output: Path, name: str) -> list[dict[str, Any]]:
    """Return a table's rows as a topic has them."""
    found: list[dict[str, Any]] = []
    for path in sorted((output / name).iterdir()):
        rows = pq.read_table(path).combine_chunks()
        if rows.num_rows:
            found += [orjson.loads(line) for line in json_lines(rows).to_pylist()]
    return found


def counted(rows: list[dict[str, Any]]) -> Counter[bytes]:
    return Counter(orjson.dumps(row, option=orjson.OPT_SORT_KEYS) for row in rows)


@pytest.mark.parametrize(
    ("draw", "overlap", "engine"),
    [
        (json_events, "all", "FnApiRunner"),
        (json_events, "second half", "PrismRunner"),
        (documents, "all", "PrismRunner"),
        (documents, "second half", "FnApiRunner"),
    ],
)
def test_backfill_and_stream_are_one_backfill(
    kafka: KafkaBroker,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    draw: Callable[[], streams.Sent],
    overlap: str,
    engine: str,
) -> None:
    sent = draw()
    records = sent.records
    # Where cases are open: some begin before it and end behind it.
    cut = records[len(records) * 3 // 5].arrival
    # What comes up to D late is still in the archive.
    until = (cut - D) // 1000 * 1000
    early = [record for record in records if record.arrival < cut]
    read = [record for record in records if overlap == "all" or record.arrival >= until]
    assert len(early) < len(read) + len(early) - 10 > len(records) - 10
    options: tuple[str, ...] = ("--columns", "event_id=event_id") if draw is json_events else ()
    options += ("--disorder", "10s", "--end_states", ",".join(sent.truth.end_states))

    one = tmp_path / "one"
    transitions(archive(tmp_path / "everything", records), one, *options)
    out = tmp_path / "out"
    text = datetime.fromtimestamp(until / SECOND, timezone.utc).isoformat()
    manifest = transitions(
        archive(tmp_path / "archive", early), out, *options, "--until", text, "--keep_state"
    )
    assert manifest["state"]["until_ms"] == until // 1000
    assert 0 < manifest["state"]["rows"] <= manifest["tables"]["cases"]["rows"]

    name, prefix = streams.new_name("handover"), streams.new_name("out") + "-"
    kafka.create_topic(name, 3)
    streams.send(kafka, read, lambda _: name)
    arguments = ["--runner", engine]
    if engine == "PrismRunner":
        arguments += ["--prism_location", request.getfixturevalue("prism")]
    wanted = {each: counted(table(one, each)) for each in APPENDED}
    before = {each: counted(table(out, each)) for each in APPENDED}
    left = (wanted["transitions"] - before["transitions"]).total()
    assert left > 100
    with streams.running(
        tmp_path,
        *("--input", f"kafka://{kafka.address}/{name}?start=earliest", *arguments, *options),
        *("--output", f"kafka://{kafka.address}/{prefix}", "--state_from", str(out)),
    ) as job:
        made = [f"{prefix}transitions"]
        job.wait_until(lambda: streams.counts(kafka, made) >= left)
        ended = job.stop()
    assert ended.code == 0, ended.err
    # What is read again is known, and so no news.
    assert "behind the watermark" not in ended.err
    ended.laws()
    for each in APPENDED:
        assert before[each] + counted(streams.rows(kafka, prefix + each)) == wanted[each]
    assert (sum(wanted["retracted"].values()) > 0) == (draw is documents)
    cases = {row["case_id"]: row for row in table(out, "cases")}
    spanning = set(cases)
    for row in streams.rows(kafka, f"{prefix}cases"):
        spanning.discard(row["case_id"])
        cases[row["case_id"]] = row
    # Cases that began in the archive went on in the stream.
    assert len(spanning) < manifest["tables"]["cases"]["rows"]
    assert counted(list(cases.values())) == counted(table(one, "cases"))


def test_the_state_is_no_table_and_goes_with_its_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = archive(tmp_path / "archive", json_events().records[:300])
    out = tmp_path / "out"
    until = ("--until", "2024-01-02")
    manifest = transitions(source, out, "--keep_state", "--end_states", "b,a", *until)
    state = manifest["state"]
    assert (state["kernel"], state["version"], state["disorder_ms"]) == ("transitions", 1, 30_000)
    assert state["end_states"] == ["a", "b"]
    found = pa.concat_tables(
        [pq.read_table(path) for path in (out / "state").iterdir()], promote_options="default"
    )
    assert found.num_rows == state["rows"] == manifest["tables"]["cases"]["rows"]
    assert "held" not in found.column_names
    capsys.readouterr()
    assert run.main(["show", str(out)]) == 0
    assert "state:" not in capsys.readouterr().out
    # Another run's state beside these tables would be a trap.
    assert "state" not in transitions(source, out)
    assert not (out / "state").exists()


def test_what_is_not_ours_is_not_removed(tmp_path: Path) -> None:
    source = archive(tmp_path / "archive", json_events().records[:20])
    (tmp_path / "out" / "state").mkdir(parents=True)
    (tmp_path / "out" / "state" / "mine.txt").write_text("x")
    transitions(source, tmp_path / "out")
    assert (tmp_path / "out" / "state" / "mine.txt").exists()


def test_a_backfill_whose_cases_are_all_forgotten(tmp_path: Path) -> None:
    source = archive(tmp_path / "archive", json_events().records[:50])
    manifest = transitions(source, tmp_path / "out", "--keep_state", "--idle_retention", "1d")
    assert manifest["state"]["rows"] == 0
    assert len(list((tmp_path / "out" / "state").iterdir())) == 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--disorder", "5s"], "--disorder 30s, where this stream has --disorder 5s"),
        (["--end_states", "x"], "--end_states (none), where this stream has --end_states x"),
        (["--case_retention", "1d"], "--case_retention 30d, where this stream has"),
        (["--mask", "actor", "--mask_key", "env:A_KEY"], "and with another --mask_key"),
        (["missing"], "holds no finished run"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_before_anything_starts(
    kafka: KafkaBroker,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    text: str,
) -> None:
    monkeypatch.setenv("A_KEY", "0123456789abcdef")
    out = tmp_path / "out"
    if options == ["missing"]:
        options = []
    else:
        transitions(archive(tmp_path / "a", json_events().records[:20]), out, "--keep_state")
    name = streams.new_name("refused")
    kafka.create_topic(name)
    capsys.readouterr()
    code = run.main(
        ["transitions", "--input", f"kafka://{kafka.address}/{name}", "--state_from", str(out)]
        + ["--output", f"kafka://{kafka.address}/{name}-out-", *options]
    )
    assert code == 2
    assert text in " ".join(capsys.readouterr().err.split())


def test_masked_archives_go_on_under_their_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("A_KEY", "0123456789abcdef")
    source = archive(tmp_path / "archive", json_events().records[:100])
    masked = ("--mask", "case_id,actor", "--mask_key", "env:A_KEY")
    manifest = transitions(source, tmp_path / "out", "--keep_state", *masked)
    assert manifest["state"]["mask"] == ["actor", "case_id"]
    assert "0123456789abcdef" not in json.dumps(manifest)
