import asyncio
import gc
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any
from weakref import WeakSet

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runs import events
from runs.errors import INTERNAL, ChatError
from runs.events import Entry, Event
from runs.live import Lifetime, LiveRun
from runs.record import fold_record
from runs.requester import Requester
from tests.grammar import check, check_run

Work = Callable[[LiveRun], Awaitable[None]]


def a_run(owner: str | None = "anna", **lifetime: float) -> LiveRun:
    life = Lifetime(**lifetime)  # type: ignore[arg-type]
    return LiveRun(conversation_id="c", backend="b", memory="m", owner=owner, lifetime=life)


def run_of(visitor: str, **lifetime: float) -> LiveRun:
    """A run of a visitor in a conversation without owner."""
    life, requester = Lifetime(**lifetime), Requester(visitor)  # type: ignore[arg-type]
    return LiveRun(conversation_id="c", backend="b", memory="m", owner=None, lifetime=life, requester=requester)


async def done(run: LiveRun, work: Work, save: Any = None) -> list[dict[str, Any]]:
    run.start(work, save)
    assert run.task
    await asyncio.wait_for(run.task, 5)
    return check_run(run)


def write(run: LiveRun, *words: str) -> None:
    for word in words:
        run.emit(events.Token(word, run.state.tokens + 1))


async def writing(run: LiveRun) -> None:
    run.emit(events.ModelStart("m", None, "model"))
    write(run, "Hello ", "there")
    run.emit(events.ModelEnd("m", {"input_tokens": 3, "output_tokens": 2}, 0.1))


async def endless(run: LiveRun) -> None:
    run.emit(events.ChainStart("agent", "c", None, []))
    run.emit(events.ModelStart("m", "c", "model"))
    run.emit(events.ToolStart("clock", "t", {}))
    while True:
        write(run, "word ")
        await asyncio.sleep(0.002)


async def until(run: LiveRun, kind: str, phase: str = "") -> None:
    async with aclosing(run.log.follow()) as batches:
        async for batch in batches:
            if any(entry.type == kind and (not phase or entry.wire()["phase"] == phase) for entry in batch):
                return


async def test_work_that_returns_is_complete() -> None:
    sent = await done(a_run(), writing)
    last = sent[-1]
    assert (last["type"], last["content"]) == ("complete", "Hello there")
    assert last["usage"] == {"input_tokens": 3, "output_tokens": 2}
    assert [e["phase"] for e in sent if e["type"] == "status"] == ["queued", "waiting", "streaming"]


async def test_chat_error_is_the_last_event() -> None:
    async def failing(run: LiveRun) -> None:
        await writing(run)
        raise ChatError("rate_limited", "Wait a little.", retryable=True, retry_after=30)

    last = (await done(a_run(), failing))[-1]
    assert (last["type"], last["code"], last["message"]) == ("error", "rate_limited", "Wait a little.")
    assert (last["retryable"], last["retry_after"], last["content"]) == (True, 30, "Hello there")


async def test_defect_is_internal_and_hides_its_text(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(run: LiveRun) -> None:
        write(run, "so far")
        raise RuntimeError("/secret/path sk-key")

    sent = await done(a_run(), broken)
    assert (sent[-1]["code"], sent[-1]["message"], sent[-1]["content"]) == ("internal", INTERNAL, "so far")
    assert "secret" not in str(sent)
    assert "/secret/path" in caplog.text, "it is logged, with its traceback"


@pytest.mark.parametrize("ending", ["failure", "stop"])
async def test_ended_run_keeps_nothing_of_its_work(ending: str) -> None:
    class ModelInput:
        pass

    inputs = WeakSet[ModelInput]()

    async def work(run: LiveRun) -> None:
        model_input = ModelInput()
        inputs.add(model_input)
        write(run, "so far")
        if ending == "failure":
            raise ChatError("context_too_long", f"Too long: {model_input}.")
        await asyncio.Event().wait()

    run = a_run()
    run.start(work)
    await until(run, "token")
    if ending == "stop":
        await run.stop("user")
    await asyncio.wait({run.task} if run.task else ())
    await asyncio.sleep(0)
    gc.collect()
    assert not inputs and check_run(run)[-1]["content"] == "so far"


async def test_stop_ends_at_once_and_adds_missing_ends() -> None:
    run = a_run()
    run.start(endless)
    await until(run, "token")
    await asyncio.gather(run.stop("user"), run.stop("user"))
    await run.stop("user")
    sent = check_run(run)
    assert (sent[-1]["type"], sent[-1]["reason"]) == ("stopped", "user")
    ends = [e for e in sent if e["type"].endswith("_end")]
    assert [e["type"] for e in ends] == ["tool_end", "model_end", "chain_end"]
    assert {e["error"] for e in ends} == {"cancelled"}


async def test_stop_reaches_work_that_has_not_begun() -> None:
    run = a_run()
    run.start(endless)
    await run.stop("user")
    last = check_run(run)[-1]
    assert (last["reason"], last["content"]) == ("user", "")


@pytest.mark.parametrize("swallowed", [1, 3])
async def test_stop_repeats_a_swallowed_cancel(swallowed: int) -> None:
    async def stubborn(run: LiveRun) -> None:
        write(run, "word")
        for _ in range(swallowed):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue
        await asyncio.Event().wait()

    run = a_run()
    run.start(stubborn)
    await until(run, "token")
    await asyncio.wait_for(run.stop("user"), 2)
    assert check_run(run)[-1]["reason"] == "user"


async def test_cancel_that_becomes_another_exception_is_a_stop() -> None:
    async def translating(run: LiveRun) -> None:
        write(run, "word")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise RuntimeError("aborted") from None

    run = a_run()
    run.start(translating)
    await until(run, "token")
    await run.stop("user")
    assert check_run(run)[-1]["type"] == "stopped"


@pytest.mark.parametrize("lifetime", [{"seconds": 0.05}, {"characters": 20}])
async def test_a_run_ends_at_its_limit(lifetime: dict[str, float]) -> None:
    last = (await done(a_run(**lifetime), endless))[-1]
    assert (last["type"], last["reason"]) == ("stopped", "limit")


async def test_run_without_owner_and_follower_is_abandoned() -> None:
    last = (await done(a_run(owner=None, abandoned_s=0.05), endless))[-1]
    assert (last["type"], last["reason"]) == ("stopped", "abandoned")


async def test_owner_visitor_follower_or_approval_keeps_a_run() -> None:
    async def waiting(run: LiveRun) -> None:
        run.emit(events.ToolStart("clock", "t", {}))
        run.emit(events.Approval("clock", "t", {}))
        await asyncio.Event().wait()

    owned, followed, asking = (a_run(owner, abandoned_s=0.01) for owner in ("anna", None, None))
    visited = run_of("anna", abandoned_s=0.01)
    owned.start(endless)
    visited.start(endless)
    followed.start(endless)
    asking.start(waiting)
    async with aclosing(followed.log.follow()) as batches:
        await anext(batches)
        await asyncio.sleep(0.6)
        assert not (owned.ended or visited.ended or followed.ended or asking.ended)
    await asyncio.wait_for(asyncio.wait([followed.task]), 3)  # type: ignore[list-item]
    assert check_run(followed)[-1]["reason"] == "abandoned"
    for run in (owned, visited, asking):
        await run.stop("shutdown")
        assert check_run(run)[-1]["reason"] == "shutdown"


async def test_run_ends_with_its_event_loop() -> None:
    run = a_run()
    run.start(endless)
    await until(run, "token")
    assert run.task
    run.task.cancel()
    await asyncio.wait({run.task})
    assert check_run(run)[-1]["reason"] == "shutdown"


async def test_events_after_the_end_are_dropped() -> None:
    run = a_run()
    await done(run, writing)
    before = len(run.log.entries)
    run.emit(events.Token("late", 9))
    assert len(run.log.entries) == before


async def test_save_gets_the_closing_entries_before_they_are_published() -> None:
    seen: list[tuple[bool, str]] = []

    async def save(run: LiveRun, closing: Sequence[Entry]) -> None:
        seen.append((run.ended, closing[-1].type))
        assert closing[0].seq == run.log.entries[-1].seq + 1

    await done(a_run(), writing, save)
    assert seen == [(False, "complete")]


@pytest.mark.parametrize(
    ("problem", "text"),
    [(ChatError("internal", "The disk is full."), "The disk is full."), (RuntimeError("/secret"), "not saved")],
)
async def test_unsaved_reply_is_reported_and_complete(problem: Exception, text: str) -> None:
    async def save(run: LiveRun, closing: Sequence[Entry]) -> None:
        raise problem

    sent = await done(a_run(), writing, save)
    assert (sent[-1]["type"], sent[-1]["content"]) == ("complete", "Hello there")
    assert any(text in e["content"] for e in sent if e["type"] == "status")
    assert "/secret" not in str(sent)


async def test_silent_backend_is_stalled_until_it_continues() -> None:
    async def halting(run: LiveRun) -> None:
        write(run, "one ")
        await asyncio.sleep(0.6)
        write(run, "two")

    sent = await done(a_run(stall_s=0.05), halting)
    phases = [e["phase"] for e in sent if e["type"] == "status"]
    assert phases == ["queued", "streaming", "stalled", "streaming"]


async def test_stalled_backend_with_activity_is_reported_as_working() -> None:
    async def alive(run: LiveRun) -> None:
        write(run, "word ")
        await until(run, "status", "stalled")
        for _ in range(30):
            run.note_activity()
            await asyncio.sleep(0.03)
        write(run, "word ", "word")

    sent = await done(a_run(stall_s=0.1), alive)
    statuses = [(e["phase"], e["content"]) for e in sent if e["type"] == "status"]
    assert statuses[-3][0] == "stalled"
    assert statuses[-2] == ("streaming", "No token for a while; the server is still working")
    assert statuses[-1] == ("streaming", "Writing the reply"), "it is no longer silent"


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
async def test_wall_clock_jump_changes_no_duration_and_ends_no_run(jump: float) -> None:
    started = 1_700_000_000.0
    wall = [started]

    async def jumping(run: LiveRun) -> None:
        run.emit(events.ModelStart("m", None, "model"))
        for n in range(12):
            write(run, "word ")
            await asyncio.sleep(0.03)
            wall[0] += jump if n == 4 else 0.03
        run.emit(events.ToolStart("clock", "t", {}))

    life = Lifetime(seconds=60, abandoned_s=60, stall_s=60)
    run = LiveRun(conversation_id="c", backend="b", memory="m", owner=None, lifetime=life, clock=lambda: wall[0])
    sent = await done(run, jumping)
    last = sent[-1]
    assert last["type"] == "complete"
    assert run.log.entries[0].at == pytest.approx(started, abs=0.5)
    assert 0.3 < last["timing"]["duration_s"] < 5
    assert 10 < last["timing"]["tokens_per_s"] < 40
    assert all(0 <= e["duration_s"] < 5 for e in sent if "duration_s" in e)
    assert len([e for e in sent if e["type"] == "state"]) >= 3
    assert run.log.entries[-1].at - started < 5


async def test_digests_of_a_fast_stream_stay_within_their_rate() -> None:
    async def fast(run: LiveRun) -> None:
        for _ in range(300):
            write(run, "word ")
            await asyncio.sleep(0.004)

    sent = await done(a_run(), fast)
    digests = [e for e in sent if e["type"] == "state"]
    assert len(digests) > 4
    assert digests[-1]["tokens_received"] == 300
    assert digests[-1]["status"] == "complete"


WORDS = st.text(min_size=1, max_size=20)
NAMES = st.sampled_from(["clock", "search", "t" * 64])
MOVES = st.one_of(
    st.tuples(st.just("token"), WORDS),
    st.tuples(st.just("reasoning"), WORDS),
    st.tuples(st.sampled_from(["model", "chain", "tool", "approve"]), NAMES),
    st.tuples(st.just("output"), WORDS),
    st.tuples(st.just("end"), st.integers(0, 5)),
    st.tuples(st.sampled_from(["say", "context", "pause"]), WORDS),
)
ENDINGS: dict[str, Exception | None] = {
    "returns": None,
    "is refused": ChatError("backend_unavailable", "Gone.", retryable=True),
    "breaks": ValueError("defect"),
}


def _event(run: LiveRun, move: str, value: Any, number: int) -> Event | None:
    """A valid event; steps may stay open, and end in any order."""
    steps = run.state.open_steps
    tools = [step for step in steps if step.kind == "tool"]
    match move:
        case "token":
            return events.Token(value, run.state.open_tokens + 1_000 * number)
        case "reasoning":
            return events.Reasoning(value)
        case "model":
            return events.ModelStart(f"m{number}", steps[-1].id if steps else None, value)
        case "chain":
            return events.ChainStart(value, f"c{number}", None, [])
        case "tool":
            return events.ToolStart(value, f"t{number}", {"q": value})
        case "approve":
            return events.Approval(value, tools[-1].id, {}) if tools else None
        case "output":
            return events.ToolOutput("clock", tools[0].id, value) if tools else None
        case "say":
            return events.Status("waiting", value)
        case "context":
            return events.Context([], [], 0, 100)
    if not steps:
        return None
    step = steps[value % len(steps)]
    match step.kind:
        case "model":
            return events.ModelEnd(step.id, {"input_tokens": 1, "output_tokens": value}, 0.0)
        case "chain":
            return events.ChainEnd(step.id, [])
        case "tool":
            return events.ToolEnd(step.name, step.id, "", 0.0)


@given(st.lists(MOVES, max_size=40), st.sampled_from([*ENDINGS, "is stopped"]))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_grammar_holds_for_any_work(moves: list[tuple[str, Any]], ending: str) -> None:
    async def moving(run: LiveRun) -> None:
        for number, (move, value) in enumerate(moves, 1):
            if move == "pause":
                await asyncio.sleep(0)
            elif event := _event(run, move, value, number):
                run.emit(event)
        if ending == "is stopped":
            await asyncio.Event().wait()
        if problem := ENDINGS[ending]:
            raise problem

    async def play() -> LiveRun:
        run = a_run()
        run.start(moving)
        await asyncio.sleep(0)
        if ending == "is stopped":
            await run.stop("user")
        assert run.task
        await run.task
        return run

    run = asyncio.run(play())
    check(sent := [entry.wire() for entry in run.log.entries])
    expected = {"returns": "complete", "is stopped": "stopped"}.get(ending, "error")
    assert sent[-1]["type"] == expected
    assert fold_record("\n".join(entry.json for entry in run.log.entries)).phase == run.state.phase == expected
