"""Pub/Sub's addresses, and what is said of a service that is not as hoped."""

from __future__ import annotations

import pytest

from tests.services.ports import free_ports
from tests.services.pubsub import EMULATOR, PROJECT, PubSubService
from transforms.pubsub import (
    BadAddress,
    BrokerFault,
    PubSubAddress,
    PubSubTarget,
    check,
    check_target,
)
from transforms.sinks.pubsub import create_topics


def test_an_address_and_its_text() -> None:
    text = "pubsub://my-project/orders,other.sub?idle=5s&lease=30s&readers=3&waiting=500"
    address = PubSubAddress.parse(text)
    assert address == PubSubAddress(
        "my-project", ("orders", "other.sub"), 5000, 30_000, 3, 500, address.waiting_bytes
    )
    assert PubSubAddress.parse(str(address)) == address
    assert address.path("orders") == "projects/my-project/subscriptions/orders"
    plain = PubSubAddress.parse("pubsub://my-project/orders")
    assert PubSubAddress.parse(str(plain)) == plain
    assert PubSubAddress.parse("pubsub://example.com:my-project/orders").project == (
        "example.com:my-project"
    )


def test_a_target_and_its_text() -> None:
    target = PubSubTarget.parse("pubsub://my-project/out-?create=yes&ordering=key")
    assert target == PubSubTarget("my-project", "out-", True, True)
    assert PubSubTarget.parse(str(target)) == target
    assert target.path("cases") == "projects/my-project/topics/out-cases"
    assert PubSubTarget.parse("pubsub://my-project/") == PubSubTarget("my-project")


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("pubsub://", "names no project"),
        ("pubsub://My-Project/s", "'My-Project' is no id of a project"),
        ("pubsub://short/sub", "'short' is no id of a project"),
        ("pubsub://localhost:8085/sub", "PUBSUB_EMULATOR_HOST"),
        ("pubsub://my-project", "names no subscription"),
        ("pubsub://my-project/", "names no subscription"),
        ("pubsub://my-project/ab", "'ab' is no name of a subscription"),
        ("pubsub://my-project/1abc", "a letter first"),
        ("pubsub://my-project/google-s", "and not goog"),
        ("pubsub://my-project/orders-*", "is a pattern; name each"),
        ("pubsub://my-project/subscriptions/orders", "without projects/"),
        ("pubsub://my-project/orders?lease=5s", "lease=5s is not 10s to 600s"),
        ("pubsub://my-project/orders?lease=11m", "is not 10s to 600s"),
        ("pubsub://my-project/orders?lease=10500ms", "in whole seconds"),
        ("pubsub://my-project/orders?idle=5", "add its unit, such as 5s"),
        ("pubsub://my-project/orders?readers=0", "readers=0 is no number from 1 to 100"),
        ("pubsub://my-project/orders?idel=5s", "did you mean idle?"),
        ("pubsub://my-project/orders?group=x", "known: idle, lease, readers, waiting"),
        ("pubsub://my-project/orders?idle=5s&idle=6s", "idle is given twice"),
        ("kafka://my-project/orders", "begins with pubsub://"),
    ],
)
def test_a_bad_address_says_what_and_how_to_mend_it(uri: str, said: str) -> None:
    with pytest.raises(BadAddress) as raised:
        PubSubAddress.parse(uri)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("pubsub://my-project/9out-", "cannot begin a topic's name"),
        ("pubsub://my-project/google-", "cannot begin a topic's name"),
        ("pubsub://my-project/out-?create=true", "create=true is neither yes nor no"),
        ("pubsub://my-project/out-?ordering=case", "ordering=case is neither key nor none"),
        ("pubsub://my-project/out-?partitions=3", "known: create, ordering"),
        ("pubsub://my-project/a/b", "is no name"),
    ],
)
def test_a_bad_target_says_what_and_how_to_mend_it(uri: str, said: str) -> None:
    with pytest.raises(BadAddress) as raised:
        PubSubTarget.parse(uri)
    assert said in str(raised.value)


def test_what_is_there_and_what_is_not(
    pubsub: PubSubService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EMULATOR, pubsub.address)
    pubsub.create_topic("checked", ["checked-one", "checked-two"])
    uri = f"pubsub://{PROJECT}/checked-one,checked-two?readers=2"
    topics = {f"{PROJECT}/checked-one": 2, f"{PROJECT}/checked-two": 2}
    assert check(PubSubAddress.parse(uri)) == topics
    with pytest.raises(BrokerFault) as raised:
        check(PubSubAddress.parse(f"pubsub://{PROJECT}/checked-on"))
    assert str(raised.value).startswith(
        f"projects/{PROJECT}/subscriptions/checked-on does not exist; there is checked-one"
    )
    with pytest.raises(BrokerFault, match="topics/checked-cases does not exist.*create=yes"):
        check_target(PubSubTarget.parse(f"pubsub://{PROJECT}/checked-"), ("cases",))
    target = PubSubTarget.parse(f"pubsub://{PROJECT}/made-?create=yes")
    assert check_target(target, ("cases", "late")) == ["cases", "late"]
    assert create_topics(target, ["cases", "late"]) == ["made-cases", "made-late"]
    assert create_topics(target, ["cases"]) == []
    assert check_target(target, ("cases", "late")) == []
    path = f"projects/{PROJECT}/topics/made-late"
    pubsub.subscribe("made-late", "orphan")
    pubsub.publisher().delete_topic(topic=path)
    with pytest.raises(BrokerFault, match="its topic was deleted"):
        check(PubSubAddress.parse(f"pubsub://{PROJECT}/orphan"))
    pushed = {"push_config": {"push_endpoint": "https://example.org/x"}}
    pubsub.subscribe("checked", "pushed", **pushed)
    with pytest.raises(BrokerFault, match="is pushed to https://example.org/x; give one to pull"):
        check(PubSubAddress.parse(f"pubsub://{PROJECT}/pushed"))


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"127.0.0.1:{free_ports(1)[0]}"
    monkeypatch.setenv(EMULATOR, address)
    with pytest.raises(BrokerFault, match=f"no Pub/Sub emulator answers at {address}"):
        check(PubSubAddress.parse("pubsub://my-project/orders"), 2)
    with pytest.raises(BrokerFault, match=f"no Pub/Sub emulator answers at {address}"):
        check_target(PubSubTarget.parse("pubsub://my-project/"), ("cases",), 2)


def test_no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.delenv(EMULATOR, raising=False)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", f"{tmp_path}/none.json")
    with pytest.raises(BrokerFault) as raised:
        check(PubSubAddress.parse("pubsub://my-project/orders"))
    said = str(raised.value)
    assert said.startswith("no credentials for Pub/Sub")
    assert "none.json" in said
    assert "GOOGLE_APPLICATION_CREDENTIALS" in said


def test_who_may_read_need_not_be_one_who_may_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service's refusals, which the double does not have."""
    from google.api_core.exceptions import PermissionDenied  # noqa: PLC0415

    class Client:
        granted: tuple[str, ...] = ()

        def get_subscription(self, **_: object) -> None:
            text = "User not authorized to perform this action."
            raise PermissionDenied(text)

        def test_iam_permissions(self, request: dict[str, object], **_: object) -> Client:
            assert request["resource"] == "projects/my-project/subscriptions/orders"
            return self

        @property
        def permissions(self) -> tuple[str, ...]:
            return self.granted

        @property
        def transport(self) -> Client:
            return self

        def close(self) -> None:
            pass

    client = Client()
    monkeypatch.setattr("transforms.pubsub.clients.subscriber", lambda: client)
    address = PubSubAddress.parse("pubsub://my-project/orders")
    with pytest.raises(BrokerFault) as raised:
        check(address)
    assert "no permission for projects/my-project/subscriptions/orders" in str(raised.value)
    assert "it takes pubsub.subscriptions.consume" in str(raised.value)
    client.granted = ("pubsub.subscriptions.consume",)
    assert check(address) == {"my-project/orders": 1}


def test_no_client_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "google.pubsub_v1", None)
    with pytest.raises(BadAddress, match=r"pip install 'imixs-data-streaming\[pubsub\]'"):
        check(PubSubAddress.parse("pubsub://my-project/orders"))
