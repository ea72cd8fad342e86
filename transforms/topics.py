"""What is known of topics, and how messages of several formats in one topic are decoded.

What a topic's first messages are is found out once, when a stream starts: their formats, and
the columns of formats that do not name them. With `--format auto` the format is still that of each
message: a batch is split by format, each share is decoded at once, and events and failures
are put back in the order of the messages. A format that was not among the first messages
has the columns that each message names itself (`json_names`), so nothing depends on what else
is in a batch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.events import NAME, empty_events
from transforms.arrays import conform, integers
from transforms.formats import registry
from transforms.formats.base import (
    Context,
    Decoded,
    Failure,
    Message,
    MessageBatch,
    Recognising,
)
from transforms.formats.heads import Heads, pick
from transforms.formats.line_blocks import Offsets, join_events
from transforms.formats.recognition import (
    BLANK,
    CLAIMING_HEADERS,
    claimed_by_headers,
    recognise,
    votes,
)

_XML = "imixs_xml"


@dataclass(frozen=True)
class TopicPlan:
    """How a topic's messages are decoded.

    Attributes:
        format: name of their format; of most of the first ones.
        context: settings, with the columns as they were recognised.
        others: other formats among the first messages, and their settings.
        each: the format is that of each message; not `format`, whatever a message holds.
    """

    format: str
    context: Context
    others: Mapping[str, Context] = field(default_factory=dict)
    each: bool = False

    @property
    def contexts(self) -> dict[str, Context]:
        """Format -> settings, that of most of the first messages in front."""
        return {self.format: self.context, **self.others}


@dataclass(frozen=True)
class Share:
    """Messages of one format in a batch, and what became of them.

    Attributes:
        plan: their format and settings; None where the format is not known.
        messages: the messages.
        decoded: what became of them.
    """

    plan: TopicPlan | None
    messages: Sequence[Message]
    decoded: Decoded


def plan_topic(
    messages: Sequence[Message], format_: str, context: Context
) -> tuple[TopicPlan | None, tuple[str, ...]]:
    """Find out how a topic's messages are decoded, by its first ones.

    Args:
        messages: some of them, at best its first ones.
        format_: name of the format, or `auto`.
        context: settings.

    Returns:
        The plan, None if nothing can be said yet; and warnings.
    """
    if not messages:
        return None, ()
    if format_ != "auto":
        found, warnings = _settings(format_, messages, context)
        return TopicPlan(format_, found), warnings
    rows = recognise(messages)
    names = votes(rows)
    if not names:
        return None, ()
    settings: dict[str, Context] = {}
    said: list[str] = []
    for name in names:
        of_format = [messages[row] for row in rows[name].tolist()]
        settings[name], warnings = _settings(name, of_format, context)
        said += warnings
    main, *others = names
    plan = TopicPlan(main, settings[main], {n: settings[n] for n in others}, each=True)
    return plan, tuple(dict.fromkeys(said))


def _settings(
    name: str, messages: Sequence[Message], context: Context
) -> tuple[Context, tuple[str, ...]]:
    """Fix the columns of a format that does not name them."""
    format_ = registry.get(name)
    if isinstance(format_, Recognising):
        return format_.recognise([message.payload for message in messages], context)
    return context, ()


def decode_topic(
    messages: MessageBatch, plan: TopicPlan | None, format_: str, context: Context
) -> list[Share]:
    """Decode messages of one topic.

    Args:
        messages: a batch.
        plan: what is known of the topic; None if nothing was when the stream started.
        format_: name of the format, or `auto`.
        context: settings as given.
    """
    unseen = replace(context, own_names=True)
    if plan is None and format_ != "auto":
        plan = TopicPlan(format_, unseen)
    if plan is None or plan.others:
        return _decode_split(messages, plan, unseen, _kinds(messages))
    return _decode_one(messages, plan, unseen)


def _decode_one(messages: MessageBatch, plan: TopicPlan, unseen: Context) -> list[Share]:
    """Decode all messages by one format; those that it refuses by theirs, if they have another.

    So a topic of one format costs nothing more. What headers say comes first.
    """
    if plan.each and messages.attributes:
        by_header = np.flatnonzero([claimed_by_headers(each) for each in messages.attributes])
        if len(by_header) and plan.format != CLAIMING_HEADERS:
            left = np.delete(np.arange(len(messages)), by_header)
            shares = _decode_split(messages, plan, unseen, {CLAIMING_HEADERS: by_header})
            if len(left):
                shares += _decode_plain(messages.pick(left.tolist()), plan, unseen)
            return shares
    return _decode_plain(messages, plan, unseen)


def _decode_plain(messages: MessageBatch, plan: TopicPlan, unseen: Context) -> list[Share]:
    decoded = registry.get(plan.format).decode(messages, plan.context)
    share = Share(plan, messages, decoded)
    if not plan.each or not decoded.failures:
        return [share]
    refused = _refused(messages, decoded)
    found = _kinds(messages.pick(refused.tolist())) if len(refused) else {}
    own = (None, BLANK, plan.format)
    strange: dict[str | None, Offsets] = {
        name: refused[rows] for name, rows in found.items() if name not in own
    }
    if not strange:
        return [share]
    rows = np.sort(np.concatenate(list(strange.values())))
    places = {messages[row].place for row in rows.tolist()}
    failures = [each for each in decoded.failures if each.source not in places]
    gone = len(decoded.failures) - len(failures)
    kept = replace(
        decoded, failures=failures, dead=decoded.dead - gone, messages=decoded.received - gone
    )
    rest = messages.pick(np.delete(np.arange(len(messages)), rows).tolist())
    return [Share(plan, rest, kept), *_decode_split(messages, plan, unseen, strange)]


def _kinds(messages: MessageBatch) -> dict[str | None, Offsets]:
    """Sort messages by their format; XML of no known one is refused by a reader of XML.

    Any other would call it broken JSON.
    """
    found = recognise(messages)
    unknown = found.get(None)
    if unknown is None:
        return found
    some = pick(messages, unknown)
    xml = unknown[Heads(some).first == ord("<")]
    if len(xml):
        known = found.get(_XML, xml[:0])
        found = {**found, _XML: np.sort(np.concatenate([known, xml]))}
        found[None] = np.setdiff1d(unknown, xml)
    return {name: rows for name, rows in found.items() if len(rows)}


def _refused(messages: MessageBatch, decoded: Decoded) -> Offsets:
    """Return the messages that are dead: they gave a failure, and no event."""
    places = Places(messages)
    rows = np.unique(places.rows_of([failure.source for failure in decoded.failures]))
    rows = rows[rows >= 0]
    offsets = messages.offsets.take(pa.array(rows))
    near = pc.is_in(conform(decoded.events["source_offset"], pa.int64()), offsets)
    return np.setdiff1d(rows, places.rows(decoded.events.filter(near)))


def _decode_split(
    messages: MessageBatch,
    plan: TopicPlan | None,
    unseen: Context,
    found: Mapping[str | None, Offsets],
) -> list[Share]:
    """Decode each format's share of a batch."""
    settings = {} if plan is None else plan.contexts
    # What is of no known format is refused by the topic's own.
    own = None if plan is None else plan.format
    groups: dict[str | None, list[Offsets]] = {}
    for name, rows in found.items():
        groups.setdefault(own if name is None else name, []).append(rows)
    shares = []
    for name, several in groups.items():
        rows = several[0] if len(several) == 1 else np.sort(np.concatenate(several))
        some = messages if len(rows) == len(messages) else messages.pick(rows.tolist())
        if name is None:
            shares.append(Share(None, some, _unknown(some)))
        elif name == BLANK:
            shares.append(Share(None, some, Decoded(empty_events(), skipped=len(some))))
        else:
            own_plan = TopicPlan(name, settings.get(name, unseen))
            decoded = registry.get(name).decode(some, own_plan.context)
            shares.append(Share(own_plan, some, decoded))
    return shares


def _unknown(messages: Sequence[Message]) -> Decoded:
    """Refuse messages that no format claims."""
    failures = [
        Failure(
            message.payload,
            message.place,
            "UnknownFormat",
            "no format claims this message; name that of the topic with --format",
            dict(message.attributes),
        )
        for message in messages
    ]
    return Decoded(empty_events(), failures, dead=len(failures))


class Places:
    """Finds the messages of a batch by their source and offset."""

    def __init__(self, messages: MessageBatch) -> None:
        self._names = {n: code for code, n in enumerate(messages.sources.dictionary.to_pylist())}
        codes = messages.sources.indices.to_numpy()
        offsets = integers(messages.offsets)
        ordered = len(self._names) == 1 and bool((np.diff(offsets) > 0).all())
        self._order = np.arange(len(codes)) if ordered else np.lexsort((offsets, codes))
        self._offsets = offsets[self._order]
        self._bounds = np.searchsorted(codes[self._order], np.arange(len(self._names) + 1))

    def rows(self, events: pa.Table) -> Offsets:
        """Return the message that each event is of, -1 where it is of none of them."""
        sources = conform(events["source"], NAME)
        own = [self._names.get(name, -1) for name in sources.dictionary.to_pylist()]
        codes = np.array([*own, -1], np.int64)[sources.indices.to_numpy()]
        return self._find(codes, integers(conform(events["source_offset"], pa.int64())))

    def rows_of(self, places: Sequence[str]) -> Offsets:
        """Return the message at each place (`Message.place`), likewise."""
        parts = [place.rpartition("/") for place in places]
        codes = np.array([self._names.get(source, -1) for source, _, _ in parts], np.int64)
        offsets = [int(offset) if _DIGITS.fullmatch(offset) else -1 for _, _, offset in parts]
        return self._find(codes, np.array(offsets, np.int64))

    def _find(self, codes: Offsets, offsets: Offsets) -> Offsets:
        found = np.full(len(codes), -1)
        for code in np.unique(codes[codes >= 0]).tolist():
            rows = np.flatnonzero(codes == code)
            begin, end = int(self._bounds[code]), int(self._bounds[code + 1])
            if begin < end:
                at = begin + np.searchsorted(self._offsets[begin:end], offsets[rows])
                at = np.minimum(at, end - 1)
                there = self._offsets[at] == offsets[rows]
                found[rows[there]] = self._order[at[there]]
        return found


_DIGITS = re.compile(r"\d{1,18}")


def in_order(messages: MessageBatch, tables: Sequence[pa.Table]) -> pa.Table:
    """Put the events of a batch's shares together, in the order of the messages.

    Args:
        messages: the batch.
        tables: events of each share, those of a message behind one another.
    """
    if len(tables) == 1:
        return tables[0]
    places = Places(messages)
    # An event of another place (a replayed one) stays behind the one before it.
    ranks = [np.maximum.accumulate(places.rows(table)) for table in tables]
    order = np.argsort(np.concatenate(ranks), kind="stable")
    return join_events(list(tables)).take(pa.array(order))


def failures_in_order(messages: MessageBatch, failures: Sequence[Failure]) -> list[Failure]:
    """Put failures of a batch's shares in the order of the messages, others at the end."""
    ranks = Places(messages).rows_of([failure.source for failure in failures])
    ranks[ranks < 0] = len(messages)
    return [failures[i] for i in np.argsort(ranks, kind="stable").tolist()]
