"""Large inputs made quickly, for benchmarks: Imixs documents of one size, and XES logs.

Documents are made from a few simulated ones: each gets an id of its own, so a million documents
take seconds. Nothing is wrong with them.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import IO, NamedTuple, cast

from examples.simulator.archive import Written
from examples.simulator.documents import DECLARATION, NAMESPACES, Item, items, xml_element
from examples.simulator.processes import INVOICE_1_1
from examples.simulator.scenario import Faults, Scenario
from examples.simulator.simulate import START, Snapshot, simulate, uuid_text
from examples.simulator.worktime import HOUR, SECOND, iso_millis

DOCUMENT_BYTES = 4096
LOG_LINES = 10
EXPORT_DOCUMENTS = 1000

_TEMPLATES = 16
_YEARS = tuple(str(year).encode() for year in range(2015, 2025))
_CHUNK = 1000

_EVENT_BYTES = 474
_DISPENSABLE = (
    "txtworkflowhistory",
    "namlasteditor",
    "namcreator",
    "numlastactivityid",
    "txtworkflowgroup",
    "txtworkflowstatus",
    "$writeaccess",
    "$workflowsummary",
    "$isauthor",
    "$activityid",
    "$processid",
    "",
)
"""Items that a document of the right size can do without, twins first."""

_FILLER = "goods received in good order and as agreed; "


class Log(NamedTuple):
    """A written event log.

    Attributes:
        traces: cases.
        events: events of all of them.
        bytes: before compression.
    """

    traces: int
    events: int
    bytes: int


def write_documents(
    folder: Path,
    documents: int,
    *,
    seed: int = 1,
    collections: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Written:
    """Write documents of 4 KiB with ten lines in `$eventlog`, a case each.

    Args:
        folder: is made if it is not there.
        documents: how many.
        seed: the same seed writes the same bytes.
        collections: write `<data>` files of 1,000 documents (`export-00001.xml`), not a file a
            document (`00001/<$uniqueid>.xml`).
        progress: is told how many documents have been written so far.
    """
    random = Random(f"documents {seed}")
    variants = _variants(seed, standalone=not collections)
    written = Written(kinds={"export" if collections else "single": 0})
    kind = next(iter(written.kinds))
    folder.mkdir(parents=True, exist_ok=True)
    head = f"{DECLARATION}\n<data {NAMESPACES}>\n".encode()
    for first in range(0, documents, EXPORT_DOCUMENTS):
        count = min(EXPORT_DOCUMENTS, documents - first)
        number = first // EXPORT_DOCUMENTS + 1
        ids = [uuid_text(random) for _ in range(count)]
        texts = [id_.encode().join(variants[int(random.random() * len(variants))]) for id_ in ids]
        if collections:
            content = head + b"\n".join(texts) + b"\n</data>\n"
            (folder / f"export-{number:05d}.xml").write_bytes(content)
            written.bytes += len(content)
            written.files += 1
        else:
            part = folder / f"{number:05d}"
            part.mkdir(exist_ok=True)
            for id_, text in zip(ids, texts, strict=True):
                (part / f"{id_}.xml").write_bytes(text)
            written.bytes += sum(map(len, texts))
            written.files += count
        written.documents += count
        if progress is not None:
            progress(written.documents)
    written.kinds[kind] = written.files
    return written


def _variants(seed: int, *, standalone: bool) -> list[list[bytes]]:
    """Return documents, cut where the id goes in: some templates, each in ten years."""
    found: dict[str, Snapshot] = {}
    scenario = Scenario(files=0.0, chatty=0.05)
    snapshots = simulate(seed, 2500, START, scenario=scenario, faults=Faults.none())
    for snapshot in snapshots:
        if len(snapshot.log) == LOG_LINES:
            found.setdefault(snapshot.case.id, snapshot)
            if len(found) == _TEMPLATES:
                break
    variants = []
    for snapshot in found.values():
        text = _padded(snapshot, standalone=standalone)
        for year in _YEARS:
            dated = text.replace(b"2024-", year + b"-")
            variants.append(dated.split(snapshot.case.id.encode()))
    return variants


def _padded(snapshot: Snapshot, *, standalone: bool) -> bytes:
    """Return the document, without some items and its description cut so that it has the size."""
    found = [item for item in items(snapshot) if item[0] != "description"]
    for name in _DISPENSABLE:
        room = DOCUMENT_BYTES - len(_text(found, "", standalone=standalone))
        if room >= 0:
            filler = (_FILLER * (room // len(_FILLER) + 1))[:room]
            return _text(found, filler, standalone=standalone)
        found = [item for item in found if item[0] != name]
    return _text(found, "", standalone=standalone)


def _text(found: list[Item], description: str, *, standalone: bool) -> bytes:
    whole = sorted([*found, ("description", [("xs:string", description)])])
    if standalone:
        return (DECLARATION + xml_element(whole, NAMESPACES)).encode()
    return xml_element(whole).encode()


_XES_HEAD = """<?xml version="1.0" encoding="UTF-8" ?>
<log xes.version="1.0" xes.features="nested-attributes" xmlns="http://www.xes-standard.org/">
  <extension name="Concept" prefix="concept" uri="http://www.xes-standard.org/concept.xesext"/>
  <extension name="Time" prefix="time" uri="http://www.xes-standard.org/time.xesext"/>
  <extension name="Lifecycle" prefix="lifecycle" \
uri="http://www.xes-standard.org/lifecycle.xesext"/>
  <extension name="Organizational" prefix="org" uri="http://www.xes-standard.org/org.xesext"/>
  <global scope="event">
    <string key="concept:name" value="none"/>
  </global>
  <classifier name="Activity" keys="concept:name"/>
  <string key="concept:name" value="invoices"/>
"""


def write_xes(path: Path, seed: int, events: int) -> Log:
    """Write an XES log with about 474 bytes an event, compressed if the name ends with `.gz`.

    Args:
        path: the file.
        seed: the same seed writes the same bytes.
        events: how many; traces have 3 to 20.
    """
    random = Random(f"xes {seed}")
    path.parent.mkdir(parents=True, exist_ok=True)
    traces = size = 0
    with _open(path) as file:
        size += file.write(_XES_HEAD.encode())
        for trace in _traces(random, events):
            size += file.write(trace)
            traces += 1
        size += file.write(b"</log>\n")
    return Log(traces, events, size)


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    with path.open("wb", buffering=1 << 20) as file:
        if path.suffix == ".gz":
            # No name and no time in the header: equal logs are equal files.
            with gzip.GzipFile("", "wb", compresslevel=5, fileobj=file, mtime=0) as zipped:
                yield cast("IO[bytes]", zipped)
        else:
            yield file


def _traces(random: Random, events: int) -> Iterator[bytes]:
    draw = random.random
    begin = int(START.timestamp()) * SECOND
    heads = [
        "    <event>\n"
        f'      <string key="concept:name" value="{task.status}"/>\n'
        f'      <string key="org:resource" value="clerk{resource:02d}@example.org"/>\n'
        '      <string key="lifecycle:transition" value="complete"/>\n'
        f'      <int key="task" value="{task.id}"/>\n'
        f'      <string key="org:group" value="{task.role or "archive"}"/>\n'
        '      <date key="time:timestamp" value="'
        for task in INVOICE_1_1.tasks.values()
        for resource in range(20)
    ]
    left, number = events, 0
    while left:
        number += 1
        length = min(left, 3 + int(draw() * 18))
        left -= length
        time = begin + int(draw() * 300 * 24 * HOUR)
        parts = [f'  <trace>\n    <string key="concept:name" value="case-{number:07d}"/>\n']
        for _ in range(length):
            time += int(draw() * 8 * HOUR)
            head = heads[int(draw() * len(heads))]
            amount = draw() * 5000
            event = (
                f'{head}{iso_millis(time)}"/>\n'
                f'      <float key="amount" value="{amount:.2f}"/>\n'
                '      <string key="comment" value="'
            )
            filler = (_FILLER * 4)[: _EVENT_BYTES - len(event) - _EVENT_TAIL_BYTES]
            parts.append(f"{event}{filler}{_EVENT_TAIL}")
        parts.append("  </trace>\n")
        yield "".join(parts).encode()


_EVENT_TAIL = '"/>\n    </event>\n'
_EVENT_TAIL_BYTES = len(_EVENT_TAIL) + 8  # a trace's own lines, shared by its events
