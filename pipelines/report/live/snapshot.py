"""The newest data of the live page: made by one thread, read by all requests."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from dataclasses import dataclass, replace

import orjson

from pipelines.exit_codes import RunError
from pipelines.output import one_line
from pipelines.report.data import Look, document, packed
from pipelines.report.live.source import Rate, Source, standing, transitions
from transforms.addresses import BrokerFault

LOGGER = logging.getLogger(__name__)

LOOK_S = 1.0
"""How often the source is asked for what is new."""

REST = 4.0
"""So many times as long as making it took, nothing new is made: readers get their share."""


@dataclass(frozen=True)
class Snapshot:
    """Data of the page.

    Attributes:
        body: a JSON object, of what changes with the tables only.
        tag: of HTTP; another one for another body.
        live: how the stream stands, JSON in ASCII, which changes while the body does not.
    """

    body: bytes
    tag: str
    live: str

    @property
    def data(self) -> bytes:
        """The whole, as JSON."""
        return b'{"tag":%b,"live":%b,%b' % (
            orjson.dumps(self.tag),
            self.live.encode(),
            self.body[1:],
        )


class Snapshots:
    """Makes snapshots again and again.

    Args:
        source: where rows come from.
        title: the page's heading.
        zone: time zone of what it shows; empty for that of the windows.
    """

    def __init__(self, source: Source, title: str, zone: str) -> None:
        self._source = source
        self._title, self._zone = title, zone
        self._rate = Rate(time.monotonic)
        self._body = b""
        self._total = 0
        self._said = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="look for rows", daemon=True)
        self.newest = Snapshot(b"", "", "null")

    def start(self) -> None:
        """Make the first, and others from then on.

        Raises:
            RunError: the source can't be read at all.
        """
        self._look("")
        self._thread.start()

    def stop(self) -> None:
        """Make no more."""
        self._ended.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        pause = LOOK_S
        while not self._ended.wait(pause):
            begun = time.monotonic()
            try:
                self._look("")
            except (RunError, BrokerFault, OSError) as error:
                # What was there is still shown, with what is wrong.
                self._make(error.text if isinstance(error, RunError) else one_line(error))
            pause = max(LOOK_S, REST * (time.monotonic() - begun))

    def _look(self, problem: str) -> None:
        if self._source.refresh() or not self._body:
            contents = self._source.contents()
            look = Look(self._title, self._zone, time.time_ns() // 1_000_000)
            made = document(contents, look)
            del made["live"]
            self._body = packed(made)
            self._total = transitions(contents)
        self._make(problem)

    def _make(self, problem: str) -> None:
        now = time.time_ns() // 1_000_000
        found = standing(self._source, self._rate.of(self._total), now, problem)
        if found["problem"] not in ("", self._said):
            LOGGER.warning("%s", found["problem"])
        self._said = found["problem"]
        live = json.dumps(found)
        if self._body is not self.newest.body:
            tag = f'"{hashlib.sha256(self._body).hexdigest()[:32]}"'
            self.newest = Snapshot(self._body, tag, live)
        else:
            self.newest = replace(self.newest, live=live)
