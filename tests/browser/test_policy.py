"""What a reply, a title, a file's name or a provider's error cannot do in the page, whatever they hold."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import expect

from tests.app_process import RunningApp
from tests.browser.conftest import Chat
from tests.providers import Fail, OpenAIServer, Reply, Tool

HOSTILE = """<img src=x onerror="window.hacked=1"><script>window.hacked=1</script><svg onload="window.hacked=1">
[a link](javascript:window.hacked=1) <a href="javascript:window.hacked=1">b</a>
<iframe srcdoc="<script>1</script>">
</textarea></title></style><style>@import url({elsewhere}style)</style> ![i]({elsewhere}image?q=secret)
<img src="{elsewhere}img">
<link rel=stylesheet href="{elsewhere}link"><form action="{elsewhere}form"><input name=q></form>
<math><mtext><option><FAKEFAKE><option></option><mglyph><svg><mtext><a title="</a><img src onerror=window.hacked=1>">
${{window.hacked=1}} {{{{constructor.constructor('window.hacked=1')()}}}} `window.hacked=1` <base href="{elsewhere}">"""


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[tuple[str, list[str]]]:
    """Another site, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", asked
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def openai() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture(scope="module")
def app(openai: OpenAIServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    entry = f'[[backends]]\nname = "Hostile"\nkind = "openai"\nmodel = "test-model"\nbase_url = "{openai.base_url}"\n'
    with RunningApp(tmp_path_factory.mktemp("hostile"), entry) as app:
        yield app


@pytest.fixture
def visited(
    chat: Chat, openai: OpenAIServer, elsewhere: tuple[str, list[str]]
) -> Iterator[tuple[Chat, OpenAIServer, str]]:
    yield chat, openai, HOSTILE.format(elsewhere=elsewhere[0])
    shown = chat.page.locator(":is(#chat, #live-reply, #agent-state, #sidebar) :is(script, iframe, form, base)")
    assert chat.page.evaluate("window.hacked") is None
    assert shown.count() == 0
    assert chat.page.locator("a[href^=javascript]").count() == 0
    assert elsewhere[1] == [], "something was fetched from another site"


def test_hostile_words_stay_words_wherever_they_are_shown(visited: tuple[Chat, OpenAIServer, str]) -> None:
    chat, openai, hostile = visited
    page = chat.page
    openai.answers = [Reply(text=(hostile, " and the end"), thinking=(hostile,))]
    chat.send(hostile)
    chat.wait_end()
    assert "and the end" in chat.reply()
    page.locator("#sidebar .one .more").first.click()
    page.locator("#sidebar .menu").get_by_text("Rename").click()
    page.keyboard.insert_text(hostile.replace("\n", " ")[:190])
    page.keyboard.press("Enter")
    expect(page.locator("#sidebar .one b").first).to_contain_text("onerror")
    page.fill("#sidebar input[type=search]", "<img src=x onerror")
    expect(page.locator("#sidebar mark").first).to_be_visible()
    for part in page.locator("#chat details summary").all():
        part.click()
    page.click("#chat [data-context]")
    page.wait_for_timeout(500)
    page.keyboard.press("Escape")
    page.reload()
    page.wait_for_selector("#chat [data-testid=bot]")
    chat.wait_end()


def test_a_hostile_tool_call_and_error_stay_words(visited: tuple[Chat, OpenAIServer, str]) -> None:
    chat, openai, hostile = visited
    openai.answers = [
        Reply(
            text=(),
            tools=(Tool(hostile[:60]), Tool("search", ('{"query": "<img src=x onerror=window.hacked=1>"}',), id="c2")),
        ),
        Fail(418, None, hostile),
    ]
    chat.send("use it")
    chat.wait_end()
    chat.page.wait_for_timeout(300)
    for bar in chat.page.locator("#timeline .bars button:visible").all():
        bar.click()


def test_even_markup_that_got_into_the_page_runs_nothing(
    visited: tuple[Chat, OpenAIServer, str], elsewhere: tuple[str, list[str]]
) -> None:
    """The last wall: suppose that something did not escape what it shows."""
    page = visited[0].page
    blocked = page.evaluate(
        """async (markup) => {
          const received = [];
          document.addEventListener('securitypolicyviolation', (e) => received.push(e.effectiveDirective));
          const box = document.createElement('div');
          document.body.append(box);
          box.innerHTML = markup;
          await fetch(ELSEWHERE + 'fetch').catch(() => {});
          await new Promise((done) => setTimeout(done, 600));
          box.remove();
          return received;
        }""".replace("ELSEWHERE", repr(elsewhere[0])),
        visited[2],
    )
    assert {"img-src", "connect-src"} <= set(blocked) and any(one.startswith("script-src") for one in blocked)
