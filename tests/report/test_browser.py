"""The page in a headless Chromium: what is seen, clicked, typed and printed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipelines.report.data import PANES, Contents, Look, document, packed
from pipelines.report.page import page
from tests.report.tables import BEGIN, Move, cases, save, table_of, tables
from tests.report.test_page import HOSTILE
from tests.report.test_serve import serving

CONTRAST = Path(__file__).with_name("contrast.js")
WAYS = (
    *(("in", "check", "done"),) * 6,
    *(("in", "check", "ask", "check", "done"),) * 3,
    ("in", "check", "check", "refused"),
    ("in", "refused"),
)


class Shown:
    """A page that is open, and what has gone wrong in it.

    Attributes:
        page: Playwright's.
        wrong: errors and warnings of the console, dialogs, and what was asked of the network.
    """

    def __init__(self, opened: Any) -> None:
        self.page = opened
        self.wrong: list[str] = []
        opened.on("console", lambda message: self.wrong.append(message.text))
        opened.on("pageerror", lambda error: self.wrong.append(str(error)))
        opened.on("dialog", self._spoke)
        opened.on("request", self._asked)

    def _spoke(self, dialog: Any) -> None:
        self.wrong.append("dialog")
        dialog.dismiss()

    def _asked(self, request: Any) -> None:
        if not request.url.startswith(("file:", "data:", "http://127.0.0.1:")):
            self.wrong.append(request.url)

    def figure(self, label: str) -> str:
        found = self.page.locator("#figures > div", has_text=label).locator("dd").first
        text: str = found.inner_text()
        return text

    def starts(self, count: str) -> None:
        """Wait until so many cases have started."""
        from playwright.sync_api import expect  # noqa: PLC0415 (it may be missing)

        expect(self.page.locator("#figures dd").first).to_have_text(count, timeout=30_000)

    def width(self, selector: str) -> float:
        """Return how wide the first element is, once there is one: a resize draws anew."""
        found = self.page.wait_for_function(
            "s => document.querySelector(s)?.getBoundingClientRect().width", arg=selector
        )
        width: float = found.json_value()
        return width

    def edges(self) -> int:
        count: int = self.page.locator("#map .edge").count()
        return count


@pytest.fixture
def open_page(chromium: Any, tmp_path: Path) -> Iterator[Any]:
    contexts = []

    def opener(found: dict[str, pa.Table], title: str = "Orders", **options: Any) -> Shown:
        made = document(Contents(found), Look(title, "Europe/Berlin", 1_725_000_000_000))
        file = tmp_path / "report.html"
        file.write_bytes(page(title, packed(made)))
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        shown = Shown(context.new_page())
        shown.page.goto(file.as_uri())
        return shown

    yield opener
    for context in contexts:
        context.close()


def orders(count: int = 220, **more: Any) -> dict[str, pa.Table]:
    return tables(cases(count, WAYS, groups=("Order", "Ticket"), **more))


def test_everything_is_drawn_and_nothing_asked_of_a_network(open_page: Any) -> None:
    shown = open_page(orders())
    assert shown.page.locator("h1").inner_text() == "Orders"
    assert shown.figure("Cases started") == "220"
    assert shown.page.locator("#map .node").count() == 7  # five states, start and end
    assert shown.page.locator("#cycle .bar").count() > 10
    assert shown.page.locator("#flow .series").count() >= 3
    assert shown.page.locator("#bottlenecks tbody tr").count() == 3
    assert shown.page.locator("#people .bar-row").count() == 2
    assert shown.page.locator("#heat .cell").count() == 7 * 24
    assert shown.page.locator("#variants li").count() == 4
    assert shown.wrong == []


def test_completed_twice_is_told_from_two_cases(open_page: Any) -> None:
    found = orders(30)
    shown = open_page(found)
    assert shown.page.locator("#figures .why").count() == 0
    # One of them came back after its end, and ended again.
    flow = found["flow"].to_pylist()
    place = next(i for i, row in enumerate(flow) if row["completed"])
    flow[place]["completed"] += 1
    shown = open_page({**found, "flow": table_of("flow", flow)})
    assert shown.figure("Completed") == "31"
    assert shown.page.locator("#figures .why").inner_text() == "of 30 cases"
    assert "30 cases are complete: one that comes back" in shown.page.inner_text("#flow-say")
    assert shown.wrong == []


def test_a_group_changes_all_numbers(open_page: Any) -> None:
    shown = open_page(orders())
    before = shown.page.locator("#variant-say").inner_text()
    shown.page.select_option("#pick-group", label="Ticket")
    shown.starts("110")
    assert shown.figure("Cases started") == "110"
    assert shown.page.locator("#variant-say").inner_text() != before
    shown.page.select_option("#pick-version", label="1.0")
    shown.starts("0")
    assert "Versions are not told apart" in shown.page.locator("#variant-say").inner_text()
    shown.page.click("#reset")
    shown.starts("220")
    assert shown.wrong == []


def test_a_period_counts_its_windows_only(open_page: Any) -> None:
    found = orders()
    shown = open_page(found)
    slider = shown.page.locator("#period-to")
    slider.focus()
    slider.press("Home")
    starts = found["flow"].to_pylist()
    first = min(row["window_start"] for row in starts)
    expected = sum(row["started"] for row in starts if row["window_start"] == first)
    shown.starts(str(expected))
    assert "One period is chosen" in shown.page.locator("#flow-say").inner_text()
    assert "2 Sept 2024, 02:00" in shown.page.locator("#period-text").inner_text()
    assert shown.wrong == []


def test_the_slider_hides_rare_moves_and_keeps_every_state_tied(open_page: Any) -> None:
    shown = open_page(orders())
    slider = shown.page.locator("#edge-slider")
    slider.focus()
    slider.press("End")
    every = shown.edges()
    assert "100 % of what happened" in shown.page.locator("#edge-text").inner_text()
    slider.press("Home")
    few = shown.edges()
    assert few < every
    labels = shown.page.locator("#map .edge").evaluate_all(
        "marks => marks.map(mark => mark.getAttribute('aria-label').split(',')[0])"
    )
    # A way leads to each state from the start.
    reached, grown = {"Start"}, True
    while grown:
        ahead = {
            to
            for source, _, to in (label.partition(" → ") for label in labels)
            if source in reached
        }
        grown = not ahead <= reached
        reached |= ahead
    assert {"in", "check", "ask", "done", "refused"} <= reached
    assert shown.page.locator("#map .node").count() == 7
    assert shown.wrong == []


def test_labels_of_the_map_can_be_chosen(open_page: Any) -> None:
    shown = open_page(orders())
    shown.page.locator("input[name=map-label][value=mean]").check()
    texts = shown.page.locator("#map .label").evaluate_all("all => all.map(e => e.textContent)")
    assert sum(text.endswith(" h") for text in texts) >= 5
    # Quantiles do not add up over windows.
    assert shown.page.locator("input[name=map-label][value=p90]").is_disabled()
    assert "Quantiles do not add up" in shown.page.locator("#bottleneck-say").inner_text()


def test_one_window_of_one_process_has_quantiles(open_page: Any) -> None:
    moves = [move for move in cases(30, WAYS) if move.version == "1.0"]
    shown = open_page(tables(moves[:-1], None))  # the last one stays open
    p90 = shown.page.locator("input[name=map-label][value=p90]")
    assert p90.is_enabled()
    assert "p90" in shown.page.locator("#bottlenecks thead").inner_text()
    assert shown.page.locator("#flow .series").count() >= 3
    assert "from the table of cases" in shown.page.locator("#flow-say").inner_text()
    # No window ends while a case is open: the table of cases says how many are.
    assert shown.figure("Open at the end") == "1"
    assert shown.wrong == []


def test_hostile_names_are_text(open_page: Any) -> None:
    moves = cases(
        9, ((HOSTILE, "🙂 'done'"), ("a\x00b", "")), groups=(HOSTILE, "g"), actors=(HOSTILE,)
    )
    shown = open_page(tables(moves), HOSTILE)
    assert shown.page.locator("h1").evaluate("h => h.textContent") == HOSTILE
    names = shown.page.locator("#people .bar-name").evaluate_all(
        "all => all.map(e => e.textContent)"
    )
    assert names == [HOSTILE]
    assert shown.page.locator("#variants .chip").first.evaluate("e => e.textContent") == HOSTILE
    for group in shown.page.locator("#map .node").all():
        group.hover()
    assert shown.page.locator("main img, main script, header img, #tip img").count() == 0
    assert shown.page.locator("script").count() == 2
    assert shown.wrong == []


ARABIC = "مرحبا بالعالم"


def say(shown: Shown, part: str) -> str:
    text: str = shown.page.locator(f"#{part}-say").evaluate("e => e.textContent")
    return text


def test_names_from_right_to_left_do_not_turn_what_is_said(open_page: Any) -> None:
    moves = cases(6, ((ARABIC, "\u202eevil", "done"),), actors=(ARABIC,))
    shown = open_page(tables(moves))
    assert f"is \u2068{ARABIC}\u2069 → evil, " in say(shown, "map")
    assert say(shown, "people").startswith(
        f"\u2068{ARABIC}\u2069 did most, 100 % of 18 transitions"
    )
    # As they are seen: the words behind a name stand to the right of it.
    order = shown.page.evaluate(
        """(name) => {
          const text = document.querySelector("#people-say").firstChild;
          const left = (from, to) => {
            const range = document.createRange();
            range.setStart(text, from); range.setEnd(text, to);
            return range.getBoundingClientRect().left;
          };
          const at = text.data.indexOf(name);
          const digits = text.data.indexOf("100 %");
          return [left(at, at + name.length), left(digits, digits + 3)];
        }""",
        ARABIC,
    )
    assert order[0] < order[1]
    chip = shown.page.locator("#variants .chip").first
    assert chip.evaluate("e => e.textContent") == ARABIC
    assert shown.wrong == []


def test_names_that_are_long_or_not_to_be_seen(open_page: Any) -> None:
    long = "x" * 300
    shown = open_page(tables(cases(6, ((long, "\u200b \t", "", "done"),), actors=(long,))), long)
    for part in ("map", "bottleneck", "people"):
        assert len(say(shown, part)) < 400
    assert say(shown, "people").startswith("x" * 79 + "… did most")
    chips = shown.page.locator("#variants .chip").all_inner_texts()
    assert chips[:4] == [long, "(blank)", "(empty)", "done"]
    for width in (1280, 360):
        shown.page.set_viewport_size({"width": width, "height": 800})
        assert shown.page.evaluate("document.documentElement.scrollWidth") <= width
        # Not a letter a line.
        assert shown.width("#bottlenecks tbody th") > 100
    shown.page.set_viewport_size({"width": 1280, "height": 800})
    shown.page.click("#map-table summary")
    box = shown.page.locator("#map-table .scroll")
    assert box.evaluate("e => e.scrollWidth <= e.clientWidth"), "all columns are in sight"
    shown.page.locator("#map .edge").first.focus()
    assert shown.width("#tip") <= 360
    assert shown.wrong == []


def test_one_event_of_nobody(open_page: Any) -> None:
    (move,) = cases(1, (("in",),), actors=(None,))
    shown = open_page(tables([move], ends=False))
    assert say(shown, "people") == "Of 100 % it is not known who did it."
    assert shown.figure("Transitions") == "1"
    assert shown.edges() == 1
    assert shown.wrong == []


def test_others_are_nobody_that_did_most(open_page: Any) -> None:
    """A hundred thousand states and people: the start is there, and names are named."""
    moves = [
        Move(f"c{n}", BEGIN + timedelta(seconds=n), before, f"s{n + step}", 1.0, f"a{n}")
        for n in range(50_000)
        for step, before in enumerate((f"r{n}", f"s{n}"))
    ]
    moves[0] = replace(moves[0], source=None, seconds=None)
    shown = open_page(tables(moves, timedelta(days=1)))
    cut = shown.page.locator("#cut").inner_text()
    assert "Of 100,000 states the 200 most frequent are shown" in cut
    assert "Of 50,000 actors the 200 most frequent are shown" in cut
    assert shown.page.locator("#map .node.start").count() == 1
    assert "other people" not in say(shown, "people")
    assert "other states" not in say(shown, "map") + say(shown, "bottleneck")
    assert shown.page.locator("#people .bar-name").first.inner_text() == "49,800 other people"
    assert shown.wrong == []


def test_a_choice_that_leaves_nothing_says_so_and_can_be_left(open_page: Any) -> None:
    late = [replace(m, at=m.at + timedelta(days=9)) for m in cases(4, WAYS, groups=("Late",))]
    shown = open_page(tables([*cases(30, WAYS), *late]))
    shown.page.select_option("#pick-group", label="Late")
    shown.page.locator("#period-to").press("Home")
    shown.starts("0")
    assert shown.page.locator("#map").is_hidden() and shown.page.locator("#map-table").is_hidden()
    assert say(shown, "map") == "No case moved in what is chosen."
    # Ends are known, only not of what is chosen.
    assert shown.page.locator("#figures .why").count() == 0
    assert say(shown, "variant") == "No case was completed in what is chosen."
    assert shown.page.pdf()[:5] == b"%PDF-"
    shown.page.click("#reset")
    shown.starts("34")
    assert shown.page.locator("#map").is_visible()
    assert shown.wrong == []


def test_the_keyboard_reaches_everything(open_page: Any) -> None:
    shown = open_page(orders())
    seen = set()
    for _ in range(60):
        shown.page.keyboard.press("Tab")
        seen.add(
            shown.page.evaluate(
                "(e => e.id || (e.closest('[id]') || {}).id || '')(document.activeElement)"
            )
        )
    wanted = {
        *("pick-group", "pick-version", "period-from", "period-to", "reset", "edge-slider"),
        *("map-tools", "map", "map-table", "cycle", "cycle-tools", "cycle-table", "flow"),
        *("flow-table", "people", "people-table", "heat", "bottlenecks"),
    }
    assert wanted <= seen
    shown.page.locator("#map [tabindex='0']").focus()
    first = shown.page.evaluate("document.activeElement.getAttribute('aria-label')")
    shown.page.keyboard.press("ArrowRight")
    second = shown.page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert first != second
    assert second.split(",")[0] in shown.page.locator("#tip").inner_text()
    shown.page.keyboard.press("Escape")
    assert shown.page.locator("#tip").is_hidden()
    shown.page.locator("#heat [tabindex='0']").focus()
    shown.page.keyboard.press("ArrowDown")
    label = shown.page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert label.startswith("Tuesday, 00:00")


def test_tables_say_what_charts_show(open_page: Any) -> None:
    shown = open_page(orders())
    shown.page.click("#map-table summary")
    rows = shown.page.locator("#map-table tbody tr").all_inner_texts()
    assert any(row.split("\t")[:3] == ["Start", "in", "220"] for row in rows)


def test_without_ends_the_page_says_so(open_page: Any) -> None:
    shown = open_page(tables(cases(20, WAYS), ends=False))
    assert "No end state is known" in shown.page.locator("#cycle-say").inner_text()
    assert "--end_states" in shown.page.locator("#map-say").inner_text()
    assert shown.page.locator("#map .node.end").count() == 0
    assert shown.wrong == []


@pytest.mark.parametrize("name", PANES)
def test_a_folder_may_have_one_table_only(open_page: Any, name: str) -> None:
    shown = open_page({name: orders(30)[name]})
    assert shown.wrong == []
    for place in ("map", "bottleneck", "cycle", "flow", "people", "variant", "quality"):
        assert shown.page.locator(f"#{place}-say").inner_text()


def test_a_window_that_is_cut_off_can_be_left_again_by_hand(open_page: Any) -> None:
    """Both ends of the period at its last window: the first can still be taken and moved."""
    shown = open_page(orders())
    shown.page.locator("#period-from").press("End")
    box = shown.page.locator(".range").bounding_box()
    y = box["y"] + box["height"] / 2
    shown.page.mouse.move(box["x"] + box["width"] - 8, y)
    shown.page.mouse.down()
    shown.page.mouse.move(box["x"] + 9, y, steps=5)
    shown.page.mouse.up()
    shown.starts("220")


def test_an_empty_page_says_what_is_missing(open_page: Any) -> None:
    empty = {name: rows.slice(0, 0) for name, rows in orders(3).items()}
    for found in ({}, empty):
        shown = open_page(found)
        assert "No case moved" in shown.page.locator("#map-say").inner_text()
        said = shown.page.locator("#cut").inner_text()
        assert "Nothing was measured: the tables have no rows." in said
        assert "one window" not in shown.page.locator("body").inner_text()
        assert shown.page.locator("#filters").is_hidden()
        assert shown.wrong == []


def test_dark_is_another_picture_and_both_can_be_read(open_page: Any) -> None:
    found = orders()
    pictures = []
    for scheme in ("light", "dark"):
        shown = open_page(found, color_scheme=scheme)
        pictures.append(shown.page.screenshot())
        assert contrasts(shown) == []
    assert pictures[0] != pictures[1]


def contrasts(shown: Shown) -> list[str]:
    """Return texts whose contrast is below WCAG's AA: 4.5 to 1."""
    found: list[str] = shown.page.evaluate(CONTRAST.read_text())
    return found


def test_it_fits_a_phone(open_page: Any) -> None:
    shown = open_page(orders(), viewport={"width": 360, "height": 740})
    wide = shown.page.evaluate("document.documentElement.scrollWidth")
    assert wide <= 360
    assert shown.wrong == []


def test_it_prints_without_its_tools(open_page: Any) -> None:
    shown = open_page(orders(), color_scheme="dark")
    shown.page.emulate_media(media="print")
    assert shown.page.locator("#map-tools").is_hidden()
    assert shown.page.locator("#reset").is_hidden()
    paper = shown.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert paper == "rgb(255, 255, 255)"
    assert shown.page.pdf()[:5] == b"%PDF-"


def test_motion_is_reduced_where_it_is_not_wanted(open_page: Any) -> None:
    shown = open_page(orders(20), reduced_motion="reduce")
    moving = shown.page.evaluate(
        "[...document.querySelectorAll('*')]"
        ".some(e => getComputedStyle(e).animationName !== 'none')"
    )
    assert not moving


def test_a_hundred_thousand_cases_make_a_page_of_a_bounded_size(open_page: Any) -> None:
    rows = 20_000
    found = tables(cases(rows, WAYS[:3], apart=timedelta(minutes=7)), timedelta(days=1))
    shown = open_page(found)
    assert shown.figure("Cases started") in ("20K", "20k")
    assert shown.wrong == []


def test_a_live_page_goes_on_by_itself(chromium: Any, tmp_path: Path) -> None:
    folder = save(tmp_path / "out", tables(cases(8, WAYS)))
    with serving(folder, token="a-token-that-is-long-enough") as server:
        context = chromium.new_context()
        try:
            shown = Shown(context.new_page())
            shown.page.goto(f"{server.url}?token=a-token-that-is-long-enough")
            shown.page.wait_for_url(server.url)
            shown.page.wait_for_selector("#live .dot")
            assert shown.figure("Cases started") == "8"
            shown.page.select_option("#pick-version", label="1.0")
            shown.page.locator("#people .bar-row").first.focus()
            more = save(tmp_path / "more", tables(cases(30, WAYS)))
            for path in sorted(more.glob("*/*.parquet")):
                path.rename(
                    folder / path.parent.name / "flow-stream-1725000000000-00001-aa.parquet"
                )
            shown.starts("15")
            # What was chosen stays chosen, and what had the focus has it.
            assert shown.page.evaluate("document.activeElement.className") == "bar-row"
            assert (
                shown.page.locator("#pick-version").evaluate("e => e.selectedOptions[0].text")
                == "1.0"
            )
            assert shown.wrong == []
        finally:
            context.close()
