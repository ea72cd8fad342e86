"""Looks into files for `inspect`: some of every format and mapping that there is among them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain

import pyarrow as pa
from apache_beam.io.filesystem import BeamIOError

from pipelines.exit_codes import ExitCode, RunError
from pipelines.inspect_seen import (
    WITHHELD,
    Kind,
    Look,
    Seen,
    deal,
    reasons_of,
    rows_of,
    shown,
    status_of,
)
from pipelines.inspect_texts import Found, first_texts
from pipelines.origins import Origin, filled, is_silent, origins_of
from pipelines.output import one_line
from pipelines.paths import with_top_level
from pipelines.settings import Settings
from transforms.formats import registry
from transforms.formats.base import Decoded, Failure, Format, InputFile
from transforms.mask import Masking, mask_failure
from transforms.sources.files import SAMPLE, Unit, open_file, read_unit
from transforms.sources.matching import Matched, match

MOST_FILES = 100
"""Files that are looked into, at most: an archive may have a message in each."""

WITHHELD_WARNINGS = f"warnings are {WITHHELD}; look without it to see them"

KindOf = tuple[str, tuple[Origin, ...]]
"""A format, and where its columns come from: files of one kind are read alike."""


@dataclass
class _Opened:
    """A file, and what its beginning says."""

    path: str
    size: int
    file: InputFile
    form: Format | None
    origins: list[Origin]

    @property
    def kind(self) -> KindOf:
        return self.form.name if self.form else "", tuple(self.origins)


@dataclass
class _Place:
    """What was found at one place of a file: in the order of `order`."""

    order: tuple[int, int]
    source: str
    events: pa.Table | None = None
    failures: list[Failure] = field(default_factory=list)


def look_at_files(settings: Settings, most: int, hidden: Masking | None) -> list[Look]:
    """Look at files, in the order of their paths; each that is shown is a look.

    Messages are dealt out among the formats, and among mappings of one format as far as they go.

    Args:
        settings: of the run, with its input.
        most: messages of all files together; more if there are more formats.
        hidden: what is masked.

    Raises:
        RunError: no file matches, or the input cannot be read.
    """
    try:
        files, unseen = match(with_top_level(settings.input))
    except (BeamIOError, OSError, ValueError) as error:
        raise RunError(ExitCode.NO_INPUT, f"--input can't be read: {one_line(error)}") from None
    if not files:
        text = f"no file matches --input {', '.join(map(repr, settings.input))}"
        raise RunError(ExitCode.NO_INPUT, text)
    opened: dict[str, _Opened] = {}
    kinds = _kinds(files, settings, opened)
    firsts = {format_: (format_, origins) for format_, origins in reversed(kinds)}
    least = [kind for kind in kinds if firsts[kind[0]] == kind]
    read: dict[KindOf, list[tuple[str, Look]]] = {}
    for kind in [*least, *(kind for kind in kinds if kind not in least)]:
        read[kind] = []
        for path, size in kinds[kind][:MOST_FILES]:
            file = opened.get(path) or _open(path, size, settings)
            read[kind].append((path, _read(file, settings, most, hidden)))
            if _waiting(read[kind]) >= most:
                break
        if len(read) >= len(least) and sum(bool(_waiting(each)) for each in read.values()) >= most:
            break
    dealt = deal({kind: _waiting(each) for kind, each in read.items()}, most, least)
    kept: list[tuple[str, Look]] = []
    for kind, looks in read.items():
        left = dealt.get(kind, 0)
        for path, look in looks:
            if look.messages[:left] or not look.messages:
                look.messages = look.messages[:left]
                kept.append((path, look))
            left -= len(look.messages)
    found = [look for _, look in sorted(kept, key=lambda each: each[0])]
    if unseen and hidden is None:
        found[0].warnings[:0] = unseen
    elif unseen:
        found[0].warnings = [WITHHELD_WARNINGS]
    return found


def _waiting(looks: Sequence[tuple[str, Look]]) -> int:
    return sum(len(look.messages) for _, look in looks)


def _kinds(
    files: Sequence[Matched], settings: Settings, opened: dict[str, _Opened]
) -> dict[KindOf, list[Matched]]:
    """Sort files by what they are; those that are many in a folder are taken to be as its last.

    Args:
        files: by path.
        settings: of the run.
        opened: path -> file; those that were looked into are added.
    """
    groups: dict[tuple[str, str], list[Matched]] = {}
    for file in files:
        group = os.path.dirname(file.path), os.path.splitext(file.path)[1]
        groups.setdefault(group, []).append(file)
    kinds: dict[KindOf, list[Matched]] = {}
    last: dict[tuple[str, str], KindOf] = {}
    for rank in range(SAMPLE):
        for group, members in groups.items():
            if rank < len(members) and len(opened) < MOST_FILES:
                file = members[rank]
                opened[file.path] = found = _open(*file, settings)
                kinds.setdefault(found.kind, []).append(file)
                last[group] = found.kind
    for group, kind in last.items():
        kinds[kind] += [file for file in groups[group] if file.path not in opened]
    ordered = {kind: sorted(members) for kind, members in kinds.items()}
    return dict(sorted(ordered.items(), key=lambda each: each[1][0]))


def _open(path: str, size: int, settings: Settings) -> _Opened:
    file, head = open_file(path, size)
    form: Format | None = None
    if settings.format != "auto":
        form = registry.get(settings.format)
    elif head:
        form = registry.detect(head, path)
    origins: list[Origin] = []
    if form is not None and head and not is_silent(form):
        origins = origins_of(form, file, settings, settings.context())
    return _Opened(path, size, file, form, origins)


def _read(opened: _Opened, settings: Settings, most: int, hidden: Masking | None) -> Look:
    """Read a file, as far as its first messages go."""
    form, context = opened.form, settings.context()
    kind = Kind(form.name if form else "", 0, opened.origins)
    look = Look(opened.file.path, settings.format != "auto", [kind])
    name = "" if settings.format == "auto" else settings.format
    unit = Unit(0, ((opened.path, opened.size, name, 0, None),))
    places: dict[str, _Place] = {}
    tables: list[pa.Table] = []
    for decoded in read_unit(unit, context):
        look.count(decoded)
        look.warnings += [w for w in decoded.warnings if w not in look.warnings]
        for item, count in decoded.unfit.items():
            look.warnings.append(f"item {item}: not of its type and left out: {count:,}")
        for place, found in _places(decoded, 50 * most).items():
            places.setdefault(place, found)
        tables.append(decoded.events)
        look.messages = _messages(opened, look, places, most, settings, hidden)
        if len(look.messages) >= most:
            break
    kind.messages = look.looked_at
    if form is not None and is_silent(form) and tables:
        kind.origins = filled(form, pa.concat_tables(tables), settings, context)
    if hidden is not None and "source" in hidden.columns:
        look.name = hidden.token(look.name.encode())
    if hidden is not None and look.warnings:
        look.warnings = [WITHHELD_WARNINGS]
    return look


def _places(decoded: Decoded, most: int) -> dict[str, _Place]:
    """Sort what a batch has found by the place of the message."""
    events = decoded.events.slice(0, most)
    rows: dict[tuple[str, int], list[int]] = {}
    places = zip(events["source"].to_pylist(), events["source_offset"].to_pylist(), strict=True)
    for row, at in enumerate(places):
        rows.setdefault(at, []).append(row)
    found: dict[str, _Place] = {}
    for number, ((source, offset), own) in enumerate(rows.items()):
        taken = events.take(pa.array(own, pa.int64()))
        found[f"{source}:{offset}"] = _Place((offset, number), source, taken)
    for number, failure in enumerate(decoded.failures[:most]):
        source, _, tail = failure.source.rpartition(":")
        order = (int(tail) if tail.isdecimal() else -1, number)
        found.setdefault(failure.source, _Place(order, source)).failures.append(failure)
    return found


def _messages(
    opened: _Opened,
    look: Look,
    places: dict[str, _Place],
    most: int,
    settings: Settings,
    hidden: Masking | None,
) -> list[Seen]:
    """Return the first messages of what has been read; skipped ones where their text is known."""
    file, form = opened.file, opened.form
    own = {
        p.order[0]: Found(p.events, p.failures) for p in places.values() if p.source == file.path
    }
    texts = first_texts(form, file, settings.context(), most, own) if form is not None else []
    text_at = {f"{file.path}:{offset}": text for offset, text in texts}
    # So many messages have been read: what gave neither event nor dead letter was skipped.
    read = [(offset, f"{file.path}:{offset}") for offset, _ in texts[: look.looked_at]]
    passed = [(offset, place) for offset, place in read if place not in places]
    if len(passed) > look.counts["skipped"]:
        passed, text_at = [], {}  # the texts are others than those that were read
    skipped = {place: _Place((offset, 0), file.path) for offset, place in passed}
    if file.whole is not None and look.looked_at == 1 and len(places) == 1:
        text_at = {**dict.fromkeys(places, file.whole), **text_at}
    ordered = sorted(chain(places.items(), skipped.items()), key=lambda each: each[1].order)
    found = []
    for place, at in ordered[:most]:
        payload = at.failures[0].payload if at.failures else text_at.get(place)
        events = 0 if at.events is None else at.events.num_rows
        text = None if payload is None else shown(payload, settings.encoding)
        found.append(
            Seen(
                place if hidden is None else _hidden_place(place, hidden),
                text if hidden is None else WITHHELD,
                {},
                "skipped" if place in skipped else status_of(events, len(at.failures)),
                [] if at.events is None else rows_of(at.events, hidden),
                reasons_of(at.failures, hidden),
                form.name if form is not None else "",
            )
        )
    return found


def _hidden_place(place: str, hidden: Masking) -> str:
    return mask_failure(Failure(b"", place, "", ""), hidden).source
