"""Where a Kafka topic is: the URI, the client's settings, and whether the broker agrees.

    kafka://host:9092,other:9092/orders,workflow-*?group=G&start=earliest&config=client.properties
    kafka://host:9092/prefix-?config=client.properties&partitions=6&replication=1

Secrets are in the properties file, which is read where a client is made: on each worker. So
they are never in a command line, in a log, or in the description of a job.
"""

from __future__ import annotations

import datetime as dt
import difflib
import fnmatch
import logging
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import quote, unquote

from transforms.kafka_settings import BadAddress, client_settings

__all__ = [
    "BadAddress",
    "Broker",
    "BrokerFault",
    "KafkaAddress",
    "KafkaTarget",
    "Monitor",
    "check",
    "check_target",
    "client",
    "make",
    "matching",
    "patiently",
    "settings_for",
]

LOGGER = logging.getLogger(__name__)

GROUP = "imixs-streams"

_SCHEME = "kafka://"
_TOPIC = re.compile(r"[A-Za-z0-9._*-]{1,249}")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\s:\[\]]+)(:(\d{1,5}))?")
_DURATION = re.compile(r"(\d+)(ms|s|m|h)")
_UNITS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}
_SECRET = re.compile(r"password|secret|jaas|token|\bkey\b|\.key", re.IGNORECASE)

_NO_METADATA = "Failed to get metadata: "

T = TypeVar("T")


class BrokerFault(ValueError):
    """The broker cannot be used as asked; one line says why."""


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
    start: str = "committed"
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
            _refuse(uri, "it names no topic; write kafka://host:9092/topic")
        for topic in topics:
            if not _TOPIC.fullmatch(topic):
                _refuse(uri, f"{topic!r} is no topic name: letters, digits, '.', '_', '-', or '*'")
        if "group" in query and not query["group"]:
            _refuse(uri, "group is empty; leave it out to use the pipeline's own")
        address = cls(
            servers,
            query.get("config", ""),
            topics,
            query.get("group", group),
            query.get("start", "committed"),
            _duration_ms(uri, "idle", query["idle"]) if "idle" in query else cls.idle_ms,
            _duration_ms(uri, "refresh", query["refresh"])
            if "refresh" in query
            else cls.refresh_ms,
        )
        if address.start not in {"committed", "earliest", "latest"}:
            _time_ms(uri, address.start)
        return address

    @property
    def start_ms(self) -> int | None:
        """The start as milliseconds since the epoch, if it is a time."""
        if self.start in {"committed", "earliest", "latest"}:
            return None
        return _time_ms(str(self.start), self.start)

    def __str__(self) -> str:
        text = (
            f"{_SCHEME}{','.join(self.servers)}/{','.join(self.topics)}?group={_quoted(self.group)}"
        )
        if self.start != "committed":
            text += f"&start={_quoted(self.start)}"
        if self.idle_ms != KafkaAddress.idle_ms:
            text += f"&idle={self.idle_ms}ms"
        if self.refresh_ms != KafkaAddress.refresh_ms:
            text += f"&refresh={self.refresh_ms}ms"
        return text + (f"&config={_quoted(self.config)}" if self.config else "")


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
            _refuse(uri, f"{prefix!r} cannot begin a topic name: letters, digits, '.', '_', '-'")
        partitions = _number(uri, "partitions", query.get("partitions", str(cls.partitions)))
        replication = _number(uri, "replication", query.get("replication", str(cls.replication)))
        return cls(servers, query.get("config", ""), prefix, partitions, replication)

    def topic(self, table: str) -> str:
        """Return the topic of a table."""
        return self.prefix + table

    def __str__(self) -> str:
        text = (
            f"{_SCHEME}{','.join(self.servers)}/{self.prefix}"
            f"?partitions={self.partitions}&replication={self.replication}"
        )
        return text + (f"&config={_quoted(self.config)}" if self.config else "")


def _quoted(text: str) -> str:
    return quote(text, safe="/:+.-_~")


def _refuse(uri: str, reason: str) -> None:
    text = f"{uri}: {reason}"
    raise BadAddress(text)


def _split(uri: str, known: tuple[str, ...]) -> tuple[tuple[str, ...], str, dict[str, str]]:
    """Split a URI into servers, path and query, each percent-decoded."""
    if not uri.startswith(_SCHEME):
        _refuse(uri, "a Kafka address begins with kafka://")
    rest, _, query_text = uri[len(_SCHEME) :].partition("?")
    netloc, _, path = rest.partition("/")
    if "@" in netloc:
        # The address itself stays out of the message: it holds the password.
        reason = (
            f"{_SCHEME}{netloc.rpartition('@')[2]}: user and password do not belong in an address; "
            "put sasl.username and sasl.password into a file and add ?config=FILE"
        )
        raise BadAddress(reason)
    query: dict[str, str] = {}
    for part in query_text.split("&"):
        if not part:
            continue
        name, _, value = part.partition("=")
        name = unquote(name)
        if _SECRET.search(name):
            reason = (
                f"{_SCHEME}{netloc}: {name} does not belong in an address; "
                "put it into a file and add ?config=FILE"
            )
            raise BadAddress(reason)
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else f"; known: {', '.join(known)}"
            if "." in name:
                hint = "; settings of the client go into a file: ?config=FILE"
            _refuse(uri, f"there is no option {name!r}{hint}")
        if name in query:
            _refuse(uri, f"{name} is given twice")
        query[name] = unquote(value)
    servers = []
    for text in netloc.split(","):
        found = _HOST.fullmatch(unquote(text.strip()))
        if not found or int(found[3] or 9092) > 65535:
            _refuse(uri, f"{text!r} is no broker; write host:port")
        else:
            servers.append(f"{found[1]}:{found[3] or 9092}")
    return tuple(servers), unquote(path), query


def _number(uri: str, name: str, text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 10_000:
        _refuse(uri, f"{name}={text} is no number from 1 to 10000")
    return int(text)


def _duration_ms(uri: str, name: str, text: str) -> int:
    found = _DURATION.fullmatch(text)
    if not found:
        reason = f"{uri}: {name}={text} is no duration; write 500ms, 1s or 2m"
        raise BadAddress(reason)
    return int(found[1]) * _UNITS[found[2]]


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


class Monitor:
    """What a client says of its connection: the newest fault, logged once a minute at most.

    Args:
        servers: of the client.
        silent: whoever made the client says what is wrong.
    """

    def __init__(self, servers: tuple[str, ...], silent: bool = False) -> None:
        self._servers = ",".join(servers)
        self._said = float("inf" if silent else "-inf")
        self.faults: dict[int, str] = {}
        """Code -> text, as librdkafka reports them."""

    def on_error(self, error: Any) -> None:
        """Take an error from the client's `error_cb`."""
        self.faults[error.code()] = error.str()
        if time.monotonic() - self._said > 60:
            self._said = time.monotonic()
            LOGGER.warning("Kafka at %s: %s", self._servers, _plain(error.str()))

    def log(self, level: int, text: str, *arguments: object) -> None:
        """Take a log line of the client: it says what `on_error` says, at every attempt."""
        LOGGER.debug(text, *arguments)


def settings_for(broker: Broker, monitor: Monitor, **own: Any) -> dict[str, Any]:
    """Return the settings of a client.

    Args:
        broker: its servers and properties file.
        monitor: who hears of faults.
        own: settings that the file cannot change; `_` stands for `.`, but in `_cb`.

    Raises:
        BadAddress: the properties file cannot be read or used.
    """
    return {
        "client.id": GROUP,
        "reconnect.backoff.ms": 100,
        "reconnect.backoff.max.ms": 2000,
        "socket.keepalive.enable": True,
        **client_settings(broker.config),
        **{
            name if name.endswith("_cb") else name.replace("_", "."): value
            for name, value in own.items()
        },
        "bootstrap.servers": ",".join(broker.servers),
        "error_cb": monitor.on_error,
        "logger": monitor,
    }


def check(address: KafkaAddress, timeout_s: float = 10.0) -> dict[str, int]:
    """Ask the broker for the topics of an address.

    Returns:
        Matching topic -> number of partitions. Patterns may match none yet; names must exist.

    Raises:
        BrokerFault: no broker answers, it refuses us, or a topic is missing.
        BadAddress: the properties file cannot be used.
    """
    found = _topics(address, timeout_s)
    names = [name for name in found if not name.startswith("__")]
    for topic in address.topics:
        if "*" in topic or topic in found:
            continue
        near = difflib.get_close_matches(topic, names, 3, 0.5)
        known = f"it has {', '.join(near)}" if near else _some(sorted(names))
        reason = f"{','.join(address.servers)} has no topic {topic!r} that we may see; {known}"
        raise BrokerFault(reason)
    topics = {name: found[name] for name in sorted(matching(found, address.topics))}
    if not topics:
        LOGGER.warning("%s: no topic matches yet; %s", address, _some(sorted(names)))
    return topics


def check_target(target: KafkaTarget, timeout_s: float = 10.0) -> dict[str, int]:
    """Ask whether a broker takes us: its topics and their partitions.

    Raises:
        BrokerFault: no broker answers, or it refuses us.
        BadAddress: the properties file cannot be used.
    """
    return _topics(target, timeout_s)


def _some(names: list[str]) -> str:
    if not names:
        return "it has no topics"
    return f"it has {', '.join(names[:5])}" + (f" and {len(names) - 5} more" * (len(names) > 5))


def _topics(broker: Broker, timeout_s: float) -> dict[str, int]:
    monitor = Monitor(broker.servers, silent=True)
    settings = settings_for(broker, monitor)
    admin = make(client().admin.AdminClient, settings, broker)
    metadata = patiently(
        lambda seconds: admin.list_topics(timeout=seconds), admin, monitor, broker, timeout_s
    )
    return {name: len(topic.partitions) for name, topic in metadata.topics.items()}


def client() -> Any:
    """Return the client library, with its `admin`.

    Raises:
        BadAddress: it is not installed.
    """
    try:
        import confluent_kafka  # noqa: PLC0415
        import confluent_kafka.admin  # noqa: PLC0415
    except ImportError as e:
        reason = f"kafka:// needs the client library ({e}): pip install confluent-kafka"
        raise BadAddress(reason) from None
    return confluent_kafka


def make(kind: Callable[[dict[str, Any]], T], settings: dict[str, Any], broker: Broker) -> T:
    """Make a client.

    Raises:
        BadAddress: it does not take its settings.
    """
    try:
        return kind(settings)
    except client().KafkaException as e:
        where = broker.config or ",".join(broker.servers)
        reason = f"{where}: {e.args[0].str()}"
        raise BadAddress(reason) from None


def patiently(
    ask: Callable[[float], T], poller: Any, monitor: Monitor, broker: Broker, timeout_s: float
) -> T:
    """Ask a broker until it answers, or until there is no use in asking on.

    Args:
        ask: asks, for at most so many seconds.
        poller: what serves callbacks when polled.
        monitor: the client's own.
        broker: who is asked.
        timeout_s: seconds to ask for, in all.

    Raises:
        BrokerFault: no broker answers, or it refuses us: one line says which.
    """
    errors, exception = client().KafkaError, client().KafkaException
    # librdkafka tries refused credentials again for ever: they are hopeless after a second look.
    hopeless = {errors._AUTHENTICATION, errors.SASL_AUTHENTICATION_FAILED, errors._SSL}
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            return ask(min(1.0, timeout_s))
        except exception as e:
            error = e.args[0]
        poller.poll(0)
        refused = [text for code, text in monitor.faults.items() if code in hopeless]
        if not refused and time.monotonic() < deadline:
            continue
        raise BrokerFault(_sentence(broker, refused, monitor.faults, error)) from None


def _sentence(broker: Broker, refused: list[str], faults: Mapping[int, str], error: Any) -> str:
    servers = ",".join(broker.servers)
    if refused:
        return f"{servers} refuses us: {_plain(refused[0])}"
    texts = [_plain(text) for text in faults.values() if "brokers are down" not in text]
    if texts and "Invalid response size" not in texts[0]:
        return f"no Kafka broker answers at {servers}: {texts[0]}"
    # It was reached, perhaps: a listener for TLS or credentials says nothing to who comes without.
    reason = "what answers is no Kafka" if texts else error.str().removeprefix(_NO_METADATA)
    asked = (
        f"is config={broker.config} what it wants?"
        if broker.config
        else "does it want TLS or credentials? They go into a file: ?config=FILE"
    )
    return f"no Kafka broker answers at {servers}: {reason}; is the address right, and {asked}"


def _plain(text: str) -> str:
    """Leave out what librdkafka adds for its developers."""
    text = re.sub(r"^\[thrd:[^\]]*\]: ", "", text)
    text = re.sub(r"^\S+/(bootstrap|\d+): ", "", text)
    return re.sub(r" \(after \d+ms in state [^)]*\)", "", text)
