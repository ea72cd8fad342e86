"""Events of Kogito and SonataFlow: the new deltas, and the old snapshots with `nodeInstances`.

They are CloudEvents. A node entered or left is an event whose activity is the node; a process
started, ended, or otherwise in another state is one whose activity is the process and whose state
is the engine's word for it (`ACTIVE`, `COMPLETED` ...). A snapshot (`ProcessInstanceEvent`) gives
these of all nodes in it, with ids of their own, so that nodes which later snapshots repeat are
duplicates. Changes of variables, deadlines, definitions, user tasks and jobs are skipped. Names:
`ProcessInstance{State,Node,Error}EventBody` and `KogitoProcessInstance` of Apache KIE.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import orjson
import pyarrow as pa

from transforms.formats.base import Context, Decoded, Failure
from transforms.formats.columns import build_events, replay_attributes, to_attributes
from transforms.formats.json_columns import read_value
from transforms.formats.messages.ce_modes import Mode, mode_of, structured
from transforms.formats.messages.files import first_object
from transforms.formats.messages.form import JsonForm
from transforms.formats.messages.texts import Part, Refused, Texts, put_together

SNAPSHOT, SEVERAL = "ProcessInstanceEvent", "MultipleProcessInstanceDataEvent"
NODE, STATE, ERROR = (f"ProcessInstance{kind}DataEvent" for kind in ("Node", "State", "Error"))
STATES = ("PENDING", "ACTIVE", "COMPLETED", "ABORTED", "SUSPENDED", "ERROR")
"""Names of a process instance's states, by their numbers."""

NODE_EVENTS = {1: "ENTER", 2: "EXIT", 3: "ABORTED", 4: "SKIPPED", 5: "OBSOLETE", 6: "ERROR"}
"""What happened to a node, by its `eventType`; 7 is an update, which is no step of the case."""

STATE_EVENTS = {1: "STARTED", 2: "ENDED"}

_COLUMNS = (
    "event_id",
    "case_id",
    "event_time",
    "activity",
    "state",
    "lifecycle",
    "actor",
    "workflow_group",
    "model_version",
)
_INSTANCE = ("kogitoprocinstanceid", "kogitoProcessinstanceId", "kogitoprocessinstanceid")

Event = dict[str, Any]


def is_type(name: str) -> bool:
    """Say whether a CloudEvent's type is one of Kogito's process, user task or job events."""
    return name == "JobEvent" or (
        name.startswith(("ProcessInstance", "MultipleProcessInstance", "ProcessDefinition"))
        or name.startswith(("UserTaskInstance", "MultipleUserTaskInstance"))
    ) and name.endswith("Event")  # fmt: skip


class Kogito(JsonForm):
    """The `kogito` format (see `transforms.formats.base.Format`)."""

    name = "kogito"
    title = "Kogito and SonataFlow process events"
    expansion = 0.6
    python_bound = True
    fixed = True
    origins: ClassVar[Mapping[str, str]] = {
        "event_id": "id; of a snapshot's steps <node>:ENTER ...",
        "case_id": "data.processInstanceId, else kogitoprocinstanceid",
        "event_time": "data.eventDate, else time",
        "activity": "data.nodeName, else data.nodeDefinitionId; of a state data.processName",
        "state": "data.state, by its name",
        "actor": "data.eventUser, else kogitoidentity",
        "workflow_group": "data.processId, else kogitoprocid",
        "model_version": "data.processVersion, else kogitoprocversion",
        "lifecycle": "data.eventType, by its name",
    }

    def detects(self, head: bytes, name: str) -> bool:
        """Say whether the first object is a CloudEvent of a type of Kogito."""
        found = first_object(head)
        return (
            found is not None
            and "specversion" in found
            and isinstance(found.get("type"), str)
            and is_type(found["type"])
        )

    def decode_texts(self, texts: Texts, context: Context) -> Decoded:
        """Make events of texts."""
        return _decode(texts, context)


FORMAT = Kogito()


def _decode(texts: Texts, context: Context) -> Decoded:
    """Make events of messages, each by itself: they are of many shapes."""
    # Kogito's fields have their names, and its times are ISO 8601.
    context = replace(context, columns={}, time_format=None)
    attributes = replay_attributes(FORMAT.name, context)
    dead: list[tuple[int, Failure]] = []
    events: list[Event] = []
    rows: list[int] = []
    places: list[int] = []
    skipped = extra = 0
    for row in range(len(texts)):
        text = texts.text(row)
        if not text.strip():
            skipped += 1
            continue
        try:
            found = list(_events(_parse(texts, row, text, context)))
        except Refused as problem:
            dead.append((row, texts.failure(row, problem.error, str(problem), attributes)))
            continue
        extra += max(len(found) - 1, 0)
        for each in found:
            skipped += not each
            events += each
            rows += [row] * len(each)
            places += range(len(each))
    part = _part(texts, events, rows, places, context, attributes)
    wrong = {row for row, _ in part.rejected}
    messages = len(texts) + extra - skipped - len(dead)
    # A message whose only event violates the schema is dead, like any other of one event.
    alone = {row for row in wrong if rows.count(row) == 1}
    return put_together(
        [
            replace(
                part,
                dead=[*dead, *(each for each in part.rejected if each[0] in alone)],
                rejected=[each for each in part.rejected if each[0] not in alone],
                decoded=messages - len(alone),
                skipped=skipped,
                extra=extra,
            )
        ],
        len(texts),
    )


def _parse(texts: Texts, row: int, text: bytes, context: Context) -> Any:
    if len(text) > context.max_message_bytes:
        error = "TooLarge"
        reason = f"a message of {len(text)} bytes; at most {context.max_message_bytes} are read"
        raise Refused(error, reason)
    try:
        headers = texts.headers
        if headers and mode_of(headers[row]) == Mode.BINARY:
            text = structured(texts.message(row))
        return read_value(text)[0]
    except UnicodeDecodeError as problem:
        error = "InvalidEncoding"
        raise Refused(error, f"not utf-8: {problem}") from None
    except (json.JSONDecodeError, orjson.JSONEncodeError, RecursionError) as problem:
        error = "InvalidJson"
        raise Refused(error, str(problem)) from None


def _events(message: Any) -> Iterator[list[Event]]:
    """Yield the events of each CloudEvent in a message; none of one that is no step of a case."""
    if not isinstance(message, dict):
        error = "InvalidJson"
        raise Refused(error, "not an object")
    kind, data = message.get("type"), message.get("data")
    if not isinstance(kind, str) or "specversion" not in message:
        error = "InvalidCloudEvent"
        raise Refused(error, f"it has no {'type' if 'specversion' in message else 'specversion'}")
    if kind == SEVERAL:
        if not isinstance(data, list):
            error = "UnsupportedGrouping"
            reason = "its data is no list of events: set kogito.events.grouping.binary=false"
            raise Refused(error, reason)
        for each in data:
            yield from _events(each)
        return
    if kind not in (NODE, STATE, ERROR, SNAPSHOT):
        yield []
        return
    if not isinstance(data, dict):
        error = "InvalidData"
        raise Refused(error, f"data of {kind} is no object")
    made = {NODE: _node, STATE: _state, ERROR: _error, SNAPSHOT: _snapshot}[kind](message, data)
    yield [each for each in made if each is not None]


def _common(message: Event, data: Event) -> Event:
    instances = (message.get(name) for name in _INSTANCE)
    return {
        "event_id": message.get("id"),
        "case_id": data.get("processInstanceId") or next(filter(None, instances), None),
        "event_time": data.get("eventDate") or message.get("time"),
        "actor": data.get("eventUser") or message.get("kogitoidentity"),
        "workflow_group": data.get("processId") or message.get("kogitoprocid"),
        "model_version": data.get("processVersion") or message.get("kogitoprocversion"),
        "data": data,
    }


def _type_of(data: Event) -> int:
    """Return the type of a change; 0 where there is none."""
    value = data.get("eventType") or 0
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if not isinstance(value, int):
        error = "InvalidData"
        raise Refused(error, f"eventType is {_text(value)}, and no number"[:200])
    return value


def _node(message: Event, data: Event) -> list[Event | None]:
    what = NODE_EVENTS.get(_type_of(data))
    if what is None:
        return []
    return [
        {**_common(message, data), "activity": _name_of(data), "state": None, "lifecycle": what}
    ]


def _state(message: Event, data: Event) -> list[Event | None]:
    common = _common(message, data)
    what = STATE_EVENTS.get(_type_of(data), "STATE")
    name = data.get("processName") or common["workflow_group"]
    return [{**common, "activity": name, "state": _state_of(data), "lifecycle": what}]


def _error(message: Event, data: Event) -> list[Event | None]:
    common = _common(message, data)
    node = data.get("nodeDefinitionId") or common["workflow_group"]
    return [{**common, "activity": node, "state": "ERROR", "lifecycle": "ERROR"}]


def _snapshot(message: Event, data: Event) -> list[Event | None]:
    """Make the events of a process instance and of the nodes in it, in their order."""
    case = data.get("id")
    common = {
        "case_id": case,
        "actor": data.get("identity"),
        "workflow_group": data.get("processId"),
        "model_version": data.get("version"),
    }
    name = data.get("processName") or data.get("processId")
    nodes = data.get("nodeInstances") or []
    if not isinstance(nodes, list) or not all(isinstance(each, dict) for each in nodes):
        error = "InvalidData"
        raise Refused(error, "nodeInstances is no list of objects")

    def step(id_: Any, what: str, time: str, **more: Any) -> Event | None:
        when = more.pop("at").get(time)
        if when is None:
            return None
        own = None if id_ is None else f"{id_}:{what}"
        return {**common, "event_id": own, "event_time": when, "lifecycle": what, **more}

    # The newest node comes first.
    nodes = sorted(reversed(nodes), key=lambda node: str(node.get("triggerTime") or ""))
    found = [step(case, "STARTED", "startDate", at=data, activity=name, state="ACTIVE")]
    for node in nodes:
        for what, time in (("ENTER", "triggerTime"), ("EXIT", "leaveTime")):
            activity = _name_of(node)
            found.append(step(node.get("id"), what, time, at=node, activity=activity, state=None))
    found.append(step(case, "ENDED", "endDate", at=data, activity=name, state=_state_of(data)))
    there = [each for each in found if each is not None]
    if not there:
        error = "MissingTime"
        raise Refused(error, "neither the process nor a node of it has a time")
    there[-1]["data"] = data
    return list(there)


def _name_of(node: Event) -> Any:
    return node.get("nodeName") or node.get("nodeDefinitionId")


def _state_of(data: Event) -> str | None:
    state = data.get("state")
    if isinstance(state, int) and 0 <= state < len(STATES):
        return STATES[state]
    return None if state is None else str(state)


def _part(
    texts: Texts,
    events: Sequence[Event],
    rows: list[int],
    places: list[int],
    context: Context,
    attributes: Mapping[str, str],
) -> Part:
    """Build the events; those that violate the schema are `rejected`."""
    at = np.array(rows, np.int64)
    columns = {
        name: pa.array([_text(each.get(name)) for each in events], pa.string()) for name in _COLUMNS
    }
    items = {
        item: pa.array([_item(each.get("data"), item) for each in events], pa.string())
        for item in context.items
    }
    fixed = texts.columns(at)
    # Steps of one message keep their order, where they are of one time.
    within = np.array(places, np.int64)
    several = np.bincount(at, minlength=len(texts))[at] > 1 if len(at) else within > 0
    offsets = pa.array(within, mask=~several) if texts.messages is not None else within
    base = fixed["position"]
    if pa.compute.count(base).as_py():
        fixed["position"] = pa.compute.add(base, pa.array(within))
    else:
        fixed["position"] = offsets
    table, refusals = build_events(
        columns,
        len(at),
        context,
        fixed,
        to_attributes(items, len(at)),
        texts.hashed(at),
        named=False,
    )
    rejected = [
        (rows[r.row], texts.failure(rows[r.row], r.error, r.message, attributes)) for r in refusals
    ]
    kept = np.delete(at, [r.row for r in refusals]) if refusals else at
    return Part(kept, table, rejected=rejected)


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return orjson.dumps(value).decode()


def _item(data: Any, name: str) -> str | None:
    """Return a business item: at a path of the data, or one of the process's variables."""
    for start in (data, data.get("variables") if isinstance(data, dict) else None):
        value: Any = start
        for key in name.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            return _text(value)
    return None
