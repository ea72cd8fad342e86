"""Addresses, client settings, and what is said when a broker does not agree."""

from __future__ import annotations

import pickle
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.services.kafka import SASL_PASSWORD, SASL_USER, KafkaBroker
from tests.services.ports import free_ports as free
from transforms.kafka import (
    BadAddress,
    BrokerFault,
    KafkaAddress,
    KafkaTarget,
    check,
    check_target,
    matching,
)
from transforms.kafka.settings import client_settings, read_properties, translate


def test_all_parts_of_an_input() -> None:
    address = KafkaAddress.parse(
        "kafka://one:9092,two/orders,work%66low-*?group=G%20H&start=2024-01-01T00:00%2B01:00"
        "&config=/etc/client.properties&idle=2m"
    )
    assert address.servers == ("one:9092", "two:9092")
    assert address.topics == ("orders", "workflow-*")
    assert address.group == "G H"
    assert address.start_ms == 1_704_063_600_000
    assert address.idle_ms == 120_000
    assert KafkaAddress.parse(str(address)) == address
    assert pickle.loads(pickle.dumps(address)) == address


def test_what_is_left_out() -> None:
    address = KafkaAddress.parse("kafka://h/t", group="transitions")
    assert (address.group, address.start, address.start_ms) == ("transitions", "committed", None)
    assert str(address) == "kafka://h:9092/t?group=transitions"
    target = KafkaTarget.parse("kafka://h/")
    assert (target.topic("cases"), target.partitions, target.replication) == ("cases", 6, 1)


def test_an_output() -> None:
    target = KafkaTarget.parse("kafka://h:1/out-?partitions=3&replication=2")
    assert target.topic("cases") == "out-cases"
    assert (target.partitions, target.replication) == (3, 2)
    assert KafkaTarget.parse(str(target)) == target


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("file:///a", ["kafka://"]),
        ("kafka://h:1", ["names no topic"]),
        ("kafka:///t", ["''", "host:port"]),
        ("kafka://h:99999/t", ["h:99999", "host:port"]),
        ("kafka://h/a b", ["'a b'", "no topic name"]),
        ("kafka://h/t?strat=x", ["'strat'", "did you mean start"]),
        ("kafka://h/t?fetch.min.bytes=1", ["fetch.min.bytes", "config=FILE"]),
        ("kafka://h/t?start=soon", ["start=soon", "earliest"]),
        ("kafka://h/t?start=2024-01-01T00:00", ["no time zone"]),
        ("kafka://h/t?idle=3", ["idle=3", "such as 3s"]),
        ("kafka://h/t?group=", ["group is empty"]),
        ("kafka://h/t?idle=1s&idle=2s", ["idle is given twice"]),
    ],
)
def test_bad_addresses(uri: str, words: list[str]) -> None:
    with pytest.raises(BadAddress) as e:
        KafkaAddress.parse(uri)
    assert all(word in str(e.value) for word in words), e.value
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("uri", ["kafka://h/o-*", "kafka://h/o?partitions=0", "kafka://h/o?x=1"])
def test_bad_outputs(uri: str) -> None:
    with pytest.raises(BadAddress):
        KafkaTarget.parse(uri)


@pytest.mark.parametrize(
    "uri",
    [
        "kafka://me:hunter2@h:1/t",
        "kafka://h/t?sasl.password=hunter2",
        "kafka://h/t?ssl.key.password=hunter2",
        "kafka://h/t?sasl.jaas.config=hunter2",
    ],
)
def test_secrets_are_refused_and_not_repeated(uri: str) -> None:
    for parse in (KafkaAddress.parse, KafkaTarget.parse):
        with pytest.raises(BadAddress) as e:
            parse(uri)
        assert "hunter2" not in str(e.value)
        assert "config=FILE" in str(e.value)


def test_patterns() -> None:
    names = ["orders", "workflow-1.0", "workflow-1.1", "__consumer_offsets", "other"]
    assert matching(names, ["workflow-*"]) == {"workflow-1.0", "workflow-1.1"}
    assert matching(names, ["*"]) == set(names) - {"__consumer_offsets"}
    assert matching(names, ["orders", "missing"]) == {"orders"}


def test_properties_as_java_reads_them() -> None:
    text = (
        "# comment\n! another\n\n a = 1\nb:2\nc 3\nlong = one, \\\n   two\n"
        "path=C\\:\\\\x\nu=\\u00e9\u00e9\nempty=\nkey\\ with = x=y\nlast"
    )
    assert read_properties(text) == {
        "a": "1",
        "b": "2",
        "c": "3",
        "long": "one, two",
        "path": "C:\\x",
        "u": "\u00e9\u00e9",
        "empty": "",
        "key with": "x=y",
        "last": "",
    }


NAMES = st.text("abc.", min_size=1)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters=" \\"))


@given(st.dictionaries(NAMES, VALUES.filter(lambda v: v[:1] not in {"=", ":"})))
def test_plain_properties_come_back(properties: dict[str, str]) -> None:
    text = "".join(f"{name}={value}\n" for name, value in properties.items())
    assert read_properties(text) == properties


def test_names_are_translated() -> None:
    settings = translate(
        {
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": "PLAIN",
            "sasl.jaas.config": "org.apache.kafka.common.security.plain.PlainLoginModule required "
            'username="me" password="a\\"b;c";',
            "ssl.truststore.location": "/ca.pem",
            "ssl.truststore.type": "PEM",
            "key.deserializer": "x",
            "ssl.endpoint.identification.algorithm": "",
        },
        "f",
    )
    assert settings == {
        "security.protocol": "SASL_SSL",
        "sasl.mechanism": "PLAIN",
        "sasl.username": "me",
        "sasl.password": 'a"b;c',
        "ssl.ca.location": "/ca.pem",
        "ssl.endpoint.identification.algorithm": "none",
    }


@pytest.mark.parametrize(
    ("properties", "fix"),
    [
        ({"ssl.truststore.location": "/x.jks"}, "ssl.ca.location"),
        ({"ssl.truststore.location": "/x", "ssl.truststore.type": "PKCS12"}, "ssl.ca.location"),
        ({"ssl.keystore.location": "/x.jks"}, "PKCS12"),
        ({"sasl.jaas.config": "Krb5LoginModule required password=hunter2;"}, "sasl.username"),
    ],
)
def test_what_librdkafka_cannot_do(properties: dict[str, str], fix: str) -> None:
    with pytest.raises(BadAddress) as e:
        translate(properties, "file")
    assert fix in str(e.value)
    assert "hunter2" not in str(e.value)


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(BadAddress, match="config=/no/such: No such file"):
        client_settings("/no/such")


# With a broker


def refused(uri: str, *, within: float = 30, patience: float = 10) -> str:
    start = time.monotonic()
    with pytest.raises((BrokerFault, BadAddress)) as e:
        check(KafkaAddress.parse(uri), patience)
    assert time.monotonic() - start < within
    assert "\n" not in str(e.value)
    return str(e.value)


def test_topics_of_a_broker(kafka: KafkaBroker) -> None:
    kafka.create_topic("check-a", 3)
    kafka.create_topic("check-b", 1)
    address = KafkaAddress.parse(f"kafka://{kafka.address}/check-*")
    assert check(address) == {"check-a": 3, "check-b": 1}
    assert check(KafkaAddress.parse(f"kafka://{kafka.address}/none-yet-*")) == {}
    assert check_target(KafkaTarget.parse(f"kafka://{kafka.address}/x-"))["check-a"] == 3


def test_a_missing_topic_names_those_that_are_near(kafka: KafkaBroker) -> None:
    kafka.create_topic("invoices", 1)
    text = refused(f"kafka://{kafka.address}/invoces", within=5)
    assert "no topic 'invoces'" in text
    assert "invoices" in text


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_no_broker(host: str, capfd: pytest.CaptureFixture[str]) -> None:
    port = free(1)[0]
    text = refused(f"kafka://{host}:{port}/t", patience=2, within=10)
    assert f"no Kafka broker answers at {host}:{port}" in text
    assert capfd.readouterr().err == ""


def _properties(folder: Path, text: str) -> Path:
    path = folder / "client.properties"
    path.write_text(text, encoding="utf-8")
    return path


def _sasl(password: str) -> str:
    return (
        "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=PLAIN\nsasl.jaas.config="
        "org.apache.kafka.common.security.plain.PlainLoginModule required \\\n"
        f'    username="{SASL_USER}" password="{password}";\n'
    )


def test_credentials(kafka: KafkaBroker, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    kafka.create_topic("secret", 1)
    capfd.readouterr()
    uri = f"kafka://{kafka.sasl_address}/secret?config={tmp_path}/client.properties"
    _properties(tmp_path, _sasl(SASL_PASSWORD))
    assert check(KafkaAddress.parse(uri)) == {"secret": 1}
    _properties(tmp_path, _sasl("hunter2"))
    text = refused(uri)
    assert "refuses us" in text
    assert "hunter2" not in text
    assert capfd.readouterr().err == ""


def test_tls(kafka: KafkaBroker, tmp_path: Path) -> None:
    kafka.create_topic("checked-tls", 1)
    uri = f"kafka://{kafka.ssl_address}/checked-tls?config={tmp_path}/client.properties"
    _properties(
        tmp_path,
        f"security.protocol=SSL\nssl.truststore.type=PEM\nssl.truststore.location={kafka.ssl_ca}\n",
    )
    assert check(KafkaAddress.parse(uri)) == {"checked-tls": 1}
    _properties(tmp_path, "security.protocol=SSL\n")
    assert "refuses us" in refused(uri)
    _properties(tmp_path, "security.protocol=SSL\nssl.cipher.suits=x\n")
    assert 'No such configuration property: "ssl.cipher.suits"' in refused(uri)
