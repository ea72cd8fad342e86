"""What is kept from a user's terminal, and what is not."""

from __future__ import annotations

import sys
import threading

import pytest

from pipelines.beam_log import quiet_stderr


def fails_after(event: threading.Event) -> threading.Thread:
    def work() -> None:
        event.wait()
        msg = "the engine is gone"
        raise RuntimeError(msg)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Threads whose errors the interpreter would have printed."""
    threads: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: threads.append(args.thread))
    return threads


def test_a_thread_that_the_block_leaves_behind_prints_nothing(printed: list[object]) -> None:
    for _ in range(2):
        go = threading.Event()
        with quiet_stderr(True):
            left = fails_after(go)
        go.set()
        left.join()
    assert printed == []


def test_every_other_thread_prints_its_error(printed: list[object]) -> None:
    go = threading.Event()
    before = fails_after(go)
    with quiet_stderr(True):
        left = fails_after(go)
    after = fails_after(go)
    go.set()
    for each in (before, left, after):
        each.join()
    assert set(printed) == {before, after}


def test_a_thread_that_took_the_stream_in_the_block_may_still_write_to_it() -> None:
    with quiet_stderr(True):
        taken = sys.stderr
    assert taken is not sys.stderr
    print("half of a stack trace", file=taken, flush=True)


def test_nothing_is_kept_back_when_the_user_wants_all(printed: list[object]) -> None:
    go = threading.Event()
    stream = sys.stderr
    with quiet_stderr(False):
        assert sys.stderr is stream
        left = fails_after(go)
    go.set()
    left.join()
    assert printed == [left]
