"""Turns with models of LangChain: options, errors, fallbacks, keys, and imported conversations."""

import asyncio
from collections.abc import AsyncIterator
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
from runs.record import fold_record
from runs.registry import RunRegistry
from settings import BackendSettings, LimitSettings, Settings
from tests.conftest import scripted, until
from tests.turns import asked, ended, of, refused


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
    run, received = await asked(with_models(usage=usage), "Hi")
    assert received[-1]["usage"] == {"input_tokens": 40, "output_tokens": 33}
    assert of(received, "state")[-1]["tokens_received"] == 33
    assert of(received, "state")[-1]["estimated"] is False
    assert run.state.tokens == 33


@pytest.mark.parametrize(
    ("fails", "code"),
    [(ConnectionResetError("sk-1"), "backend_unavailable"), (KeyError("sk-1"), "backend_unavailable")],
)
async def test_exceptions_of_a_model_are_explained_and_not_shown(with_models: Any, fails: Exception, code: str) -> None:
    _, received = await asked(with_models(text="so far", fails=fails), "Hi")
    assert (received[-1]["type"], received[-1]["code"]) == ("error", code)
    assert received[-1]["content"] == "so far "
    assert "sk-1" not in str(received)


async def test_unavailable_backend_is_an_error_of_the_run(settings: Settings, store: Store) -> None:
    entry = BackendSettings(name="Gone", kind="langchain", **{"class": "no_such_package:Model"})
    run, received = await asked(Turns(settings, Backends([entry]), store, RunRegistry()), "Hi")
    assert received[-1]["code"] == "backend_unavailable"
    assert "no_such_package" in received[-1]["message"]
    assert (await store.history(run.conversation_id))[-1].standing == "failed"


async def test_options_reach_the_model(with_models: Any) -> None:
    seen: list[Any] = []
    turns = with_models(seen=seen)
    _, received = await asked(
        turns, "Ahoy", options=TurnOptions(system_prompt="Be a pirate.", temperature=0.3, max_tokens=20)
    )
    ((messages, longest, temperature),) = seen
    assert [(m.type, m.text) for m in messages] == [("system", "Be a pirate."), ("human", "Ahoy")]
    assert (longest, temperature) == (20, 0.3)
    context = of(received, "context")[0]
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
    ("options", "code", "received"),
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
    turns: Turns, options: TurnOptions, code: str, received: str
) -> None:
    run, _ = await asked(turns, "Hi", options=TurnOptions(system_prompt="Be brief."))
    for edit_of in (None, (await turns.store.history(run.conversation_id))[0].id):
        ask = TurnRequest("more", "anna", run.conversation_id, options=options, edit_of=edit_of)
        error = await refused(turns, ask)
        assert error.code == code
        assert received in error.message
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
    run, received = await asked(turns, "Hi", options=TurnOptions(max_tokens=longest))
    reply = (await turns.store.history(run.conversation_id))[-1]
    assert (received[-1]["type"], reply.standing) == ("complete", "whole")
    assert (reply.note or "").startswith(note) and bool(reply.note) == bool(note)


GONE: Any = {"name": "Gone", "kind": "langchain", "fallback": "Script", "class": "no_such_package:Model"}


async def test_fallback_is_stored_with_the_reply(settings: Settings, store: Store) -> None:
    turns = Turns(settings, Backends([BackendSettings(**GONE), scripted()]), store, RunRegistry())
    metrics = Metrics(turns)
    run, received = await asked(turns, "Hi")
    assert (received[0]["backend"], received[-1]["type"]) == ("Gone", "complete")
    assert [e["backend"] for e in of(received, "status") if "backend" in e] == ["Script"]
    assert run.state.backend == fold_record("\n".join(entry.json for entry in run.log.entries)).backend == "Script"
    assert render_panel(run.state, whole=True)["backend"] == "Script"
    await until(
        lambda: b'glassbox_runs_total{backend="Script",memory="tokens",outcome="complete"} 1.0' in metrics.text()
    )
    assert b'backend="Gone"' not in b"".join(line for line in metrics.text().splitlines() if b"waiting" not in line)
    reply = (await store.history(run.conversation_id))[-1]
    assert (reply.standing, reply.text, reply.backend) == ("whole", received[-1]["content"], "Script")
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
            run, received = await asked(turns, "Hi")
            assert received[-1]["type"] == "complete"
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
    _, received = await asked(works, "Hi")
    backend = works.backends.default
    assert backend.health().ready
    assert backend.ttft_s is not None
    assert 0 < backend.ttft_s <= of(received, "state")[-1]["ttft_s"]
    _, received = await asked(fails, "Hi")
    assert received[-1]["code"] == "backend_unavailable"
    health = fails.backends.default.health()
    assert (health.state, health.reason[:3]) == ("unreachable", "it ")
    assert "sk-1" not in f"{received}{health}"


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
    _, received = await asked(Turns(short, Backends([scripted()]), store, RunRegistry()), "endless")
    assert (received[-1]["type"], received[-1]["reason"]) == ("stopped", "limit")
