"""Where Kafka's topics are, as a URI, which is a user's way to name them.

    kafka://host:9092,other:9092/orders,workflow-*?group=G&start=earliest&config=client.properties
    kafka://host:9092/prefix-?config=client.properties&partitions=6&replication=1

Secrets are in the properties file, which is read where a client is made: on each worker. So
they are never in a command line, in a log, or in the description of a job.
"""

from __future__ import annotations

import datetime as dt
import fnmatch
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

from transforms.addresses import (
    BadAddress,
    quoted,
    read_duration_ms,
    read_number,
    read_query,
    refuse,
)
from transforms.durations import show_ms

GROUP = "imixs-streams"
COMMITTED = "committed"
"""`start` of an address that names none: the group's offsets."""

_SCHEME = "kafka://"
_TOPIC = re.compile(r"[A-Za-z0-9._*-]{1,249}")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+)(:(\d{1,5}))?")
_SECRET = re.compile(r"password|secret|jaas|token|\bkey\b|\.key", re.IGNORECASE)


@dataclass(frozen=True)
class Broker:
    """A Kafka cluster.

    Attributes:
        servers: `host:port` of brokers to begin with.
        config: path of a properties file of client settings; empty for none.
    """

    servers: tuple[str, ...]
    config: str = ""


@dataclass(frozen=True)
class KafkaAddress(Broker):
    """Topics to read.

    Attributes:
        topics: names; one with `*` is a pattern.
        group: the consumer group whose committed offsets are used.
        start: where partitions without a checkpoint begin: `committed` (the group's offsets, else
            the earliest), `earliest`, `latest`, or a time in ISO 8601.
        idle_ms: how far behind the clock an idle partition's watermark stays.
        refresh_ms: how often to look for topics and partitions that are new.
    """

    topics: tuple[str, ...] = ()
    group: str = GROUP
    start: str = COMMITTED
    idle_ms: int = 1000
    refresh_ms: int = 20_000

    @classmethod
    def parse(cls, uri: str, group: str = GROUP) -> KafkaAddress:
        """Read a URI of input.

        Args:
            uri: as in this module's docstring.
            group: the consumer group where the URI names none.

        Raises:
            BadAddress: it is not one.
        """
        servers, path, query = _split(uri, ("group", "start", "config", "idle", "refresh"))
        topics = tuple(each.strip() for each in path.split(",") if each.strip())
        if not topics:
            refuse(uri, "it names no topic; write kafka://host:9092/topic")
        for topic in topics:
            if not _TOPIC.fullmatch(topic):
                refuse(uri, f"{topic!r} is no topic name: letters, digits, '.', '_', '-', or '*'")
        if "group" in query and not query["group"]:
            refuse(uri, "group is empty; leave it out to use the pipeline's own")
        address = cls(
            servers,
            query.get("config", ""),
            topics,
            query.get("group", group),
            query.get("start", COMMITTED),
            read_duration_ms(uri, "idle", query["idle"]) if "idle" in query else cls.idle_ms,
            read_duration_ms(uri, "refresh", query["refresh"])
            if "refresh" in query
            else cls.refresh_ms,
        )
        if address.start not in {COMMITTED, "earliest", "latest"}:
            _time_ms(uri, address.start)
        return address

    @property
    def start_ms(self) -> int | None:
        """The start as milliseconds since the epoch, if it is a time."""
        if self.start in {COMMITTED, "earliest", "latest"}:
            return None
        return _time_ms(str(self.start), self.start)

    def __str__(self) -> str:
        text = (
            f"{_SCHEME}{','.join(self.servers)}/{','.join(self.topics)}?group={quoted(self.group)}"
        )
        if self.start != COMMITTED:
            text += f"&start={quoted(self.start)}"
        if self.idle_ms != KafkaAddress.idle_ms:
            text += f"&idle={show_ms(self.idle_ms)}"
        if self.refresh_ms != KafkaAddress.refresh_ms:
            text += f"&refresh={show_ms(self.refresh_ms)}"
        return text + (f"&config={quoted(self.config)}" if self.config else "")


@dataclass(frozen=True)
class KafkaTarget(Broker):
    """Topics to write: one a table, named by a prefix and the table.

    Attributes:
        prefix: what their names begin with; may be empty.
        partitions: of topics that are created.
        replication: of topics that are created.
    """

    prefix: str = ""
    partitions: int = 6
    replication: int = 1

    @classmethod
    def parse(cls, uri: str) -> KafkaTarget:
        """Read a URI of output.

        Raises:
            BadAddress: it is not one.
        """
        servers, prefix, query = _split(uri, ("config", "partitions", "replication"))
        if prefix and ("*" in prefix or not _TOPIC.fullmatch(prefix)):
            refuse(uri, f"{prefix!r} cannot begin a topic name: letters, digits, '.', '_', '-'")
        partitions = read_number(uri, "partitions", query.get("partitions", str(cls.partitions)))
        replication = read_number(
            uri, "replication", query.get("replication", str(cls.replication))
        )
        return cls(servers, query.get("config", ""), prefix, partitions, replication)

    def topic(self, table: str) -> str:
        """Return the topic of a table."""
        return self.prefix + table

    def __str__(self) -> str:
        text = (
            f"{_SCHEME}{','.join(self.servers)}/{self.prefix}"
            f"?partitions={self.partitions}&replication={self.replication}"
        )
        return text + (f"&config={quoted(self.config)}" if self.config else "")


def _split(uri: str, known: tuple[str, ...]) -> tuple[tuple[str, ...], str, dict[str, str]]:
    """Split a URI into servers, path and query, each percent-decoded."""
    if not uri.startswith(_SCHEME):
        refuse(uri, "a Kafka address begins with kafka://")
    rest, _, query_text = uri[len(_SCHEME) :].partition("?")
    netloc, _, path = rest.partition("/")
    if "@" in netloc:
        # The address itself stays out of the message: it holds the password.
        reason = (
            f"{_SCHEME}{netloc.rpartition('@')[2]}: user and password do not belong in an address; "
            "put sasl.username and sasl.password into a file and add ?config=FILE"
        )
        raise BadAddress(reason)
    for part in query_text.split("&"):
        name = unquote(part.partition("=")[0])
        if _SECRET.search(name):
            reason = (
                f"{_SCHEME}{netloc}: {name} does not belong in an address; "
                "put it into a file and add ?config=FILE"
            )
            raise BadAddress(reason)
    elsewhere = "; settings of the client go into a file: ?config=FILE"
    query = read_query(uri, query_text, known, elsewhere)
    servers = []
    for text in netloc.split(","):
        found = _HOST.fullmatch(unquote(text.strip()))
        if not found or int(found[3] or 9092) > 65535:
            refuse(uri, f"{text!r} is no broker; write host:port")
        else:
            servers.append(f"{found[1]}:{found[3] or 9092}")
    return tuple(servers), unquote(path), query


def _time_ms(uri: str, text: str) -> int:
    try:
        time_ = dt.datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))
    except ValueError:
        reason = f"{uri}: start={text} is neither committed, earliest, latest nor a time"
        raise BadAddress(reason) from None
    if time_.tzinfo is None:
        reason = f"{uri}: start={text} has no time zone; write 2024-01-01T00:00Z"
        raise BadAddress(reason)
    return int(time_.timestamp() * 1000)


def matching(names: Iterable[str], topics: Iterable[str]) -> set[str]:
    """Return the names that are asked for; a pattern never matches Kafka's own `__` topics."""
    wanted = list(topics)
    return {
        name
        for name in names
        for topic in wanted
        if name == topic
        or ("*" in topic and not name.startswith("__") and fnmatch.fnmatchcase(name, topic))
    }
