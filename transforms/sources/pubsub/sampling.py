"""The first messages of subscriptions, to find out what they are before a stream begins."""

from __future__ import annotations

import time
from contextlib import closing

from transforms.formats.base import Message
from transforms.pubsub import BrokerFault, PubSubAddress, library, subscriber
from transforms.sources.pubsub.columns import places

WAIT_S = 3.0


def sample(
    address: PubSubAddress, most: int = 200, wait_s: float = WAIT_S
) -> dict[str, list[Message]]:
    """Look at messages that subscriptions have; they are given back at once.

    Args:
        address: the subscriptions.
        most: messages of each.
        wait_s: how long to wait for them, each.

    Returns:
        `project/subscription` -> messages, the oldest first; none where there are none, or where
        we may not look.
    """
    found: dict[str, list[Message]] = {}
    try:
        client = subscriber()
    except BrokerFault:
        return found
    errors = library().errors
    with closing(client.transport):
        for name in address.subscriptions:
            path = address.path(name)
            request = {"subscription": path, "max_messages": most}
            begun = time.monotonic()
            received: list[object] = []
            try:
                while not received and time.monotonic() - begun < wait_s:
                    answer = client.pull(request=request, retry=None, timeout=wait_s)
                    received = list(type(answer).pb(answer).received_messages)
                if received:
                    ids = [each.ack_id for each in received]  # type: ignore[attr-defined]
                    client.modify_ack_deadline(
                        subscription=path, ack_ids=ids, ack_deadline_seconds=0, timeout=wait_s
                    )
            except (errors.GoogleAPICallError, errors.RetryError):
                # Whatever it is: the stream itself will say so, and may do without a sample.
                pass
            found[address.source(name)] = _messages(address.source(name), received)
    return found


def _messages(topic: str, received: list[object]) -> list[Message]:
    listed = [each.message for each in received]  # type: ignore[attr-defined]
    names, codes, offsets = places(topic, [each.message_id for each in listed])
    messages = [
        Message(
            each.data,
            names[code],
            offset,
            dict(each.attributes),
            each.publish_time.ToMicroseconds(),
        )
        for each, code, offset in zip(listed, codes.tolist(), offsets.tolist(), strict=True)
    ]
    return sorted(messages, key=lambda each: (each.record_time or 0, each.offset))
