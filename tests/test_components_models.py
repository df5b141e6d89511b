"""The choice of a model on the page: the handlers, with a provider's HTTP server."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from components.handlers import Handlers
from hosting.identity import COOKIE, Identity
from settings import BackendSettings
from tests.conftest import scripted
from tests.house import House, asked_for_replies, housed
from tests.pages import PARAMETERS, Page, cookie
from tests.providers import OpenAIServer

pytest_plugins = ["tests.pages"]


@pytest.fixture
def server() -> Any:
    with OpenAIServer() as server:
        server.models = [{"id": name, "context_length": 4096} for name in ("first", "second")]
        yield server


@pytest.fixture
async def house(server: OpenAIServer, tmp_path: Path) -> AsyncIterator[House]:
    at = {"kind": "openai", "base_url": server.base_url}
    many = BackendSettings(name="Many", models=["first", "second"], ignores={"second": ["temperature"]}, **at)
    more = BackendSettings(name="More", models=["first", "third"], **at)
    async with housed(tmp_path, many, more, scripted("Script")) as house:
        for backend in house.backends:
            await backend.check_health()
        yield house


@pytest.fixture
def page(house: House, identity: Identity) -> Page:
    return Page(Handlers(house.turns, identity), cookie(identity))


def chosen(model: str | None) -> tuple[Any, ...]:
    return (None, 0.3, None, True, [], *PARAMETERS, True, {}, False, model)


async def test_models_are_offered_if_there_are_several(page: Page) -> None:
    shown = (await page.load())["model"]
    assert (shown["visible"], shown["value"]) == (True, "first")
    model = (await page.handlers.header.on_choose("Script", page.request, "first"))["model"]
    assert (model["visible"], model["value"]) == (False, None)
    updates = await page.handlers.header.on_backends_changed(page.request, "More", "second")
    model = updates["model"]
    assert (model["visible"], model["value"]) == (True, "first"), "the backend does not offer the other one's model"
    assert [(one["name"], one["ready"]) for one in updates["about"][1]["models"]] == [("first", True), ("third", False)]


async def test_options_follow_the_model(page: Page) -> None:
    for model in ("first", "second"):
        updates = await page.handlers.header.on_choose("Many", page.request, model)
        assert "value" not in updates["model"], "a newer choice stays"
    listed = (await page.load())["about"][0]["models"]
    assert {one["name"]: "temperature" in one["takes"] for one in listed} == {"first": True, "second": False}


async def test_chosen_model_answers_and_is_saved_in_the_conversation(
    page: Page, house: House, server: OpenAIServer
) -> None:
    page.options = chosen("second")
    await page.send("Hi", backend="Many")
    assert [(r.body["model"], "temperature" in r.body) for r in asked_for_replies(server)] == [("second", False)]
    assert page.panels[-1]["model"] == "second"
    again = Page(page.handlers, page.request.cookies[COOKIE])
    loaded = await again.load(conversation=str(page.state.conversation_id))
    assert loaded["model"]["value"] == "second"
    assert "model" not in await page.open(None), "a new conversation keeps the current choices"


async def test_model_of_another_backend_is_rejected_and_the_prompt_kept(page: Page, server: OpenAIServer) -> None:
    page.options = chosen("second")
    with pytest.warns(UserWarning, match="Not sent. More offers no model 'second'; it offers "):
        await page.begin("Hi", backend="More")
    assert page.prompt == "Hi"
    await page.send("Hi", backend="Script")
    assert asked_for_replies(server) == []
    assert page.texts[-1], "a backend with one model ignores the name of another model"


async def test_changed_list_of_models_is_rendered(page: Page, house: House, server: OpenAIServer) -> None:
    server.models = [{"id": "first"}]
    await house.backend.check_health()
    updates = await page.handlers.header.on_backends_changed(page.request, "Many", "second")
    listed, model = updates["about"], updates["model"]
    assert "value" not in model, "the choice stays"
    assert [one["ready"] for one in listed[0]["models"]] == [True, False]


async def test_conversation_keeps_its_model_until_the_list_arrives(
    server: OpenAIServer, tmp_path: Path, identity: Identity
) -> None:
    entry = BackendSettings(name="All", kind="openai", base_url=server.base_url, models="*")
    async with housed(tmp_path, entry) as house:
        page = Page(Handlers(house.turns, identity), cookie(identity))
        await house.backend.check_health()
        page.options = chosen("second")
        await page.send("Hi", backend="All")
    async with housed(tmp_path, entry) as house:  # the next process
        again = Page(Handlers(house.turns, identity), page.request.cookies[COOKIE])
        shown = (await again.load(conversation=str(page.state.conversation_id)))["model"]
        assert (shown["value"], shown["visible"]) == ("second", False)
        again.options = chosen(shown["value"])
        await again.send("Still?", backend="All")
        shown = (await again.handlers.header.on_backends_changed(again.request, "All", "second"))["model"]
        assert ("value" in shown, shown["visible"]) == (False, True)
    assert [request.body["model"] for request in asked_for_replies(server)] == ["second", "second"]
