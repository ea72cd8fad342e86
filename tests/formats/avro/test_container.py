"""Avro container files: every record is an event or a dead letter, however the file ends."""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable

import pyarrow as pa
import pytest

from tests.formats.avro.records import SCHEMA, START, container, step
from tests.formats.files import read_all, rows
from transforms.formats import registry
from transforms.formats.avro import blocks
from transforms.formats.avro.format import FORMAT
from transforms.formats.base import Context, Message
from transforms.formats.dead_letters import FORMAT as DEAD_LETTERS
from transforms.formats.json_lines import FORMAT as JSON_LINES


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "xz"])
def test_a_record_is_an_event(codec: str) -> None:
    data = container([step(i) for i in range(7)], codec)
    assert registry.detect(data[:1000], "some.file") is FORMAT
    found = read_all(FORMAT, data, Context(items=("amount", "order.region")))
    assert (found.decoded, found.skipped, found.dead) == (7, 0, 0)
    assert rows(found.events, "case_id", "event_time", "activity", "position")[0] == (
        "c0",
        START,
        "send",
        0,
    )
    assert dict(found.events["attributes"][0].as_py()) == {
        "amount": "12.50",
        "order.region": "north",
    }
    assert found.events["source_offset"].to_pylist() == list(range(7))


def test_what_a_dead_record_holds_can_be_read_again() -> None:
    found = read_all(FORMAT, container([step(0), step(1, activity=None), step(2)]))
    assert (found.decoded, [f.error for f in found.failures]) == (2, ["MissingActivity"])
    failure = found.failures[0]
    assert failure.source == "memory/log:1"
    again = registry.get(failure.attributes["format"]).decode(
        [Message(failure.payload, "memory/log", 1, failure.attributes)],
        Context(columns={"activity": "order.region"}),
    )
    assert rows(again.events, "case_id", "event_time", "position") == [
        ("c1", START.replace(minute=1), 1)
    ]
    assert JSON_LINES.name == failure.attributes["format"] != DEAD_LETTERS.name


def test_a_truncated_file_keeps_what_came_before() -> None:
    data = container([step(i) for i in range(2000)], sync_interval=1000)
    found = read_all(FORMAT, data[: len(data) * 2 // 3])
    assert found.dead == 1
    assert 900 < found.decoded < 2000
    assert found.failures[0].error == "InvalidAvro"
    assert "cannot read on" in found.failures[0].message
    assert found.failures[0].source == f"memory/log:{found.decoded}"


def test_a_damaged_block_is_a_dead_letter_and_the_next_is_read() -> None:
    data = bytearray(container([step(i) for i in range(2000)], sync_interval=1000))
    sync = bytes(data[-16:])
    several = len(bytes(data).split(sync)) - 2
    middle = data.index(sync, len(data) // 2) + 30
    data[middle : middle + 40] = b"\xff" * 40
    found = read_all(FORMAT, bytes(data))
    assert (found.dead, found.failures[0].error) == (1, "InvalidAvro")
    assert 2000 - 3 * 2000 // several < found.decoded < 2000
    assert "records of a block cannot be read: not packed by deflate" in found.failures[0].message
    # The records behind it keep their numbers.
    assert found.events["position"][-1].as_py() == 1999


def test_a_marker_that_is_wrong_ends_the_file() -> None:
    data = bytearray(container([step(i) for i in range(2000)], sync_interval=1000))
    sync = bytes(data[-16:])
    middle = data.index(sync, len(data) // 2)
    data[middle : middle + 16] = b"\0" * 16
    found = read_all(FORMAT, bytes(data))
    assert (found.dead, found.failures[0].error) == (1, "InvalidAvro")
    assert (
        found.failures[0].message == "cannot read on: the marker behind a block is not the file's"
    )
    assert 0 < found.decoded < 2000


def packed(codec: str, pack: Callable[[bytes], bytes], count: int = 2) -> bytes:
    """Return a container of two records (or what says that it has more), packed so."""
    plain = container([step(0), step(1)], "null")
    sync = plain[-16:]
    head, body, _ = plain.split(sync)
    assert head.count(b"\x08null") == 1
    name = bytes([2 * len(codec)]) + codec.encode()
    data = pack(body[2 if body[1] < 128 else 3 :])
    return head.replace(b"\x08null", name) + sync + long(count) + long(len(data)) + data + sync


def long(number: int) -> bytes:
    number <<= 1
    made = b""
    while number > 127:
        made += bytes([number & 127 | 128])
        number >>= 7
    return made + bytes([number])


def snappy(data: bytes) -> bytes:
    made: bytes = pa.Codec("snappy").compress(data, asbytes=True)
    return made + zlib.crc32(data).to_bytes(4, "big")


def zstandard(data: bytes) -> bytes:
    made: bytes = pa.Codec("zstd").compress(data, asbytes=True)
    return made


@pytest.mark.parametrize(("codec", "pack"), [("snappy", snappy), ("zstandard", zstandard)])
def test_codecs_of_other_writers(codec: str, pack: Callable[[bytes], bytes]) -> None:
    assert read_all(FORMAT, packed(codec, pack)).decoded == 2
    bad = read_all(FORMAT, packed(codec, lambda data: pack(data)[:-1]))
    assert [f.error for f in bad.failures] == ["InvalidAvro"]
    assert f"not packed by {codec}" in bad.failures[0].message


@pytest.mark.parametrize("codec", ["null", "deflate", "bzip2", "xz", "snappy", "zstandard"])
def test_a_block_is_not_unpacked_to_any_size(codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pack: dict[str, Callable[[bytes], bytes]] = {
        "null": bytes,
        "deflate": lambda data: zlib.compress(data)[2:-4],
        "bzip2": bz2.compress,
        "xz": lzma.compress,
        "snappy": snappy,
        "zstandard": zstandard,
    }
    data = packed(codec, lambda body: pack[codec](body + bytes(5_000)))
    monkeypatch.setattr(blocks, "LARGEST_BLOCK", 4_000)
    found = read_all(FORMAT, data)
    assert (found.decoded, found.dead) == (0, 1)
    assert "bytes" in found.failures[0].message
    monkeypatch.setattr(blocks, "LARGEST_BLOCK", 6_000)
    found = read_all(FORMAT, data)
    assert (found.decoded, found.dead) == (2, 1)
    assert "5000 bytes are left over" in found.failures[0].message


def test_what_a_block_says_of_itself_is_not_believed() -> None:
    many = read_all(FORMAT, packed("null", bytes, 10**9))
    assert (many.decoded, many.dead) == (2, 1)
    unknown = read_all(FORMAT, packed("lzw", bytes))
    assert "the codec 'lzw' is not known; known are null, deflate" in unknown.failures[0].message
    nothing = {"type": "record", "name": "N", "fields": [{"name": "n", "type": "null"}]}
    empty = read_all(FORMAT, container([{"n": None}] * 5, schema=nothing))
    assert [f.error for f in empty.failures] == ["UnsupportedSchema"]
    assert "records that take no bytes" in empty.failures[0].message


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"Obj\x01", "InvalidAvro"),
        (b"Obj\x01" + b"\xff" * 100, "InvalidAvro"),
        (b"\0\0\0\0\x07nonsense", "UnknownSchema"),
        (b"nonsense", "InvalidAvro"),
    ],
)
def test_a_file_that_is_none_is_one_dead_letter(data: bytes, error: str) -> None:
    found = read_all(FORMAT, data)
    assert (found.decoded, found.dead, found.failures[0].error) == (0, 1, error)
    assert found.failures[0].payload == data


def test_empty_files() -> None:
    for data in (b"", container([])):
        found = read_all(FORMAT, data)
        assert (found.received, found.warnings) == (0, ("memory/log is empty",))


def test_a_schema_that_holds_itself_is_refused_before_it_is_read() -> None:
    schema = {
        "type": "record",
        "name": "Tree",
        "fields": [
            {"name": "case_id", "type": "string"},
            {"name": "below", "type": ["null", "Tree"]},
        ],
    }
    data = container([{"case_id": "c", "below": None}], schema=schema)
    found = read_all(FORMAT, data)
    assert found.failures[0].error == "UnsupportedSchema"
    assert "Tree holds itself" in found.failures[0].message


def test_many_records_are_read_in_batches() -> None:
    data = container([step(i) for i in range(70_000)], "null")
    found = read_all(FORMAT, data)
    assert found.decoded == 70_000
    assert found.events["position"].to_pylist() == list(range(70_000))
    assert SCHEMA["name"] == "Step"
