"""The values of our own options, each read from its text.

What any program's options have, lengths, times, sizes, is in `values`. A `BadValue` says what is
wrong with a text.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pipelines import values
from pipelines.option_table import MASKABLE
from pipelines.values import BadValue

if TYPE_CHECKING:
    from transforms.formats.mapping.rules import EventMapping

FORMAT_ALIASES = {"jsonl": "json_lines", "ndjson": "json_lines", "xml": "imixs_xml"}
OUTPUT_FORMATS = ("parquet", "jsonl", "csv")
LEAST_MASK_KEY = 16
LARGEST_MASK_KEY = 64 * 2**10
LARGEST_SCHEMA = 2**20
_UNMAPPED = {"log", "truncated", "source", "source_offset", "attributes"}


def format_names() -> list[str]:
    """Return the names of the formats that can be read."""
    from transforms.formats import registry  # noqa: PLC0415 (pyarrow: not for wrong options)

    return list(registry.names())


def granule(text: str) -> int:
    """Read the length of a granule, in ms."""
    length = values.duration_ms(text)
    if not length:
        reason = "is no time at all; give 200ms or more"
        raise BadValue(reason)
    return length


def format(text: str) -> str:
    """Read a format of the input."""
    name = FORMAT_ALIASES.get(text, text)
    if name == "auto":
        return name
    return values.one_of(name, ["auto", *format_names()], "a format")


def output_format(text: str) -> str:
    """Read a format of the tables."""
    aliases = {"json": "jsonl", "json_lines": "jsonl", "ndjson": "jsonl"}
    return values.one_of(aliases.get(text, text), OUTPUT_FORMATS, "an output format")


def columns(text: str) -> tuple[tuple[str, str], ...]:
    """Read pairs of event column and the name that the input has for it."""
    from schemas.events import EVENT_SCHEMA  # noqa: PLC0415 (pyarrow: not for --help)

    mapped = values.pairs(text)
    known = [name for name in EVENT_SCHEMA.names if name not in _UNMAPPED]
    for name, _ in mapped:
        if name not in known:
            reason = f"maps '{name}', which is not an event column"
            hint = values.suggest(name, known) or f"; they are {', '.join(known)}"
            raise BadValue(reason + hint)
    return mapped


def items(text: str) -> tuple[tuple[str, str | None], ...]:
    """Read names of business items, some with a declared type."""
    from transforms.formats.items import UnknownType, split_type  # noqa: PLC0415

    found: dict[str, str | None] = {}
    for part in values.names(text):
        try:
            name, type_ = split_type(part)
        except UnknownType as error:
            raise BadValue(str(error)) from None
        if name in found and found[name] != type_:
            reason = f"gives '{name}' twice, with different types; give it once"
            raise BadValue(reason)
        found[name] = type_
    return tuple(found.items())


def mapping(text: str) -> EventMapping:
    """Read a mapping file.

    Raises:
        BadValue: it cannot be read.
        MappingError: it is wrong; a sentence for each problem, with the file's name.
    """
    from transforms.formats.mapping.document import MAX_BYTES, read_mapping  # noqa: PLC0415

    return read_mapping(_file(text, MAX_BYTES + 1), text)


def avro_schema(text: str) -> str:
    """Read a file with an Avro schema."""
    from transforms.formats.avro.messages import given_schema  # noqa: PLC0415
    from transforms.formats.avro.schemas import BadSchema  # noqa: PLC0415

    schema = _file(text, LARGEST_SCHEMA).decode(errors="replace")
    try:
        given_schema(schema)
    except BadSchema as error:
        reason = f"cannot be used: {error}"
        raise BadValue(reason) from None
    return schema


def schema_registry(text: str) -> str:
    """Read the address of a schema registry."""
    from transforms.formats.avro.settings import BadRegistry, registry_url  # noqa: PLC0415

    try:
        return registry_url(text)
    except BadRegistry as error:
        raise BadValue(str(error)) from None


def registry_auth(text: str) -> tuple[str, str]:
    """Read user and password of a schema registry, by the name of their place."""
    from transforms.formats.avro.settings import BadRegistry, credentials  # noqa: PLC0415

    try:
        return credentials(secret(text, "a password").decode(errors="replace"))
    except BadRegistry as error:
        raise BadValue(str(error)) from None


def registry_ca(text: str) -> str:
    """Return the path of a file of certificates."""
    if b"-----BEGIN CERTIFICATE" not in _file(text, LARGEST_SCHEMA):
        reason = "holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)"
        raise BadValue(reason)
    return os.path.abspath(os.path.expanduser(text))


def _file(path: str, most: int) -> bytes:
    try:
        with open(os.path.expanduser(path), "rb") as file:
            return file.read(most)
    except OSError as error:
        reason = f"can't be read: {error.strerror}"
        raise BadValue(reason) from None


def until(text: str, timezone: str) -> int | None:
    """Read the end of the input, in µs; None for `end`."""
    return None if text == "end" else values.time_us(text, timezone)


def retention(text: str) -> int:
    """Read a retention, in ms."""
    return values.duration_ms(text, least=1)


def mask(text: str, items: tuple[str, ...]) -> tuple[str, ...]:
    """Read what is masked: columns, and some of the items."""
    masked = values.names(text)
    for name in masked:
        # A misspelt name would write in clear what was to be hidden.
        if name not in MASKABLE and name not in items:
            reason = f"names '{name}', which is neither one of {', '.join(MASKABLE)} nor of --items"
            raise BadValue(reason + values.suggest(name, [*MASKABLE, *items]))
    return masked


def key(text: str) -> bytes:
    """Read a key for masks, by the name of its place."""
    key = secret(text, "a key")
    if len(key) > LARGEST_MASK_KEY:
        reason = f"holds more than {values.size_text(LARGEST_MASK_KEY)}; give the key alone"
        raise BadValue(reason)
    if len(key) < LEAST_MASK_KEY:
        reason = f"holds {len(key)} bytes; a key has at least {LEAST_MASK_KEY}"
        raise BadValue(reason)
    return key


def secret(text: str, what: str) -> bytes:
    """Read what `env:NAME` or `file:PATH` holds."""
    kind, _, name = text.partition(":")
    if kind == "env" and name:
        held = os.environ.get(name, "").encode(errors="surrogateescape")
        if not held:
            reason = f"names the environment variable {name}, which is not set"
            raise BadValue(reason)
        return held
    if kind == "file" and name:
        return _file(name, LARGEST_MASK_KEY + 1).rstrip(b"\r\n")
    reason = f"is not file:PATH or env:NAME; {what} never stands on the command line itself"
    raise BadValue(reason)


def progress(text: str) -> bool:
    """Read whether progress is shown."""
    return values.one_of(text, ("auto", "off"), "a progress display") == "auto"


def color(text: str) -> str:
    """Read a choice of colours."""
    return values.one_of(text, ("auto", "always", "never"), "a choice of color")


def tables(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """Read names of tables.

    Raises:
        BadValue: there is no such table.
    """
    found = values.names(text)
    for name in found:
        if name not in known:
            hint = values.suggest(name, list(known)) or f"; give some of {', '.join(known)}"
            reason = f"names '{name}', which is no table of this pipeline{hint}"
            raise BadValue(reason)
    return found
