"""The broker of the tests is a real one: it keeps records, refuses, and bounces."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer

from tests.services.kafka import (
    SASL_PASSWORD,
    SASL_USER,
    BrokerError,
    KafkaBroker,
)
from tests.services.ports import free_ports

QUIET = {"log_level": "0"}


def send(address: str, topic: str, values: list[bytes], **settings: str) -> None:
    producer = Producer({"bootstrap.servers": address, **QUIET, **_dotted(settings)})
    refused: list[KafkaError] = []
    for value in values:
        producer.produce(
            topic, value, on_delivery=lambda error, _: refused.append(error) if error else None
        )
    assert producer.flush(30) == 0
    assert refused == []


def receive(address: str, topic: str, count: int, **settings: str) -> list[bytes]:
    """Return the values of `count` messages, and of what else comes in half a second."""
    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": f"test-{topic}-{time.monotonic_ns()}",
            "auto.offset.reset": "earliest",
            **QUIET,
            **_dotted(settings),
        }
    )
    consumer.subscribe([topic])
    found: list[bytes] = []
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        message = consumer.poll(0.5)
        if message is None:
            if len(found) >= count:
                break
            continue
        error = message.error()
        assert error is None or error.retriable(), error
        value = message.value()
        if value is not None:
            found.append(value)
    consumer.close()
    return found


def _dotted(settings: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "."): value for name, value in settings.items()}


def test_records_come_back(kafka: KafkaBroker) -> None:
    kafka.create_topic("round-trip", 3)
    values = [b"%d" % number for number in range(1000)]
    send(kafka.address, "round-trip", values)
    assert sorted(receive(kafka.address, "round-trip", 1000)) == sorted(values)


def test_a_topic_has_what_it_was_made_with(kafka: KafkaBroker) -> None:
    kafka.create_topic("partitions", 5, message_timestamp_type="LogAppendTime")
    found = kafka.admin().list_topics("partitions", timeout=10).topics["partitions"]
    assert len(found.partitions) == 5
    kafka.add_partitions("partitions", 6)
    found = kafka.admin().list_topics("partitions", timeout=10).topics["partitions"]
    assert len(found.partitions) == 6
    with pytest.raises(KafkaException, match="already exists"):
        kafka.create_topic("partitions", 1)


def test_a_missing_topic_is_not_made(kafka: KafkaBroker) -> None:
    producer = Producer({"bootstrap.servers": kafka.address, "message.timeout.ms": 1500, **QUIET})
    errors: list[KafkaError | None] = []
    producer.produce("nowhere", b"x", on_delivery=lambda error, _: errors.append(error))
    producer.flush(10)
    unknown = (KafkaError._UNKNOWN_TOPIC, KafkaError._MSG_TIMED_OUT)
    assert [error is not None and error.code() in unknown for error in errors] == [True]
    assert "nowhere" not in kafka.admin().list_topics(timeout=10).topics


def test_credentials_are_asked_for(kafka: KafkaBroker) -> None:
    kafka.create_topic("secured")
    login = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN"}
    good = {**login, "sasl_username": SASL_USER, "sasl_password": SASL_PASSWORD}
    send(kafka.sasl_address, "secured", [b"known"], **good)
    assert receive(kafka.sasl_address, "secured", 1, **good) == [b"known"]
    for wrong in ({**good, "sasl_password": "guessed"}, {**good, "sasl_username": "nobody"}):
        errors: list[KafkaError] = []
        client = Producer(
            {
                "bootstrap.servers": kafka.sasl_address,
                "error_cb": errors.append,
                **QUIET,
                **_dotted(wrong),
            }
        )
        with pytest.raises(KafkaException):
            client.list_topics(timeout=2)
        client.poll(0)
        assert KafkaError._AUTHENTICATION in [error.code() for error in errors]


def test_tls_needs_the_certificate(kafka: KafkaBroker) -> None:
    kafka.create_topic("tls")
    trusting = {"security_protocol": "SSL", "ssl_ca_location": str(kafka.ssl_ca)}
    send(kafka.ssl_address, "tls", [b"sealed"], **trusting)
    assert receive(kafka.address, "tls", 1) == [b"sealed"]
    errors: list[KafkaError] = []
    stranger = Producer(
        {
            "bootstrap.servers": kafka.ssl_address,
            "security.protocol": "SSL",
            "error_cb": errors.append,
            **QUIET,
        }
    )
    with pytest.raises(KafkaException):
        stranger.list_topics(timeout=2)
    stranger.poll(0)
    assert KafkaError._SSL in [error.code() for error in errors]


def test_a_bounced_broker_has_its_records(own_kafka: KafkaBroker) -> None:
    broker = own_kafka
    broker.create_topic("bounced", 2)
    send(broker.address, "bounced", [b"before"])
    address = broker.address
    first = broker.pid
    broker.restart()
    assert (broker.address, broker.pid == first) == (address, False)
    send(address, "bounced", [b"between"])
    # A producer that is there all the time waits for the broker.
    producer = Producer({"bootstrap.servers": address, **QUIET})
    broker.kill()
    assert not broker.running
    producer.produce("bounced", b"away")
    assert producer.flush(0.5) == 1
    broker.start()
    assert producer.flush(30) == 0
    assert sorted(receive(address, "bounced", 3)) == [b"away", b"before", b"between"]


def test_a_broken_setting_is_shown(tmp_path: Path, kafka: KafkaBroker) -> None:
    assert kafka.running  # the parts are there
    broker = KafkaBroker(tmp_path, settings={"num.io.threads": "-1"})
    with pytest.raises(BrokerError, match="num.io.threads"):
        broker.start()
    broker.close()


@pytest.fixture
def orphan(tmp_path: Path, kafka: KafkaBroker) -> Iterator[tuple[int, int]]:
    """The ids of a process and of the service that it has started."""
    assert kafka.running  # what starts here is no broker, but needs the same machine
    program = (
        "import time; from pathlib import Path; from tests.services.leash import Leashed\n"
        f"print(Leashed(['sleep', '60'], Path({str(tmp_path / 'log')!r})).pid, flush=True)\n"
        "time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    yield parent.pid, int(parent.stdout.readline())
    parent.stdout.close()
    parent.wait()


def test_a_service_dies_with_the_process_that_started_it(orphan: tuple[int, int]) -> None:
    parent, child = orphan
    os.kill(child, 0)
    os.kill(parent, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if not _alive(child):
            return
        time.sleep(0.05)
    os.kill(child, signal.SIGKILL)
    pytest.fail("the service lives on")


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # In a container without an init, the dead may stay as zombies.
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def test_ports_differ_and_are_free() -> None:
    ports = free_ports(20)
    assert len(set(ports)) == 20
    assert all(20_000 <= port < 32_000 for port in ports)
