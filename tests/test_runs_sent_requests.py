import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runs.events import Context
from runs.json_text import encode_json, text_bytes
from runs.recorded_requests import _MOST_BYTES as _MOST_OF_ONE
from runs.recorded_requests import abbreviate_request, complete_request
from runs.registry import RunRegistry
from runs.sent_requests import _LONGEST_BODY, _MOST_BYTES, _MOST_RECORDED, SentRequests
from tests.test_runs_live import a_run, done, writing


def noise(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def test_last_request_of_each_call_is_kept() -> None:
    kept = SentRequests()
    assert kept.body(0) is None
    kept.begin_call()
    assert kept.body(0) is None, "a call may send nothing"
    kept.add(b"{}")
    kept.add(json.dumps({"text": "wörld"}).encode())
    kept.begin_call()
    assert (kept.body(0), kept.body(1)) == ('{"text": "w\\u00f6rld"}', None)


def test_sent_requests_are_bounded() -> None:
    kept = SentRequests()
    for size in (_LONGEST_BODY + 1, _MOST_BYTES - 10_000, 20_000, 5_000):
        kept.begin_call()
        kept.add(noise(size))
    assert [kept.body(n) is None for n in range(4)] == [True, False, True, False]
    assert kept.memory_bytes <= _MOST_BYTES
    kept.begin_call()
    kept.add(b"a" * _LONGEST_BODY)
    assert kept.body(4) == "a" * _LONGEST_BODY


async def test_requests_count_as_memory_of_ended_runs() -> None:
    registry, runs = RunRegistry(kept_bytes=600_000), [a_run() for _ in range(3)]
    for n, run in enumerate(runs):
        run.conversation_id = f"c{n}"
        run.requests.begin_call()
        run.requests.add(noise(400_000))
        registry.add(run)
        await done(run, writing)
    registry.add(a_run())
    assert [registry.find(run.id) is not None for run in runs] == [False, False, True]


LONG = "a long text of the conversation " * 9
TEXTS = st.sampled_from(["Hi", LONG, LONG + "x", "x" * 16, "same_as", ""])
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": TEXTS}), max_size=8
)
VALUES = st.recursive(
    st.none() | st.integers() | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(TEXTS.filter(lambda t: t != "same_as"), inner, max_size=3)
    ),
    max_leaves=8,
)


def context(messages: list[dict[str, Any]]) -> Context:
    return Context([{**message, "tokens": 1, "part": "recent", "why": None} for message in messages], [], 1, 9)


@given(MESSAGES, MESSAGES, VALUES, st.integers(0, 8))
def test_a_recorded_request_is_the_one_that_was_sent(
    given_messages: list[dict[str, Any]], others: list[dict[str, Any]], extra: Any, at: int
) -> None:
    sent = {"model": "m", "messages": [*given_messages[at:], *others, *given_messages], "extra": extra}
    recorded = abbreviate_request(json.dumps(sent), context(given_messages))
    assert recorded is not None
    stored = json.loads(encode_json(recorded))
    assert complete_request(stored, context(given_messages)) == sent


def test_a_recorded_request_does_not_hold_the_conversation_again() -> None:
    messages = [{"role": ("user", "assistant")[n % 2], "content": f"{n} {LONG}"} for n in range(2000)]
    contents = [{"role": "user", "parts": [{"text": one["content"]}]} for one in messages]  # Gemini's form
    recorded = abbreviate_request(json.dumps({"model": "m", "messages": messages}), context(messages))
    assert recorded == {"model": "m", "messages": [{"same_as": [0, 1999]}]}
    other = abbreviate_request(json.dumps({"contents": contents[:500]}), context(messages))
    assert other and LONG not in json.dumps(other)


@pytest.mark.parametrize(
    "body",
    ["", "no JSON", "[]", "7", '{"a": {"same_as": 1}}', json.dumps({"text": "x" * _MOST_OF_ONE}), "[" * 100_000],
)
def test_requests_that_cannot_be_recorded_are_left_out(body: str) -> None:
    assert abbreviate_request(body, context([{"role": "user", "content": "Hi"}])) is None


def test_recorded_requests_are_bounded_and_recorded_once() -> None:
    kept, texts = SentRequests(), "x" * 50_000
    recorded = []
    for call in range(8):
        kept.begin_call()
        kept.add(json.dumps({"text": texts, "call": call}).encode())
        recorded.append(kept.record(call, context([])))
        assert kept.record(call, context([])) is None, "a call within a tool has no request of its own"
    assert [one is not None for one in recorded] == [True] * 5 + [False] * 3
    assert sum(text_bytes(one) for one in recorded) <= _MOST_RECORDED
    assert kept.record(8, None) is None
    kept.add(b"")
    assert kept.body(7) is None
