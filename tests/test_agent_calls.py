"""Tool calls through whole turns: their outputs as they come, and what holds when they fail, hang or are ended."""

import asyncio
import gc
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, adispatch_custom_event
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.tools import tool

from agent.tools import Toolbox
from agent.tools.library import Library
from agent.tools.streaming import MOST, streaming_tool
from agent.turns import Ask, Turns
from backends import Backends
from memory.store import Store
from runs.calls import Answer
from runs.errors import ChatError
from runs.live import LiveRun
from runs.registry import Runs
from settings import BackendSettings, LimitSettings, Settings, ToolSettings
from tests.conftest import until
from tests.grammar import check_run
from tests.models import Talker

Told = list[dict[str, Any]]
Make = Callable[..., Turns]

HTML = "<script>alert(1)</script><img src=x onerror=alert(2)>&amp;"


class Scripted(Talker):
    """In each round calls the tools of `rounds`, (name, arguments, id), and then talks; or does so for ever."""

    rounds: Any = ()
    forever: bool = False

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
            call = tool_call_chunk(name=name, args=json.dumps(arguments), id=call_id, index=index)
            yield ChatGenerationChunk(message=AIMessageChunk("", tool_call_chunks=[call]))


class World:
    """What the tools below are made to do by a test, and what has become of them."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.finished: list[str] = []
        self.together = asyncio.Barrier(3)
        self.go = asyncio.Event()


world: World


@pytest.fixture(autouse=True)
async def _world() -> None:
    global world
    world = World()


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
    return "told"


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

    def make(
        options: dict[str, Any], limits: dict[str, Any] | None = None, kind: str = "Scripted", **rules: Any
    ) -> Turns:
        names = [f"tests.test_agent_calls:{name}" for name in NAMES]
        tools = ToolSettings(**{"enabled": [*names, "calculator"], "seconds": 10} | rules)
        limit = LimitSettings(**{"reply_tokens": 256} | (limits or {}))
        chosen = settings.model_copy(update={"tools": tools, "limits": limit})
        path = f"tests.test_agent_calls:{kind}"
        entry = BackendSettings(name="A", kind="langchain", options=options, context=60_000, **{"class": path})
        library = Library(tmp_path / "library.db")
        made.append(Turns(chosen, Backends([entry]), store, Runs(), Toolbox(tools, library)))
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
    return await turns.start(Ask(message, visitor, **more))


async def ended(run: LiveRun, most: float = 10) -> Told:
    assert run.task
    await asyncio.wait_for(asyncio.shield(run.task), most)
    return check_run(run)


async def asked(turns: Turns, message: str = "Hi", **more: Any) -> Told:
    return await ended(await begun(turns, message, **more))


def of(told: Told, kind: str, call_id: str | None = None) -> Told:
    return [e for e in told if e["type"] == kind and call_id in (None, e.get("tool_call_id"))]


def chunks(told: Told, call_id: str) -> str:
    return "".join(e["chunk"] for e in of(told, "tool_output", call_id))


def observed(seen: list[Any]) -> dict[str, str]:
    """What the model's last call was told of each tool call."""
    return {m.tool_call_id: m.text for m in seen[-1][0] if isinstance(m, ToolMessage)}


def place(told: Told, kind: str, call_id: str) -> int:
    return told.index(of(told, kind, call_id)[0])


def opened(run: LiveRun, call_id: str = "c0") -> bool:
    """Whether a call has told its first output."""
    return any(getattr(e.event, "tool_call_id", "") == call_id for e in run.log.entries if e.type == "tool_output")


# Streams, and calls at once


async def test_ten_thousand_yields_come_whole_and_in_order_in_few_events(make: Make, seen: list[Any]) -> None:
    told = await asked(make(options(seen, ("many", {"n": 10_000})), result_characters=100_000))
    assert told[-1]["type"] == "complete"
    whole = "".join(f"{i}," for i in range(10_000))
    assert chunks(told, "c0") == of(told, "tool_end")[0]["output"] == whole == observed(seen)["c0"]
    assert 1 < len(of(told, "tool_output")) < 200
    outputs = [told.index(e) for e in of(told, "tool_output")]
    assert place(told, "tool_start", "c0") < outputs[0] < outputs[-1] < place(told, "tool_end", "c0")


async def test_three_tools_work_at_once_and_their_outputs_stay_apart(make: Make, seen: list[Any]) -> None:
    told = await asked(make(options(seen, *(("trio", {"name": name}) for name in "abc"))))
    assert told[-1]["type"] == "complete"
    last_start = max(place(told, "tool_start", f"c{i}") for i in range(3))
    first_end = min(place(told, "tool_end", f"c{i}") for i in range(3))
    assert last_start < first_end
    for i, name in enumerate("abc"):
        outputs = of(told, "tool_output", f"c{i}")
        assert place(told, "tool_output", f"c{i}") < first_end, "each has said something before one had ended"
        assert {e["tool"] for e in outputs} == {"trio"}
        text = f"{name} begins, {name} ends"
        assert chunks(told, f"c{i}") == of(told, "tool_end", f"c{i}")[0]["output"] == text == observed(seen)[f"c{i}"]


async def test_calls_with_the_same_id_are_told_apart(make: Make, seen: list[Any]) -> None:
    rounds = [
        [("plain", {"text": "one"}, "same"), ("plain", {"text": "two"}, "same")],
        [("plain", {"text": "three"}, "same")],
    ]
    told = await asked(make({**options(seen), "rounds": rounds}))
    assert told[-1]["type"] == "complete"
    ids = [e["tool_call_id"] for e in of(told, "tool_start")]
    assert len(set(ids)) == 3
    ends = {e["tool_call_id"]: e["output"] for e in of(told, "tool_end")}
    for start in of(told, "tool_start"):
        assert ends[start["tool_call_id"]] == f"got {start['input']['text']}"
    assert sorted(world.got) == ["one", "three", "two"]


# Calls that go wrong


async def test_a_streaming_tool_that_raises_is_an_observation(make: Make, seen: list[Any]) -> None:
    told = await asked(make(options(seen, ("breaks", {"name": "a"}), ("plain", {"text": "b"}))))
    assert told[-1]["type"] == "complete"
    assert of(told, "tool_end", "c0")[0]["error"] == "no luck today"
    assert chunks(told, "c0") == "so far so good"
    assert "error" not in of(told, "tool_end", "c1")[0]
    assert "no luck today" in observed(seen)["c0"]
    assert observed(seen)["c1"] == "got b"


async def test_a_tool_that_hangs_is_ended_after_its_seconds(make: Make, seen: list[Any]) -> None:
    told = await asked(make(options(seen, ("slow", {"name": "a"})), seconds=0.2))
    assert told[-1]["type"] == "complete"
    (end,) = of(told, "tool_end")
    assert "0.2 s" in end["error"]
    assert 0.2 <= end["duration_s"] < 2
    assert "0.2 s" in observed(seen)["c0"]
    assert world.finished == ["a"]


async def test_a_tool_that_ignores_its_end_holds_nobody_up(make: Make, seen: list[Any]) -> None:
    told = await asked(make(options(seen, ("stubborn", {"text": "a"})), seconds=0.2))
    assert told[-1]["type"] == "complete"
    assert of(told, "tool_end")[0]["duration_s"] < 2
    assert (world.got, "0.2 s" in observed(seen)["c0"]) == (["cancelled"], True)
    world.go.set()


async def test_a_result_of_a_megabyte_is_cut_and_says_so(make: Make, seen: list[Any]) -> None:
    told = await asked(make(options(seen, ("large", {"characters": 1_000_000})), result_characters=500))
    assert told[-1]["type"] == "complete"
    (end,) = of(told, "tool_end")
    assert (len(end["output"]) < 600, "error" in end) == (True, False)
    assert "1,000,000 characters" in end["output"]
    assert observed(seen)["c0"] == end["output"]


async def test_a_flood_of_yields_is_ended(make: Make, seen: list[Any]) -> None:
    told = await asked(make(options(seen, ("flood", {"characters": 10_000_000})), result_characters=500))
    assert told[-1]["type"] == "complete"
    assert MOST <= len(chunks(told, "c0")) < MOST + 100
    assert chunks(told, "c0").endswith("characters]")
    (end,) = of(told, "tool_end")
    assert len(end["output"]) < 600
    assert observed(seen)["c0"] == end["output"]


async def test_html_goes_through_as_it_is(make: Make, seen: list[Any]) -> None:
    told = await asked(make(options(seen, ("html", {"text": HTML}))))
    assert told[-1]["type"] == "complete"
    assert of(told, "tool_start")[0]["input"] == {"text": HTML}
    assert of(told, "tool_end")[0]["output"] == HTML == observed(seen)["c0"]


@pytest.mark.parametrize("text", ["half \ud83d pair", "\x00", "\u2028"])
async def test_odd_characters_can_be_sent_and_stored(make: Make, seen: list[Any], text: str) -> None:
    run = await begun(make(options(seen, ("plain", {"text": text}))))
    told = await ended(run)
    assert told[-1]["type"] == "complete"
    assert run.unsaved is None
    for entry in run.log.entries:
        entry.json.encode()


async def test_one_call_is_cancelled_alone(make: Make, seen: list[Any]) -> None:
    run = await begun(make(options(seen, ("slow", {"name": "a"}), ("slow", {"name": "b"}))))
    await until(lambda: opened(run, "c0") and opened(run, "c1"))
    run.calls.cancel("c0")
    await until(lambda: any(e.type == "tool_end" for e in run.log.entries))
    assert world.finished == ["a"]
    assert [s.id for s in run.state.open_steps if s.kind == "tool"] == ["c1"]
    with pytest.raises(ChatError) as raised:
        run.calls.cancel("c0")
    assert raised.value.code == "busy"
    world.go.set()
    told = await ended(run)
    assert told[-1]["type"] == "complete"
    assert "cancelled" in of(told, "tool_end", "c0")[0]["error"]
    assert of(told, "tool_end", "c1")[0]["output"] == "b waits, went on" == observed(seen)["c1"]
    assert "cancelled" in observed(seen)["c0"]


async def test_stop_lets_a_tool_tidy_up(make: Make, seen: list[Any], record_property: Any) -> None:
    run = await begun(make(options(seen, ("slow", {"name": "a"}))))
    await until(lambda: opened(run))
    at = time.monotonic()
    await run.stop("user")
    took = time.monotonic() - at
    record_property("stop_s", round(took, 3))
    assert took < 2
    told = check_run(run)
    assert (told[-1]["type"], told[-1]["reason"]) == ("stopped", "user")
    assert of(told, "tool_end")[0]["error"] == "cancelled"
    await until(lambda: world.finished, 2)
    assert world.finished == ["a"]


async def test_a_model_that_calls_for_ever_is_ended_with_a_note(make: Make, seen: list[Any]) -> None:
    turns = make(options(seen, ("plain", {"text": "again"}), forever=True), rounds=3)
    run = await begun(turns)
    told = await ended(run)
    assert (told[-1]["type"], told[-1]["reason"]) == ("stopped", "limit")
    assert len(of(told, "tool_end")) == len(world.got) == 4
    reply = (await turns.store.history(run.conversation_id))[-1]
    assert (reply.standing, "3 rounds" in (reply.note or "")) == ("stopped", True)


# Known problems, each with its mend in the report: the mark goes with the mend


async def test_an_id_made_for_a_call_is_no_other_calls(make: Make, seen: list[Any]) -> None:
    rounds = [[("plain", {"text": "1"}, "a"), ("plain", {"text": "2"}, "a"), ("plain", {"text": "3"}, "a-2")]]
    told = await asked(make({**options(seen), "rounds": rounds}))
    assert len({e["tool_call_id"] for e in of(told, "tool_start")}) == 3


async def test_a_tools_own_custom_events_are_not_taken_for_ours(make: Make, seen: list[Any]) -> None:
    told = await asked(make(options(seen, ("tells", {"text": "a"}))))
    assert (told[-1]["type"], observed(seen)) == ("complete", {"c0": "told"})


async def test_a_tool_that_cancels_itself_is_not_the_visitors_doing(make: Make, seen: list[Any]) -> None:
    told = await asked(make(options(seen, ("gives_up", {"text": "a"}))))
    assert told[-1]["type"] == "complete"
    assert "visitor" not in of(told, "tool_end")[0]["error"] + observed(seen)["c0"]


async def test_what_is_no_number_leaves_the_wire_json(make: Make, seen: list[Any]) -> None:
    run = await begun(make(options(seen, ("plain", {"text": float("nan")}))))
    await ended(run)
    strange: list[str] = []
    for entry in run.log.entries:
        json.loads(entry.json, parse_constant=strange.append)
    assert strange == []


async def test_a_tool_that_talks_on_when_it_is_ended_leaves_no_noise(
    make: Make, seen: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    told = await asked(make(options(seen, ("chatty", {"text": "a"})), seconds=0.1))
    gc.collect()
    await asyncio.sleep(0.05)
    assert told[-1]["type"] == "complete"
    assert "never retrieved" not in caplog.text


async def test_a_long_input_that_comes_back_as_it_was_shown_is_the_whole_one(make: Make, seen: list[Any]) -> None:
    run = await waiting(make, seen, ("plain", {"text": "z" * 30_000}))
    run.calls.answer("c0", Answer(True, run.state.approvals[0].input))
    assert (await ended(run))[-1]["type"] == "complete"
    assert world.got == ["z" * 30_000]


# Approvals


async def waiting(make: Make, seen: list[Any], *calls: tuple[str, dict[str, Any]], **more: Any) -> LiveRun:
    """A run whose first calls of `plain` wait for an answer."""
    visitor = more.pop("visitor", "anna")
    run = await begun(make(options(seen, *calls), approval=["plain"], **more), visitor=visitor)
    wanted = sum(name == "plain" for name, _ in calls)
    await until(lambda: len(run.state.approvals) == wanted == len(run.calls.asked))
    return run


async def test_a_call_waits_for_its_approval(make: Make, seen: list[Any]) -> None:
    run = await waiting(make, seen, ("plain", {"text": "a"}))
    assert run.state.phase == "approval"
    assert [(e.tool, e.tool_call_id, e.input) for e in run.state.approvals] == [("plain", "c0", {"text": "a"})]
    assert (world.got, run.calls.asleep) == ([], True)
    run.calls.answer("c0", Answer(True))
    told = await ended(run)
    assert (told[-1]["type"], world.got, observed(seen)) == ("complete", ["a"], {"c0": "got a"})
    (status,) = of(told, "status", "c0")
    assert (status["phase"], status["content"]) == ("tool", "Calling plain")
    assert run.state.approvals == ()
    assert place(told, "approval", "c0") < told.index(status) < place(told, "tool_end", "c0")


async def test_a_refused_call_is_not_made(make: Make, seen: list[Any]) -> None:
    run = await waiting(make, seen, ("plain", {"text": "a"}))
    run.calls.answer("c0", Answer(False))
    told = await ended(run)
    assert (told[-1]["type"], world.got, run.state.approvals) == ("complete", [], ())
    assert "refused" in of(told, "tool_end")[0]["error"]
    assert "refused" in observed(seen)["c0"]


async def test_an_edited_input_is_what_the_tool_gets(make: Make, seen: list[Any]) -> None:
    run = await waiting(make, seen, ("plain", {"text": "a"}))
    run.calls.answer("c0", Answer(True, {"text": "mine"}))
    told = await ended(run)
    assert (told[-1]["type"], world.got, observed(seen)) == ("complete", ["mine"], {"c0": "got mine"})
    (status,) = of(told, "status", "c0")
    assert '{"text": "mine"}' in status["content"]
    assert of(told, "tool_start")[0]["input"] == {"text": "a"}


async def test_an_edited_input_that_does_not_fit_is_an_observation(make: Make, seen: list[Any]) -> None:
    run = await waiting(make, seen, ("plain", {"text": "a"}))
    run.calls.answer("c0", Answer(True, {"wrong": 1}))
    told = await ended(run)
    assert (told[-1]["type"], world.got) == ("complete", [])
    assert of(told, "tool_end")[0]["error"]
    assert "text" in observed(seen)["c0"]


async def test_an_answer_counts_once_and_for_its_own_call(make: Make, seen: list[Any]) -> None:
    run = await waiting(make, seen, ("plain", {"text": "a"}), ("slow", {"name": "b"}))
    for wrong in ("c1", "c2", ""):
        with pytest.raises(ChatError) as raised:
            run.calls.answer(wrong, Answer(True))
        assert raised.value.code == "busy"
    run.calls.answer("c0", Answer(True))
    for _ in range(2):
        with pytest.raises(ChatError) as raised:
            run.calls.answer("c0", Answer(False))
        assert raised.value.code == "busy"
        await asyncio.sleep(0.05)
    world.go.set()
    assert (await ended(run))[-1]["type"] == "complete"
    assert "a" in world.got
    with pytest.raises(ChatError):
        run.calls.answer("c0", Answer(True))


async def test_two_approvals_wait_side_by_side(make: Make, seen: list[Any]) -> None:
    run = await waiting(make, seen, ("plain", {"text": "a"}), ("plain", {"text": "b"}))
    run.calls.answer("c1", Answer(True))
    await until(lambda: world.got == ["b"])
    await until(lambda: [e.tool_call_id for e in run.state.approvals] == ["c0"])
    assert run.state.phase == "approval"
    run.calls.answer("c0", Answer(False))
    told = await ended(run)
    assert told[-1]["type"] == "complete"
    assert observed(seen)["c1"] == "got b"
    assert "refused" in observed(seen)["c0"]


@pytest.mark.parametrize("way", ["refused", "cancelled"])
async def test_a_call_not_allowed_leaves_no_approval_phase_beside_one_at_work(
    make: Make, seen: list[Any], way: str
) -> None:
    run = await waiting(make, seen, ("plain", {"text": "a"}), ("slow", {"name": "b"}))
    if way == "refused":
        run.calls.answer("c0", Answer(False))
    else:
        run.calls.cancel("c0")
    await until(lambda: not run.state.approvals)
    await until(lambda: run.state.phase == "tool", 2)
    world.go.set()
    assert (await ended(run))[-1]["type"] == "complete"


async def test_a_waiting_call_can_be_cancelled_alone(make: Make, seen: list[Any]) -> None:
    run = await waiting(make, seen, ("plain", {"text": "a"}))
    run.calls.cancel("c0")
    told = await ended(run)
    assert (told[-1]["type"], world.got, run.calls.asked) == ("complete", [], [])
    assert "cancelled" in of(told, "tool_end")[0]["error"]


async def test_stop_ends_a_run_that_waits(make: Make, seen: list[Any]) -> None:
    run = await waiting(make, seen, ("plain", {"text": "a"}))
    at = time.monotonic()
    await run.stop("user")
    assert time.monotonic() - at < 2
    told = check_run(run)
    assert (told[-1]["type"], told[-1]["reason"], run.state.approvals) == ("stopped", "user", ())
    with pytest.raises(ChatError):
        run.calls.answer("c0", Answer(True))
    assert world.got == []


async def test_the_runs_own_limit_holds_while_it_waits(make: Make, seen: list[Any]) -> None:
    run = await waiting(make, seen, ("plain", {"text": "a"}), limits={"run_seconds": 1}, seconds=0.1)
    told = await ended(run, 4)
    assert (told[-1]["type"], told[-1]["reason"]) == ("stopped", "limit")
    assert world.got == []


async def test_waiting_does_not_count_as_the_calls_time_or_as_abandoned(make: Make, seen: list[Any]) -> None:
    limits = {"abandoned_seconds": 0.3}
    run = await waiting(make, seen, ("plain", {"text": "a"}), visitor=None, limits=limits, seconds=0.2)
    await asyncio.sleep(0.9)
    assert (run.ended, run.state.phase) == (False, "approval")
    run.calls.answer("c0", Answer(True))
    await ended(run)
    assert world.got == ["a"]


# Whatever the tools do

BEHAVIOURS: dict[str, tuple[str, dict[str, Any]]] = {
    "raises": ("breaks", {"name": "a"}),
    "yields": ("many", {"n": 300}),
    "is plain": ("plain", {"text": "b"}),
    "hangs": ("slow", {"name": "c"}),
    "is cancelled": ("slow", {"name": "d"}),
    "is large": ("large", {"characters": 50_000}),
    "floods": ("flood", {"characters": 200_000}),
    "is not there": ("nothing", {}),
    "gets nonsense": ("many", {"n": "x"}),
}


@hypothesis_settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    script=st.lists(st.lists(st.sampled_from(sorted(BEHAVIOURS)), min_size=1, max_size=3), min_size=1, max_size=2),
    stop=st.none() | st.floats(0, 0.5),
)
async def test_the_grammar_holds_whatever_the_tools_do(make: Make, script: list[list[str]], stop: float | None) -> None:
    global world
    world = World()
    rounds = [
        [(*BEHAVIOURS[what], f"{what} {i} {j}") for j, what in enumerate(whats)] for i, whats in enumerate(script)
    ]
    run = await begun(make({"rounds": rounds, "text": "done", "pause": 0}, seconds=0.25))

    async def cancel() -> None:
        while not run.ended:
            for step in run.state.open_steps:
                if step.id.startswith("is cancelled") and opened(run, step.id) and step.id not in run.calls.cancelled:
                    with suppress(ChatError):  # its time is over, and its end is not told yet
                        run.calls.cancel(step.id)
            await asyncio.sleep(0.01)

    async def halt() -> None:
        if stop is not None:
            await asyncio.sleep(stop)
            await run.stop("user")

    async with asyncio.timeout(10):
        await asyncio.gather(cancel(), halt())
        told = await ended(run)
    assert told[-1]["type"] in (("complete",) if stop is None else ("complete", "stopped"))
    if told[-1]["type"] == "complete":
        assert len(of(told, "tool_end")) == sum(len(whats) for whats in script)
