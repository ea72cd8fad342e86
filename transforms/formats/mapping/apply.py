"""Puts a mapping to work on columns: value maps, constants, and which rows are skipped.

A value map costs a look-up for each distinct value of a batch, not for each row of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from schemas.events import NAME
from transforms.arrays import conform
from transforms.formats.mapping.rules import EventMapping, Rule

Mask = npt.NDArray[np.bool_]
ToText = Callable[[Any], pa.Array]


def mapped_columns(
    found: Mapping[str, Any], rules: Mapping[str, Rule], rows: int, to_text: ToText
) -> dict[str, Any]:
    """Return columns as the rules have them.

    Args:
        found: column -> values as they came.
        rules: column -> what is done to them.
        rows: number of rows.
        to_text: makes any column text.
    """
    columns = dict(found)
    for column, rule in rules.items():
        if rule.constant:
            columns[column] = _constant(rule.constant, rows)
        elif rule.changes and column in columns:
            columns[column] = _translated(to_text(columns[column]), rule)
        elif rule.default is not None:
            columns[column] = _constant(rule.default, rows)
    return columns


def _constant(value: str, rows: int) -> pa.Array:
    codes = pa.array(np.zeros(rows, np.int32))
    return pa.DictionaryArray.from_arrays(codes, pa.array([value], pa.string()))


def _translated(texts: pa.Array, rule: Rule) -> pa.Array:
    """Look up each distinct value; the empty text is no value."""
    coded = conform(texts, texts.type)
    if not pa.types.is_dictionary(coded.type):
        coded = coded.dictionary_encode()
    values = coded.dictionary.to_pylist()
    made = [_new(value, rule) for value in values]
    # A null has the code behind all others.
    distinct = list(dict.fromkeys([*made, rule.default]))
    codes = {value: code for code, value in enumerate(distinct)}
    table = np.array([codes[value] for value in [*made, rule.default]], np.int32)
    indices = coded.indices.fill_null(len(values)).to_numpy(zero_copy_only=False)
    taken = table[indices]
    none = codes.get(None)
    if none is None:
        return pa.DictionaryArray.from_arrays(pa.array(taken), pa.array(distinct, pa.string()))
    texts = pa.array(distinct, pa.string()).take(pa.array(taken))
    return conform(texts, NAME)


def _new(value: str | None, rule: Rule) -> str | None:
    if not value:
        return rule.default if rule.default is not None else value
    if value in rule.values:
        return rule.values[value]
    return rule.default if rule.default is not None and rule.values else value


def skipped_rows(
    mapping: EventMapping, arrays: Mapping[str, Any], rows: int, to_text: ToText
) -> Mask | None:
    """Say which rows a mapping skips; None if it skips none.

    Args:
        mapping: with its conditions.
        arrays: input column or path -> values; one that is not there has no value anywhere.
        rows: number of rows.
        to_text: makes any column text.
    """
    if not mapping.skip:
        return None
    skipped = np.zeros(rows, np.bool_)
    for condition in mapping.skip:
        if condition.path not in arrays:
            skipped |= condition.missing
            continue
        texts = to_text(arrays[condition.path])
        if pa.types.is_dictionary(texts.type):
            texts = texts.dictionary_decode()
        if condition.missing:
            fits = pc.or_kleene(texts.is_null(), pc.equal(texts, ""))
        else:
            fits = pc.is_in(texts, pa.array(condition.values, texts.type))
        skipped |= fits.fill_null(True).to_numpy(zero_copy_only=False)
    return skipped if skipped.any() else None
