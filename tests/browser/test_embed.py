"""The chat in pages of other sites: by the documented script tag, in a frame, over http and over https."""

import re
import tomllib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext, FrameLocator, Locator, Page, expect

from bench.ports import free_port
from tests.app_process import RunningApp
from tests.axe import violations
from tests.browser.conftest import PACED, Chat, Contexts
from tests.foreign_page import foreign_page
from tests.nginx import HOST, documented, documented_nginx, make_certificate, nginx

DOC = (Path(__file__).parents[2] / "docs" / "your-own.md").read_text()
TAG = DOC.split("```html\n")[1].split("```")[0]
"""The script tag as documented, with the address https://chat.example."""
PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>A blog</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="icon" href="data:,">
<main><h1>A blog</h1><p>About whales.</p><p><label>Search <input id="search"></label></p></main>
BODY</html>"""
HOSTILE = """<style nonce="n">
div, dialog, iframe, button, p, header { display: none; opacity: 0; transform: scale(0.1); }
button { font: 60px serif; color: red; }
* { position: static; box-sizing: content-box; background: yellow; letter-spacing: 20px; }
</style>"""
POLICY = "default-src 'none'; script-src {app}; frame-src {app}; style-src 'nonce-n'; img-src data:; {types}"
POLICY = POLICY.replace("{types}", "require-trusted-types-for 'script'; trusted-types 'none'")


class Embedded:
    """The panel in a page of another site, used as a person would."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.errors: list[str] = []
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", lambda line: self.errors.append(line.text) if "Content Security" in line.text else None)

    @property
    def button(self) -> Locator:
        return self.page.locator("[data-glassbox-embed] .open")

    @property
    def panel(self) -> Locator:
        return self.page.get_by_role("dialog")

    @property
    def chat(self) -> FrameLocator:
        return self.page.frame_locator("iframe")

    @property
    def prompt(self) -> Locator:
        return self.chat.locator("#prompt textarea")

    def open(self) -> None:
        self.button.click()
        self.wait_ready()

    def wait_ready(self) -> None:
        self.prompt.wait_for()
        self.chat.locator("#first-frame").wait_for(state="detached")
        expect(self.chat.locator("#about p")).not_to_be_empty()

    def send(self, text: str) -> None:
        self.prompt.fill(text)
        self.prompt.press("Enter")
        expect(self.prompt).to_have_value("")

    def wait_text(self, text: str) -> None:
        expect(self.chat.locator("#live-reply")).to_contain_text(text)

    def focus(self) -> str:
        """What has the focus: an element of the page, of the panel, or of the chat in it."""
        found = self.page.evaluate(
            """() => {
              let node = document.activeElement;
              while (node.shadowRoot?.activeElement) node = node.shadowRoot.activeElement;
              return node.id || node.className || node.tagName;
            }"""
        )
        return str(
            found if found != "IFRAME" else self.chat.locator("body").evaluate("() => document.activeElement.tagName")
        )


Visit = Callable[..., Embedded]


@pytest.fixture(scope="module")
def blog_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, blog_port: int) -> Iterator[RunningApp]:
    origins = ", ".join(f'"http://{host}:{blog_port}"' for host in ("localhost", "127.0.0.1"))
    page = f'[page]\ntitle = "Whale watch"\nembed_origins = [{origins}]\n'
    with RunningApp(tmp_path_factory.mktemp("embed"), f"{page}\n{PACED}") as app:
        yield app


def tag(app: RunningApp, **attributes: str) -> str:
    """The documented tag, with the address of the app and other attributes."""
    made = TAG.replace("https://chat.example/", app.url)
    for name, value in attributes.items():
        made = re.sub(rf'data-{name}="[^"]*"', "", made).replace(" async", f' async data-{name}="{value}"')
    return made


@pytest.fixture
def visit(app: RunningApp, blog_port: int, contexts: Contexts) -> Iterator[Visit]:
    """Opens the blog, whose page has the given elements and policy."""
    with ExitStack() as stack:

        def open_blog(
            body: str, policy: str = "", port: int = blog_port, host: str = "localhost", **options: Any
        ) -> Embedded:
            origin = stack.enter_context(foreign_page(PAGE.replace("BODY", body), policy, port=port))
            page = stack.enter_context(contexts.lend(**options)).new_page()
            embedded = Embedded(page)
            page.goto(origin.replace("localhost", host))
            return embedded

        yield open_blog


def test_the_documented_tag_puts_a_chat_into_a_page_of_another_site(app: RunningApp, visit: Visit) -> None:
    policy = POLICY.format(app=app.url.rstrip("/"))
    blog = visit(HOSTILE + tag(app), policy)
    names = set(blog.page.evaluate("Object.keys(window)"))
    expect(blog.button).to_have_text("Ask the whales")
    box = blog.button.bounding_box()
    assert box and 40 <= box["height"] <= 60 and box["x"] + box["width"] > 1200, "the page's styles do not reach it"
    assert blog.page.frames[1:] == [], "the chat is not loaded before it is wanted"
    blog.open()
    expect(blog.prompt).to_have_value("How old do whales get?")
    assert blog.focus() == "TEXTAREA"
    assert blog.chat.locator("#chat [data-testid=user]").count() == 0, "it is never sent by itself"
    for part in ("#sidebar", "#backend", "#show-options", "#share", ".from-code", ".skip"):
        expect(blog.chat.locator(part)).to_be_hidden()
    blog.send("endless")
    blog.wait_text("1 2 3 4 5")
    expect(blog.chat.locator("#stop")).to_be_visible()
    blog.chat.get_by_role("button", name="Open the run panel").click()
    expect(blog.chat.locator("#agent-state [data-phase]")).to_have_attribute(
        "data-phase", re.compile("thinking|streaming|tool")
    )
    expect(blog.chat.locator("#timeline .bars")).to_contain_text("ScriptedChat")
    blog.chat.get_by_role("button", name="Show the run panel in full").click()
    blog.chat.get_by_role("button", name="Close the run panel").click()
    blog.chat.locator("#stop").click()
    expect(blog.chat.locator("#agent-state [data-phase]")).to_have_attribute("data-phase", "stopped")
    expect(blog.chat.locator("#chat")).to_contain_text("1 2 3 4 5")
    assert blog.errors == []
    assert set(blog.page.evaluate("Object.keys(window)")) - names <= {"0"}, "no global name but the frame's index"


def test_the_panel_works_by_the_keyboard_alone(app: RunningApp, visit: Visit) -> None:
    blog = visit(tag(app))
    expect(blog.button).to_have_attribute("aria-expanded", "false")
    blog.page.locator("#search").focus()
    blog.page.keyboard.press("Tab")
    assert blog.focus() == "open"
    blog.page.keyboard.press("Enter")
    blog.wait_ready()
    expect(blog.panel).to_have_attribute("aria-label", "Ask the whales")
    expect(blog.button).to_have_attribute("aria-expanded", "true")
    assert blog.focus() == "TEXTAREA"
    blog.page.keyboard.press("Control+a")
    blog.page.keyboard.type("endless")
    blog.page.keyboard.press("Enter")
    blog.wait_text("1 2 3 4 5")
    blog.page.keyboard.press("Escape")
    expect(blog.chat.locator("#agent-state [data-phase]")).to_have_attribute("data-phase", "stopped")
    expect(blog.panel).to_be_visible()  # the first Escape stops the run
    expect(blog.chat.locator("#send")).to_be_visible()
    blog.page.keyboard.press("Escape")
    expect(blog.panel).to_be_hidden()
    expect(blog.button).to_have_attribute("aria-expanded", "false")
    assert blog.focus() == "open"
    blog.page.keyboard.press("Enter")
    expect(blog.panel).to_be_visible()
    expect(blog.chat.locator("#chat")).to_contain_text("1 2 3 4 5")  # it was not loaded again
    blog.page.keyboard.press("Escape")
    expect(blog.panel).to_be_hidden()
    blog.button.click()
    blog.page.get_by_role("button", name="Close").click()
    assert blog.focus() == "open"
    assert blog.errors == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_panel_and_the_chat_in_it_are_accessible(app: RunningApp, visit: Visit, scheme: Any) -> None:
    blog = visit(tag(app), color_scheme=scheme)
    assert violations(blog.page) == []
    blog.open()
    assert violations(blog.page) == []
    alone = blog.page.context.new_page()
    Chat(alone, f"{app.url}?embed=1")
    assert violations(alone) == []


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_over_http_nothing_outlives_a_reload_and_the_page_says_so(app: RunningApp, visit: Visit, host: str) -> None:
    """Pages of another site, and of another port of the same one, whose frames would have a cookie."""
    blog = visit(tag(app), host=host)
    blog.open()
    expect(blog.chat.locator("#embedded p")).to_have_text(re.compile("loaded over http, so nothing is kept"))
    blog.send("/calculator 2*3")
    expect(blog.chat.locator("#chat")).to_contain_text("calculator")
    assert blog.page.context.cookies() == []
    blog.page.reload()
    blog.open()
    expect(blog.chat.locator("#intro")).to_be_visible()
    expect(blog.chat.locator("#chat [data-testid=user]")).to_have_count(0)


def test_a_frame_of_ones_own_takes_no_focus_and_fits_into_320_pixels(app: RunningApp, visit: Visit) -> None:
    frame = f'<iframe title="Chat" src="{app.url}?embed=1" width="320" height="480" style="border:0"></iframe>'
    blog = visit(f"{frame}<script>document.querySelector('#search').focus()</script>")
    blog.wait_ready()
    assert blog.focus() == "search"
    width = "() => [document.documentElement.scrollWidth, innerWidth]"
    blog.send("endless")
    blog.wait_text("1 2 3 4 5")
    assert blog.chat.locator("body").evaluate(width) == [320, 320]
    blog.chat.locator("#stop").click()
    blog.chat.get_by_role("button", name="Open the run panel").click()
    expect(blog.chat.get_by_role("tab", name="Events")).to_be_visible()
    assert blog.chat.locator("body").evaluate(width) == [320, 320]


def test_a_wide_frame_shows_the_run_on_a_button(app: RunningApp, visit: Visit) -> None:
    blog = visit(f'<iframe title="Chat" src="{app.url}?embed=1" width="1100" height="600"></iframe>')
    blog.wait_ready()
    button, panel = blog.chat.get_by_role("button", name="Run panel"), blog.chat.locator("#agent-state")
    expect(panel).to_be_hidden()
    blog.send("endless")
    expect(button).to_contain_text(re.compile("Thinking|Streaming|Running a tool"))
    button.click()
    expect(panel).to_be_visible()
    panel.get_by_role("tab", name="Run").focus()
    blog.page.keyboard.press("Escape")
    expect(panel).to_be_hidden()
    expect(button).to_be_focused()
    expect(blog.chat.locator("#stop")).to_be_visible()  # the run continues


def test_on_a_phone_the_panel_covers_the_page(app: RunningApp, visit: Visit) -> None:
    blog = visit(tag(app), viewport={"width": 390, "height": 844})
    blog.open()
    assert blog.panel.bounding_box() == {"x": 0, "y": 0, "width": 390, "height": 844}
    assert blog.panel.evaluate("node => node.matches(':modal')")
    assert blog.focus() == "TEXTAREA"
    blog.page.keyboard.press("Escape")
    expect(blog.panel).to_be_hidden()
    assert blog.focus() == "open"


def test_a_page_that_is_not_named_cannot_show_the_chat(app: RunningApp, visit: Visit) -> None:
    blog = visit(tag(app), port=0)
    blog.button.click()
    expect(blog.page.get_by_role("alert")).to_have_text(
        re.compile(r"is http://localhost:\d+ one of its embed_origins\?")
    )
    assert [frame.url for frame in blog.page.frames[1:]] == ["chrome-error://chromewebdata/"]


def test_a_named_page_can_frame_the_slim_page_only(app: RunningApp, visit: Visit) -> None:
    frames = "".join(
        f'<iframe title="x" src="{app.url}{path}"></iframe>' for path in ("", "example", "?embed=2", "docs")
    )
    blog = visit(frames)
    blog.page.wait_for_load_state()
    assert {frame.url for frame in blog.page.frames[1:]} == {"chrome-error://chromewebdata/"}
    failed = blog.page.evaluate(
        "url => fetch(url, { credentials: 'include' }).then(() => 'read', () => 'refused')", f"{app.url}backends"
    )
    assert failed == "refused"


def test_the_tags_attributes_choose_colours_and_names(app: RunningApp, visit: Visit) -> None:
    attributes = {"accent": "#ffdd00", "theme": "dark", "backend": "Parrot", "memory": "window", "title": "Whale?"}
    blog = visit(tag(app, q="Hi", **attributes), POLICY.format(app=app.url.rstrip("/")))
    expect(blog.button).to_have_text("Whale?")
    colours = blog.button.evaluate("node => [getComputedStyle(node).backgroundColor, getComputedStyle(node).color]")
    assert colours == ["rgb(255, 221, 0)", "rgb(0, 0, 0)"] and blog.errors == []
    blog.open()
    assert blog.chat.locator("body").evaluate("node => node.classList.contains('dark')")
    expect(blog.prompt).to_have_value("Hi")
    blog.prompt.press("Enter")
    expect(blog.chat.locator("#chat")).to_contain_text("Hello.")
    expect(blog.chat.locator("#agent-state .step")).to_have_text(re.compile("Parrot.*memory: window"))


def cookie_of(context: BrowserContext) -> Any:
    [found] = [one for one in context.cookies() if one["name"] == "glassbox_visitor"]
    return found


def test_over_https_the_conversation_is_there_after_a_reload(contexts: Contexts, tmp_path: Path) -> None:
    certificate, port, blog_port = make_certificate(tmp_path), free_port(), free_port()
    home, origin = f"https://{HOST}:{port}/demo/", f"https://localhost:{blog_port}"
    settings = f'{documented("toml")}\n[page]\nembed_origins = ["{origin}"]\n{PACED}'
    assert tomllib.loads(settings)
    html = PAGE.replace("BODY", TAG.replace("https://chat.example/", home))
    with (
        RunningApp(tmp_path, settings) as app,
        nginx(tmp_path / "nginx", documented_nginx(app.port, port, certificate)),
        foreign_page(html, certificate=certificate, port=blog_port),
        contexts.lend(ignore_https_errors=True) as context,
    ):
        blog = Embedded(context.new_page())
        blog.page.goto(origin)
        with blog.page.expect_response(lambda answer: answer.url.startswith(f"{home}?embed=1")) as answer:
            blog.open()
        assert answer.value.header_value("set-cookie").endswith("; SameSite=None; Secure; Partitioned")  # type: ignore[union-attr]
        cookie = cookie_of(context)
        assert (cookie["sameSite"], cookie["secure"], cookie["httpOnly"], cookie["path"]) == (
            "None",
            True,
            True,
            "/demo",
        )
        assert cookie["partitionKey"] == "https://localhost"
        expect(blog.chat.locator("#embedded p")).to_be_hidden()
        blog.send("endless")
        blog.wait_text("1 2 3 4 5")
        blog.page.reload()
        blog.open()
        expect(blog.chat.locator("#chat [data-testid=user]")).to_have_text(re.compile("endless"))
        expect(blog.prompt).to_have_value("")  # the filled-in message is for a new conversation
        expect(blog.chat.locator("#scroll")).to_contain_text("1 2 3 4 5")
        assert blog.errors == []
        conversation = blog.page.frames[1].url.partition("conversation=")[2]
        deletes = "id => fetch(`conversations/${id}`, { method: 'DELETE' }).then(({ status }) => status)"
        alone = Chat(context.new_page(), home)
        expect(alone.page.locator("#sidebar")).not_to_contain_text("endless")  # the page itself has another visitor
        alone.page.goto(f"{home}?conversation={conversation}")
        alone.wait_toast("conversation")
        assert alone.texts("user") == []
        assert blog.chat.locator("body").evaluate(f"(_, id) => ({deletes})(id)", conversation) == 204
        blog.page.reload()
        blog.open()
        expect(blog.chat.locator("#intro")).to_be_visible()
        assert "conversation=" not in blog.page.frames[1].url  # it was deleted, so it is forgotten
