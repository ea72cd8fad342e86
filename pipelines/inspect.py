"""Looks at an input before anything is run: what its first messages are, and what becomes of them.

    python run.py inspect --input orders.jsonl --mapping orders.yaml
    python run.py inspect --input kafka://localhost:9092/orders --messages 20 --json

Nothing is consumed and nothing written: files are read, topics are read without a group's offsets.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson
import pyarrow as pa

from pipelines import brokers
from pipelines.exit_codes import ExitCode, RunError
from pipelines.inspect_files import look_at_files
from pipelines.inspect_seen import (
    WITHHELD,
    Kind,
    Look,
    Seen,
    deal,
    reasons_of,
    rows_of,
    shown,
    status_of,
)
from pipelines.origins import Origin, filled, is_silent, origins_of
from pipelines.settings import Settings
from transforms.decode_messages import refuse
from transforms.formats import registry
from transforms.formats.base import Decoded, Failure, Message, MessageBatch
from transforms.formats.line_blocks import join_decoded, join_events
from transforms.mask import Masking, masking
from transforms.topics import Share, TopicPlan, decode_topic, plan_topic


def look(settings: Settings, most: int) -> list[Look]:
    """Look at the input of a run.

    Args:
        settings: of the run, with its input.
        most: messages of each topic, and of all files together; more if there are more formats.

    Raises:
        RunError: there is no such input, or a broker does not answer.
    """
    hidden = masking(settings.mask, settings.items, settings.mask_key) if settings.mask else None
    if not settings.sources:
        return look_at_files(settings, most, hidden)
    found: list[Look] = []
    for address in settings.sources:
        topics = brokers.topics_of(address)
        # Of more messages than are shown: columns are recognised from what a run would see.
        for topic, messages in brokers.sample(address, topics).items():
            found.append(look_at_topic(topic, messages, settings, most, hidden))
        if not topics:
            raise RunError(ExitCode.NO_INPUT, f"no topic matches {address} yet")
    return found


def look_at_topic(
    topic: str,
    messages: Sequence[Message],
    settings: Settings,
    most: int,
    hidden: Masking | None = None,
) -> Look:
    """Look at the first messages of a topic.

    Args:
        topic: its name.
        messages: its first ones, more than are shown.
        settings: of the run.
        most: how many are shown, dealt out among the formats; more if there are more of these.
        hidden: what is masked.
    """
    plan, warnings = plan_topic(messages, settings.format, settings.context())
    found = Look(topic, settings.format != "auto", warnings=list(warnings))
    if not messages:
        return found
    shares = decode_topic(batch_of(messages), plan, settings.format, settings.context())
    for share in shares:
        decoded, early = _judged(share, settings)
        found.count(decoded, len(early))
    found.kinds = _kinds(shares, plan, settings)
    formats = _formats(shares, found.format)
    rows: dict[str, list[int]] = {}
    for row, message in enumerate(messages):
        rows.setdefault(formats[message.place], []).append(row)
    dealt = deal({name: len(own) for name, own in rows.items()}, most, list(rows))
    for row in sorted(row for name, own in rows.items() for row in own[: dealt[name]]):
        message = messages[row]
        decoded, early = _decode(message, plan, settings)
        found.messages.append(_seen(message, decoded, early, formats[message.place], hidden))
    return found


def _formats(shares: Sequence[Share], main: str) -> dict[str, str]:
    """Return the format of each message, by its place; blank ones are of the main one."""
    found: dict[str, str] = {}
    for share in shares:
        name = share.plan.format if share.plan is not None else ""
        if not name and not share.decoded.failures:
            name = main
        found.update((message.place, name) for message in share.messages)
    return found


def _kinds(shares: Sequence[Share], plan: TopicPlan | None, settings: Settings) -> list[Kind]:
    """Return the formats of a topic's messages, that which it is taken for first."""
    planned = [] if plan is None else list(plan.contexts)
    by_name: dict[str, list[Share]] = {name: [] for name in planned}
    for share in shares:
        if share.plan is not None:
            by_name.setdefault(share.plan.format, []).append(share)
        elif share.decoded.failures:
            by_name.setdefault("", []).append(share)
    ordered = sorted(by_name.items(), key=lambda each: not each[0])  # what is unknown comes last
    return [_kind(name, own, settings) for name, own in ordered if own]


def _kind(name: str, shares: Sequence[Share], settings: Settings) -> Kind:
    messages = [message for share in shares for message in share.messages]
    found = Kind(name, len(messages))
    if name:
        form, context = registry.get(name), settings.context()
        if is_silent(form):
            events = join_events([share.decoded.events for share in shares])
            found.origins = filled(form, events, settings, context)
        else:
            payloads = [message.payload for message in messages]
            found.origins = origins_of(form, payloads, settings, context)
    return found


def _judged(share: Share, settings: Settings) -> tuple[Decoded, list[Failure]]:
    """Refuse events as a stream does."""
    if share.plan is None:
        return share.decoded, []
    return refuse(share, settings.max_future_ms)


def _decode(
    message: Message, plan: TopicPlan | None, settings: Settings
) -> tuple[Decoded, list[Failure]]:
    """Decode a message as the stream would, which looks at the format of each."""
    shares = decode_topic(batch_of([message]), plan, settings.format, settings.context())
    judged = [_judged(share, settings) for share in shares]
    return join_decoded([decoded for decoded, _ in judged]), [f for _, each in judged for f in each]


def batch_of(messages: Sequence[Message]) -> MessageBatch:
    """Return messages as a stream has them."""
    return MessageBatch(
        pa.array([m.payload for m in messages], pa.binary()),
        pa.array([m.source for m in messages], pa.string()).dictionary_encode(),
        pa.array([m.offset for m in messages], pa.int64()),
        pa.array([m.record_time for m in messages], pa.int64()),
        [m.attributes for m in messages] if any(m.attributes for m in messages) else (),
    )


def _seen(
    message: Message,
    decoded: Decoded,
    early: Sequence[Failure],
    format_: str,
    hidden: Masking | None,
) -> Seen:
    failures = [*decoded.failures, *early]
    status = status_of(decoded.events.num_rows, len(failures))
    if decoded.dead:
        status = "dead"
    elif not failures and not decoded.decoded:
        status = "skipped"
    return Seen(
        message.place,
        shown(message.payload) if hidden is None else WITHHELD,
        dict(message.attributes) if hidden is None else {},
        status,
        rows_of(decoded.events, hidden),
        reasons_of(failures, hidden),
        format_,
    )


def as_json(found: Sequence[Look]) -> bytes:
    """Return what was seen as JSON: an object with `inputs`, one each."""
    inputs = [
        {
            "input": each.name,
            "format": each.format or None,
            "detected": not each.chosen,
            "mapping": _mapping(each.origins),
            "formats": [
                {
                    "format": kind.format or None,
                    "messages": kind.messages,
                    "mapping": _mapping(kind.origins),
                }
                for kind in each.kinds
            ],
            "messages": [
                {
                    "place": m.place,
                    "format": m.format or None,
                    "payload": m.payload,
                    "attributes": m.attributes,
                    "status": m.status,
                    "events": m.events,
                    "dead_letters": [{"error": e, "message": t} for e, t in m.reasons],
                }
                for m in each.messages
            ],
            "counts": each.counts,
            "warnings": each.warnings,
        }
        for each in found
    ]
    option = orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z
    return orjson.dumps({"inputs": inputs}, option=option)


def _mapping(origins: Sequence[Origin]) -> list[Mapping[str, Any]]:
    return [{"column": o.column, "from": o.source or None, "how": o.how} for o in origins]
