"""`inspect` of files: the text of each message, those that were skipped, and formats of others."""

from __future__ import annotations

import gzip
import importlib.metadata
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import run
from pipelines import inspect_texts
from tests.formats.avro.records import container, step
from tests.formats.messages.builder import cloud_event, zeebe
from tests.formats.ocel.logs import orders
from tests.pipelines.test_inspect import as_json, inspect, origins
from transforms.formats import registry
from transforms.formats.base import Context, Decoded, InputFile, Message, Span

ROOT = Path(__file__).parent.parent.parent
LOGFMT = ROOT / "examples" / "logfmt_format" / "src"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")


def shown(found: dict[str, Any]) -> list[tuple[str, str, str | None]]:
    """Return place (without the path), status and text of each message."""
    return [
        (each["place"].rpartition(":")[2], each["status"], each["payload"])
        for each in found["messages"]
    ]


def test_members_of_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    other = zeebe(valueType="DEPLOYMENT")
    Path("list.json").write_bytes(b"[" + zeebe() + b",\n" + other + b", " + zeebe() + b"]")
    (found,) = as_json(capsys, "--input", "list.json")
    assert found["format"] == "zeebe"
    assert shown(found) == [
        ("0", "decoded", zeebe().decode()),
        ("1", "skipped", other.decode()),
        ("2", "decoded", zeebe().decode()),
    ]


def test_lines_of_an_engine_s_messages(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [cloud_event(id="1"), b"", cloud_event(id="2"), b"{broken"]
    Path("ce.jsonl").write_bytes(b"\n".join(lines))
    (found,) = as_json(capsys, "--input", "ce.jsonl")
    assert [text for _, _, text in shown(found)] == [line.decode() for line in lines]
    assert [status for _, status, _ in shown(found)] == ["decoded", "skipped", "decoded", "dead"]


def test_an_object_on_many_lines(capsys: pytest.CaptureFixture[str]) -> None:
    text = '{\n"case_id": "A",\n"activity": "a",\n"time": "2024-01-01"\n}'
    Path("one.json").write_text(text)
    (found,) = as_json(capsys, "--input", "one.json")
    assert (found["format"], shown(found)) == ("json", [("0", "decoded", text)])


def test_compressed_lines_have_their_text(capsys: pytest.CaptureFixture[str]) -> None:
    line = '{"case_id": "A", "activity": "a", "time": "2024-01-01"}'
    Path("in.jsonl.gz").write_bytes(gzip.compress(f"{line}\n\n{line}\n".encode()))
    (found,) = as_json(capsys, "--input", "in.jsonl.gz")
    assert shown(found) == [
        ("0", "decoded", line),
        (str(len(line) + 1), "skipped", ""),
        (str(len(line) + 2), "decoded", line),
    ]


ROWS = [
    '1;open;2024-01-01;"two\nlines"',
    "2;open;yesterday;x",
    "ping;;;",
    '3;"a ""word""";2024-01-02;',
    "4;open",
    "5;close;2024-01-03;",
]
STATUSES = ["decoded", "dead", "skipped", "decoded", "dead", "decoded"]
SKIP = """{
    "columns": {"case_id": "Case", "event_time": "Time", "activity": "Activity"},
    "skip_when": [{"path": "Case", "equals": "ping"}]
}"""


@pytest.mark.parametrize(
    ("mark", "encoding", "line_end"),
    [("", "utf-8", "\n"), ("\ufeff", "utf-8", "\r\n"), ("", "utf-16", "\n"), ("", "utf-8", "\r")],
)
def test_rows_of_csv(
    capsys: pytest.CaptureFixture[str], mark: str, encoding: str, line_end: str
) -> None:
    Path("m.json").write_text(SKIP)
    # Blank lines have no number, wherever they stand.
    text = f"{mark}\n Case;Activity;Time;Note\n\n" + "\n   \n".join(ROWS) + "\n"
    Path("in.csv").write_bytes(text.replace("\n", line_end).encode(encoding))
    arguments = ["--encoding", encoding, "--mapping", "m.json", "--messages", "9"]
    (found,) = as_json(capsys, "--input", "in.csv", "--format", "csv", *arguments)
    first = ROWS[0].replace("\n", line_end if line_end != "\r" else "\n")
    expected = [first, *ROWS[1:]]
    assert shown(found) == [
        (str(i), status, row)
        for i, (status, row) in enumerate(zip(STATUSES, expected, strict=True))
    ]


def test_a_row_is_shown_in_its_encoding(capsys: pytest.CaptureFixture[str]) -> None:
    row = "1;Prüfung;2024-01-01"
    Path("in.csv").write_text(f"Case;Activity;Time\n{row}\n", encoding="latin-1")
    (found,) = as_json(capsys, "--input", "in.csv", "--encoding", "latin-1")
    assert shown(found) == [("0", "decoded", row)]


def test_what_may_be_blank_or_a_row_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["1\topen\t2024-01-01", "\t\t", "2\topen\t2024-01-01"]
    Path("in.tsv").write_text("\n".join(["Case\tActivity\tTime", *rows]))
    (found,) = as_json(capsys, "--input", "in.tsv")
    texts = {text for _, status, text in shown(found) if status == "decoded"}
    assert texts == {rows[0], None}


def test_only_the_beginning_of_a_csv_file_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspect_texts, "CSV_BYTES", 60)
    data = b"Case,Activity,Time\n" + b"1,open,2024-01-01\n" * 1000
    path = Path("in.csv")
    path.write_bytes(data)
    file = InputFile("in.csv", len(data), lambda: path.open("rb"))
    texts = inspect_texts.first_texts(registry.get("csv"), file, Context(), 9, {})
    assert texts == [(0, b"1,open,2024-01-01"), (1, b"1,open,2024-01-01")]


def test_events_of_xes(capsys: pytest.CaptureFixture[str]) -> None:
    event = (
        '<event><string key="concept:name" value="{}"/>'
        '<date key="time:timestamp" value="2024-01-01T00:00:0{}Z"/></event>'
    )
    events = [event.format("a", 1), event.format("b", "x"), event.format("c", 3)]
    trace = '<trace><string key="concept:name" value="1"/>{}</trace>'
    body = trace.format("".join(events[:2])) + trace.format(events[2])
    Path("in.xes").write_text(f"<log>{body}")  # it is not closed
    (found,) = as_json(capsys, "--input", "in.xes")
    assert shown(found)[:3] == [
        ("0", "decoded", events[0]),
        ("1", "dead", events[1]),
        ("2", "decoded", events[2]),
    ]
    assert shown(found)[3][:2] == ("3", "dead")


def test_documents_of_a_collection(capsys: pytest.CaptureFixture[str]) -> None:
    document = (
        "<document>"
        '<item name="$uniqueid"><value xsi:type="xs:string">{}</value></item>'
        '<item name="type"><value xsi:type="xs:string">{}</value></item>'
        '<item name="$taskid"><value xsi:type="xs:int">1000</value></item>'
        '<item name="$modelversion"><value xsi:type="xs:string">1.0</value></item>'
        '<item name="$modified"><value xsi:type="xs:dateTime">2024-01-01T10:00:00Z</value></item>'
        '<item name="$workflowstatus"><value xsi:type="xs:string">Open</value></item>'
        "</document>"
    )
    spaces = (
        ' xmlns:xs="http://www.w3.org/2001/XMLSchema"'
        ' xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
    )
    documents = [
        document.format("a", "workitem"),
        document.format("b", "profile"),
        document.format("c", "workitem"),
    ]
    Path("in.xml").write_text(f"<data{spaces}>{''.join(documents)}</data>")
    (found,) = as_json(capsys, "--input", "in.xml")
    assert found["format"] == "imixs_xml"
    assert [status for _, status, _ in shown(found)] == ["decoded", "skipped", "decoded"]
    for (place, _, text), name in zip(shown(found), "abc", strict=True):
        assert text is not None, place
        assert f">{name}<" in text


def test_rows_of_parquet_and_records_of_avro(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [step(0), {**step(1), "case_id": "ping"}, {**step(2), "activity": ""}, step(3)]
    Path("steps.avro").write_bytes(container(rows))
    pq.write_table(pa.Table.from_pylist(rows), "steps.parquet", row_group_size=2)
    Path("m.json").write_text(
        SKIP.replace("Case", "case_id")
        .replace("Time", "event_time")
        .replace("Activity", "activity")
    )
    for name in ("steps.avro", "steps.parquet"):
        (found,) = as_json(capsys, "--input", name, "--mapping", "m.json")
        told = shown(found)
        assert [status for _, status, _ in told] == ["decoded", "skipped", "dead", "decoded"], name
        assert [place for place, _, _ in told] == ["0", "1", "2", "3"], name
        names = [json.loads(text or "")["case_id"] for _, _, text in told]
        assert names == [row["case_id"] for row in rows], name


def test_skipped_events_of_a_log_without_texts(capsys: pytest.CaptureFixture[str]) -> None:
    log = orders()
    Path("log.json").write_bytes(log.as_json())
    (found,) = as_json(capsys, "--input", "log.json", "--object_type", "item", "--messages", "99")
    told = shown(found)
    assert [place for place, _, _ in told] == [str(i) for i in range(len(told))]
    statuses = [status for _, status, _ in told]
    assert statuses.count("skipped") == found["counts"]["skipped"] > 0
    assert {text for _, status, text in told if status != "dead"} == {None}


class Rows:
    """A format of another package whose places are numbers of rows."""

    name = "rows"
    title = "numbered rows"
    expansion = 1.0
    python_bound = True

    def detects(self, head: bytes, name: str) -> bool:
        return head.startswith(b"row:")

    def spans(self, file: InputFile, context: Context) -> list[Span]:
        return [Span()]

    def read(self, work: Sequence[tuple[InputFile, Span]], context: Context) -> Iterator[Decoded]:
        for file, _ in work:
            with file.opener() as stream:
                rows = stream.read().splitlines()
            yield self.decode([Message(row, file.path, i) for i, row in enumerate(rows)], context)

    def decode(self, messages: Sequence[Message], context: Context) -> Decoded:
        lines = [Message(m.payload[4:], m.source, m.offset) for m in messages]
        return registry.get("json_lines").decode(lines, context)


ROWS_FORMAT = Rows()


@pytest.fixture
def _strangers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install two formats of other packages."""
    monkeypatch.syspath_prepend(str(LOGFMT))
    group = registry.ENTRY_POINTS
    entries = importlib.metadata.EntryPoints(
        [
            importlib.metadata.EntryPoint("logfmt", "imixs_streams_logfmt:FORMAT", group),
            importlib.metadata.EntryPoint("rows", f"{__name__}:ROWS_FORMAT", group),
        ]
    )
    registry.get.cache_clear()
    registry._installed.cache_clear()
    with mock.patch.object(
        importlib.metadata, "entry_points", lambda group: entries.select(group=group)
    ):
        yield
    registry.get.cache_clear()
    registry._installed.cache_clear()
    sys.modules.pop("imixs_streams_logfmt", None)


@pytest.mark.usefixtures("_strangers")
def test_lines_of_a_stranger_s_format(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [
        "ts=2024-08-27T12:04:20Z case=1 step=open amount=5",
        "",
        "garbage",
        'ts=2024-08-27T12:05:20Z case=1 step="check invoice"',
    ]
    Path("app.log").write_text("\n".join(lines))
    (found,) = as_json(capsys, "--input", "app.log", "--items", "amount,color")
    assert found["format"] == "logfmt"
    assert [text for _, _, text in shown(found)] == lines
    assert [status for _, status, _ in shown(found)] == ["decoded", "skipped", "dead", "decoded"]
    told = origins(found)
    assert told["case_id"] == (None, "the format, logfmt: filled in all 2 events")
    assert told["actor"] == (None, "the format, logfmt: never filled in these 2 events")
    assert told["attributes.amount"] == ("amount", "--items: filled in 1 of 2 events")
    assert told["attributes.color"] == ("color", "--items: never filled in these 2 events")
    assert told["state"] == (None, "none: the activity")
    assert told["event_id"] == (None, "none: the hash of case, time, activity and place")
    # On a terminal what is empty is one row.
    run.main(["inspect", "--input", "app.log"])
    said = capsys.readouterr().out
    assert said.count("never filled") == 1
    assert "workflow_group, model_version" in " ".join(said.split())
    Path("one.log").write_text(lines[0])
    (found,) = as_json(capsys, "--input", "one.log")
    assert origins(found)["case_id"][1] == "the format, logfmt: filled in the one event"
    (found,) = as_json(capsys, "--input", "app.log", "--columns", "actor=amount")
    assert origins(found)["actor"] == ("amount", "--columns: filled in 1 of 2 events")


@pytest.mark.usefixtures("_strangers")
def test_places_that_are_no_lines_show_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    # The first row is where a first line is; the second one tells them apart.
    row = "row:" + json.dumps({"case_id": "A", "activity": "a", "time": "2024-01-01"})
    Path("in.rows").write_text(f"{row}\nrow:\n{row}\n")
    (found,) = as_json(capsys, "--input", "in.rows")
    assert found["counts"] == {"decoded": 2, "skipped": 1, "dead": 0, "rejected": 0}
    assert shown(found) == [("0", "decoded", None), ("2", "decoded", None)]


@pytest.mark.usefixtures("_strangers")
def test_a_stranger_s_format_without_events(capsys: pytest.CaptureFixture[str]) -> None:
    Path("app.log").write_text("ts=never case=1 step=open\n")
    said = inspect(capsys, "--input", "app.log")
    assert "the format, logfmt, alone knows, and no event was decoded" in said
