"""The services as pytest fixtures.

One broker a session and xdist worker, started by the first test that asks for it. Topics are
never removed: a test takes names of its own. A Flink cluster is large: tests that have one are
marked with `on_flink`, by which one worker runs all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.services.chromium import flags as chromium_flags
from tests.services.chromium import provision as provision_chromium
from tests.services.flink import FlinkCluster
from tests.services.kafka import KafkaBroker
from tests.services.kafka_gate import KafkaGate
from tests.services.prism import provision
from tests.services.provision import Missing, missing_part
from tests.services.pubsub import PubSubService
from tests.services.service import S


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A broker that is shared by the tests of a worker: do not stop it."""
    yield from _running(KafkaBroker(tmp_path_factory.mktemp("kafka")))


@pytest.fixture
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A broker of the test's own, to stop, kill and restart."""
    yield from _running(KafkaBroker(tmp_path_factory.mktemp("kafka")))


@pytest.fixture(scope="module")
def kafka_gate(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaGate]:
    """A gate with a broker behind it, for the tests of a module."""
    yield from _running(KafkaGate(tmp_path_factory.mktemp("kafka")))


@pytest.fixture(scope="session")
def pubsub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PubSubService]:
    """A Pub/Sub service that is shared by the tests of a worker: do not stop it."""
    yield from _running(PubSubService(tmp_path_factory.mktemp("pubsub")))


@pytest.fixture
def own_pubsub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PubSubService]:
    """A Pub/Sub service of the test's own, to kill and start again."""
    yield from _running(PubSubService(tmp_path_factory.mktemp("pubsub")))


def _running(service: S) -> Iterator[S]:
    try:
        service.start()
    except Missing as missing:
        missing_part(missing.name, missing.why)
    try:
        yield service
    finally:
        service.close()


on_flink = pytest.mark.xdist_group("flink")
"""Marks tests that one worker runs, one after the other."""


@pytest.fixture(scope="session")
def flink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FlinkCluster]:
    """A cluster that is shared by the tests of a worker: do not kill its parts."""
    try:
        cluster = FlinkCluster(tmp_path_factory.mktemp("flink"))
    except Missing as missing:
        missing_part(missing.name, missing.why)
    with cluster:
        yield cluster


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless Chromium: a `playwright.sync_api.Browser`."""
    try:
        path = provision_chromium()
    except Missing as missing:
        missing_part(missing.name, missing.why)
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 (it may be missing)

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=chromium_flags())
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def prism() -> str:
    """The path of the Prism binary."""
    try:
        return str(provision())
    except Missing as missing:
        missing_part(missing.name, missing.why)
