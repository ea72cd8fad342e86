"""Files as input: what matches, how the work is cut, and how a unit of work is read.

Planning happens once, before the pipeline is built, and opens few files: large ones (they
may be cut) and a sample of the others. A worker finds out the format of each file that it
reads by its content.
"""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import json
import lzma
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import BinaryIO, cast

import orjson
import pyarrow as pa
from apache_beam.io.filesystem import CompressionTypes
from apache_beam.io.filesystems import FileSystems

from schemas.dead_letters import MAX_PAYLOAD
from schemas.events import empty_events
from transforms.formats import registry
from transforms.formats.base import (
    Context,
    Counting,
    Decoded,
    Demanding,
    Failure,
    Format,
    InputFile,
    Span,
)
from transforms.formats.columns import NO_COLUMN
from transforms.formats.items import with_types
from transforms.sources.matching import Matched, match, shown

HEAD = 64 * 1024
BEGINNING = 128
"""Bytes that tell one format from another, once a file that begins with them is known."""
LARGE = 8 * 1024 * 1024
"""Files from this size on are looked into when planning, because they may be cut."""
UNIT_BYTES = 64 * 1024 * 1024
UNIT_FILES = 2_000
SHARD_BYTES = 64 * 1024 * 1024
"""About how much one shard's events take in memory."""
EVENT_BYTES = 240
"""Memory of one event, roughly."""
SAMPLE = 5
"""Files of each extension that planning looks into."""

_COMPRESSED = 8.0
"""Bytes that a compressed byte becomes, roughly."""

_STEP = 1024
_UNREADABLE = (OSError, EOFError, lzma.LZMAError, zlib.error)

_MAGIC: dict[bytes, Callable[[BinaryIO], BinaryIO]] = {
    b"\x1f\x8b": lambda f: cast(BinaryIO, gzip.GzipFile(fileobj=f)),
    b"BZh": lambda f: cast(BinaryIO, bz2.BZ2File(f)),
    b"\xfd7zXZ\x00": lambda f: cast(BinaryIO, lzma.LZMAFile(f)),
    b"\x28\xb5\x2f\xfd": lambda f: cast(BinaryIO, pa.CompressedInputStream(f, "zstd")),
}
_PACKED = tuple(_MAGIC)


Part = tuple[str, int, str, int, "int | None"]

Foresee = Callable[[Mapping[str, int]], object]
"""Takes format name -> bytes, as the input seems to be."""


@dataclass(frozen=True)
class Unit:
    """What one worker reads at a time: parts of files.

    Attributes:
        number: of the unit in the plan; orders its dead letters.
        parts: (path, size, format name or "", start, end or None).
    """

    number: int
    parts: tuple[Part, ...]

    def to_bytes(self) -> bytes:
        """Write as JSON, to cross between workers; a name need not be UTF-8."""
        try:
            return orjson.dumps([self.number, self.parts])
        except orjson.JSONEncodeError:
            return json.dumps([self.number, self.parts]).encode()

    @classmethod
    def from_bytes(cls, text: bytes) -> Unit:
        """Read what `to_bytes` wrote."""
        try:
            number, parts = orjson.loads(text)
        except orjson.JSONDecodeError:
            number, parts = json.loads(text)
        return cls(number, tuple(map(tuple, parts)))


@dataclass(frozen=True)
class Plan:
    """What is to be read.

    Attributes:
        files: every file that matches, by path.
        bytes: their size as stored.
        formats: format name -> (files, bytes), estimated from a sample; `unknown` for what
            no format claims.
        units: the work, in the order of the files.
        shards: parts of the fold.
        warnings: sentences for the user.
    """

    files: tuple[Matched, ...]
    bytes: int
    formats: dict[str, tuple[int, int]]
    units: tuple[Unit, ...]
    shards: int
    warnings: tuple[str, ...] = field(default=())


def plan(
    patterns: Sequence[str],
    format_name: str,
    context: Context,
    shards: int | None = None,
    much: int = 0,
    foresee: Foresee | None = None,
) -> Plan:
    """Match patterns and cut the work.

    Args:
        patterns: paths and globs of any Beam file system.
        format_name: a format's name, or `auto`.
        context: settings for decoding.
        shards: a given number, or None to derive it from the input's size.
        much: bytes of input from which `foresee` is called.
        foresee: called once, with the bytes found so far as if all were of the last file's format,
            so that what takes its time may begin while the rest is looked through.

    Raises:
        ValueError: no file system for a pattern's scheme.
        BeamIOError, OSError: a pattern cannot be matched.
    """
    tell = partial(_foretell, format_name, foresee) if foresee is not None else None
    found, unseen = match(patterns, much, tell)
    total = sum(file.size for file in found)
    by_format, expanded, parts = _look(found, format_name, context)
    if shards is None:
        shards = max(1, min(4096, round(expanded / SHARD_BYTES)))
    return Plan(
        files=tuple(found),
        bytes=total,
        formats=dict(sorted(by_format.items())),
        units=tuple(_units(parts, total)),
        shards=shards,
        warnings=tuple(dict.fromkeys(unseen)),
    )


def _foretell(format_name: str, foresee: Foresee, path: str, seen: int) -> None:
    """Tell of the input, taking all of it for files such as this one."""
    if format_name == "auto":
        found = registry.detect(open_file(path, -1)[1], path)
        format_name = found.name if found else "unknown"
    foresee({format_name: seen})


def unfit_columns(found: Plan, context: Context) -> str | None:
    """Say what the first file lacks if the given columns do not fit it at all, else None."""
    first = Unit(0, found.units[0].parts[:1])
    decoded = next(iter(read_unit(first, context)), None)
    if decoded is None or decoded.events.num_rows:
        return None
    return next((each for each in decoded.warnings if NO_COLUMN in each), None)


def unmet_demand(found: Plan, format_name: str, context: Context) -> str | None:
    """Say which option the first files cannot be read without; None if one of them can."""
    problem = None
    for path, size in found.files[:SAMPLE]:
        file, head = open_file(path, size)
        form = registry.get(format_name) if format_name != "auto" else registry.detect(head, path)
        if not isinstance(form, Demanding):
            continue
        wrong = form.demands(file, context)
        if wrong is None:
            return None
        problem = problem or wrong
    return problem


@dataclass
class _Look:
    """What a look into one file says of it and of the files that it stands for."""

    name: str
    growth: float
    files: int = 0
    bytes: int = 0


def _look(
    files: Sequence[Matched], format_name: str, context: Context
) -> tuple[dict[str, tuple[int, int]], float, list[Part]]:
    """Find formats (of large files and a sample), the size in memory, and the parts to read."""
    wanted = None if format_name == "auto" else registry.get(format_name)
    known = wanted.name if wanted else ""
    looks: dict[str, list[_Look]] = {}
    parts: list[Part] = []
    extension = ""
    sample: list[_Look] = []
    for path, size in files:
        if not extension or not path.endswith(extension):
            # Seldom: an archive's files are called alike.
            extension = os.path.splitext(path)[1]
            sample = looks.setdefault(extension, [])
        if size < LARGE and len(sample) >= SAMPLE:
            look = sample[-1]
            parts.append((path, size, known, 0, None))
        else:
            file, head = open_file(path, size)
            form = wanted or registry.detect(head, path)
            look = _Look(form.name if form else "unknown", _growth(form, file))
            sample.append(look)
            spans = form.spans(file, context) if form and size >= LARGE else [Span()]
            name = look.name if len(spans) > 1 else known
            parts += [(path, size // len(spans), name, span.start, span.end) for span in spans]
        look.files += 1
        look.bytes += size
    by_format: dict[str, tuple[int, int]] = {}
    for look in itertools.chain.from_iterable(looks.values()):
        count, stored = by_format.get(look.name, (0, 0))
        by_format[look.name] = count + look.files, stored + look.bytes
    expanded = sum(each.bytes * each.growth for sample in looks.values() for each in sample)
    return by_format, expanded, parts


def _growth(form: Format | None, file: InputFile) -> float:
    """Return the bytes that a stored byte takes as events in memory, roughly."""
    if isinstance(form, Counting):
        rows = form.rows(file)
        if rows is not None:
            return rows * EVENT_BYTES / max(1, file.size)
    return (form.expansion if form else 1.0) * (_COMPRESSED if file.compressed else 1.0)


def _units(parts: Sequence[Part], total: int) -> Iterator[Unit]:
    """Pack parts to units: large enough to be worth it, small enough to share among workers."""
    limit = max(1024 * 1024, min(UNIT_BYTES, total // 8))
    packed: list[Part] = []
    size = number = 0
    for part in parts:
        if packed and (size + part[1] > limit or len(packed) >= UNIT_FILES):
            yield Unit(number, tuple(packed))
            packed, size, number = [], 0, number + 1
        packed.append(part)
        size += part[1]
    if packed:
        yield Unit(number, tuple(packed))


def open_file(path: str, size: int) -> tuple[InputFile, bytes]:
    """Return a file and its first decompressed bytes (empty if they cannot be read)."""
    unpacker = None
    head = b""
    try:
        head = _read_head(path, size)
        if head.startswith(_PACKED):
            unpacker = next(found for magic, found in _MAGIC.items() if head.startswith(magic))
            head = b""
            with _unpack(path, unpacker) as stream:
                while len(head) < HEAD and (more := stream.read(_STEP)):
                    head += more
    except _UNREADABLE:
        # Whoever reads the file will meet the same error, and say so; what came before it
        # may be enough to know the format.
        pass
    raw = partial(_open_raw, path)
    if unpacker is not None:
        return InputFile(shown(path), size, partial(_unpack, path, unpacker), True, raw), head
    if 0 <= size == len(head) < HEAD:
        # Archives are many small files: one open each.
        return InputFile(shown(path), size, partial(io.BytesIO, head), False, raw, head), head
    return InputFile(shown(path), size, raw, False, raw), head


def _unpack(path: str, unpacker: Callable[[BinaryIO], BinaryIO]) -> BinaryIO:
    return unpacker(_open_raw(path))


def _read_head(path: str, size: int) -> bytes:
    if "://" in path:
        with _open_raw(path) as raw:
            return raw.read(HEAD)
    # Without a file object around it: half of what an archive of small files costs here.
    handle = os.open(path, os.O_RDONLY)
    try:
        # No more memory than it takes; but a file may have grown since it was matched.
        head = os.read(handle, size + 1 if 0 <= size < HEAD else HEAD)
        return head if len(head) <= size else head + os.read(handle, HEAD - len(head))
    finally:
        os.close(handle)


def _open_raw(path: str) -> BinaryIO:
    if "://" in path:
        return cast(
            BinaryIO, FileSystems.open(path, compression_type=CompressionTypes.UNCOMPRESSED)
        )
    # Opened by bytes a file is not taken by its name again, which Arrow would want as UTF-8.
    return open(path if path.isprintable() else os.fsencode(path), "rb")


def read_unit(unit: Unit, context: Context) -> Iterator[Decoded]:
    """Read a unit's parts; those of one format are read together, in batches."""
    work: dict[str, list[tuple[InputFile, Span]]] = {}
    seen: dict[tuple[bytes, str], Format] = {}
    for path, size, name, start, end in unit.parts:
        file, head = open_file(path, size)
        found = registry.get(name) if name else _detect(head, path, seen)
        if found is None or (not head and size != 0 and _is_closed(file)):
            yield _unreadable(file, head)
        else:
            span = _WHOLE if start == 0 and end is None else Span(start, end)
            work.setdefault(found.name, []).append((file, span))
    for name, parts in work.items():
        for decoded in registry.get(name).read(parts, context):
            yield with_types(decoded, context)


_WHOLE = Span()


def _detect(head: bytes, path: str, seen: dict[tuple[bytes, str], Format]) -> Format | None:
    """Find a file's format; small files of an archive begin alike, and need one look only."""
    # The last character of a path without a dot, which is no worse.
    beginning = head[:BEGINNING], path[path.rfind(".") :]
    found = seen.get(beginning)
    if found is None:
        found = registry.detect(head, path)
        if found is not None and not head.startswith(b"PAR1"):
            seen[beginning] = found
    return found


def _is_closed(file: InputFile) -> bool:
    """Say whether a file cannot be opened at all: no permission, or gone since it was matched."""
    try:
        file.opener().close()
    except OSError:
        return True
    return False


def _unreadable(file: InputFile, head: bytes) -> Decoded:
    """Judge a file that no format claims: empty, unreadable, or of an unknown format."""
    error, message = "UnknownFormat", "no format recognises its content; name one by --format"
    if b"<!DOCTYPE" in head or b"<!ENTITY" in head:
        error, message = "ForbiddenDtd", "XML with a document type or entities is refused"
    try:
        with file.opener() as stream:
            if not stream.read(1):
                return Decoded(empty_events(), warnings=(f"{file.path} is empty",))
            while stream.read(HEAD):
                if len(head) >= HEAD:
                    break
    except _UNREADABLE as reason:
        error, message = "UnreadableFile", " ".join(str(reason).split())
    try:
        with (file.raw or file.opener)() as raw:
            original = raw.read(MAX_PAYLOAD)
    except _UNREADABLE:
        original = b""
    failure = Failure(original, file.path, error, message, {}, max(file.size, 0))
    return Decoded(empty_events(), [failure], dead=1)
