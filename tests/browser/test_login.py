"""A page behind `--auth`: nothing without the login, everything after it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.app_process import RunningApp
from tests.browser.conftest import Chat


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[RunningApp]:
    config = '[[backends]]\nname = "Script"\nkind = "scripted"\n'
    with RunningApp(tmp_path, config, GLASSBOX_AUTH="zoe:of the test") as app:
        yield app


def test_who_logs_in_talks_and_who_does_not_sees_the_login(closed: RunningApp, page: Page) -> None:
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
