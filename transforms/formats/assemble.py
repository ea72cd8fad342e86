"""From the columns that a format found to a table of the event schema, ids filled in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from schemas.events import EVENT_SCHEMA, NAME
from transforms.arrays import conform, integers, nulls
from transforms.hashing import identify

MOST_NAME = 4096
"""Bytes of a name (activity, state, actor, process, version and the like) in UTF-8."""


def assemble(columns: Mapping[str, Any], rows: int) -> pa.Table:
    """Build an event table from some of its columns.

    Args:
        columns: event column -> Arrow array, chunked array or Python sequence of `rows` values;
            `case_id`, `event_time` and `activity` must be there and have no nulls. Missing
            columns are null, but `state` (then the activity) and `event_id` (then the hash of
            case_id, event_time, activity and position; also where the given id is null).
        rows: number of rows.

    Returns:
        A table of `EVENT_SCHEMA` with one chunk a column.
    """
    arrays: dict[str, pa.Array] = {}
    for field in EVENT_SCHEMA:
        value = columns.get(field.name)
        if value is None:
            if field.name not in ("state", "event_id"):
                arrays[field.name] = nulls(field.type, rows)
            continue
        arrays[field.name] = conform(value, field.type)
        if field.type == NAME:
            arrays[field.name] = cut_names(arrays[field.name])
    arrays.setdefault("state", arrays["activity"])
    ids = arrays.get("event_id")
    if ids is None:
        arrays["event_id"] = file_event_ids(arrays)
    elif ids.null_count:
        arrays["event_id"] = pc.coalesce(ids, file_event_ids(arrays))
    return pa.Table.from_arrays([arrays[f.name] for f in EVENT_SCHEMA], schema=EVENT_SCHEMA)


def cut_names(names: pa.DictionaryArray) -> pa.DictionaryArray:
    """Cut names that are longer than `MOST_NAME`; a hash at the end keeps them apart.

    Every window has a row for each of them: a name is said again and again.
    """
    values = names.dictionary
    if not len(values) or pc.max(pc.binary_length(values)).as_py() <= MOST_NAME:
        return names
    return pa.DictionaryArray.from_arrays(names.indices, pa.array(map(_cut, values.to_pylist())))


def _cut(name: str | None) -> str | None:
    whole = b"" if name is None else name.encode()
    if len(whole) <= MOST_NAME:
        return name
    digest = hashlib.blake2b(whole, digest_size=16).hexdigest()
    end = f"…{digest}"
    return whole[: MOST_NAME - len(end.encode())].decode(errors="ignore") + end


def file_event_ids(arrays: Mapping[str, pa.Array]) -> pa.Array:
    """Hash (case_id, event_time, activity, position) to ids, for sources with an own order."""
    return identify(
        [arrays["case_id"], arrays["activity"]],
        [integers(arrays["event_time"]), integers(arrays["position"])],
    )


def payload_event_ids(arrays: Mapping[str, Any], payloads: pa.Array) -> pa.Array:
    """Hash (case_id, event_time, activity, payload) to ids, for broker messages without one."""
    return identify(
        [arrays["case_id"], arrays["activity"], payloads], [integers(arrays["event_time"])]
    )
