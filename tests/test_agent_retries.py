"""Retries, fallbacks and timeouts, on real runs with answers that fail in turn."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import retries
from agent.retries import ATTEMPTS, run_with_fallbacks, with_idle_timeout
from backends import Backend
from backends.scripted import ScriptedBackend
from runs import events
from runs.errors import ChatError
from runs.live import Lifetime, LiveRun
from settings import BackendSettings
from tests.conftest import until
from tests.grammar import check_run

Events = list[dict[str, Any]]
Answer = Callable[[LiveRun], Awaitable[None]]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_BACKOFF", lambda state: 0.01)
    monkeypatch.setattr(retries, "_TICK_S", 0.02)


def backend(name: str = "A", timeout: float = 5.0) -> Backend:
    return ScriptedBackend(BackendSettings(name=name, kind="scripted", timeout=timeout))


def failing(code: Any = "backend_unavailable", *, retryable: bool = True, after: float | None = None) -> ChatError:
    return ChatError(code, "It failed.", retryable=retryable, retry_after=after)


def a_run(**lifetime: float) -> LiveRun:
    life = Lifetime(**lifetime)  # type: ignore[arg-type]
    return LiveRun(conversation_id="c", backend="A", memory="m", owner="anna", lifetime=life)


def write(run: LiveRun, *words: str) -> None:
    for word in words:
        before = sum(isinstance(entry.event, events.Token) for entry in run.log.entries)
        run.emit(events.Token(word, before + 1))


async def replies(run: LiveRun) -> None:
    step = f"model {len(run.state.steps)}"
    run.emit(events.ModelStart(step, None, "model"))
    write(run, "Hello ", "there")
    run.emit(events.ModelEnd(step, None, 0.0))


class Answers:
    """The answers of a chain of backends, in turn: an exception, or a function of the run."""

    def __init__(self, *steps: Exception | Answer, chain: str = "A") -> None:
        self.steps, self.chain = list(steps), [backend(name) for name in chain]
        self.asked: list[str] = []
        self.times: list[float] = []

    async def work(self, run: LiveRun) -> None:
        async def answer(backend: Backend) -> None:
            self.asked.append(backend.name)
            self.times.append(time.monotonic())
            step = self.steps.pop(0)
            if isinstance(step, Exception):
                raise step
            await step(run)

        await run_with_fallbacks(run, self.chain, answer)


async def done(run: LiveRun, work: Answer) -> Events:
    run.start(work)
    assert run.task
    await asyncio.wait_for(asyncio.shield(run.task), 10)
    return check_run(run)


def said(received: Events, phase: str = "queued") -> list[str]:
    return [e["content"] for e in received if e["type"] == "status" and e["phase"] == phase]


async def test_status_of_a_retry_has_the_cause_without_the_advice() -> None:
    failed = ChatError("rate_limited", "Rate limited. Try again later. A has too many requests.", retryable=True)
    down = ChatError("backend_unavailable", "A cannot be reached: is there a network?", retryable=True)
    received = await done(a_run(), Answers(failed, down, replies).work)
    assert said(received, "waiting") == [
        "Rate limited. Retrying: 2 of 3 in 0.0 s",
        "A cannot be reached. Retrying: 3 of 3 in 0.0 s",
    ]


async def test_transient_failure_is_retried() -> None:
    answers = Answers(failing(), failing("rate_limited"), replies)
    received = await done(a_run(), answers.work)
    assert (received[-1]["type"], received[-1]["content"]) == ("complete", "Hello there")
    assert said(received, "waiting") == ["It failed. Retrying: 2 of 3 in 0.0 s", "It failed. Retrying: 3 of 3 in 0.0 s"]


async def test_error_of_the_last_attempt_ends_the_run() -> None:
    last = ChatError("rate_limited", "Still too many.", retryable=True, retry_after=0.01)
    answers = Answers(failing(), failing(), last)
    received = await done(a_run(), answers.work)
    assert (received[-1]["type"], received[-1]["code"], received[-1]["retry_after"]) == ("error", "rate_limited", 0.01)
    assert received[-1]["message"] == "Still too many."
    assert len(answers.asked) == ATTEMPTS == 3


@pytest.mark.parametrize(
    "error",
    [
        failing(retryable=False),
        failing("rate_limited", retryable=False),
        failing("timeout"),
        failing("authentication"),
        failing("context_too_long"),
        failing("internal"),
        KeyError("defect"),
    ],
    ids=repr,
)
async def test_permanent_errors_are_not_retried(error: Exception) -> None:
    answers = Answers(error)
    received = await done(a_run(), answers.work)
    assert received[-1]["type"] == "error"
    assert len(answers.asked) == 1


async def test_retry_after_is_respected() -> None:
    answers = Answers(failing("rate_limited", after=0.2), failing(after=0.001), replies)
    received = await done(a_run(), answers.work)
    first, second, third = answers.times
    assert 0.2 <= second - first < 0.7
    assert third - second < 0.2
    assert said(received, "waiting")[0] == "It failed. Retrying: 2 of 3 in 0.2 s"


@pytest.mark.parametrize("code", ["rate_limited", "backend_unavailable"])
async def test_long_retry_after_is_not_waited_for(code: str) -> None:
    answers = Answers(failing(code, after=retries.LONGEST_WAIT_S + 0.1))
    received = await asyncio.wait_for(done(a_run(), answers.work), 1)
    assert (received[-1]["code"], received[-1]["retryable"], len(answers.asked)) == (code, True, 1)


@pytest.mark.parametrize("event", [events.Token("word", 1), events.Reasoning("hm"), events.ToolStart("clock", "t", {})])
async def test_no_retry_after_output(event: events.Event) -> None:
    async def speaks(run: LiveRun) -> None:
        run.emit(event)
        raise failing()

    answers = Answers(speaks, chain="AB")
    received = await done(a_run(), answers.work)
    assert received[-1]["code"] == "backend_unavailable"
    assert answers.asked == ["A"]


async def test_open_steps_end_with_the_attempts_error() -> None:
    async def begins(run: LiveRun) -> None:
        number = len(run.state.steps)
        run.emit(events.ChainStart("agent", f"c{number}", None, []))
        run.emit(events.ModelStart(f"m{number}", f"c{number}", "model"))
        raise failing()

    received = await done(a_run(), Answers(begins, begins, replies).work)
    ends = [(e["id"], e.get("error")) for e in received if e["type"] in ("chain_end", "model_end")]
    assert ends == [(step, "It failed.") for step in ("m0", "c0", "m2", "c2")] + [("model 4", None)]
    kinds = [e["type"] for e in received]
    assert kinds.index("chain_end") < kinds.index("model_start", kinds.index("chain_end"))


async def test_steps_of_a_failed_backend_end_before_the_fallback_begins() -> None:
    async def begins(run: LiveRun) -> None:
        run.emit(events.ModelStart("first", None, "model"))
        raise failing("timeout")

    received = await done(a_run(), Answers(begins, replies, chain="AB").work)
    steps = [(e["type"], e["id"], e.get("error")) for e in received if e["type"] in ("model_start", "model_end")]
    second = steps[2][1]
    assert steps == [
        ("model_start", "first", None),
        ("model_end", "first", "It failed."),
        ("model_start", second, None),
        ("model_end", second, None),
    ]


FOLLOWED = ["missing_key", "authentication", "rate_limited", "backend_unavailable", "timeout"]


@pytest.mark.parametrize("code", FOLLOWED)
async def test_fallback_answers(code: str) -> None:
    run, answers = a_run(), Answers(failing(code, retryable=False), replies, chain="AB")
    received = await done(run, answers.work)
    assert (received[-1]["type"], answers.asked) == ("complete", ["A", "B"])
    assert run.note == "B answered instead of A. It failed."
    assert said(received)[1] == "It failed. B answers instead"


async def test_fallback_follows_all_attempts_and_has_its_own() -> None:
    answers = Answers(*[failing()] * 5, replies, chain="AB")
    received = await done(a_run(), answers.work)
    assert (received[-1]["type"], answers.asked) == ("complete", ["A", "A", "A", "B", "B", "B"])


@pytest.mark.parametrize("code", ["invalid_request", "context_too_long", "not_found", "busy", "too_large", "internal"])
async def test_errors_of_the_request_have_no_fallback(code: str) -> None:
    run, answers = a_run(), Answers(failing(code), chain="AB")
    received = await done(run, answers.work)
    assert (received[-1]["code"], answers.asked, run.note) == (code, ["A"], None)


async def test_last_backend_of_a_chain_fails_with_its_own_error() -> None:
    answers = Answers(failing("timeout"), failing("missing_key"), failing("authentication"), chain="ABC")
    received = await done(a_run(), answers.work)
    assert (received[-1]["code"], answers.asked) == ("authentication", ["A", "B", "C"])


async def test_no_note_about_a_fallback_that_failed_too() -> None:
    run = a_run()
    await done(run, Answers(failing("timeout"), failing("authentication"), chain="AB").work)
    assert "answered" not in (run.note or "")


async def heard(run: LiveRun, work: Answer, patience: float = 0.1) -> Events:
    return await done(run, lambda run: with_idle_timeout(run, backend(timeout=patience), work(run)))


def stubborn(swallowed: int, ended: list[str], spoken: Sequence[str] = ()) -> Answer:
    """Work that falls silent and swallows `swallowed` cancellations."""

    async def work(run: LiveRun) -> None:
        run.emit(events.ModelStart("m", None, "model"))
        write(run, *spoken)
        try:
            for _ in range(swallowed):
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    continue
            await asyncio.Event().wait()
        finally:
            ended.append("ended")

    return work


@pytest.mark.parametrize("swallowed", [0, 1, 4])
@pytest.mark.parametrize("spoken", [(), ("so ", "far")])
async def test_silent_backend_is_ended_despite_lost_cancellations(swallowed: int, spoken: Sequence[str]) -> None:
    ended: list[str] = []
    received = await heard(a_run(), stubborn(swallowed, ended, spoken))
    assert (received[-1]["type"], received[-1]["code"], received[-1]["retryable"]) == ("error", "timeout", True)
    assert "0.1 s" in received[-1]["message"]
    assert received[-1]["content"] == "".join(spoken)
    assert ended == ["ended"]


async def test_stalled_status_is_no_activity() -> None:
    received = await heard(a_run(stall_s=0.02), stubborn(0, [], ("so far",)), patience=0.6)
    assert said(received, "stalled")
    assert received[-1]["code"] == "timeout"


@pytest.mark.parametrize("sign", ["token", "reasoning", "progress"])
async def test_activity_keeps_a_slow_backend(sign: str) -> None:
    async def slow(run: LiveRun) -> None:
        run.emit(events.ModelStart("m", None, "model"))
        for n in range(8):
            await asyncio.sleep(0.05)
            match sign:
                case "token":
                    write(run, "word ")
                case "reasoning":
                    run.emit(events.Reasoning("hm "))
                case _:
                    run.set_status("waiting", f"Reading your prompt, {n} %")

    assert (await heard(a_run(), slow, patience=0.3))[-1]["type"] == "complete"


@pytest.mark.parametrize("where", ["before the model is asked", "while a tool works"])
async def test_only_silence_of_the_model_times_out(where: str) -> None:
    async def quiet(run: LiveRun) -> None:
        if where == "while a tool works":
            run.emit(events.ModelStart("m", None, "model"))
            run.emit(events.ModelEnd("m", None, 0.0))
            run.emit(events.ToolStart("clock", "t", {}))
        await asyncio.sleep(0.2)

    assert (await heard(a_run(), quiet, patience=0.05))[-1]["type"] == "complete"


async def test_exception_of_the_work_is_raised() -> None:
    async def breaks(run: LiveRun) -> None:
        raise failing("authentication")

    assert (await heard(a_run(), breaks))[-1]["code"] == "authentication"


async def test_fallback_follows_a_silent_backend() -> None:
    ended: list[str] = []
    chain = [backend("A", timeout=0.05), backend("B")]

    async def work(run: LiveRun) -> None:
        works = {"A": stubborn(2, ended), "B": replies}
        await run_with_fallbacks(run, chain, lambda b: with_idle_timeout(run, b, works[b.name](run)))

    run = a_run()
    received = await done(run, work)
    assert (received[-1]["type"], ended) == ("complete", ["ended"])
    assert str(run.note).startswith("B answered instead of A. No response after")


async def stopped(run: LiveRun) -> Events:
    """Stops a run, which may take half a second."""
    begun = time.monotonic()
    await run.stop("user")
    assert time.monotonic() - begun < 0.5
    received = check_run(run)
    assert (received[-1]["type"], received[-1]["reason"]) == ("stopped", "user")
    return received


async def test_stop_ends_a_pause_between_attempts() -> None:
    run, answers = a_run(), Answers(failing("rate_limited", after=19), chain="AB")
    run.start(answers.work)
    await until(lambda: "Retrying: 2" in run.state.status_text)
    await stopped(run)
    assert answers.asked == ["A"]


@pytest.mark.parametrize("swallowed", [0, 3])
async def test_stop_ends_a_silence(swallowed: int) -> None:
    ended: list[str] = []
    run = a_run()
    run.start(lambda run: with_idle_timeout(run, backend(), stubborn(swallowed, ended)(run)))
    await until(lambda: run.state.phase == "waiting")
    received = await stopped(run)
    assert ended == ["ended"]
    assert [e["error"] for e in received if e["type"] == "model_end"] == ["cancelled"]


async def test_stop_starts_no_fallback() -> None:
    asked: list[str] = []

    async def work(run: LiveRun) -> None:
        async def answer(backend: Backend) -> None:
            asked.append(backend.name)
            await with_idle_timeout(run, backend, stubborn(1, [])(run))

        await run_with_fallbacks(run, [backend("A"), backend("B")], answer)

    run = a_run()
    run.start(work)
    await until(lambda: asked)
    await stopped(run)
    assert asked == ["A"]


MOVES = st.lists(st.sampled_from(["chain", "model", "end", "tool", "token", "think", "say", "pause"]), max_size=5)
CODES = ["rate_limited", "backend_unavailable", "timeout", "authentication", "invalid_request", "internal"]
ENDS = st.none() | st.tuples(st.sampled_from(CODES), st.booleans(), st.sampled_from([None, 0.0, 0.002, 99.0]))


@given(st.lists(st.tuples(MOVES, ENDS), min_size=1, max_size=9), st.sampled_from(["A", "AB", "ABC"]))
@settings(max_examples=100)
def test_any_attempts_keep_the_grammar_and_never_retract_output(
    tries: list[tuple[list[str], tuple[str, bool, float | None] | None]], chain: str
) -> None:
    spoke_before: list[bool] = []

    def step(number: int, moves: list[str], end: tuple[str, bool, float | None] | None) -> Answer:
        async def attempt(run: LiveRun) -> None:
            spoke_before.append(run.has_output)
            for place, move in enumerate(moves):
                await _move(run, move, f"{number}.{place}")
            if end:
                code, retryable, after = end
                raise failing(code, retryable=retryable, after=after)

        return attempt

    async def play() -> tuple[LiveRun, Answers]:
        run = a_run()
        answers = Answers(*(step(n, *one) for n, one in enumerate(tries)), *[replies] * 9, chain=chain)
        run.start(answers.work)
        assert run.task
        await run.task
        return run, answers

    run, answers = asyncio.run(play())
    check_run(run)
    assert not any(spoke_before), "no attempt follows output"
    assert answers.asked == sorted(answers.asked), "no backend answers after its fallback"
    assert all(answers.asked.count(name) <= ATTEMPTS for name in chain)


async def _move(run: LiveRun, move: str, key: str) -> None:
    open_steps = run.state.open_steps
    match move:
        case "chain":
            run.emit(events.ChainStart("agent", key, None, []))
        case "model":
            run.emit(events.ModelStart(key, None, "model"))
        case "tool":
            run.emit(events.ToolStart("clock", key, {}))
        case "token":
            write(run, "word ")
        case "think":
            run.emit(events.Reasoning("hm"))
        case "say":
            run.set_status("waiting", key)
        case "pause":
            await asyncio.sleep(0)
        case "end" if open_steps and open_steps[-1].kind == "model":
            run.emit(events.ModelEnd(open_steps[-1].id, None, 0.0))
