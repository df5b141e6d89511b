"""Turns end to end: a real store, the real agent, the scripted backend."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from agent.turn import TurnRequest
from agent.turns import Turns
from runs.errors import ChatError
from runs.live import LiveRun
from runs.record import fold_record
from tests.conftest import until
from tests.grammar import check_run
from tests.turns import Events, asked, of, refused


async def test_turn_emits_its_context_before_the_model_and_stores_the_reply(turns: Turns) -> None:
    run, received = await asked(turns, "Hello")
    kinds = [e["type"] for e in received]
    assert kinds.index("context") < kinds.index("model_start")
    assert received[-1]["type"] == "complete"
    context = of(received, "context")[0]
    assert [m["content"] for m in context["messages"]] == [turns.settings.system_prompt, "Hello"]
    assert context["tokens"] <= context["limit"]
    question, reply = await turns.store.history(run.conversation_id)
    assert (question.text, question.role, question.run_id) == ("Hello", "user", run.id)
    assert (reply.text, reply.standing, reply.run_id) == (received[-1]["content"], "whole", run.id)
    assert (await turns.store.conversation(run.conversation_id, "anna")).owner == "anna"


async def test_the_stored_record_folds_to_the_same_state(turns: Turns) -> None:
    run, received = await asked(turns, "tour")
    record = await turns.store.record(run.id)
    assert record.count("\n") == len(received) - 1
    stored = fold_record(record)
    assert replace(stored, **dict.fromkeys(_TIMES)) == replace(run.state, **dict.fromkeys(_TIMES))
    assert stored.ttft_s == pytest.approx(run.state.ttft_s, abs=0.003)
    assert [s.name for s in stored.steps] == [s.name for s in run.state.steps]
    assert of(received, "reasoning")


_TIMES = (
    *("started", "ended", "first_token", "first_output", "last_output", "generation", "level"),
    *("steps", "phase_spans", "thoughts"),
)
"""Fields that a record stores in milliseconds."""


async def test_memory_mode_decides_the_history(turns: Turns) -> None:
    run, first = await asked(turns, "one", memory="full")
    _, second = await asked(turns, "two", conversation_id=run.conversation_id, memory="full")
    _, third = await asked(turns, "three", conversation_id=run.conversation_id, memory="none")
    reply = first[-1]["content"].strip()
    given = [m["content"].strip() for m in of(second, "context")[0]["messages"]]
    assert given[1:] == ["one", reply, "two"]
    last = of(third, "context")[0]
    assert [m["content"] for m in last["messages"]][1:] == ["three"]
    assert [m["role"] for m in last["left_out"]] == ["user", "assistant"] * 2
    assert all(m["reason"] and m["tokens"] for m in last["left_out"])


async def test_cost_of_a_run_is_independent_of_the_conversations_length(turns: Turns) -> None:
    given: Any = [("user", "old " * 50), ("assistant", "older " * 50)] * 100
    long = await turns.store.create("anna", given)
    _, short_run = await asked(turns, "tour")
    _, long_run = await asked(turns, "tour", conversation_id=long, memory="full", backend="Script")

    def size(received: Events) -> int:
        return sum(len(str(e)) for e in received if e["type"] not in ("context", "state"))

    assert of(long_run, "error")[0]["code"] == "context_too_long"
    _, fitting = await asked(turns, "tour", conversation_id=long, memory="tokens")
    assert len(of(fitting, "context")[0]["messages"]) > 10
    assert size(fitting) == pytest.approx(size(short_run), rel=0.05)


@pytest.mark.parametrize("memory", ["none", "full", "window", "tokens"])
async def test_a_message_longer_than_the_context_is_refused_before_the_model(turns: Turns, memory: str) -> None:
    run, received = await asked(turns, "word " * 800, backend="Small script", memory=memory)
    last = received[-1]
    assert (last["type"], last["code"], last["retryable"]) == ("error", "context_too_long", False)
    assert not of(received, "model_start")
    context = of(received, "context")[0]
    assert context["tokens"] > context["limit"]
    assert f"{context['limit']:,}" in last["message"]
    assert f"{context['messages'][-1]['tokens']:,}" in last["message"]
    assert [m.standing for m in await turns.store.history(run.conversation_id)] == ["whole", "failed"]


async def test_conversation_too_long_for_mode_full_is_refused_with_advice(turns: Turns) -> None:
    given: Any = [("user", "old words " * 50), ("assistant", "older words " * 50)] * 10
    long = await turns.store.create("anna", given)
    _, received = await asked(turns, "Hi", conversation_id=long, backend="Small script", memory="full")
    assert received[-1]["code"] == "context_too_long"
    assert "another memory mode" in received[-1]["message"]
    assert not of(received, "model_start")
    for memory in ("window", "tokens", "none"):
        _, received = await asked(turns, "Hi", conversation_id=long, backend="Small script", memory=memory)
        assert received[-1]["type"] == "complete"
        context = of(received, "context")[0]
        assert context["tokens"] <= context["limit"]


@pytest.mark.parametrize("message", ["", "   ", "\n\n", " \t\r\n "])
async def test_a_blank_message_does_nothing(turns: Turns, message: str) -> None:
    assert (await refused(turns, TurnRequest(message))).code == "invalid_request"


async def test_a_huge_message_is_refused_with_the_limit(turns: Turns) -> None:
    error = await refused(turns, TurnRequest("x" * 1_000_000))
    assert error.code == "too_large"
    assert "1,000,000" in error.message
    assert "32,000" in error.message


@pytest.mark.parametrize(
    "ask",
    [
        TurnRequest("Hi", backend="No such"),
        TurnRequest("Hi", memory="No such"),
        TurnRequest("Hi", conversation_id="no-such"),
        TurnRequest("Hi", edit_of="no-such"),
    ],
)
async def test_unknown_names_are_not_found(turns: Turns, ask: TurnRequest) -> None:
    assert (await refused(turns, ask)).code == "not_found"


async def test_another_visitors_conversation_is_not_found(turns: Turns) -> None:
    run, _ = await asked(turns, "Hello")
    for other in ("ben", None):
        assert (await refused(turns, TurnRequest("Hi", other, run.conversation_id))).code == "not_found"
    assert await turns.store.size(run.conversation_id) == 2


async def test_a_second_run_in_a_conversation_is_busy(turns: Turns) -> None:
    run = await turns.start(TurnRequest("endless", "anna", backend="Slow script"))
    with pytest.raises(ChatError) as raised:
        await turns.start(TurnRequest("Hi", "anna", run.conversation_id))
    assert raised.value.code == "busy"
    await run.stop("user")
    await asked(turns, "Hi", conversation_id=run.conversation_id)
    assert await turns.store.size(run.conversation_id) == 4


async def test_only_one_of_two_concurrent_messages_starts(turns: Turns) -> None:
    conversation_id = await turns.store.create("anna")
    ask = TurnRequest("endless", "anna", conversation_id)
    started = await asyncio.gather(*(turns.start(ask) for _ in range(5)), return_exceptions=True)
    runs = [run for run in started if isinstance(run, LiveRun)]
    assert len(runs) == 1
    assert {e.code for e in started if isinstance(e, ChatError)} == {"busy"}
    assert await turns.store.size(conversation_id) == 2


async def test_stop_stores_the_partial_reply(turns: Turns) -> None:
    run = await turns.start(TurnRequest("endless", "anna", backend="Slow script"))
    await until(lambda: run.text)
    await run.stop("user")
    last = check_run(run)[-1]
    assert (last["type"], last["reason"]) == ("stopped", "user")
    reply = (await turns.store.history(run.conversation_id))[-1]
    assert (reply.text, reply.standing, reply.note) == (last["content"], "stopped", "Stopped by you")
    assert reply.text.startswith("1 ")


async def test_a_growing_reply_is_on_disk_within_a_second_or_two(turns: Turns) -> None:
    run = await turns.start(TurnRequest("endless", "anna", backend="Slow script"))
    for _ in range(300):
        await asyncio.sleep(0.01)
        reply = (await turns.store.history(run.conversation_id))[-1]
        if reply.text:
            break
    assert reply.standing == "growing"
    assert run.text.startswith(reply.text)
    assert not run.ended


@pytest.mark.parametrize(
    ("fault", "code", "written"),
    [
        ("cut", "backend_unavailable", True),
        ("rate limit", "rate_limited", False),
        ("wrong key", "authentication", False),
    ],
)
async def test_faults_become_errors_and_keep_the_text(turns: Turns, fault: str, code: str, written: bool) -> None:
    run, received = await asked(turns, fault)
    assert (received[-1]["type"], received[-1]["code"]) == ("error", code)
    assert bool(received[-1]["content"]) is written
    reply = (await turns.store.history(run.conversation_id))[-1]
    assert (reply.text, reply.standing, reply.note) == (received[-1]["content"], "failed", received[-1]["message"])


async def test_edit_replaces_an_earlier_message(turns: Turns) -> None:
    run, _ = await asked(turns, "one")
    first = (await turns.store.history(run.conversation_id))[0]
    await asked(turns, "two", conversation_id=run.conversation_id)
    _, received = await asked(turns, "tour", conversation_id=run.conversation_id, edit_of=first.id, memory="full")
    history = await turns.store.history(run.conversation_id)
    assert history[0].text == "tour"
    assert len(history) == 2
    assert [m["content"] for m in of(received, "context")[0]["messages"]][1:] == ["tour"]


async def test_regenerate_adds_another_reply(turns: Turns) -> None:
    run, _ = await asked(turns, "one")
    first, reply = await turns.store.history(run.conversation_id)
    again, received = await asked(turns, "not read", conversation_id=run.conversation_id, regenerate=first.id)
    assert [m["content"] for m in of(received, "context")[0]["messages"]][1:] == ["one"]
    assert [m.run_id for m in await turns.store.history(run.conversation_id)] == [run.id, again.id]
    for beside in ({"regenerate": reply.id}, {"edit_of": reply.id}, {"regenerate": "no such"}):
        with pytest.raises(ChatError):
            await turns.start(TurnRequest("x", None, run.conversation_id, **beside))
    assert len(await turns.store.tree(run.conversation_id)) == 3


async def test_odd_characters_are_stored_and_sent_as_text(turns: Turns) -> None:
    message = "\na\x00b\ud83dc\r\n<script>\u202e\u05e9\u05dc\u05d5\u05dd <|im_start|>system\n"
    run, received = await asked(turns, message)
    shown = "a\u2400b\ufffdc\n<script>\u202e\u05e9\u05dc\u05d5\u05dd <|im_start|>system"
    assert (await turns.store.history(run.conversation_id))[0].text == shown
    assert of(received, "context")[0]["messages"][-1]["content"] == shown
