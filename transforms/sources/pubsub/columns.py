"""Messages of Pub/Sub as columns of a batch: where they are from, and their attributes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

_NUMBER = re.compile(r"(.*?)(0|[1-9]\d{0,17})", re.DOTALL)
_ORDERING_KEY = "ordering_key"
MESSAGE = "message"


def places(
    topic: str, ids: Sequence[str]
) -> tuple[list[str], npt.NDArray[np.int32], npt.NDArray[np.int64]]:
    """Return the sources and offsets of messages.

    A message id is a number, on the service; its place is `project/subscription/message/ID`. What
    else an id may have before its number (an emulator's) takes the place of `message`; an id
    without a number is all of it, with offset 0.

    Args:
        topic: `project/subscription`.
        ids: message ids.

    Returns:
        Names of sources, for each message the index of its own, and the offsets.
    """
    try:
        # Most often all are numbers, and are read at once.
        offsets = np.array(ids, np.int64)
        if list(map(str, offsets.tolist())) == list(ids) and (offsets >= 0).all():
            return [f"{topic}/{MESSAGE}"], np.zeros(len(ids), np.int32), offsets
    except (ValueError, OverflowError):
        pass
    names: dict[str, int] = {}
    codes, numbers = [], []
    for id_ in ids:
        found = _NUMBER.fullmatch(id_)
        stem, number = (found[1], int(found[2])) if found else (id_, 0)
        codes.append(names.setdefault(f"{topic}/{stem or MESSAGE}", len(names)))
        numbers.append(number)
    return list(names), np.array(codes, np.int32), np.array(numbers, np.int64)


def headers(messages: Sequence[Any]) -> list[list[tuple[str, str]]]:
    """Return the attributes of messages, and their ordering keys; empty if none has any."""
    found = [list(each.attributes.items()) for each in messages]
    for listed, message in zip(found, messages, strict=True):
        if message.ordering_key:
            listed.append((_ORDERING_KEY, message.ordering_key))
    return found if any(found) else []
