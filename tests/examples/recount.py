"""Reads an archive with the standard library alone and counts it, knowing nothing of the simulator.

Slow and plain on purpose: every definition is written down again, from the files' point of view.
"""

from __future__ import annotations

import gzip
import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from zoneinfo import ZoneInfo

XSI_TYPE = "{http://www.w3.org/2001/XMLSchema-instance}type"
TIME = re.compile(
    r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)?",
)
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)

Document = dict[str, list[str]]
Row = tuple[int, int, int, int, str | None]
"""time in µs, source task, event, target task, actor."""


@dataclass
class Count:
    """What the files hold."""

    messages: int = 0
    decoded: int = 0
    skipped: int = 0
    dead: int = 0
    empty: int = 0
    events: int = 0
    readable: int = 0
    rejected: int = 0
    cases: dict[str, list[list[Row]]] = field(default_factory=dict)

    def transitions(self, case: str) -> list[Row]:
        """Return the distinct lines of a case, by time and place in its logs."""
        found: dict[tuple[int, ...], tuple[int, Row]] = {}
        # The copy in the shortest log is the earliest: a newer engine drops the actor.
        for log in sorted(self.cases[case], key=lambda rows: (rows[-1][0], len(rows))):
            for place, row in enumerate(log):
                found.setdefault(row[:4], (place, row))
        return [row for _, row in sorted(found.values(), key=lambda each: (each[1][0], each[0]))]

    def retracted(self, case: str) -> list[Row]:
        """Return the lines that some snapshot around them does not hold."""
        denied = []
        for row in self.transitions(case):
            for log in self.cases[case]:
                around = log[0][0] < row[0] < log[-1][0]
                if around and row[:4] not in {other[:4] for other in log}:
                    denied.append(row)
                    break
        return denied


def count(folder: Path, old_zone: str = "UTC") -> Count:
    """Read every file below a folder."""
    result = Count()
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
        if not content:
            result.empty += 1
            continue
        try:
            documents = list(read(content, ".json" in path.suffixes))
        except (ET.ParseError, UnicodeDecodeError, json.JSONDecodeError):
            result.messages += 1
            result.dead += 1
            continue
        for document in documents:
            take(document, result, old_zone)
    return result


def take(document: Document, result: Count, old_zone: str) -> None:
    """Count one document."""
    result.messages += 1
    if "$uniqueid" not in document:
        result.dead += 1
        return
    if document["type"][0] not in ("workitem", "workitemarchive"):
        result.skipped += 1
        return
    result.decoded += 1
    lines = [parse_line(line, old_zone) for line in document["$eventlog"]]
    readable = [line for line in lines if line is not None]
    result.events += len(lines)
    result.readable += len(readable)
    result.rejected += len(lines) - len(readable)
    result.cases.setdefault(document["$uniqueid"][0], []).append(readable)


def read(content: bytes, is_json: bool) -> Iterator[Document]:
    """Yield the documents of a file, each as item name -> texts of its values."""
    if is_json:
        page = json.loads(content)
        for document in page.get("data", [page]):
            yield {item["name"]: json_texts(item["value"]) for item in document["item"]}
        return
    root = ET.fromstring(content)
    for document in [root] if root.tag == "document" else root:
        if document.tag != "document":
            reason = f"<{document.tag}>"
            raise ET.ParseError(reason)
        yield {
            item.attrib["name"]: [value.text or "" for value in item.findall("value")]
            for item in document
        }


def json_texts(value: object) -> list[str]:
    """Return the texts of an item in the typed dialect: an object, or a list of them."""
    values = value if isinstance(value, list) else [value]
    return [str(each.get("$", "")) if isinstance(each, dict) else "" for each in values]


def parse_line(line: str, old_zone: str) -> Row | None:
    """Return a log line's row, None if it cannot be read."""
    parts = line.split("|")
    try:
        if "." in parts[2]:
            source, event = parts[2].split(".")
            return microseconds(parts[0], old_zone), int(source), int(event), int(parts[3]), None
        time, _, source, event, target, actor = parts[:6]
        return microseconds(time, None), int(source), int(event), int(target), actor or None
    except (IndexError, ValueError):
        return None


def microseconds(text: str, zone: str | None) -> int:
    """Return an ISO time as microseconds since the epoch."""
    match = TIME.fullmatch(text)
    if match is None:
        raise ValueError(text)
    seconds, fraction, offset = match.groups()
    if offset is None:
        if zone is None:
            raise ValueError(text)
        time = datetime.fromisoformat(seconds).replace(tzinfo=ZoneInfo(zone))
    else:
        time = datetime.fromisoformat(seconds + ("+00:00" if offset == "Z" else offset))
    return (time - EPOCH) // timedelta(microseconds=1) + int((fraction or "0").ljust(6, "0")[:6])
