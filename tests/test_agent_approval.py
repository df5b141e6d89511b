"""Tool calls that wait for approval: approved, edited, refused, cancelled or unanswered."""

import asyncio
import time
from typing import Any

import pytest

from runs.errors import ChatError
from runs.tool_calls import ApprovalAnswer
from tests.calls import Make, ended, observed, of, place, waiting, world
from tests.conftest import until
from tests.grammar import check_run

pytest_plugins = ["tests.calls"]


async def test_tool_call_waits_for_approval(make: Make, seen: list[Any]) -> None:
    run = await waiting(make, seen, ("plain", {"text": "a"}))
    assert run.state.phase == "approval"
    assert [(e.tool, e.tool_call_id, e.input) for e in run.state.approvals] == [("plain", "c0", {"text": "a"})]
    assert (world.got, run.tool_calls.only_await_approval) == ([], True)
    run.tool_calls.answer("c0", ApprovalAnswer(True))
    received = await ended(run)
    assert (received[-1]["type"], world.got, observed(seen)) == ("complete", ["a"], {"c0": "got a"})
    (status,) = of(received, "status", "c0")
    assert (status["phase"], status["content"]) == ("tool", "Calling plain")
    assert run.state.approvals == ()
    assert place(received, "approval", "c0") < received.index(status) < place(received, "tool_end", "c0")


async def test_refused_tool_call_does_not_run(make: Make, seen: list[Any]) -> None:
    run = await waiting(make, seen, ("plain", {"text": "a"}))
    run.tool_calls.answer("c0", ApprovalAnswer(False))
    received = await ended(run)
    assert (received[-1]["type"], world.got, run.state.approvals) == ("complete", [], ())
    assert "refused" in of(received, "tool_end")[0]["error"]
    assert "refused" in observed(seen)["c0"]


async def test_tool_gets_the_edited_input(make: Make, seen: list[Any]) -> None:
    run = await waiting(make, seen, ("plain", {"text": "a"}))
    run.tool_calls.answer("c0", ApprovalAnswer(True, {"text": "mine"}))
    received = await ended(run)
    assert (received[-1]["type"], world.got, observed(seen)) == ("complete", ["mine"], {"c0": "got mine"})
    (status,) = of(received, "status", "c0")
    assert '{"text": "mine"}' in status["content"]
    assert of(received, "tool_start")[0]["input"] == {"text": "a"}


async def test_invalid_edited_input_becomes_a_tool_error(make: Make, seen: list[Any]) -> None:
    run = await waiting(make, seen, ("plain", {"text": "a"}))
    run.tool_calls.answer("c0", ApprovalAnswer(True, {"wrong": 1}))
    received = await ended(run)
    assert (received[-1]["type"], world.got) == ("complete", [])
    assert of(received, "tool_end")[0]["error"]
    assert "text" in observed(seen)["c0"]


async def test_approval_answer_counts_once_and_only_for_its_call(make: Make, seen: list[Any]) -> None:
    run = await waiting(make, seen, ("plain", {"text": "a"}), ("slow", {"name": "b"}))
    for wrong in ("c1", "c2", ""):
        with pytest.raises(ChatError) as raised:
            run.tool_calls.answer(wrong, ApprovalAnswer(True))
        assert raised.value.code == "busy"
    run.tool_calls.answer("c0", ApprovalAnswer(True))
    for _ in range(2):
        with pytest.raises(ChatError) as raised:
            run.tool_calls.answer("c0", ApprovalAnswer(False))
        assert raised.value.code == "busy"
        await asyncio.sleep(0.05)
    world.go.set()
    assert (await ended(run))[-1]["type"] == "complete"
    assert "a" in world.got
    with pytest.raises(ChatError):
        run.tool_calls.answer("c0", ApprovalAnswer(True))


async def test_two_approvals_wait_at_the_same_time(make: Make, seen: list[Any]) -> None:
    run = await waiting(make, seen, ("plain", {"text": "a"}), ("plain", {"text": "b"}))
    run.tool_calls.answer("c1", ApprovalAnswer(True))
    await until(lambda: world.got == ["b"])
    await until(lambda: [e.tool_call_id for e in run.state.approvals] == ["c0"])
    assert run.state.phase == "approval"
    run.tool_calls.answer("c0", ApprovalAnswer(False))
    received = await ended(run)
    assert received[-1]["type"] == "complete"
    assert observed(seen)["c1"] == "got b"
    assert "refused" in observed(seen)["c0"]


@pytest.mark.parametrize("way", ["refused", "cancelled"])
async def test_refused_call_ends_the_approval_phase_while_another_call_runs(
    make: Make, seen: list[Any], way: str
) -> None:
    run = await waiting(make, seen, ("plain", {"text": "a"}), ("slow", {"name": "b"}))
    if way == "refused":
        run.tool_calls.answer("c0", ApprovalAnswer(False))
    else:
        run.tool_calls.cancel("c0")
    await until(lambda: not run.state.approvals)
    await until(lambda: run.state.phase == "tool", 2)
    world.go.set()
    assert (await ended(run))[-1]["type"] == "complete"


async def test_waiting_call_can_be_cancelled_alone(make: Make, seen: list[Any]) -> None:
    run = await waiting(make, seen, ("plain", {"text": "a"}))
    run.tool_calls.cancel("c0")
    received = await ended(run)
    assert (received[-1]["type"], world.got, run.tool_calls.awaiting_approval) == ("complete", [], [])
    assert "cancelled" in of(received, "tool_end")[0]["error"]


async def test_stop_ends_a_run_that_waits_for_approval(make: Make, seen: list[Any]) -> None:
    run = await waiting(make, seen, ("plain", {"text": "a"}))
    at = time.monotonic()
    await run.stop("user")
    assert time.monotonic() - at < 2
    received = check_run(run)
    assert (received[-1]["type"], received[-1]["reason"], run.state.approvals) == ("stopped", "user", ())
    with pytest.raises(ChatError):
        run.tool_calls.answer("c0", ApprovalAnswer(True))
    assert world.got == []


async def test_time_limit_of_a_run_holds_during_approval(make: Make, seen: list[Any]) -> None:
    run = await waiting(make, seen, ("plain", {"text": "a"}), limits={"run_seconds": 1}, seconds=0.1)
    received = await ended(run, 4)
    assert (received[-1]["type"], received[-1]["reason"]) == ("stopped", "limit")
    assert world.got == []


async def test_approval_time_is_neither_call_time_nor_abandonment(make: Make, seen: list[Any]) -> None:
    limits = {"abandoned_seconds": 0.3}
    run = await waiting(make, seen, ("plain", {"text": "a"}), visitor=None, limits=limits, seconds=0.2)
    await asyncio.sleep(0.9)
    assert (run.ended, run.state.phase) == (False, "approval")
    run.tool_calls.answer("c0", ApprovalAnswer(True))
    await ended(run)
    assert world.got == ["a"]
