"""What a format must prove: inputs and events, garbage among good input, the count law."""

from __future__ import annotations

import io
from importlib.metadata import entry_points

import numpy as np
import pytest
from imixs_streams_logfmt import FORMAT, parse

from transforms.formats import registry
from transforms.formats.base import Context, InputFile, Message, Span
from transforms.formats.heads import Heads

LINE = b'ts=2024-08-27T12:04:20Z case=4711 step="check \\"invoice\\"" user=kim amount=12.50'


@pytest.mark.parametrize(
    ("line", "pairs"),
    [
        ("a=1 b=two", {"a": "1", "b": "two"}),
        ('a="x y"', {"a": "x y"}),
        (r'a="say \"hi\""', {"a": 'say "hi"'}),
        ("a=", {"a": ""}),
        ("a", None),
        ('a="open', None),
        ("", None),
    ],
)
def test_pairs(line: str, pairs: dict[str, str] | None) -> None:
    assert parse(line) == pairs


def test_it_is_installed_as_an_entry_point() -> None:
    assert "logfmt" in {entry.name for entry in entry_points(group=registry.ENTRY_POINTS)}
    assert registry.get("logfmt") is FORMAT
    assert registry.detect(LINE + b"\n", "app.log") is FORMAT


def test_a_line_is_an_event() -> None:
    message = Message(LINE, "app/0", 7, {}, 1_724_760_300_000_000)
    decoded = FORMAT.decode([message], Context(items=("amount",)))
    [event] = decoded.events.to_pylist()
    assert (event["case_id"], event["activity"], event["actor"]) == (
        "4711",
        'check "invoice"',
        "kim",
    )
    assert event["attributes"] == [("amount", "12.50")]


def test_garbage_among_good_lines_is_a_dead_letter_each() -> None:
    data = b"\n".join([LINE, b"garbage", b"", b"case=1 ts=2024-01-01", b"\xff=1", LINE])
    file = InputFile("app.log", len(data), lambda: io.BytesIO(data))
    [decoded] = FORMAT.read([(file, Span())], Context())
    assert sorted(f.error for f in decoded.failures) == [
        "InvalidLogfmt",
        "InvalidLogfmt",
        "MissingActivity",
    ]
    assert {f.payload for f in decoded.failures} >= {b"garbage", b"\xff=1"}
    assert (decoded.decoded, decoded.skipped, decoded.dead, decoded.received) == (2, 1, 3, 6)


def test_it_claims_its_own_messages_only() -> None:
    payloads = [LINE, b'{"case_id": 1}', b"", b"x=1", b"<a/>"]
    messages = [Message(payload, "t/0", i) for i, payload in enumerate(payloads)]
    assert np.flatnonzero(FORMAT.claims(Heads(messages))).tolist() == [0]
