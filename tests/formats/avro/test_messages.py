"""Avro messages: by a registry that may be away or wrong, by a fingerprint, by a schema file."""

from __future__ import annotations

import datetime
import ipaddress
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.formats.avro.records import (
    SCHEMA,
    START,
    encoded,
    message,
    registered,
    schema_text,
    step,
)
from tests.formats.files import rows
from tests.services.schema_registry import FakeRegistry
from transforms.formats import registry
from transforms.formats.avro import lookup
from transforms.formats.avro.format import FORMAT
from transforms.formats.avro.lookup import RegistryDown, SchemaRegistry, UnknownSchema
from transforms.formats.avro.messages import given_schema
from transforms.formats.avro.schemas import BadSchema
from transforms.formats.avro.settings import AvroSettings
from transforms.formats.base import Context, Decoded, Message, MessageBatch


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Wait less, ask no proxy, and share no client with another test."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(lookup, "BACKOFF_S", 0.01)
    monkeypatch.setattr(lookup, "READ_S", 0.5)
    monkeypatch.setattr(lookup, "CONNECT_S", 0.5)
    lookup.registry_of.cache_clear()
    yield
    lookup.registry_of.cache_clear()


@pytest.fixture
def server() -> Iterator[FakeRegistry]:
    with FakeRegistry() as started:
        yield started


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def decode(payloads: list[bytes], avro: AvroSettings | None, **settings: object) -> Decoded:
    messages = [message(payload, i) for i, payload in enumerate(payloads)]
    return FORMAT.decode(messages, Context(avro=avro, **settings))  # type: ignore[arg-type]


def test_messages_by_a_registry(server: FakeRegistry) -> None:
    first = server.register(SCHEMA)
    other = {**SCHEMA, "name": "Other"}
    second = server.register(other)
    payloads = [registered(first, step(0)), registered(second, step(1), other)] * 50
    found = decode(payloads, AvroSettings(server.url), items=("amount",))
    assert (found.decoded, found.dead) == (100, 0)
    assert rows(found.events, "case_id", "event_time", "activity")[0] == ("c0", START, "send")
    assert found.events["position"].null_count == 100
    # A schema is asked for once.
    assert server.asked == [f"/schemas/ids/{first}", f"/schemas/ids/{second}"]
    # A producer's repeat is the same event, whatever its schema's id.
    assert len(set(found.events["event_id"].to_pylist())) == 2


def test_messages_are_detected() -> None:
    assert registry.detect(registered(3, step(0)), "steps/0") is FORMAT
    assert registry.detect(b"\xc3\x01" + bytes(8), "steps/0") is FORMAT
    for other in (b"\0", b"\0\0\0\0\0x", '{"a": 1}'.encode("utf-16-be"), b"\0\xff\xff\xff\xffx"):
        found = registry.detect(other, "steps/0")
        assert found is None or found.name != "avro"


def test_a_batch_of_a_broker(server: FakeRegistry) -> None:
    number = server.register(SCHEMA)
    bodies = [registered(number, step(0)), b"\0\0\0\0\x63x", registered(number, step(2))]
    batch = MessageBatch(
        pa.array(bodies, pa.binary()),
        pa.array(["steps/0"] * 3).dictionary_encode(),
        pa.array([5, 6, 7], pa.int64()),
        pa.array([1_724_760_000_000_000] * 3, pa.int64()),
        [{"a": "b"}] * 3,
    )
    found = FORMAT.decode(batch, Context(avro=AvroSettings(server.url)))
    assert rows(found.events, "source", "source_offset") == [("steps/0", 5), ("steps/0", 7)]
    failure = found.failures[0]
    assert (failure.source, failure.payload) == ("steps/0/6", bodies[1])
    assert failure.attributes == {"a": "b", "format": "avro"}


def test_columns_are_recognised_and_fixed(server: FakeRegistry) -> None:
    number = server.register(SCHEMA)
    context = Context(avro=AvroSettings(server.url))
    fixed, warnings = FORMAT.recognise([registered(number, step(0))], context)
    assert warnings == ()
    assert fixed.columns["case_id"] == "case_id"
    assert FORMAT.decode([message(registered(number, step(1)))], fixed).decoded == 1


def test_without_a_registry_at_the_start_no_batch_decides_by_itself(server: FakeRegistry) -> None:
    """An id is seen from several values only: they must not be those of one batch."""
    fields = [*SCHEMA["fields"], {"name": "event_id", "type": "string"}]
    schema = {**SCHEMA, "name": "Numbered", "fields": fields}
    number = server.register(schema)
    fixed, _ = FORMAT.recognise([registered(9, step(0))], Context(avro=AvroSettings(server.url)))
    sent = [registered(number, step(i, event_id=f"E{i % 2}"), schema) for i in range(4)]
    whole = FORMAT.decode([message(each) for each in sent], fixed).events["event_id"].to_pylist()
    alone = [
        FORMAT.decode([message(each)], fixed).events["event_id"].to_pylist()[0] for each in sent
    ]
    assert len(set(whole)) == 4
    assert alone == whole


@pytest.mark.parametrize(
    ("payload", "error", "reason"),
    [
        (b"\0\0\0\0\x63", "UnknownSchema", "has no schema id 99"),
        (b"\0\0\0", "InvalidAvro", "3 bytes"),
        (b"\x01\0\0\0\x01x", "InvalidAvro", "begins with byte 1"),
        (b"", "InvalidAvro", "empty"),
        (b"Obj\x01...", "InvalidAvro", "container file"),
        (registered(1, step(0))[:-3], "InvalidAvro", "does not fit its schema"),
        (registered(1, step(0))[:7], "InvalidAvro", "does not fit its schema: it ends too early"),
        (registered(1, step(0)) + b"x", "InvalidAvro", "1 bytes are left over"),
        (b"\0\0\0\0\x01" + b"\xff" * 30, "InvalidAvro", "does not fit its schema"),
        (registered(1, step(0, activity=None)), "MissingActivity", "no activity"),
        (b"\xc3\x01" + bytes(8), "UnknownSchema", "--avro_schema"),
        (b"\xc3\x01abc", "InvalidAvro", "5 bytes"),
    ],
)
def test_a_bad_message_is_a_dead_letter(
    server: FakeRegistry, payload: bytes, error: str, reason: str
) -> None:
    number = server.register(SCHEMA)
    found = decode(
        [registered(number, step(0)), payload, registered(number, step(2))],
        AvroSettings(server.url),
    )
    assert (found.decoded, found.dead) == (2, 1)
    failure = found.failures[0]
    assert (failure.error, failure.payload, failure.source) == (error, payload, "steps/0/1")
    assert reason in failure.message
    assert failure.attributes["format"] == "avro"


def test_a_registry_that_is_down_is_retried_then_left_alone_then_asked_again(
    server: FakeRegistry,
) -> None:
    number = server.register(SCHEMA)
    clock = Clock()
    client = SchemaRegistry(AvroSettings(server.url), clock)
    server.failing = 100
    with pytest.raises(RegistryDown, match="answers 503"):
        client.schema(number)
    assert len(server.asked) == 1 + lookup.RETRIES
    # For a while nobody waits for it.
    with pytest.raises(RegistryDown, match="answers 503"):
        client.schema(number)
    assert len(server.asked) == 1 + lookup.RETRIES
    server.failing = 0
    clock.now += 2
    assert client.schema(number)["name"] == "Step"


def test_pauses_grow_and_end(server: FakeRegistry) -> None:
    clock = Clock()
    client = SchemaRegistry(AvroSettings(server.url), clock)
    server.answer, server.status = b"{}", 500
    pauses = []
    for _ in range(8):
        with pytest.raises(RegistryDown):
            client.schema(1)
        before = len(server.asked)
        pause = 0.0
        while len(server.asked) == before:
            pause += 0.5
            clock.now += 0.5
            with pytest.raises(RegistryDown):
                client.schema(1)
        pauses.append(pause)
    assert pauses[0] <= pauses[1] <= pauses[2]
    assert max(pauses) <= lookup.LONGEST_PAUSE_S


def test_the_stream_goes_on_while_the_registry_is_down(server: FakeRegistry) -> None:
    known, unknown = server.register(SCHEMA), server.register({**SCHEMA, "name": "Later"})
    settings = AvroSettings(server.url)
    assert decode([registered(known, step(0))], settings).decoded == 1
    server.stop()
    later = [registered(known, step(1)), registered(unknown, step(2)), registered(unknown, step(3))]
    found = decode(later, settings)
    assert (found.decoded, [f.error for f in found.failures]) == (1, ["RegistryDown"] * 2)
    assert "cannot be asked" in found.failures[0].message
    assert "refused" in found.failures[0].message
    server.start()
    lookup.registry_of(settings)._until = 0.0  # the pause is over
    assert decode(later, settings).decoded == 3
    # What was dead is read again from its dead letter.
    failure = found.failures[0]
    again = FORMAT.decode(
        [Message(failure.payload, "steps/0", 1, failure.attributes)], Context(avro=settings)
    )
    assert again.decoded == 1


def test_a_short_fault_is_not_noticed(server: FakeRegistry) -> None:
    number = server.register(SCHEMA)
    server.failing = 2
    assert decode([registered(number, step(0))], AvroSettings(server.url)).decoded == 1


@pytest.mark.parametrize(
    ("answer", "status", "reason"),
    [
        (b"<html>hello</html>", 200, "is no schema"),
        (b"[]", 200, "is no schema"),
        (b'{"schema": 5}', 200, "is no schema"),
        (b"", 200, "is no schema"),
        (b"x" * (lookup.MAX_ANSWER + 1), 200, "more than 1,048,576 bytes"),
        (b"<html>not here</html>", 404, "answers 404; is the path"),
        (b"", 302, "answers 302"),
        (b"", 403, "answers 403"),
    ],
)
def test_nonsense_is_no_schema(
    server: FakeRegistry, answer: bytes, status: int, reason: str
) -> None:
    server.answer, server.status = answer, status
    found = decode([registered(1, step(0))], AvroSettings(server.url))
    assert found.failures[0].error == "RegistryDown"
    assert reason in found.failures[0].message


def test_a_registry_that_does_not_answer(
    server: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "READ_S", 0.05)
    monkeypatch.setattr(lookup, "RETRIES", 1)
    server.delay_s = 0.4
    with pytest.raises(RegistryDown, match="timed out"):
        SchemaRegistry(AvroSettings(server.url)).schema(1)


def test_an_id_that_is_not_there_is_not_asked_for_all_the_time(server: FakeRegistry) -> None:
    clock = Clock()
    client = SchemaRegistry(AvroSettings(server.url), clock)
    for _ in range(3):
        with pytest.raises(UnknownSchema, match="has no schema id 1"):
            client.schema(1)
    assert len(server.asked) == 1
    server.register(SCHEMA)
    clock.now += lookup.UNKNOWN_S + 1
    assert client.schema(1)["name"] == "Step"


def test_references_are_resolved(server: FakeRegistry) -> None:
    region = {
        "type": "record",
        "name": "Region",
        "namespace": "a",
        "fields": [{"name": "name", "type": "string"}],
    }
    order = {
        "type": "record",
        "name": "Order",
        "namespace": "a",
        "fields": [{"name": "region", "type": "a.Region"}, {"name": "second", "type": "a.Region"}],
    }
    event = {
        "type": "record",
        "name": "Event",
        "fields": [
            {"name": "case_id", "type": "string"},
            {"name": "order", "type": "a.Order"},
            {"name": "region", "type": "a.Region"},
        ],
    }
    server.register(region, "region/value")
    server.register(order, "order", [("a.Region", "region/value")])
    refers = [("a.Order", "order"), ("a.Region", "region/value")]
    number = server.register(event, "event", refers)
    client = SchemaRegistry(AvroSettings(server.url))
    schema = client.schema(number)
    assert [field["name"] for field in schema["fields"]] == ["case_id", "order", "region"]
    assert server.asked.count("/subjects/region%2Fvalue/versions/1") == 1


def test_references_that_lead_nowhere(server: FakeRegistry) -> None:
    loop = server.register({**SCHEMA, "name": "A"}, "a", [("B", "b")])
    server.register({**SCHEMA, "name": "B"}, "b", [("A", "a")])
    gone = server.register({**SCHEMA, "name": "C"}, "c", [("D", "nowhere")])
    client = SchemaRegistry(AvroSettings(server.url))
    with pytest.raises(BadSchema, match="leads back to itself"):
        client.schema(loop)
    with pytest.raises(UnknownSchema, match="version 1 of nowhere"):
        client.schema(gone)


def test_schemas_of_other_kinds(server: FakeRegistry) -> None:
    proto = server.register("syntax = 'proto3';", kind="PROTOBUF")
    broken = server.register('{"type": "record"}')
    client = SchemaRegistry(AvroSettings(server.url))
    with pytest.raises(BadSchema, match="PROTOBUF, and only AVRO"):
        client.schema(proto)
    with pytest.raises(BadSchema, match="not an Avro schema"):
        client.schema(broken)
    found = decode([registered(proto, step(0))], AvroSettings(server.url))
    assert found.failures[0].error == "UnsupportedSchema"


def test_user_and_password() -> None:
    with FakeRegistry(user="kim", password="s:e:c") as server:
        number = server.register(SCHEMA)
        good = SchemaRegistry(AvroSettings(server.url, "kim", "s:e:c"))
        assert good.schema(number)["name"] == "Step"
        with pytest.raises(RegistryDown, match="answers 401; give user and password"):
            SchemaRegistry(AvroSettings(server.url)).schema(number)
        wrong = AvroSettings(server.url, "kim", "wrong-password")
        with pytest.raises(RegistryDown, match="answers 401") as refused:
            SchemaRegistry(wrong).schema(number)
        assert "wrong-password" not in str(refused.value) + repr(wrong)


def certificate(folder: Path) -> tuple[str, str]:
    """Write a certificate for 127.0.0.1, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "registry")])
    now = datetime.datetime.now(datetime.timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    plain = serialization.PrivateFormat.PKCS8
    (folder / "cert.pem").write_bytes(made.public_bytes(pem))
    (folder / "key.pem").write_bytes(key.private_bytes(pem, plain, serialization.NoEncryption()))
    return str(folder / "cert.pem"), str(folder / "key.pem")


def test_tls(tmp_path: Path) -> None:
    tls = certificate(tmp_path)
    with FakeRegistry(tls=tls) as server:
        number = server.register(SCHEMA)
        assert SchemaRegistry(AvroSettings(server.url, ca=tls[0])).schema(number)["name"] == "Step"
        with pytest.raises(RegistryDown, match="certificate verify failed"):
            SchemaRegistry(AvroSettings(server.url)).schema(number)


def test_messages_by_fingerprint_and_bare_ones() -> None:
    settings = AvroSettings(schema=schema_text())
    known = given_schema(settings.schema)[1]
    single = b"\xc3\x01" + known + encoded(step(0))
    other = b"\xc3\x01" + bytes(8) + encoded(step(0))
    found = decode([single, encoded(step(1)), other], settings)
    assert found.decoded == 2
    assert [f.error for f in found.failures] == ["UnknownSchema"]
    assert known.hex() in found.failures[0].message


def test_the_fingerprint_is_the_standard_s() -> None:
    # Avro's own table of CRC-64-AVRO: "int" is 7275d51a3f395c8f, least significant byte first.
    assert given_schema('"int"')[1].hex() == "8f5c393f1ad57572"


def test_without_a_registry_the_option_is_named() -> None:
    found = decode([registered(7, step(0))], None)
    assert found.failures[0].error == "UnknownSchema"
    assert "schema id 7; --schema_registry says where" in found.failures[0].message


def test_a_value_that_is_no_record() -> None:
    found = decode([encoded(5, "int")], AvroSettings(schema='"int"'))
    assert found.failures[0].message == "does not fit its schema: a value of type int, not a record"


def test_a_branch_that_the_schema_does_not_have() -> None:
    schema = {"type": "record", "name": "E", "fields": [{"name": "a", "type": ["null", "string"]}]}
    found = decode([b"\x08aa"], AvroSettings(schema=json.dumps(schema)))
    assert "names a branch of a union" in found.failures[0].message


def test_a_message_that_is_too_large(server: FakeRegistry) -> None:
    number = server.register(SCHEMA)
    settings = AvroSettings(server.url)
    found = decode(
        [registered(number, step(0, case_id="x" * 2000))], settings, max_message_bytes=99
    )
    assert found.failures[0].error == "TooLarge"
