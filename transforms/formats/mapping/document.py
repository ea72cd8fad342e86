"""Reads and checks a mapping file: YAML or JSON, as text, with every problem said at once.

A document is plain data: scalars are text as they stand (so `no` and `007` are no booleans and
numbers), and tags, anchors and aliases, which could name types or make a small file large, are
refused. Whatever is wrong is said with the file, the key and the fix.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, NoReturn

import orjson

from transforms import time_formats
from transforms.formats.columns import KNOWN, TIMES
from transforms.formats.items import ALIASES, TYPES, known_type
from transforms.formats.json_strict import given_twice
from transforms.formats.mapping.rules import Condition, EventMapping, Rule, path_problem
from transforms.formats.times import zone_error

MAX_BYTES = 256 * 1024
"""A larger mapping file is refused."""

TOP = ("columns", "items", "skip_when", "recognise", "time_format", "timezone", "description")
RULE = ("path", "constant", "values", "default")
COLUMN = (*RULE, "format")
ITEM = (*RULE, "type")
CONDITION = ("path", "equals", "missing")

COLUMNS = tuple(KNOWN)

_BOOLEANS = {"true": True, "yes": True, "false": False, "no": False}


class MappingError(ValueError):
    """A mapping cannot be used.

    Attributes:
        problems: a sentence for each thing that is wrong, with file, key and fix.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


def read_mapping(text: bytes, name: str) -> EventMapping:
    """Read a mapping.

    Args:
        text: YAML or JSON, in UTF-8.
        name: of the file, for messages.

    Raises:
        MappingError: it is none, or some of it is wrong.
    """
    return _Reader(name).mapping(_load(text, name))


def _load(text: bytes, name: str) -> Any:
    """Return a document as dictionaries, lists and texts.

    Raises:
        MappingError: it is not one.
    """

    def refuse(reason: str) -> NoReturn:
        raise MappingError([f"{name}: {reason}"])

    if len(text) > MAX_BYTES:
        refuse(f"has {len(text):,} bytes; a mapping has at most {MAX_BYTES:,}")
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        refuse(f"is not UTF-8 text: {error}")
    if not decoded.strip():
        refuse("is empty; it needs columns: with case_id, event_time and activity")
    try:
        if decoded.lstrip().startswith("{"):
            return _load_json(decoded)
        return _load_yaml(decoded)
    except RecursionError:
        refuse("is nested too deeply")
    except _NotPlain as error:
        refuse(str(error))


class _NotPlain(ValueError):
    """A document is broken, or more than plain data."""


def _load_json(text: str) -> Any:
    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(found)
        if len(made) < len(found):
            reason = f"has the key '{given_twice(found)}' twice in one object; give it once"
            raise _NotPlain(reason)
        return made

    try:
        loaded = json.loads(
            text, object_pairs_hook=pairs, parse_int=str, parse_float=str, parse_constant=str
        )
    except json.JSONDecodeError as error:
        reason = f"line {error.lineno}, column {error.colno}: {error.msg}; it is not JSON"
        raise _NotPlain(reason) from None
    return _plain_json(loaded)


def _plain_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain_json(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_plain_json(each) for each in value]
    return {True: "true", False: "false", None: ""}[value] if not isinstance(value, str) else value


def _load_yaml(text: str) -> Any:
    import yaml  # noqa: PLC0415 (only where there is a mapping)

    try:
        for event in yaml.parse(text, Loader=yaml.BaseLoader):
            if isinstance(event, yaml.events.AliasEvent) or getattr(event, "anchor", None):
                where = event.start_mark.line + 1
                reason = (
                    f"line {where}: anchors and aliases (& and *) are not used here; write it out"
                )
                raise _NotPlain(reason)
            tag = getattr(event, "tag", None)
            # "!" alone says that a scalar is text, which all are.
            if tag is not None and tag not in ("!", "tag:yaml.org,2002:str"):
                where = event.start_mark.line + 1
                reason = (
                    f"line {where}: the tag {tag} is refused; a mapping is plain text, without tags"
                )
                raise _NotPlain(reason)
        node = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        what = getattr(error, "problem", None) or str(error)
        reason = f"{where}{what}; it is not YAML"
        raise _NotPlain(" ".join(reason.split())) from None
    return "" if node is None else _plain_yaml(node, yaml)


def _plain_yaml(node: Any, yaml: Any) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return "" if node.style is None and node.value in ("~", "null") else node.value
    if isinstance(node, yaml.SequenceNode):
        return [_plain_yaml(each, yaml) for each in node.value]
    made: dict[str, Any] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            reason = f"line {line}: a key is a word, not a list or an object"
            raise _NotPlain(reason)
        if key.value in made:
            reason = f"line {line}: has the key '{key.value}' twice; give it once"
            raise _NotPlain(reason)
        made[key.value] = _plain_yaml(value, yaml)
    return made


class _Reader:
    """Turns a document into a mapping, and collects what is wrong."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._problems: list[str] = []

    def _wrong(self, key: str, reason: str) -> None:
        self._problems.append(f"{self._name}: {key} {reason}")

    def mapping(self, document: Any) -> EventMapping:
        """Return the mapping of a document.

        Raises:
            MappingError: something is wrong.
        """
        if not isinstance(document, dict):
            reason = "is not a mapping: it begins with columns:, and the event columns below"
            raise MappingError([f"{self._name}: {reason}"])
        self._unknown("", document, TOP)
        columns = self._rules("columns", document.get("columns", {}), self._column)
        for column in columns:
            if column not in COLUMNS:
                self._wrong(
                    f"columns.{column}",
                    "is not an event column" + _near(column, COLUMNS, "they are"),
                )
        items = self._rules("items", document.get("items", {}), self._item)
        if not columns and not items and not self._problems:
            self._wrong("columns", "is missing; it says where case_id, event_time and activity are")
        mapping = EventMapping(
            columns=columns,
            items=items,
            skip=self._skip(document.get("skip_when", [])),
            recognise=self._boolean("recognise", document.get("recognise", "true")),
            time_format=self._time_format("time_format", document.get("time_format")),
            timezone=self._timezone(document.get("timezone")),
        )
        if "description" in document:
            self._text("description", document["description"])
        if not mapping.recognise:
            for column in ("case_id", "event_time", "activity"):
                if column not in columns:
                    self._wrong(
                        f"columns.{column}", "is missing, and recognise: false leaves it unfound"
                    )
        if self._problems:
            raise MappingError(self._problems)
        return replace(mapping, text=orjson.dumps(document).decode())

    def _rules(self, key: str, found: Any, read: Callable[[str, Any], Rule]) -> dict[str, Rule]:
        if not isinstance(found, dict):
            self._wrong(key, f"is {_kind(found)}; it is an object: a line a name, NAME: PATH")
            return {}
        return {name: read(f"{key}.{name}", each) for name, each in found.items()}

    def _column(self, key: str, found: Any) -> Rule:
        rule, given = self._rule(key, found, COLUMN)
        time_format = given.get("format")
        if time_format is not None and key.split(".", 1)[1] not in TIMES:
            self._wrong(f"{key}.format", f"is for times alone: {', '.join(TIMES)}; leave it out")
            return rule
        return Rule(
            rule.path,
            rule.constant,
            rule.values,
            rule.default,
            self._time_format(f"{key}.format", time_format),
        )

    def _item(self, key: str, found: Any) -> Rule:
        rule, given = self._rule(key, found, ITEM)
        text = given.get("type", "string")
        type_ = known_type(text) if isinstance(text, str) else None
        if type_ is None:
            shown = text if isinstance(text, str) else _kind(text)
            self._wrong(
                f"{key}.type", f"'{shown}' is no type" + _near(str(shown), [*TYPES, *ALIASES])
            )
        return Rule(rule.path, rule.constant, rule.values, rule.default, None, type_ or "string")

    def _rule(self, key: str, found: Any, known: tuple[str, ...]) -> tuple[Rule, dict[str, Any]]:
        """Read a rule: a path, or an object with a path or a constant."""
        if isinstance(found, str):
            return Rule(path=self._path(key, found)), {}
        if not isinstance(found, dict):
            self._wrong(key, f"is {_kind(found)}; give a path, or an object with path or constant")
            return Rule(), {}
        self._unknown(key, found, known)
        path, constant = found.get("path"), found.get("constant")
        if (path is None) == (constant is None):
            both = "both path and constant" if path is not None else "neither path nor constant"
            self._wrong(key, f"has {both}; give one of them")
            return Rule(), found
        values = found.get("values", {})
        if not isinstance(values, dict):
            self._wrong(f"{key}.values", f"is {_kind(values)}; it is an object: VALUE: NEW")
            values = {}
        values = {old: self._text(f"{key}.values.{old}", new) for old, new in values.items()}
        default = found.get("default")
        if default is not None:
            default = self._text(f"{key}.default", default)
        if constant is None:
            return Rule(self._path(f"{key}.path", path), "", values, default), found
        for other in ("values", "default"):
            if other in found:
                self._wrong(f"{key}.{other}", "is for a path; with a constant leave it out")
        return Rule(constant=self._text(f"{key}.constant", constant)), found

    def _skip(self, found: Any) -> tuple[Condition, ...]:
        if isinstance(found, dict):
            found = [found]
        if not isinstance(found, list):
            self._wrong("skip_when", f"is {_kind(found)}; it is a list of conditions")
            return ()
        return tuple(self._condition(f"skip_when[{i}]", each) for i, each in enumerate(found))

    def _condition(self, key: str, found: Any) -> Condition:
        if not isinstance(found, dict):
            self._wrong(key, f"is {_kind(found)}; give an object with path, and equals or missing")
            return Condition("")
        self._unknown(key, found, CONDITION)
        if "path" not in found:
            self._wrong(f"{key}.path", "is missing; it says which value is looked at")
        path = self._path(f"{key}.path", found["path"]) if "path" in found else ""
        if ("equals" in found) == ("missing" in found):
            both = "both equals and missing" if "equals" in found else "neither equals nor missing"
            self._wrong(key, f"has {both}; give one of them")
            return Condition(path)
        if "missing" in found:
            missing = self._boolean(f"{key}.missing", found["missing"])
            if not missing:
                self._wrong(f"{key}.missing", "is false, which skips nothing; leave it out")
            return Condition(path, missing=True)
        equals = found["equals"]
        equals = equals if isinstance(equals, list) else [equals]
        return Condition(path, tuple(self._text(f"{key}.equals", each) for each in equals))

    def _unknown(self, key: str, found: dict[str, Any], known: tuple[str, ...]) -> None:
        for name in found:
            if name not in known:
                where = f"{key}.{name}" if key else name
                self._wrong(where, "is not known" + _near(name, known))

    def _path(self, key: str, found: Any) -> str:
        if not isinstance(found, str):
            self._wrong(key, f"is {_kind(found)}; give a path as text, such as order.id")
            return ""
        problem = path_problem(found)
        if problem is not None:
            self._wrong(key, f"'{found}' {problem}" if found.strip() else problem)
        return found

    def _text(self, key: str, found: Any) -> str:
        if not isinstance(found, str):
            self._wrong(key, f"is {_kind(found)}; give a text")
            return ""
        if not found:
            self._wrong(key, "is empty; give a text")
        return found

    def _boolean(self, key: str, found: Any) -> bool:
        value = _BOOLEANS.get(found.lower()) if isinstance(found, str) else None
        if value is None:
            shown = f"'{found}'" if isinstance(found, str) else _kind(found)
            self._wrong(key, f"is {shown}; give true or false")
        return bool(value)

    def _time_format(self, key: str, found: Any) -> str | None:
        if found is None:
            return None
        if not isinstance(found, str):
            self._wrong(key, f"is {_kind(found)}; give a strptime format, or s, ms, us, ns")
            return None
        problem = time_formats.problem(found)
        if problem is not None:
            self._wrong(key, f"'{found}' {problem}")
        return found

    def _timezone(self, found: Any) -> str | None:
        if found is None:
            return None
        if not isinstance(found, str):
            self._wrong("timezone", f"is {_kind(found)}; give a name such as Europe/Berlin")
            return None
        problem = zone_error(found)
        if problem is not None:
            self._wrong("timezone", f"is an {problem}")
        return found


def _near(word: str, known: Iterable[str], they_are: str = "use one of") -> str:
    words = list(known)
    near = difflib.get_close_matches(word, words, 1, 0.6)
    return f"; did you mean '{near[0]}'?" if near else f"; {they_are} {', '.join(words)}"


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    return "empty" if not value else f"the text '{value}'"
