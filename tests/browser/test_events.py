"""The table of the raw events, as somebody who wants to understand a run uses it."""

import pytest

from tests.browser.conftest import Chat

ROWS = "#events .rows li"


@pytest.fixture
def open_chat(chat: Chat) -> Chat:
    chat.choose("backend", "Scripted tour")
    chat.page.click("#events summary")
    return chat


def types(chat: Chat) -> list[str]:
    return chat.page.locator(f"{ROWS} span:nth-child(3)").all_text_contents()


def test_the_events_come_while_the_run_is_live_and_are_whole_at_its_end(open_chat: Chat) -> None:
    page = open_chat.page
    open_chat.send("tools")
    page.wait_for_selector(f"{ROWS} [data-type=tool_output]")
    assert "complete" not in types(open_chat)
    open_chat.wait_end()
    page.wait_for_selector(f"{ROWS} [data-type=complete]")
    found = types(open_chat)
    assert found[:2] == ["run", "status"]
    assert not {"token", "state"} & set(found), "those are too many to be read at first"
    for kind in ("chain", "model", "tool"):
        assert found.count(f"{kind}_start") == found.count(f"{kind}_end") > 0
    assert open_chat.errors == []


def test_rows_are_filtered_by_type_and_name_and_open_to_the_whole_event(open_chat: Chat) -> None:
    page = open_chat.page
    open_chat.send("tools")
    open_chat.wait_end()
    page.wait_for_selector(f"{ROWS} [data-type=complete]")
    page.fill("#events input", "CALC")
    assert types(open_chat) == ["tool_start", "tool_output", "tool_end"]
    page.locator(f"{ROWS} button").first.click()
    assert '"expression": "17*23"' in (page.text_content(f"{ROWS} pre") or "")
    page.click(".kinds [data-type=tool_output]")
    assert types(open_chat) == ["tool_start", "tool_end"]
    page.fill("#events input", "")
    page.click(".kinds [data-type=token]")
    assert "token" in types(open_chat)
    assert page.get_attribute(".kinds [data-type=tool_output]", "aria-pressed") == "false"
    assert open_chat.errors == []


def test_nothing_is_asked_for_while_the_table_is_closed_and_a_reload_shows_it_again(chat: Chat) -> None:
    asked: list[str] = []
    chat.page.on("request", lambda request: asked.append(request.url) if "/runs/" in request.url else None)
    chat.choose("backend", "Scripted tour")
    chat.send("tour")
    chat.wait_end()
    assert asked == []
    chat.open(chat.page.url)
    chat.page.wait_for_selector("#chat [data-testid=bot]")
    chat.page.click("#events summary")
    chat.page.wait_for_selector(f"{ROWS} [data-type=complete]")
    assert len(asked) == 1
    assert chat.errors == []
