"""Decoding a broker's messages: formats by topic, columns fixed once, events from the future."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import orjson
import pytest
from apache_beam.utils.timestamp import Timestamp

from schemas.coders import unpack
from schemas.dead_letters import MAX_PAYLOAD
from tests.formats.imixs_builder import json_mapped, snapshot, to_json, xml_document
from transforms.decode import DEAD
from transforms.decode_messages import (
    MAX_EVENT,
    DecodeMessages,
    _DecodeBatch,
)
from transforms.formats.base import Context, Message
from transforms.sources.messages import pack_messages
from transforms.spread import keys_of_shards
from transforms.topics import TopicPlan, plan_topic

DAY = 86_400_000_000
NOW = 1_700_000_000_000_000


def event(time: int = NOW, **more: Any) -> bytes:
    return orjson.dumps(
        {"case_id": "c", "activity": "go", "event_time": time // 1000, **more},
    )


def decode(
    messages: list[tuple[str, bytes]], plans: dict[str, TopicPlan] | None = None, **settings: Any
) -> tuple[list[int], list[dict[str, Any]], dict[str, int]]:
    """Decode one batch: shards that got something, dead letters, counts."""
    counts: dict[str, int] = {}
    step = DecodeMessages(
        Context(),
        settings.pop("format", "auto"),
        "case_id",
        4,
        0,
        86_400_000,
        plans or {},
        **settings,
    )
    names = sorted({source for source, _ in messages})
    packed = pack_messages(
        [payload for _, payload in messages],
        (names, np.array([names.index(source) for source, _ in messages], np.int32)),
        np.arange(len(messages)),
        np.full(len(messages), NOW),
        said=(0, 1, 5000),
    )
    shards, dead = [], []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("transforms.decode_messages.tally", lambda _, found: counts.update(found))
        for each in _DecodeBatch(step).process(packed, Timestamp(5)):
            tag = getattr(each, "tag", None)
            value = each.value if tag is None else each.value.value
            if tag == DEAD:
                dead += unpack(value[3]).to_pylist()  # type: ignore[union-attr]
            else:
                shards.append(value[0])
    return shards, dead, counts


def test_an_event_from_the_future_is_a_dead_letter_and_the_law_holds() -> None:
    messages = [("t/0", event()), ("t/0", event(NOW + DAY)), ("t/0", event(NOW + DAY + 1_000_000))]
    shards, dead, counts = decode(messages)
    assert len(shards) == 1
    [letter] = dead
    assert (letter["error"], letter["source"]) == ("FutureEvent", "t/0/2")
    assert letter["payload"] == messages[2][1]
    assert "2023-11-15T22:13:21" in letter["message"]
    assert counts == {
        "messages": 3,
        "decoded": 3,
        "events": 3,
        "rejected": 1,
        "reason:FutureEvent": 1,
    }


def test_a_letter_of_a_document_from_the_future_holds_no_file() -> None:
    secret = base64.b64encode(b"secret" * 100)
    file = b'<item name="$file"><value>' + secret + b"</value></item></document>"
    future = snapshot(_lasteventdate="2024-11-14T22:13:20", _taskid="1")
    for name, document in (
        ("imixs_xml", xml_document(future).replace(b"</document>", file)),
        ("imixs_json", to_json(json_mapped({**future, "$file": secret.decode()}))),
    ):
        plans = {"t": TopicPlan(name, Context(timezone="Europe/Berlin"))}
        _, dead, counts = decode([("t/0", document)], plans)
        assert (counts["rejected"], counts["decoded"]) == (1, 1)
        (letter,) = dead
        assert (letter["error"], letter["source"]) == ("FutureEvent", "t/0/0")
        assert b"case-1" in letter["payload"]
        assert b"$file" in letter["payload"]
        assert secret[:20] not in letter["payload"]
        assert letter["payload_size"] == len(letter["payload"])
        attributes = dict(letter["attributes"])
        assert attributes == {"format": name, "timezone": "Europe/Berlin"}


def test_a_letter_that_is_still_from_the_future_is_that_letter() -> None:
    payload = event(NOW + 2 * DAY)
    _, (first,), _ = decode([("t/0", payload)])
    row = {
        **first,
        "payload": base64.b64encode(payload).decode(),
        "attributes": dict(first["attributes"]),
        "time": first["time"].isoformat(),
    }
    _, (second,), counts = decode([("dead/1", orjson.dumps(row))], format="dead_letters")
    assert second == first
    assert counts["rejected"] == 1


@pytest.mark.parametrize("where", ["case_id", "an item"])
def test_an_event_that_no_topic_would_take_is_a_dead_letter(where: str) -> None:
    large = event(NOW, **{where: "x" * (MAX_EVENT // 3)})
    larger = event(NOW, **{where: "x" * (MAX_EVENT + 1)})
    plans = {"t": TopicPlan("json_lines", Context(items=("an item",)))}
    shards, dead, counts = decode([("t/0", event()), ("t/0", large), ("t/0", larger)], plans)
    assert len(shards) >= 1
    (letter,) = dead
    assert (letter["error"], letter["source"]) == ("TooLarge", "t/0/2")
    assert (letter["payload_size"], len(letter["payload"])) == (len(larger), MAX_PAYLOAD)
    assert (counts["rejected"], counts["events"]) == (1, 3)


@pytest.mark.parametrize("where", ["activity", "actor"])
def test_a_long_name_is_cut_and_its_event_taken(where: str) -> None:
    larger = event(NOW, **{where: "x" * (MAX_EVENT + 1)})
    plans = {"t": TopicPlan("json_lines", Context())}
    _, dead, counts = decode([("t/0", event()), ("t/0", larger)], plans)
    assert (dead, counts["events"]) == ([], 2)
    assert "rejected" not in counts


def test_each_topic_has_its_own_format() -> None:
    document = (
        b'<document xmlns:xsi="x"><item name="$uniqueid"><value>u</value></item>'
        b'<item name="type"><value>workitem</value></item></document>'
    )
    messages = [("a/0", event()), ("b/0", document), ("a/1", event()), ("c/0", b"hello")]
    _, dead, counts = decode(messages)
    assert counts["messages"] == 4
    assert [(d["error"], d["source"]) for d in dead if d["source"] == "c/0/3"] == [
        ("UnknownFormat", "c/0/3")
    ]
    assert counts["decoded"] + counts["dead"] == 4


def test_a_plan_fixes_what_an_id_is() -> None:
    def with_ids(*ids: str) -> list[Message]:
        return [
            Message(event(NOW + i * 1_000_000, event_id=each), "t/0", i, {}, NOW)
            for i, each in enumerate(ids)
        ]

    plan, warnings = plan_topic(with_ids("a1", "a2"), "auto", Context())
    assert plan is not None and not warnings
    assert (plan.format, plan.context.columns["event_id"]) == ("json_lines", "event_id")
    # The same name for a kind of event: it would make all but the first duplicates.
    plan, _ = plan_topic(with_ids("10", "10"), "auto", Context())
    assert plan is not None and plan.context.columns["event_id"] == ""
    given = Context(columns={"event_id": "event_id"})
    plan, _ = plan_topic(with_ids("10", "10"), "auto", given)
    assert plan is not None and plan.context.columns["event_id"] == "event_id"
    assert plan_topic([], "auto", Context()) == (None, ())
    assert plan_topic([Message(b"?", "t/0", 0)], "auto", Context()) == (None, ())


def test_what_a_topic_lacks_is_said() -> None:
    plan, warnings = plan_topic([Message(b'{"id": 1}', "t/0", 0)], "json_lines", Context())
    assert plan is not None
    assert "--columns case_id=" in warnings[0]


def test_every_shard_hears_that_a_granule_is_over() -> None:
    shards, _, _ = decode([("t/0", event())], granule_ms=1000)
    assert sorted(shards) == sorted(keys_of_shards(4))
    assert len(decode([("t/0", event())])[0]) == 1


def test_an_empty_batch_only_tells_the_time() -> None:
    shards, dead, counts = decode([], granule_ms=1000)
    assert sorted(shards) == sorted(keys_of_shards(4))
    assert not dead and not counts


def test_deleted_records_are_skipped() -> None:
    _, dead, counts = decode([("t/0", b""), ("t/0", event())])
    assert not dead
    assert (counts["skipped"], counts["decoded"]) == (1, 1)
