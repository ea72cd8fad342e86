"""Messages are published in requests that the service takes; what it does not take is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples import publish
from tests.services.pubsub import PROJECT, PubSubService


def test_large_messages_go_in_requests_of_their_own(
    pubsub: PubSubService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Together they are more than a request may have."""
    files = [tmp_path / f"{number}.xml" for number in range(4)]
    for number, file in enumerate(files):
        file.write_bytes(b"%d" % number * 1_000_000)
    lines = tmp_path / "events.jsonl"
    lines.write_bytes(b'{"a": 1}\n\n' * 1_500)
    with pubsub.found():
        topic = f"pubsub://{PROJECT}/published"
        assert publish.main([topic, "--create", *map(str, [*files, lines])]) == 0
        taken = pubsub.take("published", 1_504)
    assert "1,504 messages published" in capsys.readouterr().out
    large = sorted(each.data for each in taken if len(each.data) > 100)
    assert large == [file.read_bytes() for file in files]
    assert len(taken) == 1_504


def test_what_the_service_does_not_take_is_said_at_once(
    pubsub: PubSubService, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (large := tmp_path / "large.xml").write_bytes(b"x" * 5_000_000)
    (small := tmp_path / "small.xml").write_bytes(b"x")
    with pubsub.found():
        assert publish.main([f"pubsub://{PROJECT}/refused", "--create", str(large)]) == 1
        assert publish.main([f"pubsub://{PROJECT}/nowhere", str(small)]) == 1
    said = capsys.readouterr().err
    assert "larger than max" in said
    assert "topics/nowhere does not exist; --create makes it" in said
