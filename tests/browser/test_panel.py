"""The panel: its tabs, the waterfall, the reply that it shows, and the sheet that it is on a phone."""

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.app_process import RunningApp
from tests.browser.conftest import Chat

EDGES = """selector => [...document.querySelectorAll(selector)].map((node) => {
  const { left, right } = node.getBoundingClientRect();
  return [left, right];
})"""
COLOUR = """([selector, property]) => getComputedStyle(document.querySelector(selector))[property]"""
PHASE_COLOUR = """name => {
  const probe = document.body.appendChild(document.createElement('i'));
  probe.style.background = `var(--gb-phase-${name})`;
  const colour = getComputedStyle(probe).backgroundColor;
  probe.remove();
  return colour;
}"""
FIRST_BAR = "#timeline .bars > li[data-kind=tool]"


@pytest.fixture(scope="module")
def app(paced_app: RunningApp) -> RunningApp:
    return paced_app


def test_idle_panel_has_a_sentence_and_the_latest_run(chat: Chat) -> None:
    page, panel = chat.page, chat.page.locator("#agent-state")
    expect(panel).to_contain_text("Send a message to watch the model work")
    assert panel.locator(".figures").is_hidden() and panel.locator(".stretches").is_hidden()
    assert "\N{EN DASH}" not in panel.inner_text()
    expect(panel.locator("#timeline .empty a")).to_have_text("Play a recorded run")
    chat.send("hello")
    chat.wait_end()
    page.click("#sidebar .new")
    expect(page.locator("#timeline .empty a")).to_have_text("Play your latest run")
    page.locator("#timeline .empty a").click()
    page.wait_for_selector(".replay", state="visible")
    assert chat.errors == []


def test_tabs_are_chosen_with_the_keyboard(chat: Chat) -> None:
    page = chat.page
    tabs, panels = page.locator("#agent-state [role=tab]"), ("#timeline", "#context", "#events", "#tokens")
    assert tabs.all_inner_texts() == ["Run", "Context", "Events", "Tokens"]
    tabs.first.focus()
    for key, chosen in (
        ("ArrowRight", 1),
        ("ArrowRight", 2),
        ("ArrowRight", 3),
        ("ArrowRight", 0),
        ("ArrowLeft", 3),
        ("Home", 0),
        ("End", 3),
    ):
        page.keyboard.press(key)
        assert [tab.get_attribute("aria-selected") for tab in tabs.all()].index("true") == chosen
        assert tabs.nth(chosen).evaluate("node => node === document.activeElement && node.tabIndex === 0")
        assert [page.is_visible(panel) for panel in panels] == [at == chosen for at in range(4)]
    width = page.locator("#agent-state").bounding_box()
    page.get_by_role("button", name="Wide panel").press("Enter")
    wide = page.locator("#agent-state").bounding_box()
    assert width and wide and wide["width"] > width["width"] + 100
    page.get_by_role("button", name="Wide panel").press("Enter")
    assert chat.errors == []


def test_phases_bars_and_ticks_share_one_axis(chat: Chat) -> None:
    chat.send("tools")
    chat.wait_end()
    page = chat.page
    (strip,) = page.evaluate(EDGES, "#timeline .stretches")
    tracks = page.evaluate(EDGES, "#timeline .track")
    assert tracks and all(track == pytest.approx(strip, abs=0.5) for track in tracks)
    (panel,) = page.evaluate(EDGES, "#agent-state")
    assert strip[1] - strip[0] > 0.8 * (panel[1] - panel[0]), "the track has most of the width"
    ticks = [left for left, _ in page.evaluate(EDGES, "#timeline .axis li")]
    assert ticks[0] == pytest.approx(strip[0], abs=1) and ticks[-1] == pytest.approx(strip[1], abs=1)
    assert 3 <= len(ticks) <= 6
    assert page.locator("#timeline .axis span").first.text_content() == "0 s"
    at = [one.get_attribute("data-p") for one in page.locator("#timeline .stretches i").all()].index("tool")
    tool = page.evaluate(EDGES, "#timeline .stretches i")[at]
    bars = page.evaluate(EDGES, f"{FIRST_BAR} .track i")
    assert min(left for left, _ in bars) == pytest.approx(tool[0], abs=8)
    assert tool[0] < max(right for _, right in bars) <= tool[1] + 1, "the phase lasts until the model is called again"
    names = page.locator("#timeline .bars > li > button").all_text_contents()
    assert {"agent", "calculator", "clock", "count"} <= set(names)
    clock = chat.bar("clock")
    titles = [bar.get_attribute("title") or "" for bar in page.locator("#timeline .bars > li").all()]
    assert all(any(name in title for title in titles) for name in ("tools", "model")), "wrappers are named"
    clock.locator("> button").press("Enter")
    expect(clock.locator(".detail")).to_be_visible()
    assert chat.errors == []


DOT_COLOURS = """() => {
  const panel = document.querySelector('#agent-state [data-phase]'), colours = window.dotColours = {};
  new MutationObserver(() => {
    colours[panel.dataset.phase] = getComputedStyle(panel.querySelector('.dot')).backgroundColor;
  }).observe(panel, { attributeFilter: ['data-phase'] });
}"""
"""Notes the colour of the dot in each phase, however short it is."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phase_has_one_colour_in_strip_legend_bars_and_dot(new_chat: Callable[..., Chat], scheme: str) -> None:
    chat = new_chat(scheme=scheme)
    page = chat.page
    page.evaluate(DOT_COLOURS)
    chat.send("tour")
    chat.wait_end()
    tool = page.evaluate(PHASE_COLOUR, "tool")
    assert page.evaluate("window.dotColours.tool") == tool
    for phase in ("waiting", "thinking", "streaming", "tool"):
        colour = page.evaluate(PHASE_COLOUR, phase)
        for place in (f"#timeline .stretches i[data-p={phase}]", f"#timeline .legend i[data-p={phase}]"):
            assert page.evaluate(COLOUR, [place, "backgroundColor"]) == colour
    assert page.evaluate(COLOUR, [f"{FIRST_BAR} .track i", "backgroundColor"]) == tool
    model = page.evaluate(COLOUR, ["#timeline .bars > li[data-kind=model] .track i", "backgroundColor"])
    assert model == page.evaluate(PHASE_COLOUR, "streaming") != tool
    assert page.evaluate("[...document.querySelectorAll('.speed path')].every((one) => one.getAttribute('d'))")
    assert chat.errors == []


def test_stopped_calls_are_not_red(chat: Chat) -> None:
    page = chat.page
    chat.send('/count {"upto": 900, "pause_s": 1}')
    page.wait_for_selector(FIRST_BAR)
    chat.stop()
    stopped = page.evaluate(PHASE_COLOUR, "stopped")
    assert page.evaluate(COLOUR, [f"{FIRST_BAR} .track i", "backgroundColor"]) == stopped
    assert page.evaluate(COLOUR, ["#agent-state .dot", "backgroundColor"]) == stopped


def test_a_retry_is_counted_and_nothing_is_queued(chat: Chat) -> None:
    page = chat.page
    page.evaluate(
        """() => {
          const phase = document.querySelector('#agent-state .phase'), seen = window.seen = [];
          new MutationObserver(() => seen.push(phase.textContent)).observe(phase, { childList: true, subtree: true });
        }"""
    )
    chat.send("busy")
    expect(page.locator("#agent-state .phase")).to_have_text("Retrying: 2 of 3")
    chat.wait_end()
    seen = page.evaluate("window.seen")
    assert "Queued" not in seen[seen.index("Retrying: 2 of 3") :]
    assert chat.errors == []


def test_each_figure_stands_once(chat: Chat) -> None:
    chat.send("tour")
    chat.wait_end()
    text = chat.page.inner_text("#agent-state")
    total = chat.page.inner_text("#agent-state .clock")
    assert text.count(total) == 1
    for label in ("First token", "Tokens in", "Tokens out", "Average"):
        assert len(re.findall(rf"^{label}", text, re.MULTILINE)) == 1
    assert "Tools called" not in text and "Thinking" not in text.split("\n")


def test_rows_of_the_context_add_up_to_its_legend(chat: Chat) -> None:
    chat.send("tools")
    chat.wait_end()
    chat.tab("Context")
    page = chat.page

    def number(text: str) -> int:
        return int(re.sub(r"\D", "", text))

    legend = {
        item.get_attribute("data-part"): number(item.locator("b").inner_text())
        for item in page.locator("#context .key li").all()
    }
    rows: dict[str | None, int] = {}
    for row in page.locator("#context :is(.given > li > .message, .rest > :not([hidden]))").all():
        part = row.get_attribute("data-part")
        rows[part] = rows.get(part, 0) + number(row.locator("small").first.inner_text())
    assert rows == legend
    assert sum(legend.values()) == number(page.inner_text("[data-context-total]").split("of")[0])
    assert chat.errors == []


def test_bar_marks_its_block_and_text_and_they_mark_the_bar(chat: Chat) -> None:
    page = chat.page
    chat.send("tools")
    chat.wait_end()
    chat.bar("count").hover()
    assert page.locator("#chat .marked").count() == 1
    assert "count" in (page.locator("#chat .marked").text_content() or "")
    page.locator("#timeline .bars > li[data-kind=model] > button").last.focus()
    marked = page.locator("#chat .marked").all_text_contents()
    assert any("All three have answered" in text for text in marked)
    chat.part("calculator").locator("summary").hover()
    assert page.locator("#timeline .bars > li[data-marked]").count() == 1
    assert "calculator" in page.locator("#timeline .bars > li[data-marked]").inner_text()
    page.mouse.move(5, 5)
    assert page.locator(".marked, [data-marked]").count() == 0
    assert chat.errors == []


def test_panel_shows_an_earlier_reply_and_goes_back_to_the_latest(chat: Chat) -> None:
    page = chat.page
    chat.send("tools")
    chat.wait_end()
    chat.send("hello")
    chat.wait_end()
    latest = page.text_content("#agent-state .clock")
    page.locator("#chat .message-row").nth(1).hover()
    page.locator("#chat .turn :is([data-inspect], [data-context])").first.click()
    expect(page.locator("#agent-state .older")).to_contain_text("Earlier reply to “tools”")
    expect(chat.bar("count")).to_be_visible()
    assert page.locator("#agent-state .speed .line").get_attribute("d")
    chat.bar("count").hover()
    assert "count" in (page.locator("#chat .marked").text_content() or "")
    chat.tab("Context")
    assert "hello" not in page.inner_text("#context .given")
    chat.tab("Events")
    page.wait_for_selector("#events .rows [data-type=tool_start]")
    page.get_by_role("button", name="Back to the latest").click()
    expect(page.locator("#agent-state .older")).to_be_hidden()
    assert page.text_content("#agent-state .clock") == latest
    chat.tab("Context")
    assert "hello" in page.inner_text("#context .given")
    chat.tab("Run")
    page.locator("#chat .turn :is([data-inspect], [data-context])").first.click()
    expect(page.locator("#agent-state .older")).to_be_visible()
    chat.send("tour")
    expect(page.locator("#agent-state .older")).to_be_hidden()
    chat.wait_end()
    assert chat.errors == []


def test_sheet_of_a_phone_has_three_stops(new_chat: Callable[..., Chat]) -> None:
    chat = new_chat(width=390)
    page, sheet = chat.page, chat.page.locator("#agent-state .sheet")

    def height() -> float:
        box = page.locator("#agent-state").bounding_box()
        assert box and box["y"] + box["height"] == pytest.approx(844, abs=1)
        return box["height"]

    chat.send("tools")
    chat.wait_end()
    assert height() == 44 and sheet.get_attribute("aria-expanded") == "false"
    assert page.locator("#timeline").is_hidden()
    sheet.focus()
    page.keyboard.press("Enter")
    assert height() == 422 and sheet.get_attribute("aria-expanded") == "true"
    expect(chat.bar("count")).to_be_visible()
    sheet.click()
    assert height() == 844 - 48, "the header stays"
    chat.tab("Context")
    page.keyboard.press("Escape")
    assert height() == 422
    page.keyboard.press("Escape")
    assert height() == 44
    assert sheet.evaluate("node => node === document.activeElement")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert chat.errors == []


def test_sheet_of_a_phone_can_be_dragged(new_chat: Callable[..., Chat]) -> None:
    chat = new_chat(width=390)
    page = chat.page

    def drag(start: int, end: int) -> float:
        """Drags the sheet's head between two heights of the page, and returns the sheet's height afterwards."""
        page.mouse.move(150, start)
        page.mouse.down()
        page.mouse.move(150, (start + end) // 2)
        page.mouse.move(150, end)
        page.mouse.up()
        return float(page.evaluate("document.querySelector('#agent-state').offsetHeight"))

    chat.send("tools")
    chat.wait_end()
    assert drag(820, 480) == 422
    assert drag(444, 120) == 844 - 48
    assert drag(70, 400) == 422
    assert drag(444, 800) == 44
    assert drag(820, 817) == 422, "so short a move is a click"
    assert chat.errors == []


def test_nothing_of_the_panel_moves_while_a_reply_streams(chat: Chat) -> None:
    page = chat.page
    chat.send("hello")
    chat.wait_end()
    page.evaluate(
        """() => {
          const tops = window.tops = new Set();
          const look = () => {
            const places = ['.figures', '.speed', '.bar', '#timeline', '.stretches'];
            tops.add(places.map((s) => document.querySelector(`#agent-state ${s}`).getBoundingClientRect())
              .map(({ top, height }) => `${Math.round(top)} ${Math.round(height)}`).join());
            requestAnimationFrame(look);
          };
          look();
        }"""
    )
    chat.send("tour")
    chat.wait_end()
    assert page.evaluate("window.tops.size") == 1


@pytest.mark.parametrize("width", [1024, 1280, 1920])
def test_nothing_overflows_the_panel(new_chat: Callable[..., Chat], width: int) -> None:
    chat = new_chat()
    chat.page.set_viewport_size({"width": width, "height": 720})
    chat.send("tools")
    chat.wait_end()
    for tab in ("Run", "Context", "Events"):
        chat.tab(tab)
        wide = chat.page.evaluate(
            """() => [...document.querySelectorAll('#agent-state *')].filter((node) => node.offsetParent
              && node.getBoundingClientRect().right > innerWidth + 0.5).map((node) => node.outerHTML.slice(0, 80))"""
        )
        assert wide == [], tab
