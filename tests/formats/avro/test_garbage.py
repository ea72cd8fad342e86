"""Bytes of any kind are events or dead letters, and never anything else."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.formats.avro.records import container, encoded, message, schema_text, step
from tests.formats.files import read_all
from transforms.formats.avro.format import FORMAT
from transforms.formats.avro.messages import given_schema
from transforms.formats.avro.settings import AvroSettings
from transforms.formats.base import Context

SETTINGS = Context(avro=AvroSettings(schema=schema_text()))
SINGLE = b"\xc3\x01" + given_schema(schema_text())[1]
FILES = [
    container([step(i) for i in range(200)], codec, sync_interval=400)
    for codec in ("null", "deflate", "xz")
]


@settings(deadline=None)
@given(st.lists(st.binary(max_size=200)))
def test_messages(payloads: list[bytes]) -> None:
    bodies = [*payloads, *(SINGLE + each for each in payloads)]
    found = FORMAT.decode([message(body, i) for i, body in enumerate(bodies)], SETTINGS)
    assert found.received == found.decoded + found.dead == len(bodies)


@pytest.mark.parametrize("seed", range(60))
def test_files_with_wrong_bytes(seed: int) -> None:
    draw = random.Random(seed)
    data = bytearray(FILES[seed % 3])
    for _ in range(draw.randrange(1, 6)):
        data[draw.randrange(len(data))] = draw.randrange(256)
    if seed % 4 == 0:
        del data[draw.randrange(len(data)) :]
    found = read_all(FORMAT, bytes(data), SETTINGS)
    assert found.received == found.decoded + found.skipped + found.dead
    assert all(failure.error and failure.message for failure in found.failures)


@pytest.mark.parametrize("seed", range(60))
def test_messages_with_wrong_bytes(seed: int) -> None:
    draw = random.Random(seed)
    data = bytearray(SINGLE + encoded(step(seed)))
    data[draw.randrange(10, len(data))] = draw.randrange(256)
    found = FORMAT.decode([message(bytes(data))], SETTINGS)
    assert found.decoded + found.dead == 1
