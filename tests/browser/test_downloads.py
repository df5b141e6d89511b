"""A larger model on the page: its size in the menu, one question, the progress, and then its replies."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import expect

from backends.weights import bundled_weights
from tests.app_process import RunningApp
from tests.browser.conftest import Chat
from tests.hub import HubServer
from tests.test_backends_downloads import CONFIG, hub_environment
from tests.test_backends_weights import NAME

LARGER = "Better / larger"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    folder, path = tmp_path_factory.mktemp("app"), bundled_weights()
    assert path
    with HubServer({NAME: path.read_bytes()}, piece=2_000_000) as hub:
        hub.pause = 0.05
        with RunningApp(folder, CONFIG, fresh=True, **hub_environment(folder, hub)) as app:
            yield app


def test_a_model_is_downloaded_at_a_click_and_answers(chat: Chat, new_chat: Callable[..., Chat]) -> None:
    page = chat.page
    page.wait_for_timeout(3100)  # who opens the menu later sees what the Hub has said meanwhile
    page.click("#backend input")
    option = page.get_by_role("option", name=LARGER)
    expect(option).to_contain_text("Not downloaded 0.1 GB")
    option.click()
    line, button = page.locator("#about p"), page.locator("#about .download")
    expect(line).to_have_text(f"Knows more. {LARGER} is not on this machine yet.")
    expect(button).to_have_text("Download 0.1 GB")
    chat.send("Hello")
    chat.wait_end()
    expect(page.locator("#chat .failure")).to_contain_text("is not on this machine yet")

    other = new_chat()
    other.choose("backend", LARGER)
    button.click()
    expect(line).to_contain_text("downloading")
    expect(button).to_be_hidden()
    other.page.reload()
    other.choose("backend", LARGER)
    expect(other.page.locator("#about p")).to_contain_text("downloading")
    expect(line).to_contain_text("Knows more.", timeout=60_000)
    page.locator("#chat .failure .retry").click()
    expect(page.locator("#chat .failure")).to_have_count(0)
    chat.wait_end()
    assert chat.reply()
    expect(page.locator("#chat .author").last).to_contain_text(LARGER)
    assert chat.errors == other.errors == []
