"""The panel points at an earlier reply."""

from typing import Any

import pytest

from components.handlers import Handlers
from hosting.identity import Identity
from runs.example_run import EXAMPLE_ID
from tests.conftest import until
from tests.pages import Chosen, Page, cookie

pytest_plugins = ["tests.pages"]


async def inspect(page: Page, run: object) -> dict[str, Any]:
    updates = await page.handlers.inspector.on_inspect(page.state, page.request, Chosen({"run": run}))  # type: ignore[arg-type]
    return dict(updates)


@pytest.mark.parametrize("stored", [False, True])
async def test_earlier_reply_is_shown_as_it_ended(page: Page, stored: bool) -> None:
    await page.send("tour")
    shown, state = page.panels[-1], page.state
    run = page.handlers.runs.find(state.shown[-1].run_id)
    await page.send("second")
    assert run
    if stored:
        page.handlers.runs.discard(run)
    panel = (await inspect(page, run.id))["panel"]
    assert panel.pop("inspected") == {"question": "tour"}
    assert panel["context"]["messages"] and panel["steps"] and panel["curve"]["rates"]
    for name in ("run", "phase", "tokens", "average"):
        assert panel[name] == shown[name]
    assert all("blocks" in step for step in panel["steps"])


async def test_live_run_is_shown_as_by_its_follower(page: Page) -> None:
    await page.begin("tour")
    run = page.handlers.runs.find(page.state.run_id)
    await until(lambda: run and run.state.first_token is not None)
    assert run
    panel = (await inspect(page, run.id))["panel"]
    assert (panel["run"], panel["live"], "inspected" in panel) == (run.id, True, False)
    await page.follow()


async def test_only_the_owner_can_inspect_a_run(page: Page, handlers: Handlers, identity: Identity) -> None:
    await page.send("tour")
    other = Page(handlers, cookie(identity))
    for unknown in (page.state.shown[-1].run_id, "no such run", None, "\0"):
        with pytest.warns(UserWarning, match="no such run"):
            assert await inspect(other, unknown) == {}


async def test_idle_panel_names_the_latest_run(page: Page, handlers: Handlers) -> None:
    assert (await page.load())["panel"] == {"cleared": False, "latest": EXAMPLE_ID, "example": True}
    await page.send("first")
    await page.send("second")
    latest = page.state.shown[-1].run_id
    assert (await page.open(None))["panel"] == {"cleared": True, "latest": latest, "example": False}
    again = Page(handlers, next(iter(page.request.cookies.values())))
    assert (await again.load())["panel"] == {"cleared": False, "latest": latest, "example": False}
