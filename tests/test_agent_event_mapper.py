"""The mapping of LangChain's events to ours, on events of version "v2"."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, SystemMessage
from langgraph.types import Command

from agent.event_mapper import EVENT, MapperState, map_event, truncate_messages
from agent.thinking_tags import Tags
from backends.model_events import PROGRESS
from runs import events
from runs.events import Event

NOW = 1_700_000_000.0


def raw(kind: str, data: Any, *, name: str = "model", step: str = "s", parents: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"event": kind, "name": name, "run_id": step, "parent_ids": list(parents), "tags": [], "data": data}


def mapped(*given_events: dict[str, Any], notes: MapperState | None = None) -> list[Event]:
    notes, found = notes or MapperState(), []
    for at, one in enumerate(given_events):
        new, notes = map_event(one, notes, NOW + at)
        found += new
    return found


def piece(content: Any, **extra: Any) -> dict[str, Any]:
    return raw("on_chat_model_stream", {"chunk": AIMessageChunk(content, additional_kwargs=extra)})


def test_text_becomes_tokens_that_are_counted() -> None:
    assert mapped(piece("Hel"), piece("lo")) == [events.Token("Hel", 1), events.Token("lo", 2)]


def test_chunks_without_text_are_no_tokens() -> None:
    assert mapped(piece(""), piece([]), piece([{"type": "tool_call_chunk"}])) == []


@pytest.mark.parametrize(
    "thinking",
    [
        piece("", reasoning_content="hm"),
        piece([{"type": "thinking", "thinking": "hm"}]),
        piece([{"type": "reasoning", "reasoning": "hm"}]),
    ],
)
def test_visible_thinking_becomes_reasoning(thinking: dict[str, Any]) -> None:
    assert mapped(thinking, piece("so")) == [events.Reasoning("hm"), events.Token("so", 2)]


def test_half_characters_of_a_provider_do_not_reach_the_wire() -> None:
    found = mapped(piece("a\ud83d"), piece("b"), piece("", reasoning_content="\ud83d"), piece("\ude00c"))
    assert found[:2] == [events.Token("a", 1), events.Token("\ufffdb", 2)]
    assert found[2:] == [events.Reasoning("\ufffd"), events.Token("\ufffdc", 4)]


def test_halves_of_a_character_become_one() -> None:
    found = mapped(
        piece("a\ud83d"), piece("\ude00b"), piece("", reasoning_content="\ud83d"), piece("", reasoning_content="\ude01")
    )
    assert found == [events.Token("a", 1), events.Token("😀b", 2), events.Reasoning("😁")]


def call_of(step: str, *texts: str, **output: Any) -> list[dict[str, Any]]:
    whole = AIMessage("".join(texts), **output)
    return [
        raw("on_chat_model_start", {"input": {}}, name="Chat", step=step),
        *(raw("on_chat_model_stream", {"chunk": AIMessageChunk(text)}, step=step) for text in texts),
        raw("on_chat_model_end", {"output": whole}, step=step),
    ]


def said(found: list[Any]) -> list[Any]:
    return [e for e in found if isinstance(e, events.Token | events.Reasoning)]


def test_text_that_turns_out_to_be_thinking_is_retracted() -> None:
    found = said(mapped(*call_of("m", "I add ", "them.\n", "</think>\n\nIt is", " 4.")))
    assert found == [
        events.Token("I add ", 1),
        events.Token("them.\n", 2),
        events.Reasoning("I add them.\n", retracts=True),
        events.Token("It is", 3),
        events.Token(" 4.", 4),
    ]


def test_retraction_covers_one_model_call() -> None:
    found = said(mapped(*call_of("m", "Let me look."), *call_of("n", "Hm.", "</think>Here", ".")))
    assert found[1:] == [
        events.Token("\n\nHm.", 2),
        events.Reasoning("Hm.", retracts=True),
        events.Token("\n\nHere", 3),
        events.Token(".", 4),
    ]


def test_template_opens_thinking_in_each_model_call() -> None:
    notes = MapperState(tags=Tags(opened=True))
    found = list[Any]()
    for one in [*call_of("m", "Hm.\n", "</think>Here", "."), *call_of("n", "And", "</think>there.")]:
        new, notes = map_event(one, notes, 0.0)
        found += new
    assert said(found) == [
        events.Reasoning("Hm.\n"),
        events.Token("Here", 2),
        events.Token(".", 3),
        events.Reasoning("And"),
        events.Token("\n\nthere.", 5),
    ]


@pytest.mark.parametrize(
    ("output", "text"),
    [
        ({}, "It is 4."),
        ({"response_metadata": {"finish_reason": "length"}}, ""),
        ({"tool_calls": [{"name": "clock", "args": {}, "id": "a"}]}, "It is 4."),
    ],
)
def test_unclosed_thinking_is_the_reply_only_if_the_model_ended_it(output: Any, text: str) -> None:
    notes, found = MapperState(tags=Tags(opened=True)), list[Any]()
    for one in call_of("m", "It is ", "4.", **output):
        new, notes = map_event(one, notes, 0.0)
        found += new
    assert "".join(e.content for e in said(found) if isinstance(e, events.Token)) == text
    assert notes.thinks is (False if text else None)


def test_model_call_has_parent_duration_and_usage() -> None:
    usage = {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15, "input_token_details": {"cache_read": 1}}
    found = mapped(
        raw("on_chat_model_start", {"input": {}}, name="Chat", step="m", parents=("agent", "step")),
        raw("on_chat_model_stream", {"chunk": AIMessageChunk("x")}, step="m"),
        raw("on_chat_model_end", {"output": AIMessageChunk("x", usage_metadata=usage)}, step="m"),  # type: ignore[arg-type]
    )
    assert found == [
        events.ModelStart("m", "step", "Chat"),
        events.Token("x", 1),
        events.ModelEnd("m", {"input_tokens": 10, "output_tokens": 5, "cached_tokens": 1}, 2.0),
    ]


@pytest.mark.parametrize("usage", [None, {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}])
def test_usage_that_the_provider_does_not_count_is_estimated(usage: Any) -> None:
    context = raw("on_custom_event", events.Context([], [], 40, 100), name=EVENT)  # type: ignore[arg-type]
    call = {"name": "clock", "args": {"zone": "Europe/Paris"}, "id": "c", "type": "tool_call"}
    end = raw("on_chat_model_end", {"output": AIMessage("x" * 1080, tool_calls=[call], usage_metadata=usage)})
    wanted = {"input_tokens": 40, "output_tokens": 270 + 9, "estimated": True}
    assert mapped(context, end)[-1] == events.ModelEnd("s", wanted, 0.0)


def test_missing_half_of_usage_is_estimated() -> None:
    context = raw("on_custom_event", events.Context([], [], 40, 100), name=EVENT)  # type: ignore[arg-type]
    usage = {"input_tokens": 0, "output_tokens": 7, "total_tokens": 7}
    end = raw("on_chat_model_end", {"output": AIMessage("x", usage_metadata=usage)})  # type: ignore[arg-type]
    wanted = {"input_tokens": 40, "output_tokens": 7, "estimated": True}
    assert mapped(context, end)[-1] == events.ModelEnd("s", wanted, 0.0)


def test_total_tokens_estimate_long_pieces_and_only_grow() -> None:
    usage = {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10}
    first = raw("on_chat_model_end", {"output": AIMessage("a" * 216, usage_metadata=usage)})  # type: ignore[arg-type]
    found = mapped(piece("a" * 216), first, piece("b" * 216), piece("c"), piece(" of"))
    totals = [event.total_tokens for event in found if isinstance(event, events.Token)]
    assert totals == [54, 57, 58, 59]


def test_a_model_that_does_not_stream_gives_its_text_with_its_end() -> None:
    end = raw("on_chat_model_end", {"output": AIMessage("whole", additional_kwargs={"reasoning_content": "why"})})
    assert mapped(end)[:-1] == [events.Reasoning("why"), events.Token("whole", 2)]


def test_chain_events_have_only_new_messages() -> None:
    old = [SystemMessage("s", id="0"), *(HumanMessage(f"old {n}", id=f"h{n}") for n in range(400))]
    asked, reply = HumanMessage("new", id="asked"), AIMessage("reply", id="reply")
    notes = MapperState(seen=frozenset(str(m.id) for m in old))
    found = mapped(
        raw("on_chain_start", {"input": {"messages": [*old, asked]}}, name="agent", step="a"),
        raw("on_chain_start", {"input": {"messages": [*old, asked]}}, name="model", step="b", parents=("a",)),
        raw("on_chain_end", {"output": [Command(update={"messages": [reply]})]}, step="b"),
        raw("on_chain_end", {"output": {"messages": [*old, asked, reply]}}, step="a"),
        notes=notes,
    )
    assert found == [
        events.ChainStart("agent", "a", None, [{"role": "user", "content": "new"}]),
        events.ChainStart("model", "b", "a", []),
        events.ChainEnd("b", [{"role": "assistant", "content": "reply"}]),
        events.ChainEnd("a", []),
    ]


def test_chain_events_have_the_tool_calls_of_a_message() -> None:
    calling = AIMessage("", id="c", tool_calls=[{"name": "clock", "id": "1", "args": {"zone": "UTC"}}])
    (end,) = mapped(raw("on_chain_end", {"output": {"messages": [calling]}}))
    assert isinstance(end, events.ChainEnd)
    assert end.output[0]["tool_calls"] == [{"name": "clock", "id": "1", "args": {"zone": "UTC"}}]


@pytest.mark.parametrize("odd", [None, "text", 3, {}, {"messages": None}, [], set(), {"messages": "text"}])
def test_chain_events_ignore_other_values(odd: Any) -> None:
    assert mapped(raw("on_chain_end", {"output": odd})) == [events.ChainEnd("s", [])]


def test_long_chain_events_are_truncated() -> None:
    message: BaseMessage = HumanMessage("ü" * 100_000, id="long")
    (start,) = mapped(raw("on_chain_start", {"input": {"messages": [message]}}))
    assert isinstance(start, events.ChainStart)
    assert start.truncated is True
    assert start.input[0]["content"].startswith("üü")


MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.text(max_size=50)}),
    max_size=30,
)


@given(MESSAGES, st.integers(1, 3000), st.integers(1, 40))
def test_a_step_takes_at_most_8_kb(messages: list[events.JSON], longer: int, more: int) -> None:
    many = [{**m, "content": m["content"] * longer} for m in messages] * more
    cut, was = truncate_messages(many)
    assert len(json.dumps(cut)) <= 8192
    assert was is (cut != many)
    assert len(cut) <= len(many)


def test_context_and_progress_come_as_custom_events() -> None:
    context = events.Context([], [], 3, 10, True)
    assert mapped(raw("on_custom_event", context, name=EVENT)) == [context]
    (reading,) = mapped(raw("on_custom_event", {"read": 40, "total": 100}, name=PROGRESS))
    assert reading == events.Status("waiting", "Reading your prompt, 40%")
    assert mapped(raw("on_custom_event", {"read": 100, "total": 100}, name=PROGRESS)) == []


@pytest.mark.parametrize("kind", ["on_chain_stream", "on_parser_start", "on_retriever_end", "on_tool_start"])
def test_other_langchain_events_are_ignored(kind: str) -> None:
    before = MapperState(tokens=3)
    assert map_event(raw(kind, {"chunk": "x"}), before, NOW) == ([], before)


def test_map_event_is_pure() -> None:
    start = raw("on_chain_start", {"input": {"messages": [HumanMessage("new", id="x")]}})
    assert map_event(start, MapperState(), NOW) == map_event(start, MapperState(), NOW)
