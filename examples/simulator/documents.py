"""Snapshots as the engine writes them: Imixs XML and Imixs JSON (typed dialect).

Items are sorted by name. A value is a pair: a type and its text; of an `xmlItem` (a list, as in
the history) its values, of an `xmlItemArray` (a map, as in `$file`) its items, of `nil` nothing.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from random import Random
from typing import Any, TypeAlias
from xml.sax.saxutils import escape

from examples.simulator.simulate import Case, Snapshot
from examples.simulator.worktime import iso_millis

DECLARATION = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'
NAMESPACES = (
    'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
    'xmlns:xs="http://www.w3.org/2001/XMLSchema"'
)
_HISTORY = 2


Value: TypeAlias = tuple[str, Any]
Item: TypeAlias = tuple[str, Sequence[Value]]

_NIL = ("nil", None)
_TRUE = ("xs:boolean", "true")
_ZERO = ("xs:int", "0")


def items(snapshot: Snapshot) -> list[Item]:
    """Return a snapshot's items, sorted by name."""
    case, last, time = snapshot.case, snapshot.last, snapshot.time
    process, business = case.process, case.business
    task = process.tasks[last.target]
    status, group = _string(task.status), _string(process.group)
    editor, creator = _string(snapshot.editor), _string(case.creator)
    last_date = ("xs:dateTime", iso_millis(last.time))
    task_id, event_id = _int(last.target), _int(last.event)
    team = _string("{process:" + process.group + ":" + (task.role or "archive") + "}")
    subject = _string(business.subject)
    workflow_type = "workitemarchive" if task.end else "workitem"
    found: dict[str, Sequence[Value]] = {
        "$activityid": [_ZERO],
        "$creator": [creator],
        "$editor": [editor],
        "$eventid": [_ZERO],
        "$eventlog": [_string(line) for line in snapshot.lines],
        "$isauthor": [_TRUE],
        "$lastevent": [event_id],
        "$lasteventdate": [last_date],
        "$lasttask": [_int(last.source)],
        "$modelversion": [_string(process.version)],
        "$owner": [team],
        "$processid": [task_id],
        "$readaccess": [_string("")],
        "$taskid": [task_id],
        "$transactionid": [_string(snapshot.transaction_id)],
        "$uniqueid": [_string(case.id)],
        "$version": [_int(len(snapshot.log))],
        "$workflowgroup": [group],
        "$workflowstatus": [status],
        "$workflowsummary": [subject],
        "$workitemid": [_string(case.workitem_id)],
        "$writeaccess": [team, creator],
        "description": [_string(f"<p>{business.description}</p>")],
        "namcreator": [creator],
        "numlastactivityid": [event_id],
        "space.name": [_string(business.space)],
        "subject": [subject],
        "txtworkflowgroup": [group],
        "txtworkflowhistory": _history(snapshot),
        "txtworkflowstatus": [status],
        "type": [_string(workflow_type)],
    }
    for name, type_, text in business.items:
        found[name] = [(type_, text)]
    comment = snapshot.log[-1].comment
    if comment:
        found["comment"] = [_string(comment)]
    if snapshot.last_editor is not None:
        found["$lasteditor"] = found["namlasteditor"] = [_string(snapshot.last_editor)]
    if snapshot.modified is not None:
        found["$created"] = [("xs:dateTime", iso_millis(case.created))]
        found["$modified"] = [("xs:dateTime", iso_millis(snapshot.modified))]
    if snapshot.migrated:
        found["$eventlogdeprecated"] = [_string(line.text) for line in snapshot.migrated]
    if case.file_bytes:
        found.update(_file(case))
    if task.end:
        found["$closed"] = [("xs:dateTime", iso_millis(time))]
    return sorted(found.items())


def profile_items(id_: str, time: int) -> list[Item]:
    """Return the items of a user's profile: a document, but no workitem."""
    number = Random(id_).randrange(1, 500)
    when = ("xs:dateTime", iso_millis(time))
    return sorted(
        {
            "$created": [when],
            "$modified": [when],
            "$modelversion": [_string("system-1.0.0")],
            "$taskid": [_int(200)],
            "$uniqueid": [_string(id_)],
            "$workflowgroup": [_string("User")],
            "email": [_string(f"user{number}@example.org")],
            "locale": [_string("de_DE")],
            "txtname": [_string(f"user{number}")],
            "type": [_string("profile")],
        }.items()
    )


def xml_element(document: Iterable[Item], namespaces: str = "") -> str:
    """Return one `<document>` element.

    Args:
        document: its items.
        namespaces: attributes of the element, if it is a document's root.
    """
    parts = [f"<document {namespaces}>" if namespaces else "<document>"]
    _xml_items(document, parts)
    parts.append("</document>")
    return "".join(parts)


def xml_document(document: Iterable[Item]) -> bytes:
    """Return a whole XML document with one `<document>`, as a message or a backup has it."""
    return (DECLARATION + xml_element(document, NAMESPACES)).encode()


def xml_collection(elements: Iterable[str]) -> bytes:
    """Return a `<data>` collection of `<document>` elements, as the REST interface exports it."""
    return "\n".join([f"{DECLARATION}\n<data {NAMESPACES}>", *elements, "</data>\n"]).encode()


def json_object(document: Iterable[Item]) -> dict[str, Any]:
    """Return a document in the typed JSON dialect."""
    return {"item": [_json_item(item) for item in document]}


def json_document(document: Iterable[Item]) -> bytes:
    """Return one document as JSON text."""
    return json.dumps(json_object(document), ensure_ascii=False, separators=(",", ":")).encode()


def json_collection(documents: Iterable[dict[str, Any]]) -> bytes:
    """Return a JSON page, `{"data": [...]}`."""
    page = {"data": list(documents)}
    return json.dumps(page, ensure_ascii=False, separators=(",", ":")).encode()


def _string(text: str) -> Value:
    return ("xs:string", text)


def _int(number: int) -> Value:
    return ("xs:int", str(number))


def _history(snapshot: Snapshot) -> list[Value]:
    """Return what the history plug-in keeps: [date, what, who] a line."""
    entries: list[Value] = []
    tasks = snapshot.case.process.tasks
    for line in snapshot.log[-_HISTORY:]:
        time, source, _, target, actor = line.transition
        what = f"{tasks[source].status} → {tasks[target].status}"
        who = _string(actor) if actor else _NIL
        date = ("xs:dateTime", iso_millis(time))
        entries.append(("xmlItem", (date, _string(what), who)))
    return entries


def _file(case: Case) -> dict[str, Sequence[Value]]:
    """Return an attachment's items: the same bytes in every snapshot of the case."""
    name = f"{case.process.group.lower().replace(' ', '-')}-{case.id[:8]}.pdf"
    content = base64.b64encode(Random(case.id).randbytes(case.file_bytes)).decode()
    values = (_string("application/pdf"), ("xs:base64Binary", content))
    return {
        "$file": [("xmlItemArray", ((name, values),))],
        "$file.count": [_int(1)],
        "$file.names": [_string(name)],
    }


def _xml_items(document: Iterable[Item], parts: list[str]) -> None:
    for name, values in document:
        parts.append(f'<item name="{escape(name)}">')
        _xml_values(values, parts)
        parts.append("</item>")


def _xml_values(values: Iterable[Value], parts: list[str]) -> None:
    for type_, content in values:
        if type_ == "nil":
            parts.append('<value xsi:nil="true"/>')
        elif type_ == "xmlItem":
            parts.append('<value xsi:type="xmlItem">')
            _xml_values(content, parts)
            parts.append("</value>")
        elif type_ == "xmlItemArray":
            parts.append('<value xsi:type="xmlItemArray">')
            _xml_items(content, parts)
            parts.append("</value>")
        else:
            parts.append(f'<value xsi:type="{type_}">{escape(content)}</value>')


def _json_item(item: Item) -> dict[str, Any]:
    name, values = item
    found = [_json_value(value) for value in values]
    return {"name": name, "value": found[0] if len(found) == 1 else found}


def _json_value(value: Value) -> dict[str, Any] | None:
    type_, content = value
    if type_ == "nil":
        return None
    if type_ == "xmlItem":
        return {"@type": type_, "value": [_json_value(inner) for inner in content]}
    if type_ == "xmlItemArray":
        return {"@type": type_, "item": [_json_item(item) for item in content]}
    # Numbers come bare or as text, by the engine's version; everything else is text.
    bare = type_ == "xs:int" and len(content) % 2 == 0
    return {"@type": type_, "$": int(content) if bare else content}
