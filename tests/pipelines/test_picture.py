"""The picture of a stream while it runs: rates, lag, lines on a pipe, a panel on a terminal."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from rich.console import Console

from pipelines import picture
from pipelines.picture import Lines, Rate, lag_text
from pipelines.screen import Screen
from transforms.fold.streaming import Standing


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_rate_is_of_the_last_seconds() -> None:
    clock = Clock()
    rate = Rate(clock)
    clock.now += 2
    assert rate.of(1000) == 500
    for _ in range(100):
        clock.now += 0.1
        last = rate.of(1000)
    # Nothing has come for ten seconds: the thousand are forgotten.
    assert last == 0
    clock.now += 1
    assert rate.of(1600) == pytest.approx(600 / picture.RATE_OVER_S, rel=0.05)


def test_a_rate_of_no_time_is_no_error() -> None:
    assert Rate(Clock()).of(10) == 100


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5.0, "0.0 s behind"),
        (0.25, "0.2 s behind"),
        (119.9, "119.9 s behind"),
        (120.0, "2 min behind"),
        (7199.0, "120 min behind"),
        (7200.0, "2 h behind"),
        (172_799.0, "48 h behind"),
        (172_800.0, "2 days behind"),
        (86_400.0 * 4000, "4,000 days behind"),
    ],
)
def test_lag(seconds: float, text: str) -> None:
    now = 1_700_000_000.0
    assert lag_text(int((now - seconds) * 1000), now) == text


def test_lag_of_nothing() -> None:
    assert lag_text(None, 0.0) == "nothing folded yet"


def test_a_line_every_ten_seconds() -> None:
    clock = Clock()
    said: list[str] = []
    stands = Standing(complete_ms=97_500, waiting=1200, granules=3, open=4000)
    lines = Lines(said.append, 90.0, clock, clock, lambda: stands)
    counts = {"events": 2000, "dead": 1000, "rejected": 1}
    clock.now += 9.9
    lines.update(counts)
    assert said == []
    clock.now += 0.1
    lines.update(counts)
    lines.update(counts)
    assert said == [
        "20 s: 2,000 events (200/s), 12.5 s behind, 1,200 waiting, 4,000 cases, 1,001 dead letters"
    ]
    clock.now += 10
    lines.update({**counts, "events": 3000})
    assert len(said) == 2
    assert "3,000 events (100/s), 22.5 s behind" in said[1]


def test_a_stream_that_nothing_comes_to_is_not_behind() -> None:
    clock, said = Clock(), list[str]()
    stands = [Standing(complete_ms=97_500, waiting=0, granules=0, open=4000)]
    lines = Lines(said.append, 90.0, clock, clock, lambda: stands[-1])
    counts = {"events": 2000}
    for _ in range(2):
        clock.now += 10
        lines.update(counts)
    assert "2,000 events (200/s), 12.5 s behind, 0 waiting" in said[0]
    assert "2,000 events (0/s), all folded, 0 waiting" in said[1]
    stands.append(replace(stands[0], waiting=1))
    clock.now += 10
    lines.update(counts)
    assert "2,000 events (0/s), 32.5 s behind, 1 waiting" in said[2]


def screen_on(terminal: bool) -> tuple[Screen, io.StringIO]:
    """Return a screen whose stderr is kept."""
    screen, kept = Screen(), io.StringIO()
    screen.err = Console(file=kept, force_terminal=terminal, width=80, color_system=None)
    return screen, kept


def test_a_panel_on_a_terminal() -> None:
    screen, kept = screen_on(terminal=True)
    with picture.watching(screen, True, 0.0) as panel:
        panel.update({"events": 1234, "transitions": 1200, "duplicates": 30, "late": 4, "dead": 7})
    text = kept.getvalue()
    for words in ("1,234", "1,200", "30, 4", "dead letters", "Ctrl-C stops the stream"):
        assert words in text


@pytest.mark.parametrize(("wanted", "terminal"), [(False, True), (False, False), (True, False)])
def test_no_panel_without_a_terminal_or_wish(wanted: bool, terminal: bool) -> None:
    screen, kept = screen_on(terminal)
    with picture.watching(screen, wanted, 0.0) as panel:
        panel.update({"events": 1})
    assert kept.getvalue() == ""
