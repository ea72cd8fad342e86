"""OCEL as JSON, 2.0 and 1.0: one document, read whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from transforms.formats.ocel.parts import Event, InvalidOcel, Object, Part, text_of


def read_document(data: bytes) -> Part:
    """Read a log.

    Raises:
        InvalidOcel: it is not JSON, or no log.
    """
    try:
        document = orjson.loads(data.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError as error:
        raise InvalidOcel(str(error), "InvalidJson") from None
    if not isinstance(document, dict):
        reason = "not an object"
        raise InvalidOcel(reason)
    if "ocel:events" in document:
        return _version_1(document)
    if "events" not in document or "objects" not in document:
        reason = "has no events and objects, nor ocel:events: it is no OCEL"
        raise InvalidOcel(reason)
    return _version_2(document)


def _version_2(document: Mapping[str, Any]) -> Part:
    objects: dict[str, Object] = {}
    for each in _objects(document["objects"], "objects"):
        id_, type_ = text_of(each.get("id")), text_of(each.get("type"))
        if id_ is None or type_ is None:
            reason = f"an object without id or type: {str(each)[:100]}"
            raise InvalidOcel(reason)
        attributes = [
            (str(a.get("name")), text_of(a.get("time")), text)
            for a in _objects(each.get("attributes") or [], f"attributes of object {id_}")
            if (text := text_of(a.get("value"))) is not None
        ]
        objects[id_] = Object(type_, attributes)
    events = []
    for each in _objects(document["events"], "events"):
        id_ = text_of(each.get("id"))
        events.append(
            Event(
                id_,
                text_of(each.get("type")),
                text_of(each.get("time")),
                {
                    str(a.get("name")): text
                    for a in _objects(each.get("attributes") or [], f"attributes of event {id_}")
                    if (text := text_of(a.get("value"))) is not None
                },
                [
                    (text_of(r.get("objectId")) or "", text_of(r.get("qualifier")))
                    for r in _objects(each.get("relationships") or [], f"relations of event {id_}")
                ],
            )
        )
    return Part(events, objects)


def _objects(found: Any, what: str) -> list[dict[str, Any]]:
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        reason = f"{what} are no list of objects"
        raise InvalidOcel(reason)
    return found


def _version_1(document: Mapping[str, Any]) -> Part:
    events, objects = document["ocel:events"], document.get("ocel:objects", {})
    for name, found in (("ocel:events", events), ("ocel:objects", objects)):
        if not isinstance(found, dict) or not all(isinstance(e, dict) for e in found.values()):
            reason = f"{name} is no object of objects"
            raise InvalidOcel(reason)
    return Part(
        [
            Event(
                id_,
                text_of(each.get("ocel:activity")),
                text_of(each.get("ocel:timestamp")),
                {k: text for k, v in _pairs(each, "ocel:vmap") if (text := text_of(v)) is not None},
                [(text_of(i) or "", None) for i in _list(each, "ocel:omap")],
            )
            for id_, each in events.items()
        ],
        {
            id_: Object(
                text_of(each.get("ocel:type")) or "",
                [
                    (k, None, text)
                    for k, v in _pairs(each, "ocel:ovmap")
                    if (text := text_of(v)) is not None
                ],
            )
            for id_, each in objects.items()
        },
    )


def _pairs(found: Mapping[str, Any], name: str) -> list[tuple[str, Any]]:
    pairs = found.get(name) or {}
    if not isinstance(pairs, dict):
        reason = f"{name} is no object"
        raise InvalidOcel(reason)
    return list(pairs.items())


def _list(found: Mapping[str, Any], name: str) -> list[Any]:
    values = found.get(name) or []
    if not isinstance(values, list):
        reason = f"{name} is no list"
        raise InvalidOcel(reason)
    return values
