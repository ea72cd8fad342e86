"""Replaces values by keyed hashes before anything is written: `--mask actor,item...`.

A token is 32 hexadecimal digits of BLAKE2b under the user's key: equal values have equal
tokens in every column, run and batch under one key, and nobody without the key can test a
guess. Event ids are hashed again under the key whenever anything is masked, because an id may
be an unkeyed hash of a masked value. Dead letters lose their payload.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.events import EVENT_SCHEMA
from transforms.formats.base import Failure
from transforms.hashing import hash_strings

COLUMNS = frozenset({"case_id", "actor", "workflow_group", "transaction_id", "source"})
"""Event columns that can be masked; kernels only compare their values."""

_FIXED = frozenset(EVENT_SCHEMA.names) - COLUMNS
_MIN_KEY = 16
_MAX_KEY = 64  # BLAKE2b's


class MaskError(ValueError):
    """A name that cannot be masked, or a key that cannot be used; one line with the fix."""


@dataclass(frozen=True)
class Masking:
    """What is masked, and with which key.

    Attributes:
        names: event columns (of `COLUMNS`) and business items.
        key: the secret; not shown.
    """

    names: frozenset[str]
    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        for name in sorted(self.names & _FIXED):
            reason = (
                f"{name!r} cannot be masked: transitions are computed from it; "
                f"columns that can be: {', '.join(sorted(COLUMNS))}"
            )
            raise MaskError(reason)
        if len(self.key) < _MIN_KEY:
            reason = f"the masking key has {len(self.key)} bytes, at least {_MIN_KEY} are needed"
            raise MaskError(reason)

    @property
    def columns(self) -> frozenset[str]:
        """Event columns to mask. Paths may hold a case's id, so `source` goes with `case_id`."""
        columns = self.names & COLUMNS
        return columns | {"source"} if "case_id" in columns else columns

    def token(self, value: bytes) -> str:
        """Return the token of a value: 32 hexadecimal digits."""
        return self._hash()(value)

    def _hash(self) -> Callable[[bytes], str]:
        key = self.key if len(self.key) <= _MAX_KEY else blake2b(self.key).digest()

        def hash_value(value: bytes) -> str:
            return blake2b(value, digest_size=16, key=key).hexdigest()

        return hash_value


def masking(names: Collection[str], items: Collection[str], key: bytes) -> Masking:
    """Make a masking of event columns and items.

    Args:
        names: as in `--mask`.
        items: as in `--items`: what `attributes` can hold.
        key: from `load_key`.

    Raises:
        MaskError: a name is neither a column that can be masked nor an item; the key is short.
    """
    unknown = sorted(set(names) - COLUMNS - _FIXED - set(items))
    if unknown:
        known = ", ".join([*sorted(COLUMNS), *sorted(items)])
        reason = f"cannot mask {', '.join(map(repr, unknown))}: known are {known} (see --items)"
        raise MaskError(reason)
    return Masking(frozenset(names), key)


def load_key(spec: str, environ: Mapping[str, str] = os.environ) -> bytes:
    """Read the masking key; white space around it does not count.

    Args:
        spec: `file:PATH`, `env:NAME`, or a path.
        environ: where `env:` looks.

    Raises:
        MaskError: there is no such file or variable, or fewer than 16 bytes in it.
    """
    kind, colon, rest = spec.partition(":")
    if colon and kind == "env":
        where = f"environment variable {rest}"
        if rest not in environ:
            reason = f"the masking key's {where} is not set"
            raise MaskError(reason)
        key = environ[rest].encode(errors="surrogateescape")
    else:
        path = rest if colon and kind == "file" else spec
        where = f"file {path}"
        try:
            with open(path, "rb") as file:
                key = file.read()
        except (OSError, ValueError) as e:
            why = e.strerror if isinstance(e, OSError) else e
            reason = f"cannot read the masking key's {where}: {why} (use file:PATH or env:NAME)"
            raise MaskError(reason) from None
    key = key.strip()
    if len(key) < _MIN_KEY:
        reason = (
            f"the masking key in {where} has {len(key)} bytes, at least {_MIN_KEY} are needed: "
            "make one with `openssl rand -hex 32`"
        )
        raise MaskError(reason)
    return key


def mask_events(table: pa.Table, masking: Masking) -> pa.Table:
    """Mask the columns and items of an event table.

    Masks once: masking a masked table gives tokens of tokens. Order of the rows is kept, but
    events of one time and position that were ordered by id may be ordered otherwise later.

    Args:
        table: columns of `EVENT_SCHEMA`, maybe more.
        masking: what and with which key.

    Returns:
        The table with the same schema. Nulls stay null. `event_id` is a keyed hash of the id
        and the case, and `log` still holds `hash_strings` of the ids of its lines.
    """
    if not masking.names or not len(table):
        return table
    cases = table["case_id"]
    masked = {
        "event_id": _mask_ids(table["event_id"], cases, masking),
        "log": _mask_log(_one(table["log"]), cases, masking),
    }
    for name in masking.columns:
        masked[name] = _mask_column(table[name], masking)
    items = masking.names - COLUMNS | masking.names
    masked["attributes"] = _mask_items(_one(table["attributes"]), items, masking)
    for name, column in masked.items():
        at = table.schema.get_field_index(name)
        table = table.set_column(at, table.schema.field(at), column)
    return table


def mask_failure(failure: Failure, masking: Masking) -> Failure:
    """Take everything that may hold a masked value out of a failure.

    What could not be decoded cannot be masked in parts. Instead of the payload the failure has
    its size and, in `attributes`, its token (`payload_token`): equal payloads can be seen to be
    equal, and whoever has the original can find it. It cannot be replayed.
    """
    if not masking.names:
        return failure
    attributes = {"masked": "true", "payload_token": masking.token(failure.payload)}
    if "format" in failure.attributes:
        attributes["format"] = failure.attributes["format"]
    source = failure.source
    if "source" in masking.columns:
        path, colon, offset = source.rpartition(":")
        source = masking.token((path if colon else source).encode()) + colon + offset * bool(colon)
    return replace(
        failure,
        payload=b"",
        source=source,
        message=f"{failure.error}; details and payload are withheld because of --mask",
        attributes=attributes,
        size=len(failure.payload) if failure.size is None else failure.size,
    )


def _one(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks)


def _mask_column(column: pa.ChunkedArray, masking: Masking) -> pa.ChunkedArray:
    if not pa.types.is_dictionary(column.type):
        encoded = column.dictionary_encode()
        return _mask_column(encoded, masking).cast(column.type)
    chunks = [
        pa.DictionaryArray.from_arrays(chunk.indices, _mask_values(chunk.dictionary, masking))
        for chunk in column.chunks
    ]
    return pa.chunked_array(chunks, column.type)


def _mask_values(values: pa.Array, masking: Masking) -> pa.Array:
    hash_value = masking._hash()
    texts = values.cast(pa.binary()).to_pylist()
    return pa.array([None if v is None else hash_value(v) for v in texts], values.type)


def _mask_items(attributes: pa.MapArray, items: frozenset[str], masking: Masking) -> pa.Array:
    """Mask the values of some keys; the others stay where they are."""
    if attributes.null_count == len(attributes):
        return attributes
    keys = attributes.keys
    chosen = pa.compute.is_in(keys, pa.array(sorted(items), keys.type))
    values = attributes.items
    tokens = _mask_column(pa.chunked_array([values]), masking)
    masked = pa.compute.if_else(chosen, tokens.combine_chunks(), values)
    return pa.MapArray.from_buffers(
        attributes.type,
        len(attributes),
        attributes.buffers()[:2],
        children=[pa.StructArray.from_arrays([keys, masked], fields=list(attributes.type))],
        offset=attributes.offset,
        null_count=attributes.null_count,
    )
