"""The example models: sound BPMN in the engine's dialect, and what the simulator runs."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from examples.simulator import PROCESSES

FOLDER = Path(__file__).parents[2] / "examples" / "processes"
MODEL = "{http://www.omg.org/spec/BPMN/20100524/MODEL}"
DI = "{http://www.omg.org/spec/BPMN/20100524/DI}"
WAYPOINT = "{http://www.omg.org/spec/DD/20100524/DI}waypoint"
BOUNDS = "{http://www.omg.org/spec/DD/20100524/DC}Bounds"
IMIXS = "{http://www.imixs.org/bpmn2}"
NODES = ("startEvent", "endEvent", "task", "intermediateCatchEvent")
GATEWAYS = ("exclusiveGateway", "eventBasedGateway")


@pytest.fixture(params=[process.version for process in PROCESSES])
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def root(version: str) -> ET.Element:
    return ET.parse(FOLDER / f"{version}.bpmn").getroot()


def nodes(root: ET.Element, *kinds: str) -> dict[str, ET.Element]:
    found = {}
    for kind in kinds:
        for node in root.iter(MODEL + kind):
            found[node.attrib["id"]] = node
    return found


def flows(root: ET.Element) -> list[tuple[str, str, str]]:
    return [
        (flow.attrib["id"], flow.attrib["sourceRef"], flow.attrib["targetRef"])
        for flow in root.iter(MODEL + "sequenceFlow")
    ]


def item(node: ET.Element, name: str) -> str | None:
    value = node.find(f".//{IMIXS}item[@name='{name}']/{IMIXS}value")
    return None if value is None else value.text


def test_there_is_a_model_of_every_process() -> None:
    files = {path.stem for path in FOLDER.glob("*.bpmn")}
    assert files == {process.version for process in PROCESSES}


def test_ids_are_unique_and_refer_to_something(root: ET.Element) -> None:
    ids = [node.attrib["id"] for node in root.iter() if "id" in node.attrib]
    assert len(ids) == len(set(ids))
    elements = nodes(root, *NODES, *GATEWAYS)
    incoming: dict[str, set[str]] = {id_: set() for id_ in elements}
    outgoing: dict[str, set[str]] = {id_: set() for id_ in elements}
    for flow, source, target in flows(root):
        outgoing[source].add(flow)
        incoming[target].add(flow)
    for id_, node in elements.items():
        assert {each.text for each in node.findall(f"{MODEL}incoming")} == incoming[id_]
        assert {each.text for each in node.findall(f"{MODEL}outgoing")} == outgoing[id_]
        assert bool(incoming[id_]) == (not node.tag.endswith("startEvent")), id_
        assert bool(outgoing[id_]) == (not node.tag.endswith("endEvent")), id_


def test_everything_is_drawn_once(root: ET.Element) -> None:
    process = root.find(f"{MODEL}process")
    plane = root.find(f".//{DI}BPMNPlane")
    assert process is not None
    assert plane is not None
    assert plane.attrib["bpmnElement"] == process.attrib["id"]
    shapes = {each.attrib["bpmnElement"]: each for each in plane.iter(f"{DI}BPMNShape")}
    edges = {each.attrib["bpmnElement"]: each for each in plane.iter(f"{DI}BPMNEdge")}
    assert shapes.keys() == nodes(root, *NODES, *GATEWAYS).keys()
    assert edges.keys() == {flow for flow, _, _ in flows(root)}
    boxes: list[tuple[float, float, float, float]] = []
    for shape in shapes.values():
        bounds = shape.find(BOUNDS)
        assert bounds is not None
        x, y, width, height = (float(bounds.attrib[name]) for name in ("x", "y", "width", "height"))
        for left, top, right, bottom in boxes:
            apart = x >= right or x + width <= left or y >= bottom or y + height <= top
            assert apart, shape.attrib
        boxes.append((x, y, x + width, y + height))
    ids = {shape.attrib["id"] for shape in shapes.values()}
    for edge in edges.values():
        assert {edge.attrib["sourceElement"], edge.attrib["targetElement"]} <= ids
        assert len(edge.findall(WAYPOINT)) >= 2


def test_model_says_what_the_simulator_does(root: ET.Element, version: str) -> None:
    process = next(each for each in PROCESSES if each.version == version)
    assert item(root, "txtworkflowmodelversion") == version
    drawn = root.find(f"{MODEL}process")
    assert drawn is not None
    assert drawn.attrib["name"] == process.group
    elements = nodes(root, *NODES, *GATEWAYS)
    after: dict[str, list[str]] = {}
    for _, source, target in flows(root):
        after.setdefault(source, []).append(target)
    drawn_tasks, drawn_events = nodes(root, "task"), nodes(root, "intermediateCatchEvent")
    tasks = {id_: int(node.attrib[f"{IMIXS}processid"]) for id_, node in drawn_tasks.items()}
    events = {id_: int(node.attrib[f"{IMIXS}activityid"]) for id_, node in drawn_events.items()}

    def ways(id_: str, taken: tuple[str, ...]) -> list[tuple[tuple[str, ...], str]]:
        if taken and id_ in tasks:
            return [(taken, id_)]
        if elements[id_].tag == MODEL + "endEvent":
            return []
        passed = (*taken, id_) if id_ in events else taken
        return [way for following in after[id_] for way in ways(following, passed)]

    start = next(iter(nodes(root, "startEvent")))
    assert [tasks[id_] for id_ in after[start]] == [process.start]
    assert {
        (number, elements[id_].attrib["name"], item(elements[id_], "txttype") == "workitemarchive")
        for id_, number in tasks.items()
    } == {(task.id, task.status, task.end) for task in process.tasks.values()}
    found = set()
    for id_, number in tasks.items():
        ends = {elements[each].tag == MODEL + "endEvent" for each in after[id_]}
        assert ends == {process.tasks[number].end}
        for taken, target in ways(id_, ()):
            delay = item(elements[taken[0]], "numactivitydelay")
            days = None if delay is None else float(delay)
            assert days is None or item(elements[taken[0]], "keyactivitydelayunit") == "3"
            found.add((number, tuple(events[each] for each in taken), tasks[target], days))
    assert found == {
        (task, move.events, move.target, move.timer_days)
        for task, moves in process.moves.items()
        for move in moves
    }
    conditions = [each.text or "" for each in root.iter(MODEL + "conditionExpression")]
    if process.small_amount:
        assert sorted(text.split(") ")[1] for text in conditions) == [
            f"< {process.small_amount:.0f}",
            f">= {process.small_amount:.0f}",
        ]
    else:
        assert not conditions
