"""Replaces values by keyed hashes before anything is written: `--mask actor,item...`.

A token is 32 hexadecimal digits of BLAKE2b under the user's key: equal values have equal
tokens in every column, run and batch under one key, and nobody without the key can test a
guess. Event ids are hashed again under the key (SipHash, every row has one) whenever anything
is masked, because an id may be an unkeyed hash of a masked value. Dead letters lose their
payload.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.events import EVENT_SCHEMA
from transforms.formats.base import Failure
from transforms.hashing import hash_strings, to_hex
from transforms.siphash import siphash128

COLUMNS = frozenset({"case_id", "actor", "workflow_group", "transaction_id"})
"""Event columns that can be masked; kernels only compare their values."""

# A path may hold its case's id.
_WITH_CASE = frozenset({"case_id", "source"})
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
                f"{name!r} cannot be masked, it is not a name or needed as it is: "
                f"columns that can be are {', '.join(sorted(COLUMNS))}"
            )
            raise MaskError(reason)
        if len(self.key) < _MIN_KEY:
            reason = f"the masking key has {len(self.key)} bytes, at least {_MIN_KEY} are needed"
            raise MaskError(reason)

    @property
    def columns(self) -> frozenset[str]:
        """Event columns to mask: those named, and `source` with `case_id`."""
        columns = self.names & COLUMNS
        return columns | _WITH_CASE if columns & _WITH_CASE else columns

    def token(self, value: bytes, purpose: bytes = b"") -> str:
        """Return the token of a value: 32 hexadecimal digits; other purposes, other tokens."""
        key = self.key if len(self.key) <= _MAX_KEY else blake2b(self.key).digest()
        return blake2b(value, digest_size=16, key=key, person=purpose).hexdigest()


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
    ids, log = _mask_ids(_one(table["event_id"]), _one(table["log"]), table["case_id"], masking)
    attributes = _mask_items(_one(table["attributes"]), masking)
    masked = {"event_id": ids, "log": log, "attributes": attributes}
    for name in masking.columns:
        masked[name] = _mask_column(table[name], masking)
    columns = [masked.get(name, table[name]) for name in table.schema.names]
    return pa.Table.from_arrays(columns, schema=table.schema)


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
        source = (
            f"{masking.token(path.encode())}:{offset}" if colon else masking.token(source.encode())
        )
    return replace(
        failure,
        payload=b"",
        source=source,
        message=f"{failure.error}; details and payload are withheld because of --mask",
        attributes=attributes,
        size=len(failure.payload) if failure.size is None else failure.size,
    )


def _one(column: pa.ChunkedArray) -> pa.Array:
    # Maps that are all empty have no chunk of values.
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _mask_ids(
    ids: pa.Array, log: pa.Array, case_ids: pa.ChunkedArray, masking: Masking
) -> tuple[pa.Array, pa.Array]:
    """Hash event ids under the key, and the `log` such that it refers to them again.

    A log has 64-bit hashes of ids, not ids. So an id's token is made of that hash (and of its
    case, which keeps tokens of different cases apart), and a log's entry is the hash of the
    token that its own 64 bits give.
    """
    cases = hash_strings(case_ids)
    lengths = pc.fill_null(pc.list_value_length(log), 0).to_numpy(zero_copy_only=False)
    lines = pc.list_flatten(log).to_numpy(zero_copy_only=False).astype(np.uint64)
    key = bytes.fromhex(masking.token(b"", purpose=b"event_id"))
    tokens = to_hex(*siphash128(key, hash_strings(ids), cases))
    line_tokens = to_hex(*siphash128(key, lines, np.repeat(cases, lengths)))
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    entries = pa.array(hash_strings(line_tokens), log.type.value_type)
    return tokens, pa.ListArray.from_arrays(pa.array(offsets), entries, mask=log.is_null())


def _mask_column(column: pa.ChunkedArray, masking: Masking) -> pa.ChunkedArray:
    """Replace strings; each distinct value is hashed once a chunk."""
    if not pa.types.is_dictionary(column.type):
        return _mask_column(column.dictionary_encode(), masking).cast(column.type)
    chunks = [
        pa.DictionaryArray.from_arrays(chunk.indices, _mask_values(chunk.dictionary, masking))
        for chunk in column.chunks
    ]
    return pa.chunked_array(chunks, column.type)


def _mask_values(values: pa.Array, masking: Masking) -> pa.Array:
    texts = values.cast(pa.binary()).to_pylist()
    return pa.array([None if v is None else masking.token(v) for v in texts], values.type)


def _mask_items(attributes: pa.MapArray, masking: Masking) -> pa.Array:
    """Mask the values of the chosen keys; the others stay as they are."""
    if attributes.null_count == len(attributes):
        return attributes
    offsets = attributes.offsets
    first, last = offsets[0].as_py(), offsets[-1].as_py()
    keys = attributes.keys.slice(first, last - first)
    values = attributes.items.slice(first, last - first)
    chosen = pc.is_in(keys, pa.array(sorted(masking.names), keys.type))
    # Only chosen values are hashed: the rest becomes null on the way.
    secret = pa.chunked_array([pc.if_else(chosen, values, None)])
    tokens = _one(_mask_column(secret, masking))
    return pa.MapArray.from_arrays(
        pc.subtract(offsets, offsets[0]),
        keys,
        pc.if_else(chosen, tokens, values),
        type=attributes.type,
        mask=attributes.is_null(),
    )
