"""An agent that was not written for Glassbox, on the page: its timeline, and its question."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.app_process import RunningApp
from tests.browser.conftest import Chat

CONFIG = """
[[backends]]
name = "Travel"
kind = "agent"
class = "tests.own_agent:travel_graph"
options = { asks = true }

[[backends]]
name = "Counting"
kind = "agent"
class = "tests.own_agent:counting"
memory = "own"
"""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    with RunningApp(tmp_path_factory.mktemp("agents"), CONFIG) as app:
        yield app


def test_an_agent_is_watched_and_its_question_answered(chat: Chat) -> None:
    chat.send("Where shall I go?")
    card = chat.page.locator("#approval .card")
    expect(card.locator("b")).to_have_text("Shall I write about Paris?")
    expect(card.locator("pre")).to_contain_text('"tone": "sober"')
    expect(chat.page.locator("#live-reply")).not_to_contain_text("Paris is rainy")
    card.get_by_role("button", name="Answer", exact=True).click()
    expect(card.locator("textarea")).to_be_focused()
    card.locator("textarea").fill('Only <b>"briefly"</b>')
    card.get_by_role("button", name="Answer", exact=True).click()
    chat.wait_end()
    assert chat.reply() == "Paris is rainy and large. (answered 'Only <b>\"briefly\"</b>')"
    for name in ("plan", "research", "weather", "population", "write"):
        expect(chat.page.locator("#timeline .bars")).to_contain_text(name)
    chat.part("weather").locator("summary").click()
    expect(chat.part("weather")).to_contain_text("It rains in Paris.")
    expect(chat.page.locator("#approval .card")).to_have_count(0)
    assert chat.errors == []


def test_yes_and_no_answer_a_question(chat: Chat) -> None:
    for label, result in (("Yes", "True"), ("No", "False")):
        chat.send("Where shall I go?")
        chat.page.locator("#approval .card").get_by_role("button", name=label, exact=True).click()
        chat.wait_end()
        assert chat.reply().endswith(f"(answered {result})")


def test_the_page_says_that_an_agent_remembers_by_itself(chat: Chat) -> None:
    chat.choose("backend", "Counting")
    for number in (1, 3):
        chat.send("Hello")
        chat.wait_end()
        assert chat.reply() == f"Message {number}."
    chat.tab("Context")
    expect(chat.page.locator("#context")).to_contain_text("memory of its own")
