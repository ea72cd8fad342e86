"""Hashes are part of ids: their values never change, whatever the layout of the column."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from transforms.hashing import HIGH, combine, hash_strings, identify, to_hex

TEXTS = ["", "a", "ab", "Rechnung prüfen", "12345678", "123456789", "\0", "\0\0", "x" * 200, "🙂"]


def test_values_never_change() -> None:
    # Computed once: a change of any of these would give every event and row a new id.
    hashes = dict(zip(TEXTS, hash_strings(pa.array(TEXTS)).tolist(), strict=True))
    assert {k: hashes[k] for k in ("", "a", "ab")} == {
        "": 16294208416658607535,
        "a": 15500767224297644617,
        "ab": 3944218460678421704,
    }
    ids = identify([pa.array(["case-1"])], [np.array([7], np.int64)])
    assert ids.to_pylist() == ["35e8136116b1ac754eae10b6b549db69"]


@given(st.lists(st.one_of(st.none(), st.text(), st.sampled_from(TEXTS))), st.integers(0, 5))
def test_layout_does_not_matter(values: list[str | None], cut: int) -> None:
    column = pa.array(values, pa.string())
    expected = [hash_strings(pa.array([v], pa.string()))[0] for v in values]
    layouts = [
        column,
        pa.concat_arrays([pa.array(["zz"]), column]).slice(1),
        column.cast(pa.large_string()),
        column.dictionary_encode(),
        column.cast(pa.binary()),
        pa.chunked_array([column[:cut], column[cut:]]),
        pa.chunked_array([column[:cut].dictionary_encode(), column[cut:].dictionary_encode()]),
    ]
    for layout in layouts:
        assert hash_strings(layout).tolist() == expected


def test_long_values_are_hashed_alone_as_among_others() -> None:
    lengths = [0, 7, 511, 512, 513, 519, 520, 1023, 1024, 1025, 9_999]
    texts = ["".join(chr(97 + (i * i + length) % 26) for i in range(length)) for length in lengths]
    # Many of one length stay together to their ends; few go on alone.
    together = [int(hash_strings(pa.array([text] * 100))[0]) for text in texts]
    assert hash_strings(pa.array(texts)).tolist() == together
    assert [int(hash_strings(pa.array([text]))[0]) for text in texts] == together
    # Computed once.
    assert together[-1] == 12785848819051864961


@given(st.lists(st.text(), unique=True, max_size=200))
def test_different_values_differ(values: list[str]) -> None:
    hashes = hash_strings(pa.array(values, pa.string()))
    assert len(set(hashes.tolist())) == len(values)


def test_nulls_have_a_hash_of_their_own() -> None:
    hashes = hash_strings(pa.array([None, "", "\0", "null"]))
    assert len(set(hashes.tolist())) == 4
    assert hash_strings(pa.nulls(2)).tolist() == [hashes[0]] * 2


def test_bits_spread() -> None:
    hashes = hash_strings(pa.array([f"case-{i}" for i in range(20_000)]))
    for bit in range(64):
        share = ((hashes >> np.uint64(bit)) & np.uint64(1)).mean()
        assert 0.48 < share < 0.52
    shards = np.bincount((hashes % np.uint64(7)).astype(np.int64))
    assert shards.min() > 20_000 / 7 * 0.9


def test_combine_heeds_the_order_of_columns() -> None:
    a, b = np.array([1, 2]), np.array([2, 1])
    assert combine(HIGH, a, b)[0] != combine(HIGH, b, a)[0]
    assert combine(HIGH, a, b)[0] == combine(HIGH, b, a)[1]


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_hexadecimal(rows: int) -> None:
    low = np.arange(rows, dtype=np.uint64)
    expected = [f"{2**64 - 1:016x}{i:016x}" for i in range(rows)]
    assert to_hex(~np.zeros(rows, np.uint64), low).to_pylist() == expected
