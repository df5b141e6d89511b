"""A page whose line drops, dies or sleeps finds its run again, and loses nothing of it or of what was being typed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.app_process import RunningApp
from tests.browser.conftest import Chat
from tests.tcp import TcpProxy

COUNTED = " ".join(str(n) for n in range(1, 61))


@pytest.fixture(scope="module")
def app(paced_app: RunningApp) -> RunningApp:
    return paced_app


@pytest.fixture
def proxy(app: RunningApp) -> Iterator[TcpProxy]:
    with TcpProxy(app.port) as proxy:
        yield proxy


@contextmanager
def reloaded(chat: Chat) -> Iterator[None]:
    """The page is opened anew meanwhile, by itself."""
    chat.page.evaluate("window.before = true")
    yield
    chat.page.wait_for_function("!window.before", timeout=30_000)
    chat.page.wait_for_selector("#prompt textarea", state="visible")


def counting(new_chat: Callable[..., Chat], proxy: TcpProxy) -> Chat:
    """A page on that line, in the middle of a reply that counts without end."""
    chat = new_chat(proxy.url)
    chat.send("endless")
    chat.wait_token()
    chat.page.wait_for_function("document.querySelector('#live-reply').textContent.includes(' 20 ')")
    return chat


def check_whole(chat: Chat) -> None:
    """The reply goes on without a gap, and is there once."""
    page = chat.page
    page.wait_for_function("document.querySelector('#scroll').textContent.includes(' 120 ')", timeout=30_000)
    chat.stop()
    assert "\n".join(chat.texts("bot")).count(COUNTED) == 1
    assert chat.texts("user") == ["endless"]
    assert chat.phase == "stopped"


def test_after_a_cut_the_reply_grows_on(new_chat: Callable[..., Chat], proxy: TcpProxy) -> None:
    chat = counting(new_chat, proxy)
    chat.type("and then")
    with reloaded(chat):
        proxy.cut()
    check_whole(chat)
    assert chat.page.input_value("#prompt textarea") == "and then"
    assert proxy.dropped


def test_a_line_that_died_without_a_word_is_given_up(new_chat: Callable[..., Chat], proxy: TcpProxy) -> None:
    """As after a sleep: nobody has closed anything, and nothing comes any more."""
    chat = counting(new_chat, proxy)
    chat.type("and then")
    with reloaded(chat):
        proxy.freeze()
    check_whole(chat)
    assert chat.page.input_value("#prompt textarea") == "and then"


def test_a_reply_that_ended_meanwhile_is_there_whole(new_chat: Callable[..., Chat], proxy: TcpProxy) -> None:
    chat = new_chat(proxy.url)
    chat.send("tour")
    chat.wait_token()
    with reloaded(chat):
        proxy.cut(refuse=True)
        chat.page.get_by_text("Connection lost").first.wait_for(timeout=10_000)
        chat.page.wait_for_timeout(2000)
        proxy.mend()
    chat.page.wait_for_function("document.querySelector('#chat').textContent.includes('what can go wrong')")
    assert chat.phase == "complete"
    assert chat.reply().count("what can go wrong") == 1


def test_a_model_that_is_silent_for_long_is_no_dead_line(new_chat: Callable[..., Chat], proxy: TcpProxy) -> None:
    chat = new_chat(proxy.url)
    chat.page.evaluate("window.before = true")
    chat.send("slow")
    chat.wait_end()
    assert chat.page.evaluate("window.before"), "the page was not opened anew"
    assert chat.errors == []


def test_a_page_that_the_server_has_forgotten_is_opened_anew(new_chat: Callable[..., Chat]) -> None:
    """As one is after a sleep; without its cookie, this one is a stranger's."""
    chat = new_chat()
    chat.type("and then")
    chat.page.evaluate("dispatchEvent(new Event('online'))")
    chat.page.evaluate("window.before = true")
    chat.page.wait_for_timeout(500)
    assert chat.page.evaluate("window.before"), "what is known stays"
    chat.page.context.clear_cookies()
    with reloaded(chat):
        chat.page.evaluate("dispatchEvent(new Event('online'))")
    assert chat.page.input_value("#prompt textarea") == "and then"
