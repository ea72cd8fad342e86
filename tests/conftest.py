"""The law of messages, checked wherever a test decodes anything."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from transforms.formats.base import Decoded

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As a shell leaves it to what it starts in the background: children would not hear Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["tests.services.fixtures"]


@pytest.fixture(autouse=True)
def law_of_messages(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test in which a batch's messages are not decoded + skipped + dead."""
    broken: list[str] = []
    check = Decoded.__post_init__

    def checked(self: Decoded) -> None:
        check(self)
        if self.received != self.decoded + self.skipped + self.dead:
            broken.append(
                f"{self.received} messages, {self.decoded} decoded + {self.skipped} skipped "
                f"+ {self.dead} dead"
            )

    monkeypatch.setattr(Decoded, "__post_init__", checked)
    yield
    assert not broken
