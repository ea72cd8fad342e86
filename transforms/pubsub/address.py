"""Where Pub/Sub's subscriptions and topics are, as a URI.

    pubsub://PROJECT/SUBSCRIPTION[,SUBSCRIPTION...]?idle=10s&lease=60s&readers=1&waiting=20000
    pubsub://PROJECT/PREFIX-?create=yes&ordering=key

Which service, and as whom, is the client's own matter: PUBSUB_EMULATOR_HOST for an emulator,
GOOGLE_APPLICATION_CREDENTIALS, or whatever else the machine's default credentials are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn
from urllib.parse import unquote

from transforms.addresses import read_duration_ms, read_number, read_query, refuse
from transforms.durations import show_ms

_SCHEME = "pubsub://"
_PROJECT = re.compile(r"([a-z0-9][a-z0-9.-]*:)?[a-z][a-z0-9-]{4,28}[a-z0-9]")
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._~+%-]{2,254}")
_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9._~+%-]{0,230}")
_PROJECT_RULE = "6 to 30 lower-case letters, digits and '-', a letter first"
_NAME_RULE = "3 to 255 letters, digits and '-._~+%', a letter first, and not goog"


@dataclass(frozen=True)
class PubSubAddress:
    """Subscriptions to read.

    Attributes:
        project: that they are of.
        subscriptions: their names.
        idle_ms: so long nothing must have come before a subscription's watermark follows the
            clock, and so far back the oldest publish time of what came holds it.
        lease_ms: for so long the service waits for an acknowledgement before it delivers a message
            again; prolonged while this process has it.
        readers: how many share the messages of a subscription.
        waiting: most messages of a subscription that a reader has and has not given away.
        waiting_bytes: most bytes of them.
    """

    project: str
    subscriptions: tuple[str, ...] = ()
    idle_ms: int = 10_000
    lease_ms: int = 60_000
    readers: int = 1
    waiting: int = 20_000
    waiting_bytes: int = 64 * 1024 * 1024

    @classmethod
    def parse(cls, uri: str) -> PubSubAddress:
        """Read a URI of input.

        Raises:
            BadAddress: it is not one.
        """
        project, path, query = _split(uri, ("idle", "lease", "readers", "waiting"))
        names = tuple(dict.fromkeys(each.strip() for each in path.split(",") if each.strip()))
        if not names:
            refuse(uri, f"it names no subscription; write {_SCHEME}{project}/SUBSCRIPTION")
        for name in names:
            if "*" in name:
                refuse(uri, f"{name!r} is a pattern; name each subscription, separated by commas")
            if not _NAME.fullmatch(name) or name.lower().startswith("goog"):
                refuse(uri, f"{name!r} is no name of a subscription: {_NAME_RULE}")
        lease_ms = cls.lease_ms
        if "lease" in query:
            lease_ms = read_duration_ms(uri, "lease", query["lease"])
            if not 10_000 <= lease_ms <= 600_000 or lease_ms % 1000:
                refuse(uri, f"lease={query['lease']} is not 10s to 600s, in whole seconds")
        idle_ms = cls.idle_ms
        if "idle" in query:
            idle_ms = read_duration_ms(uri, "idle", query["idle"])
        return cls(
            project,
            names,
            idle_ms,
            lease_ms,
            read_number(uri, "readers", query.get("readers", str(cls.readers)), 100),
            read_number(uri, "waiting", query.get("waiting", str(cls.waiting)), 10_000_000),
        )

    def path(self, subscription: str) -> str:
        """Return the full name of a subscription."""
        return f"projects/{self.project}/subscriptions/{subscription}"

    def source(self, subscription: str) -> str:
        """Return what a subscription is called among the topics of a run."""
        return f"{self.project}/{subscription}"

    def __str__(self) -> str:
        text = f"{_SCHEME}{self.project}/{','.join(self.subscriptions)}"
        text += f"?idle={show_ms(self.idle_ms)}&lease={show_ms(self.lease_ms)}"
        if self.readers != PubSubAddress.readers:
            text += f"&readers={self.readers}"
        if self.waiting != PubSubAddress.waiting:
            text += f"&waiting={self.waiting}"
        return text


@dataclass(frozen=True)
class PubSubTarget:
    """Topics to write: one a table, named by a prefix and the table.

    Attributes:
        project: that they are of.
        prefix: what their names begin with; may be empty.
        create: whether those that are missing are created.
        ordered: whether rows have their key as ordering key.
    """

    project: str
    prefix: str = ""
    create: bool = False
    ordered: bool = False

    @classmethod
    def parse(cls, uri: str) -> PubSubTarget:
        """Read a URI of output.

        Raises:
            BadAddress: it is not one.
        """
        project, prefix, query = _split(uri, ("create", "ordering"))
        if prefix and (not _PREFIX.fullmatch(prefix) or prefix.lower().startswith("goog")):
            refuse(uri, f"{prefix!r} cannot begin a topic's name: {_NAME_RULE}")
        create, ordering = query.get("create", "no"), query.get("ordering", "none")
        if create not in {"yes", "no"}:
            refuse(uri, f"create={create} is neither yes nor no")
        if ordering not in {"key", "none"}:
            refuse(uri, f"ordering={ordering} is neither key nor none")
        return cls(project, prefix, create == "yes", ordering == "key")

    def topic(self, table: str) -> str:
        """Return the topic of a table."""
        return self.prefix + table

    def path(self, table: str) -> str:
        """Return the full name of a table's topic."""
        return f"projects/{self.project}/topics/{self.topic(table)}"

    def __str__(self) -> str:
        options = ["create=yes"] * self.create + ["ordering=key"] * self.ordered
        text = f"{_SCHEME}{self.project}/{self.prefix}"
        return f"{text}?{'&'.join(options)}" if options else text


def _split(uri: str, known: tuple[str, ...]) -> tuple[str, str, dict[str, str]]:
    """Split a URI into project, path and query, each percent-decoded."""
    if not uri.startswith(_SCHEME):
        refuse(uri, f"a Pub/Sub address begins with {_SCHEME}")
    rest, _, text = uri[len(_SCHEME) :].partition("?")
    project, _, path = rest.partition("/")
    query = read_query(uri, text, known)
    if not _PROJECT.fullmatch(unquote(project)):
        _no_project(uri, unquote(project))
    if "/" in path:
        refuse(
            uri, f"'{path}' is no name; write {_SCHEME}PROJECT/NAME, without projects/ or topics/"
        )
    return unquote(project), unquote(path), query


def _no_project(uri: str, text: str) -> NoReturn:
    if not text:
        refuse(uri, f"it names no project; write {_SCHEME}PROJECT/NAME")
    hint = " (an emulator's address goes into PUBSUB_EMULATOR_HOST)" if ":" in text else ""
    refuse(uri, f"'{text}' is no id of a project: {_PROJECT_RULE}{hint}")
