"""The Pub/Sub double as a service: started, killed, started again; what a test may rely on."""

from __future__ import annotations

import os
import time

import pytest

from tests.services.ports import listens
from tests.services.provision import Missing
from tests.services.pubsub import EMULATOR, NAME, PROJECT, PubSubService


def test_it_delivers_again_what_is_not_acknowledged(pubsub: PubSubService) -> None:
    pubsub.create_topic("again", ["again"], ack_deadline_seconds=10)
    pubsub.publish("again", [b"x"], {"a": "b"})
    client = pubsub.subscriber()
    path = f"projects/{PROJECT}/subscriptions/again"
    (first,) = client.pull(subscription=path, max_messages=5).received_messages
    assert pubsub.take("again") == [], "somebody has it"
    client.modify_ack_deadline(subscription=path, ack_ids=[first.ack_id], ack_deadline_seconds=0)
    (second,) = pubsub.take("again", 1)
    assert (second.data, second.message_id) == (b"x", first.message.message_id)
    assert dict(second.attributes) == {"a": "b"}
    assert pubsub.take("again") == []


def test_it_is_found_by_its_variable_alone(pubsub: PubSubService) -> None:
    before = os.environ.get(EMULATOR)
    with pubsub.found():
        assert os.environ[EMULATOR] == pubsub.address
    assert os.environ.get(EMULATOR) == before
    assert pubsub.address.startswith("127.0.0.1:")


def test_it_is_killed_by_its_id_and_starts_on_the_same_port(own_pubsub: PubSubService) -> None:
    pid = own_pubsub.pid
    assert pid is not None
    assert listens(own_pubsub.address)
    own_pubsub.kill()
    assert own_pubsub.pid is None
    deadline = time.monotonic() + 10
    while listens(own_pubsub.address):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    own_pubsub.start()
    assert own_pubsub.pid not in {None, pid}
    own_pubsub.create_topic("empty", ["empty"])
    assert own_pubsub.take("empty") == []


def test_without_go_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Missing, match="go is not on PATH") as raised:
        PubSubService().start()
    assert raised.value.name == NAME
