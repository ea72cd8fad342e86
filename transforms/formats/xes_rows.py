"""What passes between the ways of reading a XES log: what to collect, where one is, the rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schemas.dead_letters import MAX_PAYLOAD


@dataclass(frozen=True)
class Wanted:
    """Keys of attributes to collect, each tuple without repetitions.

    Attributes:
        event: keys of event attributes.
        trace: keys of trace attributes.
        nested: a key is the path of an attribute inside an attribute (`outer/inner`).
    """

    event: tuple[str, ...]
    trace: tuple[str, ...]
    nested: bool = False


class Unreadable(Exception):
    """The rest of a log can't be read.

    Attributes:
        message: one line.
        error: class of the error, such as `InvalidXml`.
        payload: the first bytes of what can't be read.
    """

    def __init__(self, message: str, error: str, payload: bytes = b"") -> None:
        super().__init__(message)
        self.message = message
        self.error = error
        self.payload = payload[:MAX_PAYLOAD]


@dataclass
class Header:
    """What stands in a log before its first trace.

    Attributes:
        want: makes `wanted` from the classifier's keys.
        attributes: the log's own attributes.
        classifier: keys of its first event classifier.
    """

    want: Callable[[Sequence[str]], Wanted]
    attributes: dict[str, str] = field(default_factory=dict)
    classifier: tuple[str, ...] = ()
    _wanted: Wanted | None = None

    @property
    def wanted(self) -> Wanted:
        """Return the attributes to collect; reading it completes the header."""
        if self._wanted is None:
            self._wanted = self.want(self.classifier)
        return self._wanted

    @property
    def complete(self) -> bool:
        """Say whether a trace or an event has started."""
        return self._wanted is not None


@dataclass
class Cursor:
    """Where in the log reading stands.

    Attributes:
        events: events so far.
        traces: traces that have started.
        trace: attributes of the open trace; None outside of traces.
        begun: the open trace has had an event.
        lines: ends of lines so far.
        root: name of the log's element as written.
        tag: name of the open trace's element as written.
        belated: a wanted trace attribute stood behind the first event of its trace.
    """

    events: int = 0
    traces: int = 0
    trace: dict[str, str] | None = None
    begun: bool = False
    lines: int = 0
    root: str = "log"
    tag: str = "trace"
    belated: bool = False


@dataclass(frozen=True)
class Oversize:
    """An event above the limit.

    Attributes:
        ordinal: its number in the log, from 0.
        trace: its trace's number, from 0; -1 outside of traces.
        attributes: the wanted attributes of its trace.
        payload: its first bytes.
        size: its bytes, as far as they were read.
    """

    ordinal: int
    trace: int
    attributes: Mapping[str, str]
    payload: bytes
    size: int


@dataclass(frozen=True)
class Rows:
    """Events of one stretch of a log.

    Attributes:
        ordinals: number of each event in the log, from 0.
        traces: number of each event's trace, from 0; -1 outside of traces.
        event: a string array for each wanted event key.
        trace: a string array for each wanted trace key, a value for each event.
        payload: gives the bytes of the i-th event.
        oversize: events that are too large to be read.
    """

    ordinals: npt.NDArray[np.int64]
    traces: npt.NDArray[np.int64]
    event: Sequence[pa.Array]
    trace: Sequence[pa.Array]
    payload: Callable[[int], bytes]
    oversize: Sequence[Oversize] = ()
