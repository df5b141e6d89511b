"""Models without `bind_tools` answer without tools, and commands still run."""

from collections.abc import Sequence
from typing import Any

import pytest

from agent.tools import Toolbox
from agent.turn import TurnRequest
from agent.turns import Turns
from backends import Backend, Backends, Health, ModelOptions
from memory.store import Store
from runs.registry import RunRegistry
from settings import BackendSettings, Settings, ToolSettings
from tests.calls import ended, of
from tests.models import Talker


class Raiser(Talker):
    """A model whose `bind_tools` raises."""

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        raise NotImplementedError


class OwnBackend(Backend):
    """A new kind of backend, with a LangChain class without `bind_tools`."""

    kind = "own"
    model_class: type[Talker] = Talker

    def health(self) -> Health:
        return Health("ready")

    def chat_model(self, options: ModelOptions) -> Talker:
        return self.model_class(text="hello there", pause=0)


class RaiserBackend(OwnBackend):
    model_class = Raiser


def entries() -> dict[str, BackendSettings]:
    def of_class(name: str, **more: Any) -> BackendSettings:
        options = {"text": "hello there", "pause": 0}
        return BackendSettings(name="A", kind="langchain", options=options, **{"class": name, **more})

    return {
        "langchain, no bind_tools": of_class("tests.models:Talker"),
        "langchain, tools = true": of_class("tests.models:Talker", tools=True),
        "langchain, raises": of_class("tests.test_backends_tools:Raiser"),
        "langchain, raises, tools = true": of_class("tests.test_backends_tools:Raiser", tools=True),
        "own": BackendSettings(name="A", kind="own"),
        "own, tools = true": BackendSettings(name="A", kind="own", tools=True),
        "own, raises": BackendSettings(name="A", kind="raiser"),
    }


@pytest.mark.parametrize("name", entries())
async def test_a_class_without_tools_answers_without(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setitem(__import__("backends").KINDS, "own", "tests.test_backends_tools:OwnBackend")
    monkeypatch.setitem(__import__("backends").KINDS, "raiser", "tests.test_backends_tools:RaiserBackend")
    tools = ToolSettings(enabled=["calculator", "clock"])
    backends = Backends([entries()[name]])
    turns = Turns(settings.model_copy(update={"tools": tools}), backends, store, RunRegistry(), Toolbox(tools))
    received = await ended(await turns.start(TurnRequest("Hi", "anna")))
    assert (received[-1]["type"], received[-1]["content"].strip()) == ("complete", "hello there")
    (context,) = of(received, "context")
    assert not context.get("tools"), "the panel shows no tools that nobody was offered"
    assert not backends.default.offers_tools
    received = await ended(await turns.start(TurnRequest("/calculator 17*23", "anna")))
    assert of(received, "tool_end")[0]["output"].endswith("391")
    assert received[-1]["type"] == "complete"
