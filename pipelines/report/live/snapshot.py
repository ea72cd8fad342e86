"""The newest data of the live page: made by one thread, read by all requests."""

from __future__ import annotations

import gzip
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
        data: JSON.
        packed: the same, by gzip.
        tag: of HTTP; another one for other data.
        live: how the stream stands, JSON in ASCII, which changes while the data does not.
    """

    data: bytes
    packed: bytes
    tag: str
    live: str


class Snapshots:
    """Makes snapshots again and again.

    Args:
        source: where rows come from.
        title: the page's heading.
        zone: time zone of what it shows.
    """

    def __init__(self, source: Source, title: str, zone: str) -> None:
        self._source = source
        self._title, self._zone = title, zone
        self._rate = Rate(time.monotonic)
        self._body = b""
        self._total = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="look for rows", daemon=True)
        self.newest = Snapshot(b"", b"", "", "null")

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
                problem = error.text if isinstance(error, RunError) else one_line(error)
                LOGGER.warning("%s", problem)
                self._make(problem)
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
        standing_ = standing(self._source, self._rate.of(self._total), now, problem)
        live = json.dumps(standing_)
        tag = f'"{hashlib.sha256(self._body).hexdigest()[:32]}"'
        if tag == self.newest.tag:
            self.newest = replace(self.newest, live=live)
            return
        head = orjson.dumps({"tag": tag, "live": standing_})
        data = head[:-1] + b"," + self._body[1:]
        self.newest = Snapshot(data, gzip.compress(data, 1, mtime=0), tag, live)
