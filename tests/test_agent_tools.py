"""Tools and faults in whole turns: failures are reported, and the reply continues where possible."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from langchain_core.tools import BaseTool, tool

from agent import retries
from agent.model_middleware import STATE_MESSAGES
from agent.turn import TurnRequest
from agent.turns import Turns
from backends import Backends
from backends import script as module
from backends.script import FAULTS, broken_tool
from memory.messages import Message
from memory.store import Store
from runs.registry import RunRegistry
from settings import BackendSettings, Settings
from tests.conftest import FAST, until
from tests.grammar import check_run

Events = list[dict[str, Any]]
Make = Callable[..., Turns]


@pytest.fixture
async def make(settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    """Makes turns over one backend, without long pauses between attempts."""
    monkeypatch.setattr(retries, "_BACKOFF", lambda state: 0.01)
    monkeypatch.setattr(retries, "_TICK_S", 0.02)
    monkeypatch.setattr(module, "_BUSY_S", 0.05)
    made: list[Turns] = []

    def make(*tools: BaseTool, **entry: Any) -> Turns:
        made.append(Turns(settings, Backends([BackendSettings(**({"name": "A"} | entry))]), store, RunRegistry()))
        if tools:
            made[-1].backends.default.tools = tools
        return made[-1]

    yield make
    for turns in made:
        await turns.runs.stop_all()


@pytest.fixture
def script(make: Make) -> Turns:
    return make(kind="scripted", options={"speed": FAST})


@pytest.fixture
def impatient(make: Make) -> Turns:
    return make(kind="scripted", options={"speed": FAST}, timeout=0.3)


def caller(make: Make, *tools: BaseTool, names: Any = None) -> Turns:
    """A model that calls each tool and then answers."""
    options = {"names": names or [one.name for one in tools], "text": "that was it"}
    return make(*tools, kind="langchain", options=options, **{"class": "tests.models:Caller"})


async def asked(turns: Turns, message: str = "Hi") -> Events:
    run = await turns.start(TurnRequest(message, "anna"))
    assert run.task
    await asyncio.wait_for(asyncio.shield(run.task), 10)
    return check_run(run)


async def stored(turns: Turns, received: Events) -> Message:
    """The reply of a run."""
    return (await turns.store.history(received[0]["conversation_id"]))[-1]


def of(received: Events, kind: str) -> Events:
    return [e for e in received if e["type"] == kind]


def attempts_of(received: Events) -> int:
    return 1 + sum("Retrying" in e["content"] for e in of(received, "status"))


@tool
def clock(question: str) -> str:
    """Tells the time."""
    return f"{question} at noon"


@tool
def broken(question: str) -> str:
    """Fails."""
    raise RuntimeError("no time left")


async def test_failed_tool_is_reported_and_the_reply_continues(script: Turns) -> None:
    received = await asked(script, "tool failure")
    assert received[-1]["type"] == "complete"
    (start,), (end,) = of(received, "tool_start"), of(received, "tool_end")
    assert (start["tool"], start["input"]) == (broken_tool.name, {"question": "Are you there?"})
    assert (end["tool"], end["tool_call_id"]) == (start["tool"], start["tool_call_id"])
    assert end["error"] == "the tool's own server answered HTTP 500"
    kinds = [e["type"] for e in received]
    assert kinds.index("token") < kinds.index("tool_start") < kinds.index("tool_end")
    assert "token" in kinds[kinds.index("tool_end") :]
    assert [e["phase"] for e in of(received, "status")] == [
        "queued",
        "waiting",
        "streaming",
        "tool",
        "waiting",
        "streaming",
    ]
    first, second = of(received, "context")
    assert [m["role"] for m in first["messages"]] == ["system", "user"]
    assert second["messages"][:2] == [{"same_as": 0}, {"same_as": 1}]
    assert [m["role"] for m in second["messages"][2:]] == ["assistant", "tool"]
    assert "HTTP 500" in second["messages"][-1]["content"]


async def test_tool_end_has_the_output(make: Make) -> None:
    received = await asked(caller(make, clock))
    assert (received[-1]["type"], received[-1]["content"]) == ("complete", "that was it ")
    (end,) = of(received, "tool_end")
    assert (end["output"], "error" in end) == ("when? at noon", False)
    assert of(received, "state")[-1]["tools_called"] == ["clock"]


async def test_model_gets_the_messages_before_the_agents_state(make: Make) -> None:
    """In both calls, before and after the tool's result, each message once and in order."""
    turns, given = caller(make, clock), [("user", "assistant")[n % 2] for n in range(2 * STATE_MESSAGES + 50)]
    earlier = [(role, f"message {n}") for n, role in enumerate(given)]
    conversation_id = await turns.store.create("anna", earlier)
    run = await turns.start(TurnRequest("Hi", "anna", conversation_id, memory="full"))
    assert run.task
    await asyncio.wait_for(asyncio.shield(run.task), 10)
    received = check_run(run)
    assert received[-1]["type"] == "complete"
    first, second = of(received, "context")
    assert [m["content"] for m in first["messages"][1:]] == [*(text for _, text in earlier), "Hi"]
    assert second["messages"][:-2] == [{"same_as": n} for n in range(len(first["messages"]))]


async def test_parallel_tools_each_have_an_end(make: Make) -> None:
    received = await asked(caller(make, clock, broken))
    assert received[-1]["type"] == "complete"
    ends = {e["tool_call_id"]: (e["tool"], e.get("error")) for e in of(received, "tool_end")}
    assert ends == {"call 0": ("clock", None), "call 1": ("broken", "no time left")}


async def test_unknown_tool_is_a_tool_error(make: Make) -> None:
    received = await asked(caller(make, clock, names=["nothing"]))
    assert received[-1]["type"] == "complete"
    (end,) = of(received, "tool_end")
    assert (end["tool"], bool(end["error"])) == ("nothing", True)


async def test_a_long_error_of_a_tool_is_cut(make: Make) -> None:
    @tool
    def verbose(question: str) -> str:
        """Fails at length."""
        raise RuntimeError("x" * 100_000)

    received = await asked(caller(make, verbose))
    assert len(of(received, "tool_end")[0]["error"]) == 2000
    assert max(len(str(e)) for e in received if e["type"] != "context") < 10_000


async def test_stop_ends_a_running_tool(make: Make) -> None:
    begun_at: list[float] = []
    ended: list[str] = []

    @tool
    async def endless(question: str) -> str:
        """Never ends."""
        begun_at.append(time.monotonic())
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("ended")
        return ""

    run = await caller(make, endless).start(TurnRequest("Hi", "anna"))
    await until(lambda: begun_at)
    begun = time.monotonic()
    await run.stop("user")
    assert time.monotonic() - begun < 0.5
    received = check_run(run)
    assert (received[-1]["type"], ended) == ("stopped", ["ended"])
    assert of(received, "tool_end")[0]["error"] == "cancelled"


async def test_no_retry_after_a_tool_call(make: Make) -> None:
    options = {"names": ["clock"], "text": "", "fails": ConnectionResetError()}
    turns = make(clock, kind="langchain", options=options, **{"class": "tests.models:Caller"})
    received = await asked(turns)
    assert received[-1]["code"] == "backend_unavailable"
    assert (attempts_of(received), len(of(received, "tool_start"))) == (1, 1)


ENDS: dict[str, tuple[str, str | None, int]] = {
    "slow": ("complete", None, 1),
    "stall": ("complete", None, 1),
    "hang": ("error", "timeout", 1),
    "busy": ("complete", None, 2),
    "rate limit": ("error", "rate_limited", 1),
    "wrong key": ("error", "authentication", 1),
    "unreachable": ("error", "backend_unavailable", 3),
    "garbage": ("error", "backend_unavailable", 3),
    "cut": ("error", "backend_unavailable", 1),
    "tool failure": ("complete", None, 1),
    "endless": ("stopped", None, 1),
}
"""The end of each scripted fault, and the number of attempts before it."""


@pytest.mark.parametrize("fault", FAULTS)
async def test_scripted_faults_end_as_described(script: Turns, impatient: Turns, fault: str) -> None:
    kind, code, times = ENDS[fault]
    received = await asked(impatient if fault == "hang" else script, fault)
    assert (received[-1]["type"], received[-1].get("code")) == (kind, code)
    assert attempts_of(received) == times
    reply = await stored(script, received)
    assert reply.text == received[-1]["content"]
    assert reply.standing == {"complete": "whole", "error": "failed", "stopped": "stopped"}[kind]
    assert bool(reply.text) is (fault not in ("hang", "rate limit", "wrong key", "unreachable", "garbage"))


async def test_busy_backend_is_retried(script: Turns) -> None:
    received = await asked(script, "busy")
    assert "this is the second" in received[-1]["content"]
    again = next(e for e in of(received, "status") if "Retrying: 2 of 3" in e["content"])
    assert again["phase"] == "waiting"
    assert len(of(received, "model_start")) == 2


async def test_long_rate_limit_reports_its_duration(script: Turns) -> None:
    last = (await asked(script, "rate limit"))[-1]
    assert (last["retryable"], last["retry_after"]) == (True, 60)
    assert "60 s" in last["message"]


async def test_idle_timeout_reports_its_duration(impatient: Turns) -> None:
    begun = time.monotonic()
    last = (await asked(impatient, "hang"))[-1]
    assert 0.3 <= time.monotonic() - begun < 2
    assert "0.3 s" in last["message"]


async def test_endless_reply_is_cut_with_a_note(script: Turns) -> None:
    received = await asked(script, "endless")
    assert received[-1]["reason"] == "limit"
    assert of(received, "token")[-1]["total_tokens"] == script.settings.limits.reply_tokens
    assert (
        await stored(script, received)
    ).note == "Cut at the max reply length, 256 tokens. Stopped: the run reached its limit"
