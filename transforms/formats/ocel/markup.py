"""OCEL 2.0 as XML, element by element; document types, and so entities, are refused."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn
from xml.parsers import expat

from transforms.formats.ocel.parts import Event, InvalidOcel, Object, Part


class MarkupReader:
    """Reads a log: `feed` its bytes (UTF-8), then `finish`; the part holds what was complete.

    Attributes:
        part: the log.
        whole_objects: the element of the objects has ended, so that relations can be resolved.
    """

    def __init__(self) -> None:
        self.part = Part([], {})
        self.whole_objects = False
        self._objects: dict[str, Object] = {}
        self.part.objects = self._objects
        self._path: list[str] = []
        self._event: Event | None = None
        self._object: Object | None = None
        self._attribute: tuple[str, str | None] | None = None
        self._text: list[str] = []
        self._parser = parser = expat.ParserCreate("utf-8")
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        parser.StartDoctypeDeclHandler = self._doctype

    def read(self, parts: Iterable[bytes]) -> None:
        """Read all of a log.

        Raises:
            InvalidOcel: it is broken, or has a document type.
        """
        try:
            for data in parts:
                self._parser.Parse(data)
            self._parser.Parse(b"", True)
        except expat.ExpatError as error:
            raise InvalidOcel(str(error), "InvalidXml") from None

    def _doctype(self, *_: object) -> NoReturn:
        reason = "XML with a document type or entities is refused"
        raise InvalidOcel(reason, "ForbiddenDtd")

    def _start(self, tag: str, given: dict[str, str]) -> None:
        name = tag.rpartition(":")[2]
        path = self._path
        path.append(name)
        depth = len(path)
        if depth == 1 and name != "log":
            reason = f"its root is {name}, not log"
            raise InvalidOcel(reason)
        if depth == 3 and path[1] == "events" and name == "event":
            self._event = Event(given.get("id"), given.get("type"), given.get("time"))
        elif depth == 3 and path[1] == "objects" and name == "object":
            if "id" not in given or "type" not in given:
                reason = f"an object without id or type: {str(given)[:100]}"
                raise InvalidOcel(reason)
            self._object = Object(given["type"])
            self._objects[given["id"]] = self._object
        elif depth == 5 and name == "attribute" and path[3] == "attributes":
            self._attribute = given.get("name", ""), given.get("time")
            self._text.clear()
        elif name in ("relationship", "object") and depth == 5 and self._event is not None:
            # The standard's own files have both names.
            id_ = given.get("object-id") or given.get("id") or ""
            self._event.relations.append((id_, given.get("qualifier") or given.get("relationship")))

    def _end(self, tag: str) -> None:
        path = self._path
        if self._attribute is not None and path[-1] == "attribute":
            name, time = self._attribute
            text = "".join(self._text)
            if self._event is not None:
                self._event.attributes[name] = text
            elif self._object is not None:
                self._object.attributes.append((name, time, text))
            self._attribute = None
        if len(path) == 3:
            if self._event is not None:
                self.part.events.append(self._event)
            self._event = self._object = None
        elif path[1:] == ["objects"]:
            self.whole_objects = True
        path.pop()

    def _characters(self, text: str) -> None:
        if self._attribute is not None:
            self._text.append(text)
