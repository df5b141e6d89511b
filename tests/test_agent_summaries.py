"""Memory modes in whole turns, over a server that speaks OpenAI's protocol."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import accumulate, pairwise
from typing import Any

import pytest

from agent.metrics import Metrics
from agent.model_input import SUMMARY
from agent.quota import Left
from agent.tools import Toolbox
from agent.turn import TurnRequest
from agent.turns import Turns
from backends import Backends
from backends.openai import OpenAIBackend
from memory import modes
from memory.modes import MODES
from memory.options import TurnOptions
from memory.store import Store
from runs import events
from runs.contexts import complete_context
from runs.errors import ChatError
from runs.live import LiveRun
from runs.registry import RunRegistry
from runs.requester import Requester
from settings import BackendSettings, LimitSettings, MemorySettings, Settings, ToolSettings
from tests.conftest import until
from tests.databases import ON_BOTH
from tests.grammar import check_run
from tests.providers import BROKEN, Answer, Hang, OpenAIServer, Reply, Request, Tool

pytestmark = ON_BOTH


def notes(request: Request) -> bool:
    """Returns True if a request asks for a summary."""
    return "notes of a conversation" in str(request.body["messages"][0]["content"])


@pytest.fixture(autouse=True)
def each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a summary due with each turn, so that few turns suffice."""
    monkeypatch.setattr(modes, "_EXTRA_TURNS", 0)


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@asynccontextmanager
async def turns_on(
    server: OpenAIServer, store: Store, context: int = 4096, limits: LimitSettings | None = None, **memory: Any
) -> AsyncIterator[Turns]:
    entry = BackendSettings(name="Far", kind="openai", base_url=server.base_url, model=server.model, context=context)
    settings = Settings(
        backends=[entry],
        memory=MemorySettings(**{"window_turns": 1, **memory}),
        limits=limits or LimitSettings(reply_tokens=128),
    )
    toolbox = Toolbox(ToolSettings(enabled=["calculator"]))
    turns = Turns(settings, Backends(settings.backends), store, RunRegistry(), toolbox)
    yield turns
    await turns.runs.stop_all()
    await turns.summarizer.close()


async def said(turns: Turns, message: str, run: LiveRun | None = None, memory: str = "summary") -> LiveRun:
    options = TurnOptions(tools=())
    return await ended(turns, TurnRequest(message, "anna", run and run.conversation_id, memory=memory, options=options))


async def ended(turns: Turns, ask: TurnRequest) -> LiveRun:
    run = await turns.start(ask)
    assert run.task
    await asyncio.wait({run.task}, timeout=20)
    check_run(run)
    return run


async def quiet(turns: Turns) -> None:
    await until(lambda: not turns.summarizer._tasks)


def asked(server: OpenAIServer, *, summaries: bool) -> list[list[dict[str, Any]]]:
    return [r.body["messages"] for r in server.requests if r.method == "POST" and notes(r) is summaries]


def contexts_of(run: LiveRun) -> list[events.Context]:
    """Returns the run's complete contexts."""
    logged = [e.event for e in run.log.entries if isinstance(e.event, events.Context)]
    return list(accumulate(logged, lambda before, one: complete_context(one, before)))


def context(run: LiveRun) -> Any:
    assert run.state.context
    return run.state.context


async def test_summary_is_written_between_turns_and_used_by_the_next(server: OpenAIServer, store: Store) -> None:
    written = iter(range(1, 9))
    server.answers = [lambda r: Reply([f"Notes {next(written)}."] if notes(r) else ["Sure."], thinking=["Hm"])]
    async with turns_on(server, store) as turns:
        run = await said(turns, "I am Anna.")
        assert context(run).note is None
        await quiet(turns)
        assert asked(server, summaries=True) == [], "there is nothing older than the last turn"
        run = await said(turns, "I like whales.", run)
        await quiet(turns)
        run = await said(turns, "And the sea.", run)
        await quiet(turns)
        given = asked(server, summaries=False)[-1]
        assert given[0] == {"role": "system", "content": f"You are a helpful assistant.{SUMMARY}Notes 1."}
        assert [m["content"] for m in given[1:]] == ["I like whales.", "Sure.", "And the sea."]
        assert context(run).parts.keys() == {"system", "summary", "recent", "message", "format"}
        assert [item["reason"] for item in context(run).left_out] == ["in the summary"] * 2
        run = await said(turns, "Who am I?", run)
    first, second = asked(server, summaries=True)[:2]
    assert "User: I am Anna.\nAssistant: Sure." in first[1]["content"]
    assert "whales" not in first[1]["content"]
    assert "The notes so far:\nNotes 1." in second[1]["content"]
    assert "User: I like whales." in second[1]["content"] and "Anna" not in second[1]["content"]
    assert asked(server, summaries=False)[-1][0]["content"].endswith(f"{SUMMARY}Notes 2.")


async def test_a_turn_never_waits_for_a_summary(server: OpenAIServer, store: Store) -> None:
    server.answers = [lambda r: Hang() if notes(r) else Reply(["Sure."])]
    async with turns_on(server, store) as turns:
        run = await said(turns, "one")
        run = await said(turns, "two", run)
        await until(lambda: asked(server, summaries=True))
        run = await said(turns, "three", run)  # while the summary hangs
        assert run.state.phase == "complete"
        assert "no summary yet" in context(run).note
        assert [m["content"] for m in asked(server, summaries=False)[-1][1:]] == [
            "one",
            "Sure.",
            "two",
            "Sure.",
            "three",
        ]
        await until(lambda: len(asked(server, summaries=True)) == 2)
        assert len(turns.summarizer._tasks) == 1, "the one that gave way has ended"


async def test_failed_summary_is_reported_and_latest_messages_used(server: OpenAIServer, store: Store) -> None:
    failing: Answer = BROKEN
    server.answers = [lambda r: failing if notes(r) else Reply(["Sure."])]
    async with turns_on(server, store, token_limit=64) as turns:
        run = await said(turns, "one " * 50)
        for message in ("two", "three"):
            run = await said(turns, message, run)
            await quiet(turns)
        run = await said(turns, "four", run)
        note = context(run).note
        assert note.startswith("The summary could not be written: ") and "latest messages that fit" in note
        assert note in [e.event.content for e in run.log.entries if e.type == "status"]
        assert "one" not in str(context(run).messages), "as in the mode tokens"
        failing = Reply(["Notes."])
        await quiet(turns)
        run = await said(turns, "five", run)
        await quiet(turns)
        run = await said(turns, "six", run)
        assert context(run).note == "The summary took 1 model call after the last turn: 7 tokens read, 1 written."
        assert "Notes." in context(run).messages[0]["content"]


async def test_long_conversation_is_summarized_in_parts(server: OpenAIServer, store: Store) -> None:
    server.answers = [lambda r: Reply(["Notes."] if notes(r) else ["Sure."])]
    given: Any = [(("user", "assistant")[n % 2], f"message-{n} " + "word " * 60) for n in range(60)]
    given[20] = ("user", "message-20 " + "endless " * 3000)
    many = LimitSettings(reply_tokens=128, summary_calls=100, summary_input_tokens=100_000)
    async with turns_on(server, store, context=1024, limits=many) as turns:
        conversation_id = await store.create("anna", given)
        await ended(turns, TurnRequest("Hi", "anna", conversation_id, memory="summary", options=TurnOptions(tools=())))
        await quiet(turns)
    pieces = [m[1]["content"] for m in asked(server, summaries=True)]
    assert len(pieces) > 5
    for n in range(60):
        assert sum(f"message-{n} " in piece for piece in pieces) == 1
    assert all(len(piece) < 4 * 1024 for piece in pieces)
    assert sum("[cut]" in piece for piece in pieces) == 1


async def test_summary_calls_and_tokens_per_message_are_limited(server: OpenAIServer, store: Store) -> None:
    server.answers = [lambda r: Reply(["Notes."] if notes(r) else ["Sure."], prompt_tokens=2_000)]
    earlier: Any = [(("user", "assistant")[n % 2], f"message-{n} " + "word " * 400) for n in range(400)]
    limits = LimitSettings(reply_tokens=128, summary_calls=3, summary_input_tokens=6_500)
    async with turns_on(server, store, context=4096, limits=limits) as turns:
        conversation_id = await store.create("anna", earlier)
        metrics = Metrics(turns)
        for turn in (1, 2):
            await ended(
                turns, TurnRequest("Hi", "anna", conversation_id, memory="summary", options=TurnOptions(tools=()))
            )
            await quiet(turns)
            assert len(asked(server, summaries=True)) == 3 * turn
        figures = metrics.text().decode()
        run = await ended(
            turns, TurnRequest("And?", "anna", conversation_id, memory="summary", options=TurnOptions(tools=()))
        )
        assert context(run).note == "The summary took 3 model calls after the last turn: 6,000 tokens read, 3 written."
    assert 'glassbox_tokens_total{backend="Far",direction="read"} 16000.0' in figures, "eight calls of 2,000"


async def test_message_over_the_remaining_summary_tokens_waits_for_the_next_turn(
    server: OpenAIServer, store: Store
) -> None:
    server.answers = [lambda r: Reply(["Notes."] if notes(r) else ["Sure."], prompt_tokens=1_900)]
    earlier: Any = [(("user", "assistant")[n % 2], f"message-{n} " + "word " * 1_200) for n in range(8)]
    limits = LimitSettings(reply_tokens=128, summary_input_tokens=2_000)
    async with turns_on(server, store, context=8192, limits=limits) as turns:
        conversation_id = await store.create("anna", earlier)
        for turn in range(1, 4):
            await ended(
                turns, TurnRequest("Hi", "anna", conversation_id, memory="summary", options=TurnOptions(tools=()))
            )
            await quiet(turns)
            read = [request[1]["content"] for request in asked(server, summaries=True)]
            assert len(read) == turn, "100 tokens are left, and no message fits"
            assert f"message-{turn - 1} " in read[-1] and "[cut]" not in read[-1]


@pytest.mark.parametrize("known", [True, False])
async def test_summary_excludes_thinking_with_only_a_closing_tag(
    server: OpenAIServer, store: Store, known: bool
) -> None:
    thinking = Reply(["They want ", "notes.\n", "</think>\n\n", "Notes: Ann, ", "42."])
    server.answers = [lambda r: thinking if notes(r) else Reply(["Sure."])]
    async with turns_on(server, store) as turns:
        turns.backends.default.opens_thinking = known
        run = None
        for message in ("whales", "boats"):
            run = await said(turns, message, run)
            await quiet(turns)
        run = await said(turns, "nets", run)
        assert "Notes: Ann, 42." in context(run).messages[0]["content"]
        assert "They want" not in str(context(run).messages)


async def test_summary_calls_count_as_messages_of_the_day(server: OpenAIServer, store: Store) -> None:
    server.answers = [lambda r: Reply(["Notes."] if notes(r) else ["Sure."])]
    earlier: Any = [(("user", "assistant")[n % 2], f"message-{n} " + "word " * 400) for n in range(100)]
    limits = LimitSettings(reply_tokens=128, messages_per_day=3, messages_per_minute=2)
    async with turns_on(server, store, context=2048, limits=limits) as turns:
        conversation_id = await store.create("anna", earlier)
        await ended(turns, TurnRequest("Hi", "anna", conversation_id, memory="summary", options=TurnOptions(tools=())))
        await quiet(turns)
        assert len(asked(server, summaries=True)) == 2, "the message itself and two calls are three"
        assert turns.quota.left(Requester("anna")) == Left(minute=1, day=0)
        with pytest.raises(ChatError, match="in a day, 3, are used"):
            await turns.start(TurnRequest("Again", "anna", conversation_id))


async def test_a_summary_call_that_is_cancelled_counts(server: OpenAIServer, store: Store) -> None:
    server.answers = [lambda r: Hang() if notes(r) else Reply(["Sure."])]
    async with turns_on(server, store) as turns:
        seen: list[tuple[int, int]] = []
        turns.summarizer.watchers.append(lambda _, read, written: seen.append((read, written)))
        run = None
        for message in ("whales", "boats"):
            run = await said(turns, message, run)
        await until(lambda: len(asked(server, summaries=True)) > 0)
        await said(turns, "nets", run)
        await until(lambda: bool(seen))
    assert seen[0][0] > 20 and seen[0][1] == 0


async def test_a_summary_belongs_to_its_branch(server: OpenAIServer, store: Store) -> None:
    server.answers = [lambda r: Reply(["Notes of whales."] if notes(r) else ["Sure."])]
    async with turns_on(server, store) as turns:
        run = await said(turns, "whales")
        first = (await store.history(run.conversation_id))[0]
        for message in ("two", "three"):
            run = await said(turns, message, run)
            await quiet(turns)
        edited = await ended(
            turns, TurnRequest("sharks", "anna", run.conversation_id, memory="summary", edit_of=first.id)
        )
        await quiet(turns)
        again = await said(turns, "more", edited)
    assert "whales" not in str(context(again).messages)


async def test_local_model_serves_turns_before_summaries(
    server: OpenAIServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OpenAIBackend, "is_local", True)
    slow = Reply(["."] * 20, pause=0.05)
    server.answers = [lambda r: Hang() if notes(r) else slow if "slow" in str(r.body) else Reply(["Sure."])]
    async with turns_on(server, store) as turns:
        run = await said(turns, "one")
        run = await said(turns, "two", run)
        await until(lambda: len(asked(server, summaries=True)) == 1)
        other = await turns.start(TurnRequest("slow", "ben", memory="full"))
        await until(lambda: not turns.summarizer._writing)
        assert not other.ended
        await until(lambda: other.ended)
        await until(lambda: len(asked(server, summaries=True)) == 2)


async def test_deleting_a_conversation_ends_its_summary(server: OpenAIServer, store: Store) -> None:
    server.answers = [lambda r: Hang() if notes(r) else Reply(["Sure."])]
    async with turns_on(server, store) as turns:
        run = await said(turns, "one")
        run = await said(turns, "two", run)
        await until(lambda: turns.summarizer._writing)
        await turns.conversations.delete(run.conversation_id)
        await until(lambda: not turns.summarizer._tasks and not turns.summarizer._writing)


@pytest.mark.parametrize("mode", MODES)
async def test_context_event_equals_the_providers_request(server: OpenAIServer, store: Store, mode: str) -> None:
    calls = Reply(["I look."], tools=[Tool("calculator", ['{"expression": ', '"17*23"}'])])

    def answer(request: Request) -> Answer:
        if notes(request):
            return Reply(["Notes: whales <b>&amp;\u2028 \U0001f40b."])
        last = request.body["messages"][-1]
        return calls if last["role"] == "user" and "17*23" in last["content"] else Reply(["Sure \U0001f40b."])

    server.answers = [answer]
    words = (
        "whales sing",
        "sharks\n\n  bite",
        "\u05e9\u05dc\u05d5\u05dd \U0001f40b",
        "a\tb <|im_end|>",
        "boats",
        "nets",
    )
    async with turns_on(server, store, recall_turns=2, token_limit=256) as turns:
        run = None
        for message in (*words, "what of whales? 17*23"):
            run = await ended(turns, TurnRequest(message, "anna", run and run.conversation_id, memory=mode))
            await quiet(turns)
        assert run
    received = contexts_of(run)
    sent_in = asked(server, summaries=False)[-2:]
    assert len(received) == 2
    for one, sent in zip(received, sent_in, strict=True):
        assert [(m["role"], m["content"]) for m in one.messages] == [(m["role"], m["content"] or "") for m in sent]
        called = [[(c["function"]["name"]) for c in m.get("tool_calls") or ()] for m in sent]
        assert [[c["name"] for c in m.get("tool_calls", ())] for m in one.messages] == called
        assert sum(one.parts.values()) == one.tokens
    body = [r.body for r in server.requests if r.method == "POST" and not notes(r)][-1]
    assert [tool["name"] for tool in received[0].tools] == [tool["function"]["name"] for tool in body["tools"]]
    if mode == "recall":
        assert {m["why"] for m in received[0].messages if m["part"] == "recalled"} == {"matches whales"}
    if mode == "summary":
        assert "Notes: whales <b>&amp;\u2028 \U0001f40b." in sent_in[0][0]["content"]


async def test_a_summary_lasts_for_many_turns(
    server: OpenAIServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    server.answers = [lambda r: Reply(["Notes."] if notes(r) else ["Sure."])]
    earlier: Any = [(("user", "assistant")[n % 2], f"message-{n}") for n in range(22)]
    async with turns_on(server, store) as turns:
        conversation_id = await store.create("anna", earlier)
        for n in range(13):
            options = TurnOptions(tools=())
            ask = TurnRequest(f"turn-{n}", "anna", conversation_id, memory="summary", options=options)
            assert context(await ended(turns, ask)).note == (
                "The summary took 1 model call after the last turn: 7 tokens read, 1 written." if n in (1, 12) else None
            )
            await turns.summarizer.wait(conversation_id)
    sent = asked(server, summaries=False)
    assert len(asked(server, summaries=True)) == 2, "after the first and the twelfth turn"
    assert [len(messages) for messages in sent] == [24, *range(4, 25, 2), 4]
    for before, after in pairwise(sent[1:-1]):
        assert after[: len(before)] == before, "each request begins as the one before"
