"""Declared types of items: what fits is normalised, what does not is left out and counted."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.events import ATTRIBUTES
from tests.formats.files import read_all
from transforms.formats.base import Context
from transforms.formats.items import (
    UnknownType,
    normalise,
    split_type,
    typed_attributes,
    with_types,
)
from transforms.formats.json_lines import FORMAT


def made(type_: str, *texts: str | None, **settings: str) -> list[str | None]:
    context = Context(**settings)  # type: ignore[arg-type]
    values: list[str | None] = normalise(pa.array(texts, pa.string()), type_, context).to_pylist()
    return values


def test_long() -> None:
    assert made("long", "1", " +007 ", "-0", "12.0", "-5") == ["1", "7", "0", "12", "-5"]
    assert made("long", "x", "1.5", "", None, "1e3", "٣") == [None] * 6
    top = str(2**63 - 1)
    assert made("long", top, str(2**63), "9" * 5000, str(-(2**63))) == [
        top,
        None,
        None,
        str(-(2**63)),
    ]


def test_double() -> None:
    assert made("double", "1250.50", " +.5 ", "1e3", "-2.", "7") == [
        "1250.5",
        "0.5",
        "1000",
        "-2",
        "7",
    ]
    assert made("double", "nan", "inf", "1e999", "12,5", "", None, "x", "0x1") == [None] * 8


def test_boolean() -> None:
    assert made("boolean", "TRUE", "1", "yes", " false", "0", "No") == ["true"] * 3 + ["false"] * 3
    assert made("boolean", "2", "", None, "ja") == [None] * 4


def test_timestamp() -> None:
    assert made(
        "timestamp",
        "2024-01-31",
        "1700000000000",
        "2024-01-31T10:00:00.120+02:00",
        "x",
        None,
        timezone="Europe/Berlin",
    ) == ["2024-01-30T23:00:00Z", "2023-11-14T22:13:20Z", "2024-01-31T08:00:00.12Z", None, None]
    # As --time_format says, or as anybody would write it.
    assert made("timestamp", "31.01.2024", "2024-01-31T10:00:00Z", time_format="%d.%m.%Y") == [
        "2024-01-31T00:00:00Z",
        "2024-01-31T10:00:00Z",
    ]


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False)))
def test_a_double_is_the_same_number_afterwards(numbers: list[float]) -> None:
    texts = made("double", *(repr(number) for number in numbers))
    assert [float(text or "nan") for text in texts] == numbers
    assert made("double", *texts) == texts


@given(st.lists(st.text() | st.none()), st.sampled_from(["long", "double", "boolean", "timestamp"]))
def test_what_is_normalised_stays_as_it_is(texts: list[str | None], type_: str) -> None:
    once = made(type_, *texts)
    assert made(type_, *once) == once
    assert all(text is None or (text and not text.isspace()) for text in once)
    assert type_ != "double" or all(t is None or math.isfinite(float(t)) for t in once)


@pytest.mark.parametrize(
    ("text", "name", "type_"),
    [
        ("amount", "amount", None),
        ("amount:double", "amount", "double"),
        ("amount:FLOAT", "amount", "double"),
        ("case:amount:int", "case:amount", "long"),
        ("org:resource", "org:resource", None),
        ("ocel:qualifier", "ocel:qualifier", None),
        ("time:timestamp:string", "time:timestamp", "string"),
        (":double", ":double", None),
    ],
)
def test_names_and_types(text: str, name: str, type_: str | None) -> None:
    assert split_type(text) == (name, type_)


def test_a_misspelt_type() -> None:
    with pytest.raises(UnknownType, match="did you mean 'amount:double'"):
        split_type("amount:duoble")


MAPS = st.lists(
    st.none()
    | st.dictionaries(st.sampled_from(["n", "N", "t"]), st.sampled_from(["1", "x", "02", ""])),
    max_size=8,
)


@given(MAPS, st.integers(0, 4))
def test_maps_of_any_shape(maps: list[dict[str, str] | None], skipped: int) -> None:
    rows = [None if each is None else list(each.items()) for each in maps]
    array = pa.array(rows, ATTRIBUTES).slice(skipped)
    found, unfit = typed_attributes(array, {"n": "long"}, Context())
    expected: list[dict[str, str] | None] = []
    lost: dict[str, int] = {}
    for each in maps[skipped:]:
        if each is None:
            expected.append(None)
            continue
        kept = {}
        for key, text in each.items():
            if key == "t":
                kept[key] = text
            elif text.isdecimal():
                kept[key] = str(int(text))
            else:
                lost[key] = lost.get(key, 0) + 1
        expected.append(kept)
    assert [None if m is None else dict(m) for m in found.to_pylist()] == expected
    assert unfit == lost
    found.validate(full=True)


def test_the_event_stays_and_the_value_is_counted() -> None:
    line = b'{"case_id": "c", "activity": "a", "event_time": "2024-01-01", "amount": %s}\n'
    data = b"".join(line % amount for amount in (b"12.50", b'"much"', b"null", b'"1e2"'))
    context = Context(items=("amount",), item_types={"amount": "double"})
    found = with_types(read_all(FORMAT, data, context), context)
    assert (found.decoded, found.dead) == (4, 0)
    assert [dict(each or ()) for each in found.events["attributes"].to_pylist()] == [
        {"amount": "12.5"},
        {},
        {},
        {"amount": "100"},
    ]
    assert found.unfit == {"amount": 1}
