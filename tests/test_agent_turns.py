"""Turns end to end: a real store, the real agent, the scripted backend."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from agent import retries
from agent.metrics import Metrics
from agent.model_input import build_model_input
from agent.turn import Turn, TurnRequest
from agent.turns import Turns
from backends import Backends, ModelOptions
from backends.scripted import ScriptedBackend
from components.panel import render_panel
from memory.history_cache import History
from memory.messages import Message
from memory.modes import get_mode
from memory.options import TurnOptions
from memory.store import Store
from runs.errors import ChatError
from runs.live import LiveRun
from runs.record import fold_record
from runs.registry import RunRegistry
from settings import BackendSettings, LimitSettings, Settings
from tests.conftest import scripted, until
from tests.grammar import check_run

Told = list[dict[str, Any]]


async def ended(run: LiveRun) -> Told:
    assert run.task
    await asyncio.wait_for(asyncio.shield(run.task), 20)
    return check_run(run)


async def asked(turns: Turns, message: str, **more: Any) -> tuple[LiveRun, Told]:
    run = await turns.start(TurnRequest(message, "anna", **more))
    return run, await ended(run)


def of(told: Told, kind: str) -> Told:
    return [e for e in told if e["type"] == kind]


async def refused(turns: Turns, ask: TurnRequest) -> ChatError:
    with pytest.raises(ChatError) as raised:
        await turns.start(ask)
    assert not list(turns.runs.live()), "nothing has started"
    return raised.value


async def test_turn_emits_its_context_before_the_model_and_stores_the_reply(turns: Turns) -> None:
    run, told = await asked(turns, "Hello")
    kinds = [e["type"] for e in told]
    assert kinds.index("context") < kinds.index("model_start")
    assert told[-1]["type"] == "complete"
    context = of(told, "context")[0]
    assert [m["content"] for m in context["messages"]] == [turns.settings.system_prompt, "Hello"]
    assert context["tokens"] <= context["limit"]
    question, reply = await turns.store.history(run.conversation_id)
    assert (question.text, question.role, question.run_id) == ("Hello", "user", run.id)
    assert (reply.text, reply.standing, reply.run_id) == (told[-1]["content"], "whole", run.id)
    assert (await turns.store.conversation(run.conversation_id, "anna")).owner == "anna"


async def test_the_stored_record_folds_to_the_same_state(turns: Turns) -> None:
    run, told = await asked(turns, "tour")
    record = await turns.store.record(run.id)
    assert record.count("\n") == len(told) - 1
    stored = fold_record(record)
    assert replace(stored, **dict.fromkeys(_TIMES)) == replace(run.state, **dict.fromkeys(_TIMES))
    assert stored.ttft_s == pytest.approx(run.state.ttft_s, abs=0.003)
    assert [s.name for s in stored.steps] == [s.name for s in run.state.steps]
    assert of(told, "reasoning")


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
    _, short_told = await asked(turns, "tour")
    _, long_told = await asked(turns, "tour", conversation_id=long, memory="full", backend="Script")

    def size(told: Told) -> int:
        return sum(len(str(e)) for e in told if e["type"] not in ("context", "state"))

    assert of(long_told, "error")[0]["code"] == "context_too_long"
    _, fitting = await asked(turns, "tour", conversation_id=long, memory="tokens")
    assert len(of(fitting, "context")[0]["messages"]) > 10
    assert size(fitting) == pytest.approx(size(short_told), rel=0.05)


@pytest.mark.parametrize("memory", ["none", "full", "window", "tokens"])
async def test_a_message_longer_than_the_context_is_refused_before_the_model(turns: Turns, memory: str) -> None:
    run, told = await asked(turns, "word " * 800, backend="Small script", memory=memory)
    last = told[-1]
    assert (last["type"], last["code"], last["retryable"]) == ("error", "context_too_long", False)
    assert not of(told, "model_start")
    context = of(told, "context")[0]
    assert context["tokens"] > context["limit"]
    assert f"{context['limit']:,}" in last["message"]
    assert f"{context['messages'][-1]['tokens']:,}" in last["message"]
    assert [m.standing for m in await turns.store.history(run.conversation_id)] == ["whole", "failed"]


async def test_conversation_too_long_for_mode_full_is_refused_with_advice(turns: Turns) -> None:
    given: Any = [("user", "old words " * 50), ("assistant", "older words " * 50)] * 10
    long = await turns.store.create("anna", given)
    _, told = await asked(turns, "Hi", conversation_id=long, backend="Small script", memory="full")
    assert told[-1]["code"] == "context_too_long"
    assert "another memory mode" in told[-1]["message"]
    assert not of(told, "model_start")
    for memory in ("window", "tokens", "none"):
        _, told = await asked(turns, "Hi", conversation_id=long, backend="Small script", memory=memory)
        assert told[-1]["type"] == "complete"
        context = of(told, "context")[0]
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
    run, told = await asked(turns, fault)
    assert (told[-1]["type"], told[-1]["code"]) == ("error", code)
    assert bool(told[-1]["content"]) is written
    reply = (await turns.store.history(run.conversation_id))[-1]
    assert (reply.text, reply.standing, reply.note) == (told[-1]["content"], "failed", told[-1]["message"])


async def test_edit_replaces_an_earlier_message(turns: Turns) -> None:
    run, _ = await asked(turns, "one")
    first = (await turns.store.history(run.conversation_id))[0]
    await asked(turns, "two", conversation_id=run.conversation_id)
    _, told = await asked(turns, "tour", conversation_id=run.conversation_id, edit_of=first.id, memory="full")
    history = await turns.store.history(run.conversation_id)
    assert history[0].text == "tour"
    assert len(history) == 2
    assert [m["content"] for m in of(told, "context")[0]["messages"]][1:] == ["tour"]


async def test_regenerate_adds_another_reply(turns: Turns) -> None:
    run, _ = await asked(turns, "one")
    first, reply = await turns.store.history(run.conversation_id)
    again, told = await asked(turns, "not read", conversation_id=run.conversation_id, regenerate=first.id)
    assert [m["content"] for m in of(told, "context")[0]["messages"]][1:] == ["one"]
    assert [m.run_id for m in await turns.store.history(run.conversation_id)] == [run.id, again.id]
    for beside in ({"regenerate": reply.id}, {"edit_of": reply.id}, {"regenerate": "no such"}):
        with pytest.raises(ChatError):
            await turns.start(TurnRequest("x", None, run.conversation_id, **beside))
    assert len(await turns.store.tree(run.conversation_id)) == 3


async def test_odd_characters_are_stored_and_sent_as_text(turns: Turns) -> None:
    message = "\na\x00b\ud83dc\r\n<script>\u202e\u05e9\u05dc\u05d5\u05dd <|im_start|>system\n"
    run, told = await asked(turns, message)
    shown = "a\u2400b\ufffdc\n<script>\u202e\u05e9\u05dc\u05d5\u05dd <|im_start|>system"
    assert (await turns.store.history(run.conversation_id))[0].text == shown
    assert of(told, "context")[0]["messages"][-1]["content"] == shown


@pytest.fixture
async def with_models(settings: Settings, store: Store) -> AsyncIterator[Any]:
    """Makes turns over one `tests.models:Talker` with options."""
    made: list[Turns] = []

    def make(**options: Any) -> Turns:
        entry = BackendSettings(name="Talker", kind="langchain", options=options, **{"class": "tests.models:Talker"})
        made.append(Turns(settings, Backends([entry, scripted()]), store, RunRegistry()))
        return made[-1]

    yield make
    for turns in made:
        await turns.runs.stop_all()


async def test_usage_of_a_run_is_the_providers_count(with_models: Any) -> None:
    usage = {"input_tokens": 40, "output_tokens": 33, "total_tokens": 73}
    run, told = await asked(with_models(usage=usage), "Hi")
    assert told[-1]["usage"] == {"input_tokens": 40, "output_tokens": 33}
    assert of(told, "state")[-1]["tokens_received"] == 33
    assert of(told, "state")[-1]["estimated"] is False
    assert run.state.tokens == 33


@pytest.mark.parametrize(
    ("fails", "code"),
    [(ConnectionResetError("sk-1"), "backend_unavailable"), (KeyError("sk-1"), "backend_unavailable")],
)
async def test_exceptions_of_a_model_are_explained_and_not_shown(with_models: Any, fails: Exception, code: str) -> None:
    _, told = await asked(with_models(text="so far", fails=fails), "Hi")
    assert (told[-1]["type"], told[-1]["code"]) == ("error", code)
    assert told[-1]["content"] == "so far "
    assert "sk-1" not in str(told)


async def test_unavailable_backend_is_an_error_of_the_run(settings: Settings, store: Store) -> None:
    entry = BackendSettings(name="Gone", kind="langchain", **{"class": "no_such_package:Model"})
    run, told = await asked(Turns(settings, Backends([entry]), store, RunRegistry()), "Hi")
    assert told[-1]["code"] == "backend_unavailable"
    assert "no_such_package" in told[-1]["message"]
    assert (await store.history(run.conversation_id))[-1].standing == "failed"


async def test_options_reach_the_model(with_models: Any) -> None:
    seen: list[Any] = []
    turns = with_models(seen=seen)
    _, told = await asked(
        turns, "Ahoy", options=TurnOptions(system_prompt="Be a pirate.", temperature=0.3, max_tokens=20)
    )
    ((messages, longest, temperature),) = seen
    assert [(m.type, m.text) for m in messages] == [("system", "Be a pirate."), ("human", "Ahoy")]
    assert (longest, temperature) == (20, 0.3)
    context = of(told, "context")[0]
    assert context["limit"] == turns.backends.default.context - 20


async def test_unset_options_are_the_configured_ones(with_models: Any) -> None:
    seen: list[Any] = []
    turns = with_models(seen=seen)
    await asked(turns, "Hi", options=TurnOptions())
    await asked(turns, "Hi")
    for messages, longest, temperature in seen:
        assert messages[0].text == turns.settings.system_prompt
        assert (longest, temperature) == (turns.settings.limits.reply_tokens, 0.5)


@pytest.mark.parametrize("prompt", ["", "  \n "])
async def test_empty_system_prompt_is_not_sent(with_models: Any, prompt: str) -> None:
    seen: list[Any] = []
    await asked(with_models(seen=seen), "Hi", options=TurnOptions(system_prompt=prompt))
    assert [m.type for m in seen[0][0]] == ["human"]


async def test_zero_temperature_and_one_token_are_sent(with_models: Any) -> None:
    seen: list[Any] = []
    await asked(with_models(seen=seen), "Hi", options=TurnOptions(temperature=0, max_tokens=1))
    assert seen[0][1:] == (1, 0)


async def test_conversation_keeps_its_options_until_they_change(with_models: Any) -> None:
    seen: list[Any] = []
    turns, pirate = with_models(seen=seen), TurnOptions(system_prompt="Be a pirate.", temperature=0.3, max_tokens=20)
    run, _ = await asked(turns, "one", options=pirate)
    this: Any = {"conversation_id": run.conversation_id, "memory": "none"}
    await asked(turns, "two", **this)
    assert (await turns.store.conversation(run.conversation_id, "anna")).options == pirate
    await asked(turns, "three", options=TurnOptions(temperature=1.5), **this)
    assert (await turns.store.conversation(run.conversation_id, "anna")).options == TurnOptions(temperature=1.5)
    await asked(turns, "four", **this)
    given = [(messages[0].text, longest, temperature) for messages, longest, temperature in seen]
    own = (turns.settings.system_prompt, turns.settings.limits.reply_tokens, 1.5)
    assert given == [("Be a pirate.", 20, 0.3)] * 2 + [own] * 2


async def test_system_prompt_is_cleaned_like_a_message(with_models: Any) -> None:
    seen: list[Any] = []
    turns = with_models(seen=seen)
    run, _ = await asked(turns, "Hi", options=TurnOptions(system_prompt="a\x00b\ud83dc\r\nd"))
    assert seen[0][0][0].text == "a\u2400b\ufffdc\nd"
    kept = await turns.store.conversation(run.conversation_id, "anna")
    assert kept.options.system_prompt == "a\u2400b\ufffdc\nd"


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        (TurnOptions(temperature=-0.1), "invalid_request", "0 to 2"),
        (TurnOptions(temperature=2.1), "invalid_request", "0 to 2"),
        (TurnOptions(temperature=float("nan")), "invalid_request", "0 to 2"),
        (TurnOptions(temperature=float("inf")), "invalid_request", "0 to 2"),
        (TurnOptions(max_tokens=0), "invalid_request", "1 to 256"),
        (TurnOptions(max_tokens=-5), "invalid_request", "1 to 256"),
        (TurnOptions(max_tokens=257), "invalid_request", "1 to 256"),
        (TurnOptions(system_prompt="x" * 32_001), "too_large", "32,000"),
    ],
)
async def test_invalid_options_are_refused_before_anything_is_stored(
    turns: Turns, options: TurnOptions, code: str, told: str
) -> None:
    run, _ = await asked(turns, "Hi", options=TurnOptions(system_prompt="Be brief."))
    for edit_of in (None, (await turns.store.history(run.conversation_id))[0].id):
        ask = TurnRequest("more", "anna", run.conversation_id, options=options, edit_of=edit_of)
        error = await refused(turns, ask)
        assert error.code == code
        assert told in error.message
    assert await turns.store.size(run.conversation_id) == 2
    assert (await turns.store.conversation(run.conversation_id, "anna")).options == TurnOptions(
        system_prompt="Be brief."
    )


CUT, CUT_BY_IT = (
    "Cut at the max reply length, 33 tokens.",
    "Cut by Talker: it writes no longer reply, or has no more room",
)


@pytest.mark.parametrize(
    ("finish", "longest", "note"),
    [
        ({"finish_reason": "length"}, 33, CUT),
        ({"finish_reason": "MAX_TOKENS"}, 33, CUT),
        ({"stop_reason": "max_tokens"}, 33, CUT),
        ({"done_reason": "length"}, 34, CUT_BY_IT),
        ({"finish_reason": "stop"}, 33, ""),
        ({"stop_reason": "end_turn"}, 32, ""),
        (None, 33, ""),
    ],
)
async def test_only_a_cut_reply_has_the_note(with_models: Any, finish: Any, longest: int, note: str) -> None:
    usage = {"input_tokens": 40, "output_tokens": 33, "total_tokens": 73}
    turns = with_models(usage=usage, finish=finish)
    run, told = await asked(turns, "Hi", options=TurnOptions(max_tokens=longest))
    reply = (await turns.store.history(run.conversation_id))[-1]
    assert (told[-1]["type"], reply.standing) == ("complete", "whole")
    assert (reply.note or "").startswith(note) and bool(reply.note) == bool(note)


GONE: Any = {"name": "Gone", "kind": "langchain", "fallback": "Script", "class": "no_such_package:Model"}


async def test_fallback_is_stored_with_the_reply(settings: Settings, store: Store) -> None:
    turns = Turns(settings, Backends([BackendSettings(**GONE), scripted()]), store, RunRegistry())
    metrics = Metrics(turns)
    run, told = await asked(turns, "Hi")
    assert (told[0]["backend"], told[-1]["type"]) == ("Gone", "complete")
    assert [e["backend"] for e in of(told, "status") if "backend" in e] == ["Script"]
    assert run.state.backend == fold_record("\n".join(entry.json for entry in run.log.entries)).backend == "Script"
    assert render_panel(run.state, whole=True)["backend"] == "Script"
    await until(
        lambda: b'glassbox_runs_total{backend="Script",memory="tokens",outcome="complete"} 1.0' in metrics.text()
    )
    assert b'backend="Gone"' not in b"".join(line for line in metrics.text().splitlines() if b"waiting" not in line)
    reply = (await store.history(run.conversation_id))[-1]
    assert (reply.standing, reply.text, reply.backend) == ("whole", told[-1]["content"], "Script")
    assert str(reply.note).startswith("Script answered instead of Gone. Gone is not available: no_such_package")
    assert (await store.conversation(run.conversation_id, "anna")).backend == "Gone"


async def test_cut_reply_still_names_the_fallback(settings: Settings, store: Store) -> None:
    turns = Turns(settings, Backends([BackendSettings(**GONE), scripted()]), store, RunRegistry())
    run, _ = await asked(turns, "endless")
    note = str((await store.history(run.conversation_id))[-1].note)
    assert "Cut at the max reply length" in note
    assert "Script answered instead of Gone" in note


async def test_missing_key_is_refused_without_a_fallback(settings: Settings, store: Store) -> None:
    for fallback in ({}, {"fallback": "Script"}):
        entry = BackendSettings(name="Keyed", kind="openai", model="m", **fallback)
        turns = Turns(settings, Backends([entry, scripted()]), store, RunRegistry())
        if fallback:
            run, told = await asked(turns, "Hi")
            assert told[-1]["type"] == "complete"
            assert "OPENAI_API_KEY" in str((await store.history(run.conversation_id))[-1].note)
        else:
            error = await refused(turns, TurnRequest("Hi", "anna"))
            assert error.code == "missing_key"
            assert "OPENAI_API_KEY" in error.message


async def test_each_visitors_turn_uses_their_own_key(settings: Settings, store: Store) -> None:
    path = {"class": "tests.models:Talker"}
    entry = BackendSettings(name="Talker", kind="langchain", key="TALKER_KEY", key_field="text", **path)  # type: ignore[arg-type]
    backends = Backends([entry], {"TALKER_KEY": SecretStr("of the operator")})
    turns = Turns(settings, backends, store, RunRegistry())
    backends.keys.put("anna", "Talker", "annas-own")
    said = {}
    for visitor in ("anna", "ben", None):
        run = await turns.start(TurnRequest("Hi", visitor))
        said[visitor] = (await ended(run))[-1]["content"].strip()
    assert said == {"anna": "annas-own", "ben": "of the operator", None: "of the operator"}


async def test_backend_records_the_outcome_of_a_turn(with_models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_BACKOFF", lambda state: 0.001)
    works, fails = with_models(), with_models(text="", fails=ConnectionRefusedError("sk-1"))
    _, told = await asked(works, "Hi")
    backend = works.backends.default
    assert backend.health().ready
    assert backend.ttft_s is not None
    assert 0 < backend.ttft_s <= of(told, "state")[-1]["ttft_s"]
    _, told = await asked(fails, "Hi")
    assert told[-1]["code"] == "backend_unavailable"
    health = fails.backends.default.health()
    assert (health.state, health.reason[:3]) == ("unreachable", "it ")
    assert "sk-1" not in f"{told}{health}"


async def test_refusal_by_the_backend_itself_is_not_recorded(settings: Settings, store: Store) -> None:
    turns = Turns(settings, Backends([BackendSettings(**GONE), scripted()]), store, RunRegistry())
    gone = turns.backends.default
    with pytest.raises(ChatError):
        await gone.wait_ready()
    known = gone.health()
    await asked(turns, "Hi")
    assert (known.state, gone.health()) == ("unavailable", known)


async def test_imported_conversation_becomes_alternating_turns(with_models: Any) -> None:
    seen: list[Any] = []
    turns = with_models(seen=seen)
    given: Any = [
        ("system", "Be kind."),
        ("user", "Hi"),
        ("assistant", "I look."),
        ("tool", "12:00"),
        ("assistant", "It is noon."),
        ("assistant", "Really."),
        ("system", "Be brief."),
    ]
    imported = await turns.store.create("anna", given)
    await asked(turns, "Thanks", conversation_id=imported, memory="full")
    (_, *messages) = seen[0][0]
    assert [(m.type, m.text) for m in messages] == [
        ("human", "[Instruction] Be kind.\n\nHi"),
        ("ai", "I look."),
        ("human", "[Result of a tool] 12:00"),
        ("ai", "It is noon.\n\nReally."),
        ("human", "[Instruction] Be brief.\n\nThanks"),
    ]


ROLES = st.sampled_from(["user", "assistant", "system", "tool"])


@given(st.lists(st.tuples(ROLES, st.sampled_from(["", " \n", "words {}."])), max_size=12))
def test_any_import_alternates_and_loses_nothing(messages: list[tuple[Any, str]]) -> None:
    history = [Message(f"m{n}", role, text.format(n)) for n, (role, text) in enumerate(messages)]
    asked_now = Message("asked", "user", "now")

    async def load_history() -> History:
        return History(history)

    turn = Turn(asked_now, get_mode("full"), load_history=load_history)
    made = asyncio.run(build_model_input(Settings(), ScriptedBackend(scripted()), turn, ModelOptions(100)))
    (system, *given_now) = made.messages
    kinds = [m.type for m in given_now]
    assert (system.type, kinds[-1]) == ("system", "human")
    assert all(one != following for one, following in pairwise(kinds))
    read = "".join(m.text for m in given_now)
    left = "".join(m["content"] for m in made.left_out)
    assert all((m.text in read) is (m.text not in left) for m in history if m.text.strip())
    assert (given_now[-1].id, read.endswith("now")) == ("asked", True)


async def test_reply_ends_at_the_time_limit_of_a_run(settings: Settings, store: Store) -> None:
    short = settings.model_copy(update={"limits": LimitSettings(run_seconds=0.1)})
    _, told = await asked(Turns(short, Backends([scripted()]), store, RunRegistry()), "endless")
    assert (told[-1]["type"], told[-1]["reason"]) == ("stopped", "limit")
