"""OCEL 2.0 as SQLite, some thousand events at a time.

The file is a stranger's: it is opened read-only, from a copy of our own, by a connection that may
do nothing but read tables. Views, virtual tables and functions are not touched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Iterator
from urllib.parse import quote

from transforms.formats.base import InputFile
from transforms.formats.ocel.parts import Census, Event, InvalidOcel, Object, Part, text_of

MAGIC = b"SQLite format 3\0"

EVENTS = 20_000
"""Events of a part."""

DAMAGED = (sqlite3.Error, UnicodeDecodeError)
"""What reading a damaged file raises: of some Python cannot read SQLite's own message."""

_NEEDED = {
    "event": ("ocel_id", "ocel_type"),
    "object": ("ocel_id", "ocel_type"),
    "event_object": ("ocel_event_id", "ocel_object_id"),
    "event_map_type": ("ocel_type", "ocel_type_map"),
    "object_map_type": ("ocel_type", "ocel_type_map"),
}
_OWN = ("ocel_id", "ocel_time", "ocel_changed_field")

_CHUNK = """
CREATE TEMP TABLE chunk (n INTEGER PRIMARY KEY, id TEXT, type TEXT);
CREATE INDEX temp.chunk_id ON chunk (id);
CREATE TEMP TABLE wanted (id TEXT PRIMARY KEY);
"""


@contextlib.contextmanager
def opened(file: InputFile) -> Iterator[Database]:
    """Copy a file, and open the copy.

    Raises:
        InvalidOcel: it is no log.
        DAMAGED: it is damaged.
    """
    handle, path = tempfile.mkstemp(prefix="imixs-ocel-", suffix=".sqlite")
    try:
        with os.fdopen(handle, "wb") as copy, file.opener() as stream:
            shutil.copyfileobj(stream, copy, 1024 * 1024)
        uri = f"file:{quote(path)}?mode=ro&immutable=1"
        connection = sqlite3.connect(uri, uri=True)
        try:
            yield Database(connection)
        finally:
            connection.close()
    finally:
        os.unlink(path)


def _allowed(
    action: int, first: str | None, second: str | None, place: str | None, *_: object
) -> int:
    """Let nothing be done but reading tables, and filling our own temporary ones."""
    if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_TRANSACTION):
        return sqlite3.SQLITE_OK
    if action in (sqlite3.SQLITE_INSERT, sqlite3.SQLITE_DELETE) and place == "temp":
        return sqlite3.SQLITE_OK
    if action == sqlite3.SQLITE_FUNCTION and second == "count":
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


class Database:
    """A log in SQLite."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._db = connection
        connection.text_factory = lambda raw: raw.decode(errors="replace")
        for pragma in ("trusted_schema=OFF", "cell_size_check=ON", "temp_store=MEMORY"):
            connection.execute(f"PRAGMA {pragma}")
        tables = connection.execute(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'"
        )
        self._tables = {
            str(name): [str(row[1]) for row in connection.execute(f"PRAGMA table_info({_q(name)})")]
            for (name,) in tables.fetchall()
        }
        for name, columns in _NEEDED.items():
            missing = [c for c in columns if c not in self._tables.get(name, ())]
            if missing:
                what = (
                    f"no {', '.join(missing)} in table {name}"
                    if name in self._tables
                    else (f"no table {name}")
                )
                reason = f"a database that is no OCEL 2.0: it has {what}"
                raise InvalidOcel(reason)
        connection.executescript(_CHUNK)
        connection.set_authorizer(_allowed)
        self._events = self._typed("event")
        self._objects = self._typed("object")

    def _typed(self, kind: str) -> dict[str, str]:
        """Return the table of each type of events or objects, where there is one."""
        rows = self._db.execute(f"SELECT ocel_type, ocel_type_map FROM {kind}_map_type")
        names = {str(type_): f"{kind}_{mapped}" for type_, mapped in rows}
        return {
            type_: name for type_, name in names.items() if "ocel_id" in self._tables.get(name, ())
        }

    def census(self) -> Census:
        """Count objects, and events that relate to them, by type."""
        objects = self._db.execute("SELECT ocel_type, count(*) FROM object GROUP BY 1")
        events = self._db.execute(
            "SELECT o.ocel_type, count(DISTINCT r.ocel_event_id) FROM event_object r"
            " JOIN object o ON o.ocel_id = r.ocel_object_id GROUP BY 1"
        )
        return Census(
            Counter({str(name): count for name, count in objects}),
            Counter({str(name): count for name, count in events}),
        )

    def parts(self, type_: str) -> Iterator[Part]:
        """Yield the log; of objects only those of a type have attributes.

        Raises:
            DAMAGED: the rest is damaged.
        """
        first = 0
        rows = self._db.execute("SELECT ocel_id, ocel_type FROM event")
        while chunk := rows.fetchmany(EVENTS):
            yield self._part(chunk, first, type_)
            first += len(chunk)

    def _part(self, chunk: list[tuple[object, object]], first: int, type_: str) -> Part:
        db = self._db
        db.execute("DELETE FROM temp.chunk")
        db.execute("DELETE FROM temp.wanted")
        db.executemany(
            "INSERT INTO temp.chunk VALUES (?, ?, ?)",
            [(n, id_, kind) for n, (id_, kind) in enumerate(chunk)],
        )
        events = [Event(text_of(id_), text_of(kind), None) for id_, kind in chunk]
        objects: dict[str, Object] = {}
        qualifier = (
            "r.ocel_qualifier" if "ocel_qualifier" in self._tables["event_object"] else "NULL"
        )
        related = db.execute(
            f"SELECT c.n, r.ocel_object_id, {qualifier}, o.ocel_type FROM temp.chunk c"
            " JOIN event_object r ON r.ocel_event_id = c.id"
            " LEFT JOIN object o ON o.ocel_id = r.ocel_object_id ORDER BY c.n"
        )
        for n, id_, how, kind in related:
            name = text_of(id_) or ""
            events[n].relations.append((name, text_of(how)))
            if kind is not None and name not in objects:
                objects[name] = Object(str(kind))
        for kind in {event.type for event in events}:
            if kind in self._events:
                self._add_event_rows(events, kind)
        wanted = [(name,) for name, each in objects.items() if each.type == type_]
        if wanted and type_ in self._objects:
            db.executemany("INSERT INTO temp.wanted VALUES (?)", wanted)
            self._add_object_rows(objects, self._objects[type_])
        return Part(events, objects, first)

    def _add_event_rows(self, events: list[Event], type_: str) -> None:
        """Add time and attributes to the events of a type."""
        table = self._events[type_]
        columns = self._tables[table]
        names = ", ".join(f"t.{_q(name)}" for name in columns)
        rows = self._db.execute(
            f"SELECT c.n, {names} FROM temp.chunk c JOIN {_q(table)} t ON t.ocel_id = c.id"
            " WHERE c.type = ?",
            (type_,),
        )
        for n, *values in rows:
            event = events[n]
            for name, value in zip(columns, values, strict=True):
                text = text_of(value)
                if text is None or name == "ocel_id":
                    continue
                if name == "ocel_time":
                    event.time = event.time or text
                else:
                    event.attributes.setdefault(name, text)

    def _add_object_rows(self, objects: dict[str, Object], table: str) -> None:
        """Add attributes to objects: all at first, then one at each change."""
        columns = self._tables[table]
        names = ", ".join(f"t.{_q(name)}" for name in columns)
        rows = self._db.execute(
            f"SELECT {names} FROM temp.wanted w JOIN {_q(table)} t ON t.ocel_id = w.id"
        )
        for values in rows:
            row = dict(zip(columns, map(text_of, values), strict=True))
            changed = row.get("ocel_changed_field")
            time = row.get("ocel_time")
            held = objects[row["ocel_id"] or ""].attributes
            for name, text in row.items():
                if name not in _OWN and text is not None and (not changed or name == changed):
                    held.append((name, time, text))


def _q(name: str) -> str:
    """Quote a name for SQL."""
    return '"' + name.replace('"', '""') + '"'
