"""Remote agents on the page, behind servers that were not written for Glassbox: steps, tools, state and questions."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import expect

from tests.agui_servers import langgraph_app, pydantic_app, served
from tests.app_process import RunningApp
from tests.browser.conftest import Chat

CONFIG = """
[[backends]]
name = "Remote graph"
kind = "agui"
base_url = "{graph}/agent"
memory = "own"

[[backends]]
name = "Remote agent"
kind = "agui"
base_url = "{agent}/agent/"
"""


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    with served(langgraph_app()) as graph, served(pydantic_app()) as agent:
        config = CONFIG.format(graph=graph, agent=agent)
        with RunningApp(tmp_path_factory.mktemp("remote"), config) as app:
            yield app


def test_a_remote_graph_is_watched_and_its_question_answered(chat: Chat) -> None:
    chat.send("Where shall I go?")
    card = chat.page.locator("#approval .card")
    expect(card.locator("b")).to_have_text("Shall I write about Oslo?")
    expect(card.locator("pre")).to_contain_text('"tone": "sober"')
    card.get_by_role("button", name="Answer", exact=True).click()
    card.locator("textarea").fill('Only <b>"briefly"</b>')
    card.get_by_role("button", name="Answer", exact=True).click()
    chat.wait_end()
    assert chat.reply() == "Oslo first: it rains. (answered 'Only <b>\"briefly\"</b>', 1 asked)"
    for name in ("plan", "planning", "look_up", "weather", "state", "write"):
        expect(chat.page.locator("#timeline .bars")).to_contain_text(name)
    chat.part("weather").locator("summary").click()
    expect(chat.part("weather")).to_contain_text("It rains in Oslo.")
    expect(chat.part("weather")).to_contain_text('"city": "Oslo"')
    expect(chat.page.locator("#approval .card")).to_have_count(0)
    chat.tab("Context")
    expect(chat.page.locator("#context")).to_contain_text("memory of its own")
    expect(chat.page.locator("#context")).not_to_contain_text("You are a helpful assistant")
    assert chat.errors == []


def test_a_tool_of_a_remote_agent_waits_for_approval(chat: Chat) -> None:
    chat.choose("backend", "Remote agent")
    for label, result in (("Approve", "booked Paris"), ("Refuse", "The tool call was denied.")):
        chat.send("Please book it")
        card = chat.page.locator("#approval .card")
        expect(card).to_contain_text("book")
        expect(card).to_contain_text("Paris")
        card.get_by_role("button", name=label, exact=True).click()
        chat.wait_end()
        assert result in chat.reply()
    assert chat.errors == []
