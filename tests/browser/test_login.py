"""A page behind `--auth`: nothing without the login, everything after it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from tests.browser.conftest import Chat, RunningApp


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[RunningApp]:
    app = RunningApp(tmp_path, '[[backends]]\nname = "Script"\nkind = "scripted"\n', GLASSBOX_AUTH="zoe:of the test")
    app.start()
    yield app
    app.stop()


def test_who_logs_in_talks_and_who_does_not_sees_the_login(closed: RunningApp, browser: Browser) -> None:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(closed.url)
    name, password = page.get_by_label("username"), page.get_by_label("password")
    name.fill("zoe")
    password.fill("wrong")
    page.get_by_role("button", name="Login").click()
    expect(page.get_by_text("Incorrect")).to_be_visible()
    name.fill("zoe")  # Gradio empties both
    password.fill("of the test")
    page.get_by_role("button", name="Login").click()
    page.wait_for_selector("#prompt textarea", state="visible")
    chat = Chat(page, closed.url)
    chat.send("hello")
    chat.wait_end()
    assert chat.reply() and chat.errors == [] and errors == []
    context.close()
