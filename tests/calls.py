"""Tools that do what tools may do, a model that calls them, and turns over both."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, adispatch_custom_event
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.tools import tool

from agent.tools import Toolbox
from agent.tools.streaming import streaming_tool
from agent.turn import TurnRequest
from agent.turns import Turns
from backends import Backends
from documents.library import Library
from memory.store import Store
from runs.live import LiveRun
from runs.registry import RunRegistry
from settings import BackendSettings, LimitSettings, Settings, ToolSettings
from tests.conftest import until
from tests.grammar import check_run
from tests.models import Talker

Events = list[dict[str, Any]]
Make = Callable[..., Turns]

HTML = "<script>alert(1)</script><img src=x onerror=alert(2)>&amp;"


class Scripted(Talker):
    """In each round calls the tools of `rounds`, (name, arguments, id), and then talks; or does so for ever."""

    rounds: Any = ()
    forever: bool = False
    in_pieces: bool = False
    """Whether the arguments come in two chunks."""

    def bind_tools(self, tools: Any, **kwargs: Any) -> "Scripted":
        return self

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        done = sum(bool(m.tool_calls) for m in messages if isinstance(m, AIMessage))
        if not self.forever and done >= len(self.rounds):
            async for chunk in super()._astream(messages, stop, run_manager, **kwargs):
                yield chunk
            return
        if self.seen is not None:
            self.seen.append((messages, self.max_tokens, self.temperature))
        for index, (name, arguments, call_id) in enumerate(self.rounds[done % len(self.rounds)]):
            text = json.dumps(arguments)
            first, rest = (text[:3], text[3:]) if self.in_pieces else (text, "")
            call = tool_call_chunk(name=name, args=first, id=call_id, index=index)
            yield ChatGenerationChunk(message=AIMessageChunk("", tool_call_chunks=[call]))
            if rest:
                call = tool_call_chunk(args=rest, index=index)
                yield ChatGenerationChunk(message=AIMessageChunk("", tool_call_chunks=[call]))


class World:
    """What the tools below are made to do by a test, and what has become of them."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.finished: list[str] = []
        self.together = asyncio.Barrier(3)
        self.go = asyncio.Event()


world = World()


def renewed() -> World:
    """The world as it was, for another test or example."""
    vars(world).update(vars(World()))
    return world


@streaming_tool
async def many(n: int) -> AsyncGenerator[str, None]:
    """Yields n numbers."""
    for i in range(n):
        yield f"{i},"


@streaming_tool
async def trio(name: str) -> AsyncGenerator[str, None]:
    """Says something, waits for two others that do so too, and says something again."""
    yield f"{name} begins, "
    await world.together.wait()
    yield f"{name} ends"


@streaming_tool
async def slow(name: str) -> AsyncGenerator[str, None]:
    """Says something and waits until it is let go."""
    world.got.append(name)
    try:
        yield f"{name} waits, "
        await world.go.wait()
        yield "went on"
    finally:
        await asyncio.sleep(0.05)
        world.finished.append(name)


@streaming_tool
async def flood(characters: int) -> AsyncGenerator[str, None]:
    """Yields so many characters."""
    for _ in range(characters // 10_000):
        yield "x" * 10_000


@streaming_tool
async def breaks(name: str) -> AsyncGenerator[str, None]:
    """Says something and fails."""
    yield "so far so good"
    raise RuntimeError("no luck today")


@tool
def plain(text: str) -> str:
    """Gives what it was given."""
    world.got.append(text)
    return f"got {text}"


@tool
def large(characters: int) -> str:
    """Gives so many characters."""
    return "y" * characters


@tool
def html(text: str) -> str:
    """Gives HTML."""
    return HTML


@tool
async def stubborn(text: str) -> str:
    """Takes no notice of the first cancel."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        world.got.append("cancelled")
        await asyncio.wait({asyncio.ensure_future(world.go.wait())}, timeout=3)
    return "after all"


@tool
async def tells(text: str) -> str:
    """Tells LangChain something of its own."""
    await adispatch_custom_event("status", {"step": 1})
    return "received"


@tool
async def gives_up(text: str) -> str:
    """Cancels itself, as a client library may."""
    raise asyncio.CancelledError


@streaming_tool
async def chatty(text: str) -> AsyncGenerator[str, None]:
    """Has something to say even when it is ended."""
    try:
        yield "hello"
        await asyncio.Event().wait()
    finally:
        yield "bye"


NAMES = ("many", "trio", "slow", "flood", "breaks", "plain", "large", "html", "stubborn", "tells", "gives_up", "chatty")


@pytest.fixture
async def make(settings: Settings, store: Store, tmp_path: Path) -> AsyncIterator[Make]:
    """Makes turns with the tools above, over a model of these options."""
    made: list[Turns] = []
    renewed()

    def make(
        options: dict[str, Any], limits: dict[str, Any] | None = None, kind: str = "Scripted", **rules: Any
    ) -> Turns:
        names = [f"tests.calls:{name}" for name in NAMES]
        tools = ToolSettings(**{"enabled": [*names, "calculator"], "seconds": 10} | rules)
        limit = LimitSettings(**{"reply_tokens": 256} | (limits or {}))
        chosen = settings.model_copy(update={"tools": tools, "limits": limit})
        path = f"tests.calls:{kind}"
        entry = BackendSettings(name="A", kind="langchain", options=options, context=60_000, **{"class": path})
        library = Library(tmp_path / "library.db")
        made.append(Turns(chosen, Backends([entry]), store, RunRegistry(), Toolbox(tools, library)))
        return made[-1]

    yield make
    for turns in made:
        await turns.runs.stop_all()


@pytest.fixture
def seen() -> list[Any]:
    """What each call of the model was given."""
    return []


def options(seen: list[Any], *calls: tuple[str, dict[str, Any]], **more: Any) -> dict[str, Any]:
    """A model that makes the calls at once, with the ids "c0", "c1" ..."""
    made = [(name, given, f"c{i}") for i, (name, given) in enumerate(calls)]
    return {"rounds": [made], "text": "that was it", "pause": 0, "seen": seen} | more


async def begun(turns: Turns, message: str = "Hi", visitor: str | None = "anna", **more: Any) -> LiveRun:
    return await turns.start(TurnRequest(message, visitor, **more))


async def ended(run: LiveRun, most: float = 10) -> Events:
    assert run.task
    await asyncio.wait_for(asyncio.shield(run.task), most)
    return check_run(run)


async def asked(turns: Turns, message: str = "Hi", **more: Any) -> Events:
    return await ended(await begun(turns, message, **more))


def of(received: Events, kind: str, call_id: str | None = None) -> Events:
    return [e for e in received if e["type"] == kind and call_id in (None, e.get("tool_call_id"))]


def chunks(received: Events, call_id: str) -> str:
    return "".join(e["chunk"] for e in of(received, "tool_output", call_id))


def observed(seen: list[Any]) -> dict[str, str]:
    """The result of each tool call that the model's last request had."""
    return {m.tool_call_id: m.text for m in seen[-1][0] if isinstance(m, ToolMessage)}


def place(received: Events, kind: str, call_id: str) -> int:
    return received.index(of(received, kind, call_id)[0])


def opened(run: LiveRun, call_id: str = "c0") -> bool:
    """Whether a call has sent its first output."""
    return any(getattr(e.event, "tool_call_id", "") == call_id for e in run.log.entries if e.type == "tool_output")


async def waiting(make: Make, seen: list[Any], *calls: tuple[str, dict[str, Any]], **more: Any) -> LiveRun:
    """A run whose first calls of `plain` wait for an answer."""
    visitor = more.pop("visitor", "anna")
    run = await begun(make(options(seen, *calls), approval=["plain"], **more), visitor=visitor)
    wanted = sum(name == "plain" for name, _ in calls)
    await until(lambda: len(run.state.approvals) == wanted == len(run.tool_calls.awaiting_approval))
    return run
