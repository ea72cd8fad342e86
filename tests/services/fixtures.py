"""The services as pytest fixtures.

One broker a session and xdist worker, started by the first test that asks for it. Topics are
never removed: a test takes names of its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.services.kafka import KafkaBroker
from tests.services.prism import provision
from tests.services.provision import Missing, missing_part


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A broker that is shared by the tests of a worker: do not stop it."""
    yield from _broker(tmp_path_factory)


@pytest.fixture
def own_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    """A broker of the test's own, to stop, kill and restart."""
    yield from _broker(tmp_path_factory)


def _broker(folders: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    broker = KafkaBroker(folders.mktemp("kafka"))
    try:
        broker.start()
    except Missing as missing:
        missing_part(missing.name, missing.why)
    try:
        yield broker
    finally:
        broker.close()


@pytest.fixture(scope="session")
def prism() -> str:
    """The path of the Prism binary."""
    try:
        return str(provision())
    except Missing as missing:
        missing_part(missing.name, missing.why)
