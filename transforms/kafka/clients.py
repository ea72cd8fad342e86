"""Clients of a Kafka broker, and what is said, in one line, where the broker does not agree."""

from __future__ import annotations

import difflib
import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from transforms.addresses import BadAddress, BrokerFault
from transforms.kafka.address import GROUP, Broker, KafkaAddress, KafkaTarget, matching
from transforms.kafka.settings import client_settings

LOGGER = logging.getLogger(__name__)

_NO_METADATA = "Failed to get metadata: "

T = TypeVar("T")


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
        reason += "; create it, or let its producer begin first"
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
