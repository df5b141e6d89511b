"""The page that compares models and memory modes, used as a person would: with a mouse, with a keyboard, on a phone."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import FilePayload, Locator, Page, expect

from backends.script import TOUR
from tests.app_process import RunningApp
from tests.axe import violations
from tests.browser.conftest import Contexts

HOSTILE = "<img src=x onerror='window.attacked=1'> **bold** <script>window.attacked=1</script> [a](javascript:x)"
SCRIPTS = ["Script A", "Script B", "Script C", "Script D"]
CONFIG = (
    "".join(f'[[backends]]\nname = "{name}"\nkind = "scripted"\noptions = {{ speed = 20 }}\n' for name in SCRIPTS)
    + f"""
[[backends]]
name = "Hostile"
kind = "langchain"
class = "langchain_core.language_models:FakeListChatModel"
options = {{ responses = [{json.dumps(HOSTILE)}] }}

[[backends]]
name = "Keyed"
kind = "openai"
model = "m"
base_url = "http://127.0.0.1:9/v1"
key = "NO_SUCH_KEY"
"""
)
LIMITED = CONFIG + "[limits]\nruns_per_visitor = 2\nmessages_per_minute = 6\nmessages_per_day = 100\n"


@pytest.fixture(scope="module")
def compare_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    with RunningApp(tmp_path_factory.mktemp("compare"), CONFIG) as app:
        yield app


class Compare:
    """The page, with the setup that a test needs."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", self._add)
        page.on("console", self._add_line)
        self.url = f"{url}compare"
        self.open()

    def _add(self, error: Any) -> None:
        self.errors.append(str(error))

    def _add_line(self, line: Any) -> None:
        if line.type == "error" and "Content Security" in line.text:
            self.errors.append(line.text)

    def leave(self) -> None:
        self.page.remove_listener("pageerror", self._add)
        self.page.remove_listener("console", self._add_line)
        assert self.errors == []

    def open(self) -> None:
        self.page.goto(self.url)
        expect(self.page.locator("#backends input")).to_have_count(6)

    def choose(self, backends: list[str], memory: list[str]) -> None:
        for group, wanted in (("#backends", backends), ("#memory", memory)):
            for box in self.page.locator(f"{group} input").all():
                box.set_checked(box.input_value() in wanted)

    def start(self, prompts: str, backends: list[str], memory: list[str] | None = None, trials: int = 1) -> None:
        self.choose(backends, memory or ["none"])
        self.page.fill("#prompts", prompts)
        if trials > 1:
            self.page.locator("#setup summary").click()
            self.page.fill("#trials", str(trials))
        self.page.click("#run")

    def run(self, prompts: str, backends: list[str], memory: list[str] | None = None, trials: int = 1) -> None:
        self.start(prompts, backends, memory, trials)
        self.wait_end()

    def wait_end(self) -> None:
        """Waits until each cell of the grid that was just started has ended."""
        self.page.wait_for_selector("#stop", state="hidden", timeout=60_000)
        expect(self.page.locator("#progress")).to_have_text(re.compile(r"^(\d+) of \1 repl"))

    def cell(self, prompt: int, column: int) -> Locator:
        row = self.page.locator(f".row[data-prompt='{prompt}']")
        row.scroll_into_view_if_needed()
        return row.locator(f".cell[data-column='{column}']")

    def act(self, cell: Locator, name: str) -> None:
        cell.get_by_role("button", name=name).click()

    @property
    def dialog(self) -> Locator:
        return self.page.locator("#dialog")


@pytest.fixture
def compare(compare_app: RunningApp, contexts: Contexts) -> Iterator[Compare]:
    with contexts.lend() as context:
        page = Compare(context.pages[0], compare_app.url)
        yield page
        page.leave()


def ended(cell: Locator, phase: str = "complete") -> None:
    expect(cell).to_have_attribute("data-phase", phase)


def test_a_grid_streams_and_ends_with_figures_and_bars(compare: Compare) -> None:
    page = compare.page
    expect(page.locator("#backends input:checked")).to_have_count(2)
    compare.run("Hi\n\ntour", ["Script A", "Hostile"], ["none", "full"])
    expect(page.locator("#progress")).to_have_text("8 of 8 replies")
    expect(page.locator(".row h3")).to_have_text(["1 Hi", "2 tour"])
    names = ["Script A · none", "Script A · full", "Hostile · none", "Hostile · full"]
    expect(page.locator(".row").first.locator("h4")).to_have_text(names)
    cell = compare.cell(1, 0)
    ended(cell)
    expect(cell.locator(".text")).to_contain_text("What you are looking at")
    expect(cell.locator(".figures dt")).to_have_text(["first token", "tokens/s", "duration", "tokens in", "tokens out"])
    expect(cell.locator(".figures dd").nth(4)).to_contain_text("≈")
    ranking = page.locator("#ranking section")
    expect(ranking.locator("h3 span")).to_have_text(
        ["First token", "Tokens a second", "Duration", "Tokens in", "Tokens out"]
    )
    assert ranking.first.locator("li").count() == 4
    assert page.locator(".row").first.locator(".figures dd.best").count() >= 1
    compare.act(cell, "Open")
    expect(compare.dialog.locator(".prose").nth(1)).to_have_text(re.compile(re.escape(TOUR[:300])))
    page.keyboard.press("Escape")
    expect(compare.dialog).to_be_hidden()


def test_one_cell_is_stopped_and_retried_and_all_are_stopped(compare: Compare) -> None:
    page = compare.page
    compare.start("endless\nendless 2\nendless 3", ["Script A", "Script B"])
    first, last = compare.cell(0, 0), compare.cell(2, 1)
    expect(first.locator(".text")).to_contain_text("20 ")
    ended(last, "queued")
    compare.act(last, "Stop")
    expect(last.locator(".remark")).to_contain_text("when its turn comes")
    compare.act(first, "Stop")
    ended(first, "stopped")
    compare.act(compare.cell(0, 1), "Stop")
    ended(last, "stopped")
    expect(compare.cell(1, 0)).to_have_attribute("data-phase", "streaming")
    compare.act(first, "Retry")
    expect(first).to_have_attribute("data-phase", "streaming")
    page.click("#stop")
    expect(page.locator("#progress")).to_have_text("6 of 6 replies · 6 stopped")
    expect(page.locator("#run")).to_be_enabled()
    health = page.request.get(compare.url.replace("compare", "readyz"))
    assert health.ok


def test_a_failed_cell_says_what_to_do_and_can_be_retried(compare: Compare) -> None:
    page = compare.page
    compare.run("Hi\nwrong key", ["Script A", "Keyed"])
    expect(compare.cell(0, 1).locator(".remark")).to_contain_text("Needs a key")
    expect(compare.cell(1, 0).locator(".remark")).to_contain_text("rejected the key")
    ended(compare.cell(0, 0))
    expect(page.locator("#progress")).to_have_text("4 of 4 replies · 3 failed")
    page.click("#retry-failed")
    ended(compare.cell(1, 0), "error")
    expect(page.locator("#progress")).to_have_text("4 of 4 replies · 3 failed")
    expect(page.locator("#stop")).to_be_hidden()


def test_prompts_and_replies_are_text(compare: Compare) -> None:
    page = compare.page
    compare.run(f"{HOSTILE}\n# no heading", ["Hostile", "Script A"])
    expect(page.locator(".row h3").first).to_have_text(f"1 {HOSTILE}")
    expect(compare.cell(0, 1).locator(".text")).to_have_text(HOSTILE)
    compare.act(compare.cell(0, 1), "Open")
    expect(compare.dialog.locator(".prose")).to_have_text([HOSTILE, HOSTILE])
    page.keyboard.press("Escape")
    for column in (1, 0):
        compare.cell(0, column).get_by_label("Choose").check()
    page.get_by_role("button", name="Differences").click()
    expect(compare.dialog.locator("section .prose").first).to_have_text(HOSTILE)
    assert page.locator("#rows :is(img, script, b, a), #dialog :is(img, script, a)").count() == 0
    assert page.evaluate("window.attacked") is None


def test_two_replies_are_compared_word_by_word_and_on_one_axis(compare: Compare) -> None:
    page = compare.page
    compare.run("Hi", ["Script A", "Script B", "Hostile"])
    bar = page.locator("#chosen")
    compare.cell(0, 0).get_by_label("Choose").check()
    expect(bar).to_contain_text("Choose one more")
    expect(bar.get_by_role("button", name="Differences")).to_be_disabled()
    compare.cell(0, 1).get_by_label("Choose").check()
    bar.get_by_role("button", name="Differences").click()
    expect(compare.dialog).to_contain_text("The replies are equal.")
    page.keyboard.press("Escape")
    compare.cell(0, 2).get_by_label("Choose").check()
    expect(compare.cell(0, 0).get_by_label("Choose")).not_to_be_checked()
    bar.get_by_role("button", name="Differences").click()
    assert compare.dialog.locator("del").count() and compare.dialog.locator("ins").count()
    page.keyboard.press("Escape")
    bar.get_by_role("button", name="On one time axis").click()
    expect(compare.dialog.locator("svg .line")).to_have_count(2)
    expect(compare.dialog.locator("svg")).to_have_attribute(
        "aria-label", re.compile(r"Script B.*tokens in .* s\. Hostile")
    )
    page.keyboard.press("Escape")
    bar.get_by_role("button", name="Clear").click()
    expect(bar).to_be_hidden()


def test_a_cell_is_opened_as_a_conversation(compare: Compare) -> None:
    page = compare.page
    page.locator("#setup summary").click()
    page.fill("#system-prompt", "Answer briefly.")
    compare.run("Hi *there*", ["Script B"], ["full"])
    compare.act(compare.cell(0, 0), "Open")
    with page.expect_popup() as popup:
        page.get_by_role("button", name="Open as a conversation").click()
    opened = popup.value
    opened.wait_for_url(re.compile(r"\?conversation="))
    expect(opened.locator("#chat [data-testid=user]")).to_contain_text("Hi *there*")
    expect(opened.locator("#chat [data-testid=bot]").last).to_contain_text("I am a script")
    expect(opened.locator("#chat")).to_contain_text("Answer briefly.")
    for menu, value in (("#backend", "Script B"), ("#memory", "full")):
        expect(opened.locator(f"{menu} input")).to_have_value(re.compile(f"^{value}"))
    expect(page.get_by_role("link", name="The conversation")).to_be_visible()
    opened.close()


FILES: dict[str, tuple[str, list[str]]] = {
    "a.csv": ('id,prompt\n1,"Hi, you"\n2,"two\nlines"\n', ["Hi, you", "two\nlines"]),
    "a.jsonl": ('{"message": "Hi"}\n"two"\n', ["Hi", "two"]),
}


@pytest.mark.parametrize("name", FILES)
def test_prompts_of_a_file(compare: Compare, name: str) -> None:
    page, (content, prompts) = compare.page, FILES[name]
    file = FilePayload(name=name, mimeType="text/plain", buffer=content.encode())
    for _ in range(2):  # the same file can be opened again
        page.fill("#prompts", "")
        page.set_input_files("#file", file)
        expect(page.locator("#prompt-count")).to_have_text("2 prompts")
    compare.choose(["Script A"], ["none"])
    page.click("#run")
    compare.wait_end()
    assert [
        text.removeprefix(f"{n + 1} ") for n, text in enumerate(page.locator(".row h3").all_text_contents())
    ] == prompts


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", "a,b\n1,2\n", "names one of them prompt"),
        ("a.jsonl", '"Hi"\n{', "Line 2 is not valid JSON"),
        ("a.txt", "", "has no prompts"),
        ("a.bin", "a\0b", "is not a text file"),
        ("a.txt", "x" * 4_000_001, "too large: at most 4 MB"),
    ],
)
def test_files_that_cannot_be_used_say_why(compare: Compare, name: str, content: str, says: str) -> None:
    page = compare.page
    page.fill("#prompts", "stays")
    page.set_input_files("#file", FilePayload(name=name, mimeType="text/plain", buffer=content.encode()))
    expect(page.locator("#problem")).to_contain_text(says)
    expect(page.locator("#prompts")).to_have_value("stays")


def test_what_cannot_be_started_says_why(compare: Compare) -> None:
    page, problem = compare.page, compare.page.locator("#problem")
    page.click("#run")
    expect(problem).to_have_text("Write a prompt, or open a file with prompts.")
    compare.start("Hi", [])
    expect(problem).to_have_text("Choose at least one model.")
    compare.start("\n".join(["Hi"] * 129), ["Script A", "Script B"])
    expect(problem).to_contain_text("These are 258 replies, and 256 can be started at once")
    compare.start("x" * 40_000, ["Script A"])
    expect(problem).to_contain_text("32,000")
    expect(page.locator("#stop")).to_be_hidden()
    compare.run("Hi", ["Script A"])
    expect(problem).to_be_empty()


def test_a_grid_beyond_the_quota_is_refused_with_the_number_that_is_allowed(tmp_path: Path, contexts: Contexts) -> None:
    with RunningApp(tmp_path, LIMITED) as app, contexts.lend() as context:
        compare = Compare(context.pages[0], app.url)
        page, problem = compare.page, compare.page.locator("#problem")
        compare.start("Hi\nHi\nHi\nHi", ["Script A", "Script B"])
        expect(problem).to_contain_text("These are 8 replies, and 6 can be started in this minute")
        assert not page.locator(".cell").count()
        compare.start("endless\nHi\nHi 2", ["Script A"])
        ended(compare.cell(2, 0))
        compare.act(compare.cell(2, 0), "Retry")  # it waits: the limit of replies at once is for all of them
        ended(compare.cell(2, 0), "queued")
        compare.act(compare.cell(0, 0), "Stop")
        ended(compare.cell(2, 0))
        expect(page.locator("#stop")).to_be_hidden()
        compare.start("Hi\nHi\nHi", ["Script A"])
        expect(problem).to_contain_text("These are 3 replies, and 2 can be started in this minute")
        compare.leave()


def test_results_stay_after_a_reload(compare: Compare) -> None:
    page = compare.page
    compare.run("Hi\ntwo", ["Script A", "Script B"], ["full"], trials=2)
    compare.open()
    expect(page.locator("#progress")).to_have_text("8 of 8 replies")
    expect(compare.cell(1, 1).locator(".text")).to_contain_text("I am a script")
    expect(page.locator("#prompts")).to_have_value("Hi\ntwo")
    expect(page.locator("#backends input:checked")).to_have_count(2)
    expect(page.locator("#memory input:checked")).to_have_count(1)
    expect(compare.cell(0, 0).locator(".remark")).to_contain_text("Medians of 2 trials: first token")
    page.select_option("#trial", "1")
    compare.start("endless", ["Script A"])
    expect(page.locator("#progress")).to_have_text("0 of 2 replies")
    expect(compare.cell(0, 0).locator(".text")).to_contain_text("20 ")
    compare.open()
    ended(compare.cell(0, 0), "stopped")
    expect(compare.cell(0, 0).locator(".text")).to_contain_text("20 ")


def test_results_are_saved_and_copied(compare: Compare, tmp_path: Path) -> None:
    page = compare.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    compare.run("Hi | there\n=1+1", ["Script A", "Script B"])
    saved = {}
    for name, button in {"md": "Save Markdown", "csv": "Save CSV", "json": "Save JSON", "png": "Save picture"}.items():
        page.locator(".save summary").click()
        with page.expect_download() as download:
            page.get_by_role("button", name=button).click()
        assert download.value.suggested_filename == f"comparison.{name}"
        download.value.save_as(tmp_path / name)
        saved[name] = (tmp_path / name).read_bytes()
    assert saved["md"].startswith(b"| model and memory | First token |") and b"Hi \\| there" in saved["md"]
    assert b"'=1+1" in saved["csv"] and len(json.loads(saved["json"])["cells"]) == 4
    assert saved["png"].startswith(b"\x89PNG") and len(saved["png"]) > 5000
    page.locator(".save summary").click()
    page.get_by_role("button", name="Copy as Markdown").click()
    expect(page.locator("#note")).to_have_text("Copied as Markdown.")
    assert page.evaluate("navigator.clipboard.readText()").encode() == saved["md"]
    page.evaluate("() => { navigator.clipboard.writeText = () => Promise.reject(new Error('no')); }")
    page.locator(".save summary").click()
    page.get_by_role("button", name="Copy as Markdown").click()
    expect(page.locator("#problem")).to_have_text("The browser refused to copy.")


def test_a_blind_test_hides_the_names_counts_and_reveals(compare: Compare) -> None:
    page = compare.page
    compare.run("Hi\ntwo\nwrong key", ["Script A", "Hostile", "Keyed"])
    page.get_by_role("button", name="Blind test").click()
    expect(page.locator(".row").first.locator("h4")).to_have_text(["A", "B", "C"])
    shown = page.locator("#results").inner_text() + page.evaluate("document.querySelector('#rows').outerHTML")
    assert not re.search(r"Script A|Hostile ·|Keyed|first token", shown)
    for row in page.locator(".row").all()[:2]:
        row.scroll_into_view_if_needed()
        text = row.locator(".cell", has_text="I am a script")
        place = text.locator("h4").text_content() or ""
        row.locator(".vote").get_by_role("button", name=place, exact=True).click()
    page.locator(".row").nth(2).locator(".vote").get_by_role("button", name="Equal").click()
    expect(page.locator("#note")).to_have_text("3 of 3 rows judged.")
    page.get_by_role("button", name="Reveal the names").click()
    preferred = page.locator("#ranking section").first
    expect(preferred.locator("h3")).to_have_text("Preferred of 3 in the blind test, 1 equal")
    expect(preferred.locator("li").first).to_have_text("Script A · none2")
    expect(page.locator(".row").first.locator("h4")).to_have_text(["Script A · none", "Hostile · none", "Keyed · none"])


def test_a_tool_call_that_waits_is_approved(compare: Compare) -> None:
    page = compare.page
    page.locator("#setup summary").click()
    page.check("#tools")
    compare.start("approval", ["Script A", "Script B"])
    for column, name in enumerate(("Approve", "Decline")):
        cell = compare.cell(0, column)
        expect(cell.locator(".remark")).to_contain_text("waits for your approval")
        compare.act(cell, name)
        ended(cell)
        expect(cell.locator(".text")).to_contain_text("You have decided")


GAPS = """() => {
  let last = performance.now();
  window.longest = 0;
  const look = (now) => {
    window.longest = Math.max(window.longest, now - last);
    last = now;
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}"""


def test_240_cells_are_drawn_only_in_view(compare: Compare) -> None:
    page = compare.page
    page.evaluate(GAPS)
    prompts = "\n".join(f"prompt {n}" for n in range(20))
    compare.start(prompts, SCRIPTS, ["none", "full", "window"])
    expect(page.locator("#progress")).to_contain_text("of 240 replies")
    page.wait_for_function("document.querySelectorAll('.cell[data-phase=complete]').length > 4")
    assert 12 <= page.locator(".cell").count() <= 120
    page.wait_for_selector("#stop", state="hidden", timeout=120_000)
    expect(page.locator("#progress")).to_have_text("240 of 240 replies")
    assert page.locator(".cell").count() <= 120
    assert page.evaluate("window.longest") < 1000, "the page stays responsive"
    page.locator(".row").last.scroll_into_view_if_needed()
    expect(compare.cell(19, 11)).to_have_attribute("data-phase", "complete")


def test_the_keyboard_is_enough(compare: Compare) -> None:
    page = compare.page
    compare.choose(["Script A", "Script B"], ["none"])
    page.focus("#prompts")
    page.keyboard.type("endless")
    page.keyboard.press("Control+Enter")
    expect(compare.cell(0, 0).locator(".text")).to_contain_text("9 ")
    for label in ("Stop: Script A", "Stop: Script B"):
        page.get_by_role("button", name=label).focus()
        page.keyboard.press("Enter")
    ended(compare.cell(0, 0), "stopped")
    ended(compare.cell(0, 1), "stopped")
    assert page.evaluate("document.activeElement.dataset.do") == "open", "the focus stays in the cell"
    page.keyboard.press("Enter")
    expect(compare.dialog).to_be_visible()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.dataset.do") == "open"
    for place in range(2):
        page.locator("[data-do=choose]").nth(place).focus()
        page.keyboard.press("Space")
    expect(page.locator("#chosen button").first).to_be_enabled()


def states(compare: Compare) -> Iterator[str]:
    """Brings the page into one state after the other."""
    page = compare.page
    yield "empty"
    compare.run("Hi\nwrong key\ntour", ["Script A", "Hostile", "Keyed"], trials=2)
    yield "results"
    page.locator(".save summary").click()
    yield "menu"
    page.keyboard.press("Escape")
    for column in (0, 1):
        compare.cell(0, column).get_by_label("Choose").check()
    yield "chosen"
    for name in ("Differences", "On one time axis"):
        page.get_by_role("button", name=name).click()
        yield name
        page.keyboard.press("Escape")
    compare.act(compare.cell(2, 0), "Open")
    yield "reply"
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Blind test").click()
    yield "blind"


@pytest.mark.parametrize("width", [1280, 390])
def test_axe_finds_nothing_and_nothing_overflows(compare: Compare, width: int) -> None:
    page, found = compare.page, list[str]()
    page.set_viewport_size({"width": width, "height": 800})
    for state in states(compare):
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            page.wait_for_timeout(50)
            found += [f"{state}, {scheme}: {line}" for line in violations(page)]
        assert page.evaluate("document.documentElement.scrollWidth") <= width, state
    page.emulate_media(color_scheme="light")
    assert found == []


def test_a_phone_shows_a_list_of_rows_whose_replies_are_swiped(compare: Compare) -> None:
    page = compare.page
    page.set_viewport_size({"width": 390, "height": 844})
    compare.run("Hi\ntwo", ["Script A", "Script B"])
    first, second, below = compare.cell(0, 0), compare.cell(0, 1), compare.cell(1, 0)
    boxes = [cell.bounding_box() for cell in (first, second, below)]
    assert boxes[0] and boxes[1] and boxes[2]
    assert boxes[0]["width"] > 330 and boxes[0]["x"] == boxes[2]["x"] < 20
    assert boxes[1]["y"] == boxes[0]["y"] and boxes[1]["x"] > 350, "the next reply is beside it"
    assert boxes[2]["y"] > boxes[0]["y"] + boxes[0]["height"], "the next prompt is below it"
    page.locator(".cells").first.evaluate("node => node.scrollBy({ left: 250, behavior: 'instant' })")
    page.wait_for_function("document.querySelectorAll('.cell')[1].getBoundingClientRect().x < 40")
    compare.act(second, "Open")
    expect(compare.dialog).to_contain_text("Script B")
    page.keyboard.press("Escape")


def test_a_run_is_replayed_in_its_recorded_time(compare: Compare) -> None:
    page = compare.page
    compare.run("tour", ["Script A"])
    compare.act(compare.cell(0, 0), "Open")
    reply, position = compare.dialog.locator(".prose").nth(1), compare.dialog.get_by_label("Position in the replay")
    whole, end = reply.text_content() or "", int(position.get_attribute("max") or 0)
    assert end > 100
    lengths = []
    for share in (0.0, 0.3, 0.9, 0.3):
        position.fill(str(int(end * share)))
        lengths.append(len(reply.text_content() or ""))
    assert lengths[0] == 0 < lengths[1] < lengths[2] <= len(whole) and lengths[3] == lengths[1]
    position.fill("0")
    expect(compare.dialog.locator(".quiet").nth(1)).to_have_text(re.compile("Waiting|Queued"))
    began = page.evaluate("performance.now()")
    compare.dialog.get_by_role("button", name="Replay").click()
    expect(compare.dialog.get_by_role("button", name="Pause")).to_be_visible()
    expect(reply).to_have_text(whole)
    expect(compare.dialog.get_by_role("button", name="Replay")).to_be_visible()
    assert page.evaluate("performance.now()") - began >= end - 50
    page.keyboard.press("Escape")
    compare.open()  # also after a reload
    compare.act(compare.cell(0, 0), "Open")
    position.fill("0")
    expect(reply).to_have_text("")
    page.keyboard.press("Escape")


def test_thumbs_are_counted_and_saved(compare: Compare, tmp_path: Path) -> None:
    page = compare.page
    compare.run("Hi\ntwo", ["Script A", "Script B"])
    for prompt, column, name in ((0, 0, "Good reply"), (1, 0, "Bad reply"), (0, 1, "Good reply")):
        compare.act(compare.cell(prompt, column), name)
    good = page.locator("#ranking section").first
    expect(good.locator("h3 span")).to_have_text("Good replies")
    expect(good.locator("li")).to_have_text(["Script B · none1 of 1", "Script A · none1 of 2"])
    compare.open()
    expect(good.locator("li")).to_have_text(["Script B · none1 of 1", "Script A · none1 of 2"])
    again = compare.cell(0, 1).get_by_role("button", name="Good reply")
    expect(again).to_have_attribute("aria-pressed", "true")
    again.click()
    expect(again).to_have_attribute("aria-pressed", "false")
    expect(good.locator("li")).to_have_text(["Script A · none1 of 2"])
    page.locator(".save summary").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save JSON").click()
    download.value.save_as(tmp_path / "json")
    cells = json.loads((tmp_path / "json").read_bytes())["cells"]
    assert [cell["rating"] for cell in cells] == [1, None, -1, None]


def test_the_sidebar_leads_to_the_page(compare_app: RunningApp, contexts: Contexts) -> None:
    with contexts.visit(compare_app.url) as chat:
        if not chat.page.is_visible("#sidebar"):
            chat.page.click("#show-conversations")
        chat.page.get_by_role("link", name="Compare models").click()
        chat.page.wait_for_url(re.compile(r"/compare$"))
        expect(chat.page.locator("h1")).to_have_text("Compare")
        chat.page.click(".brand")
        chat.wait_ready()
        assert chat.errors == []
