"""SipHash is the published one, for any number of rows."""

from __future__ import annotations

import numpy as np
import pytest

from transforms import siphash
from transforms.siphash import siphash128

KEY = bytes(range(16))


# Of the reference implementation (vectors_sip128): the message is bytes 0, 1, 2 ...
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (2, "6ee2a4ca67b054bbfd3315bf85230577"),
        (3, "2db479ae78bd50d8882a8a178a6132ad"),
        (4, "7c3956ca5eeafc3e363e9d556546eb68"),
    ],
)
def test_published_vectors(words: int, expected: str) -> None:
    message = np.frombuffer(bytes(range(8 * words)), "<u8").astype(np.uint64)
    halves = siphash128(KEY, *message.reshape(words, 1))
    assert b"".join(half.astype("<u8").tobytes() for half in halves).hex() == expected


def test_rows_are_hashed_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(1)
    columns = random.integers(0, 2**64, (2, 50), np.uint64, endpoint=False)
    given = columns.copy()
    monkeypatch.setattr(siphash, "_ROWS", 16)
    first, second = siphash128(KEY, *columns)
    assert (columns == given).all()
    for row in range(50):
        one = siphash128(KEY, columns[0, row : row + 1], columns[1, row : row + 1])
        assert (first[row], second[row]) == (one[0][0], one[1][0])
    assert len(set(first.tolist())) == len(set(second.tolist())) == 50
    other = siphash128(KEY[::-1], *columns)
    assert not (other[0] == first).any()


def test_no_rows() -> None:
    first, second = siphash128(KEY, np.empty(0, np.uint64))
    assert len(first) == len(second) == 0
