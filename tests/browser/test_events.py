"""The table of the raw events, as somebody who wants to understand a run uses it."""

import pytest

from tests.app_process import RunningApp
from tests.browser.conftest import Chat

ROWS = "#events .rows li"


@pytest.fixture(scope="module")
def app(paced_app: RunningApp) -> RunningApp:
    return paced_app


@pytest.fixture
def watched(chat: Chat) -> Chat:
    chat.tab("Events")
    return chat


def types(chat: Chat) -> list[str]:
    return chat.page.locator(f"{ROWS} span:nth-child(3)").all_text_contents()


def test_the_events_come_while_the_run_is_live_and_are_whole_at_its_end(watched: Chat) -> None:
    page = watched.page
    watched.send("tools")
    page.wait_for_selector(f"{ROWS} [data-type=tool_output]")
    assert "complete" not in types(watched)
    watched.wait_end()
    page.wait_for_selector(f"{ROWS} [data-type=complete]")
    found = types(watched)
    assert found[:2] == ["run", "status"]
    assert not {"token", "state"} & set(found), "those are too many to be read at first"
    for kind in ("chain", "model", "tool"):
        assert found.count(f"{kind}_start") == found.count(f"{kind}_end") > 0
    assert watched.errors == []


def test_rows_are_filtered_by_group_and_name_and_open_to_the_whole_event(watched: Chat) -> None:
    page = watched.page
    watched.send("tools")
    watched.wait_end()
    page.wait_for_selector(f"{ROWS} [data-type=complete]")
    page.fill("#events input", "CALC")
    assert types(watched) == ["tool_start", "tool_output", "tool_end"]
    page.locator(f"{ROWS} button").first.click()
    assert '"expression": "17*23"' in (page.text_content(f"{ROWS} pre") or "")
    page.click(".kinds [data-group=Tools]")
    assert types(watched) == []
    page.fill("#events input", "")
    assert "chain_start" in types(watched) and "tool_start" not in types(watched)
    page.click(".kinds [data-group=Stream]")
    assert "token" in types(watched)
    assert page.get_attribute(".kinds [data-group=Tools]", "aria-pressed") == "false"
    assert page.locator(".kinds button span").all_text_contents() == ["Model", "Tools", "Steps", "Stream"]
    assert watched.errors == []


def test_nothing_is_asked_for_while_the_tab_is_closed_and_a_reload_shows_it_again(chat: Chat) -> None:
    asked: list[str] = []
    chat.on("request", lambda request: asked.append(request.url) if "/runs/" in request.url else None)
    chat.send("tour")
    chat.wait_end()
    assert asked == []
    chat.open(chat.page.url)
    chat.page.wait_for_selector("#chat [data-testid=bot]")
    chat.tab("Events")
    chat.page.wait_for_selector(f"{ROWS} [data-type=complete]")
    assert len(asked) == 1
    assert chat.errors == []
