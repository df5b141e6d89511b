"""Contexts with references to unchanged messages, and the memory of a run's log."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runs.contexts import abbreviate_context, complete_context
from runs.events import Context, Entry, Run, Token, memory_bytes
from runs.fold import apply
from runs.record import decode
from runs.state import AgentState

MESSAGES = st.lists(
    st.builds(lambda role, content: {"role": role, "content": content, "tokens": 3}, st.sampled_from("ua"), st.text()),
    max_size=6,
)
CONTEXTS = st.lists(
    st.builds(lambda messages, out: Context(messages, out, 3, 10), MESSAGES, MESSAGES), min_size=1, max_size=5
)


def abbreviated(contexts: list[Context]) -> list[Context]:
    return [abbreviate_context(one, before) for one, before in zip(contexts, [None, *contexts], strict=False)]


@given(CONTEXTS)
def test_abbreviated_context_can_be_completed(contexts: list[Context]) -> None:
    state = apply(AgentState(), Entry(1, "r", 0.0, Run("c", "b", "m")))
    for seq, (whole, short) in enumerate(zip(contexts, abbreviated(contexts), strict=True), 2):
        state = apply(state, decode(Entry(seq, "r", 1.0, short).json))
        assert state.context == whole


def test_only_new_messages_are_written_in_full() -> None:
    old = [{"role": "user", "content": str(n), "tokens": 1} for n in range(3)]
    new = {"role": "tool", "content": "391", "tokens": 1}
    first = Context(old, old, 3, 10)
    second = abbreviate_context(Context([*old, new], old, 4, 10), first)
    assert second.messages == [{"same_as": 0}, {"same_as": 1}, {"same_as": 2}, new]
    assert second.left_out == [{"same_as": 0}, {"same_as": 1}, {"same_as": 2}]
    assert abbreviate_context(first, None) is first


@pytest.mark.parametrize("index", [5, "0", None, 1.5])
def test_invalid_reference_is_rejected(index: object) -> None:
    message = {"role": "user", "content": "x", "tokens": 1}
    with pytest.raises(ValueError):
        complete_context(Context([{"same_as": index}], [], 1, 10), Context([message], [], 1, 10))
    with pytest.raises(ValueError):
        complete_context(Context([{"same_as": 0}], [], 1, 10), None)


def test_long_json_is_not_cached() -> None:
    long = Entry(1, "r", 0.0, Context([{"role": "user", "content": "x" * 100_000, "tokens": 1}], [], 1, 10))
    assert len(long.json) > 100_000 and long._json is None
    short = Entry(1, "r", 0.0, Token("x", 1))
    assert short.json is short.json


def test_memory_of_an_event_includes_its_texts() -> None:
    assert memory_bytes(Token("x" * 1000, 1)) >= 2000
    context = Context([{"role": "user", "content": "x" * 50_000, "tokens": 1}] * 4, [], 1, 10)
    assert 200_000 < memory_bytes(context) < 300_000
    same = Context([{"same_as": n} for n in range(1000)], [], 1, 10)
    assert memory_bytes(same) > 200_000


@given(CONTEXTS, st.booleans())
def test_texts_of_an_event_are_its_json(contexts: list[Context], long: bool) -> None:
    for one in contexts:
        context = replace(one, messages=one.messages * 1001) if long else one
        assert "".join(Entry(1, "r", 0.0, context).texts()) == Entry(1, "r", 0.0, context).json
