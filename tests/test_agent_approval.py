"""Calls that wait for a person: allowed, edited, refused, cancelled, or left alone."""

import asyncio
import time
from typing import Any

import pytest

from runs.calls import Answer
from runs.errors import ChatError
from tests.calls import Make, ended, observed, of, place, waiting, world
from tests.conftest import until
from tests.grammar import check_run

pytest_plugins = ["tests.calls"]


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
