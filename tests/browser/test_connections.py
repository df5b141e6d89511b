"""How many connections the page holds: a browser opens at most six to one HTTP/1.1 host, for all its tabs together."""

import time
from collections.abc import Callable, Iterator

import psutil
import pytest

from tests.app_process import RunningApp
from tests.browser.conftest import PACED, Chat

_UNTIL_S = 20.0
"""Time for kept-alive connections to be closed; the server does that after five seconds without a request."""


LONG = PACED.replace("speed = 1 }", "speed = 1 }\ncontext = 100_000") + "[limits]\nreply_tokens = 50_000"
"""Its endless reply grows for half an hour: twelve tabs take a minute on a busy machine."""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    with RunningApp(tmp_path_factory.mktemp("long"), LONG) as app:
        yield app


def connections(app: RunningApp) -> int:
    """Open TCP connections to the app."""
    found = psutil.Process(app.process.pid).net_connections("tcp")
    return sum(1 for one in found if one.status == psutil.CONN_ESTABLISHED and one.laddr.port == app.port)


def settle(app: RunningApp, chat: Chat, most: int) -> int:
    """Waits until no more than `most` connections are open; returns how many are."""
    deadline = time.monotonic() + _UNTIL_S
    while (found := connections(app)) > most and time.monotonic() < deadline:
        chat.page.wait_for_timeout(100)
    return found


def test_idle_pages_hold_no_connection(app: RunningApp, new_chat: Callable[..., Chat]) -> None:
    first = new_chat(app.url)
    second = new_chat(app.url, first)
    first.send("hello")
    first.wait_end()
    assert settle(app, second, 0) == 0
    for _ in range(20):
        second.page.wait_for_timeout(100)
        assert connections(app) == 0
    second.send("hello")
    second.wait_end()


def test_streaming_page_holds_one_connection(app: RunningApp, new_chat: Callable[..., Chat]) -> None:
    chat = new_chat(app.url)
    chat.send("endless")
    chat.wait_token()
    assert settle(app, chat, 1) == 1
    for _ in range(20):
        chat.page.wait_for_timeout(100)
        assert connections(app) == 1
    chat.stop()


def test_twelve_tabs_of_which_four_stream_all_work(app: RunningApp, new_chat: Callable[..., Chat]) -> None:
    chats = [first := new_chat(app.url), *(new_chat(app.url, first) for _ in range(11))]
    streaming, idle = chats[:4], chats[4:]
    for chat in streaming:
        chat.send("endless")
    for chat in streaming:
        chat.wait_token()
    for chat in idle:
        chat.send("hello")
        chat.wait_end()
    idle[0].page.reload()
    idle[0].page.wait_for_selector("#chat [data-testid=bot]")
    new_chat(app.url, first).send("hello")
    for chat in streaming:
        length = len(chat.live())
        chat.page.wait_for_function(f"document.querySelector('#live-reply').textContent.length > {length + 20}")
        chat.stop()
        assert chat.phase == "stopped"
    assert all(chat.errors == [] for chat in chats)
