"""What a state was made with: the settings that it depends on, which must not change under it.

A backfill writes them into its manifest, a stream into the mark of each of its shards. Whoever
goes on from a state with others would get other rows than either of them gives alone, and no
error: so it is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson

from transforms.durations import show_ms


class StateMisfit(ValueError):
    """A state that this program can't go on from; it will not fit however often it is tried."""


@dataclass(frozen=True)
class Setting:
    """A setting that a state depends on.

    Attributes:
        name: in the manifest; durations end in `_ms`.
        option: on the command line.
        value: JSON can hold it; its lists are sorted.
        secret: stands for a value that must not be shown.
    """

    name: str
    option: str
    value: Any
    secret: bool = False

    def difference(self, left: Any) -> str:
        """Say how this differs from what a state was made with; nothing if it does not."""
        if left == self.value:
            return ""
        if self.secret:
            return f"another {self.option}"
        return (
            f"{self.option} {_text(self.name, left)}, where this stream has "
            f"{self.option} {_text(self.name, self.value)}"
        )


def differences(settings: Iterable[Setting], left: dict[str, Any]) -> str:
    """Say how settings differ from what a state was made with; nothing if none does.

    Args:
        settings: of the stream.
        left: values by name.
    """
    return "; and with ".join(
        text for each in settings if (text := each.difference(left.get(each.name)))
    )


def text_of(settings: Iterable[Setting]) -> str:
    """Return the values by name as JSON; equal settings give equal texts."""
    values = {each.name: each.value for each in settings}
    return orjson.dumps(values, option=orjson.OPT_SORT_KEYS).decode()


def _text(name: str, value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value)) or "(none)"
    if name.endswith("_ms") and isinstance(value, int):
        return show_ms(value)
    return "(none)" if value is None else str(value)
