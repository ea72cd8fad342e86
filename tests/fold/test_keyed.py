"""State rows by key: the same as a dictionary of lists, through merges."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transforms.fold import keyed
from transforms.fold.keyed import KeyedRows

SCHEMA = pa.schema([("key", pa.string()), ("value", pa.int64()), ("list", pa.list_(pa.int64()))])
KEYS = st.sampled_from("abcdefgh")
CHANGES = st.lists(
    st.tuples(
        st.dictionaries(KEYS, st.lists(st.integers(0, 9), min_size=1, max_size=3), max_size=5),
        st.sets(KEYS, max_size=3),
    ),
    max_size=12,
)


def rows_of(values: dict[str, list[int]]) -> pa.Table:
    rows = [{"key": k, "value": v, "list": [v] * v} for k, vs in values.items() for v in vs]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def pairs(table: pa.Table) -> list[tuple[str, int]]:
    assert table.schema.equals(SCHEMA)
    assert all(row["list"] == [row["value"]] * row["value"] for row in table.to_pylist())
    return [(row["key"], row["value"]) for row in table.to_pylist()]


@pytest.mark.parametrize("merge_from", [0, 3, 1000])
@settings(deadline=None)
@given(changes=CHANGES, asked=st.lists(KEYS, unique=True))
def test_it_is_a_dictionary_of_rows(merge_from: int, changes: Any, asked: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keyed, "MERGE_FROM", merge_from)
        state, plain = KeyedRows(SCHEMA), dict[str, list[int]]()
        for changed, dropped in changes:
            removed = dropped - set(changed)
            state.apply(rows_of(changed), pa.array(sorted(removed), pa.string()))
            for key in removed:
                plain.pop(key, None)
            plain |= changed
            found = pairs(state.rows_of(pa.array(asked, pa.string())))
            assert sorted(found) == sorted((k, v) for k in asked for v in plain.get(k, []))
            # The rows of a key stay together, in their order.
            for key in asked:
                assert [v for k, v in found if k == key] == plain.get(key, [])
            assert state.live == sum(map(len, plain.values()))
        assert sorted(pairs(state.all())) == sorted((k, v) for k, vs in plain.items() for v in vs)
