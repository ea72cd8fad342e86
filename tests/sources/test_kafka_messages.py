"""Batches of messages come back as they were."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.coders import Reference, pack
from transforms.formats.base import Message
from transforms.sources.messages import (
    MESSAGE_SCHEMA,
    extent,
    pack_messages,
    table_of,
    unpack_messages,
)

NUMBERS = st.integers(-(2**63), 2**63 - 1)
ROWS = st.lists(
    st.tuples(
        st.none() | st.binary(max_size=9),
        st.sampled_from(["a/0", "a/1", "b/0"]),
        NUMBERS,
        NUMBERS,
        st.none() | st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
    )
)


@given(ROWS, st.integers(0, 5), st.booleans())
def test_messages_come_back(rows: list[tuple], behind: int, headed: bool) -> None:  # type: ignore[type-arg]
    names = ["a/0", "a/1", "b/0"]
    packed = pack_messages(
        [row[0] for row in rows],
        (names, np.array([names.index(row[1]) for row in rows], np.int32)),
        np.array([row[2] for row in rows], np.int64),
        np.array([row[3] for row in rows], np.int64),
        [None if row[4] is None else list(row[4].items()) for row in rows] if headed else (),
        behind,
    )
    expected = [
        Message(row[0] or b"", row[1], row[2], (row[4] or {}) if headed else {}, row[3])
        for row in rows
    ]
    assert list(unpack_messages(packed)) == expected
    table = table_of(packed)
    assert list(unpack_messages(table.slice(1))) == expected[1:]
    assert table["payload"].to_pylist() == [row[0] for row in rows]
    assert table.schema.names[:4] == MESSAGE_SCHEMA.names
    found = extent(packed)
    assert (found.messages, found.behind) == (len(rows), behind)
    assert found.bytes == sum(len(row[0] or b"") for row in rows)


def test_headers_are_texts() -> None:
    one = np.zeros(1, np.int64)
    headers = [[("a", b"1"), ("b", None), ("a", b"\xff"), ("c", "text")]]
    packed = pack_messages([b"x"], (["t/0"], one.astype(np.int32)), one, one, headers)
    (message,) = unpack_messages(packed)
    assert message.attributes == {"a": "\ufffd", "b": "", "c": "text"}


def test_other_batches_are_refused() -> None:
    with pytest.raises(ValueError, match="by value"):
        unpack_messages(pack(Reference("/f", 0, 1, 1)))
    with pytest.raises(ValueError, match="not a packed batch"):
        unpack_messages(b"?")
    assert list(unpack_messages(pack(pa.Table.from_batches([], MESSAGE_SCHEMA)))) == []
