"""Object-centric logs for tests: one in memory, written in each notation."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

Change = tuple[str, str, str]
"""Attribute, time, value."""


@dataclass
class Log:
    """A log.

    Attributes:
        objects: id -> (type, changes of attributes).
        events: (id, type, time, attributes, relations to objects).
    """

    objects: dict[str, tuple[str, list[Change]]] = field(default_factory=dict)
    events: list[tuple[str, str, str, dict[str, str], list[tuple[str, str]]]] = field(
        default_factory=list
    )

    def as_json(self) -> bytes:
        """Write OCEL 2.0 JSON."""
        return json.dumps(
            {
                "objectTypes": [{"name": t, "attributes": []} for t in self.types()],
                "eventTypes": [],
                "objects": [
                    {
                        "id": id_,
                        "type": type_,
                        "attributes": [{"name": n, "time": t, "value": v} for n, t, v in changes],
                    }
                    for id_, (type_, changes) in self.objects.items()
                ],
                "events": [
                    {
                        "id": id_,
                        "type": type_,
                        "time": time,
                        "attributes": [{"name": n, "value": v} for n, v in attributes.items()],
                        "relationships": [{"objectId": o, "qualifier": q} for o, q in relations],
                    }
                    for id_, type_, time, attributes, relations in self.events
                ],
            },
            indent=1,
        ).encode()

    def as_json_1(self) -> bytes:
        """Write OCEL 1.0 JSON, which has no times of attributes and no qualifiers."""
        return json.dumps(
            {
                "ocel:global-log": {"ocel:object-types": self.types(), "ocel:version": "1.0"},
                "ocel:events": {
                    id_: {
                        "ocel:activity": type_,
                        "ocel:timestamp": time,
                        "ocel:omap": [o for o, _ in relations],
                        "ocel:vmap": attributes,
                    }
                    for id_, type_, time, attributes, relations in self.events
                },
                "ocel:objects": {
                    id_: {"ocel:type": type_, "ocel:ovmap": {n: v for n, _, v in changes}}
                    for id_, (type_, changes) in self.objects.items()
                },
            }
        ).encode()

    def as_xml(self) -> bytes:
        """Write OCEL 2.0 XML."""
        out = ["<?xml version='1.0' encoding='UTF-8'?>", "<log>", "<object-types/>", "<objects>"]
        for id_, (type_, changes) in self.objects.items():
            out.append(f"<object id={quoteattr(id_)} type={quoteattr(type_)}><attributes>")
            for name, time, value in changes:
                given = f"name={quoteattr(name)} time={quoteattr(time)}"
                out.append(f"<attribute {given}>{escape(value)}</attribute>")
            out.append("</attributes></object>")
        out.append("</objects><events>")
        for id_, type_, time, attributes, relations in self.events:
            given = f"id={quoteattr(id_)} type={quoteattr(type_)} time={quoteattr(time)}"
            out.append(f"<event {given}><attributes>")
            for name, value in attributes.items():
                out.append(f"<attribute name={quoteattr(name)}>{escape(value)}</attribute>")
            out.append("</attributes><objects>")
            for object_, qualifier in relations:
                given = f"object-id={quoteattr(object_)} qualifier={quoteattr(qualifier)}"
                out.append(f"<relationship {given}/>")
            out.append("</objects></event>")
        out.append("</events></log>")
        return "\n".join(out).encode()

    def as_sqlite(self, path: Path) -> bytes:
        """Write OCEL 2.0 SQLite, and return its bytes."""
        path.unlink(missing_ok=True)
        database = sqlite3.connect(path)
        run = database.execute
        for kind in ("event", "object"):
            run(f"CREATE TABLE {kind} (ocel_id TEXT PRIMARY KEY, ocel_type TEXT)")
            run(f"CREATE TABLE {kind}_map_type (ocel_type TEXT, ocel_type_map TEXT)")
        run("CREATE TABLE event_object (ocel_event_id, ocel_object_id, ocel_qualifier)")
        for type_ in self.types():
            names = sorted(
                {n for t, changes in self.objects.values() if t == type_ for n, _, _ in changes}
            )
            table = f"object_{abs(hash(type_))}"
            run("INSERT INTO object_map_type VALUES (?, ?)", (type_, table[7:]))
            columns = "".join(f", {_q(name)} TEXT" for name in names)
            run(
                f"CREATE TABLE {_q(table)} "
                f"(ocel_id TEXT, ocel_time TEXT, ocel_changed_field TEXT{columns})"
            )
            for id_, (own, changes) in self.objects.items():
                for name, time, value in changes if own == type_ else ():
                    run(
                        f"INSERT INTO {_q(table)} (ocel_id, ocel_time, ocel_changed_field, "
                        f"{_q(name)}) VALUES (?, ?, ?, ?)",
                        (id_, time, name, value),
                    )
        run_many = database.executemany
        run_many("INSERT INTO object VALUES (?, ?)", [(i, t) for i, (t, _) in self.objects.items()])
        for number, type_ in enumerate(sorted({event[1] for event in self.events})):
            names = sorted({n for event in self.events if event[1] == type_ for n in event[3]})
            run("INSERT INTO event_map_type VALUES (?, ?)", (type_, f"T{number}"))
            columns = "".join(f", {_q(name)} TEXT" for name in names)
            run(f"CREATE TABLE event_T{number} (ocel_id TEXT, ocel_time TEXT{columns})")
            for id_, own, time, attributes, _ in self.events:
                if own == type_:
                    marks = ", ".join("?" * (2 + len(names)))
                    values = [id_, time, *(attributes.get(name) for name in names)]
                    run(f"INSERT INTO event_T{number} VALUES ({marks})", values)
        for id_, type_, _, _, relations in self.events:
            run("INSERT INTO event VALUES (?, ?)", (id_, type_))
            run_many("INSERT INTO event_object VALUES (?, ?, ?)", [(id_, *r) for r in relations])
        database.commit()
        database.close()
        return path.read_bytes()

    def types(self) -> list[str]:
        """Return the types of its objects."""
        return sorted({type_ for type_, _ in self.objects.values()})


def _q(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def orders() -> Log:
    """Return a log of two orders and their items."""
    return Log(
        objects={
            "o1": ("order", [("price", "1970-01-01T00:00:00Z", "10")]),
            "o2": (
                "order",
                [
                    ("price", "1970-01-01T00:00:00Z", "20"),
                    ("price", "2024-01-02T00:00:00Z", "25"),
                    ("price", "2024-01-04T00:00:00Z", "30"),
                ],
            ),
            "i1": ("item", []),
        },
        events=[
            ("e1", "place", "2024-01-01T00:00:00Z", {"clerk": "kim"}, [("o1", "a"), ("i1", "b")]),
            ("e2", "place", "2024-01-01T12:00:00Z", {}, [("o2", "a")]),
            ("e3", "change", "2024-01-02T00:00:00Z", {"price": "own"}, [("o1", "a")]),
            (
                "e4",
                "ship",
                "2024-01-02T00:00:00Z",
                {"org:resource": "bo"},
                [("o1", "a"), ("o2", "b")],
            ),
            ("e5", "pick", "2024-01-05T00:00:00Z", {}, [("i1", "a")]),
            ("e6", "pay", "2024-01-06T00:00:00Z", {}, [("o2", "a"), ("o2", "again")]),
        ],
    )
