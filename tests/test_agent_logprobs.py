"""The probabilities of tokens: asked for in a request, sent in `token` events."""

import json
import math
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessageChunk, HumanMessage
from pydantic import ValidationError

from agent.logprobs import read_logprobs
from agent.turn import TurnRequest
from agent.turns import Turns
from backends.base import ModelOptions
from backends.local import LocalBackend
from tests.grammar import check_run
from tests.house import Events, asked_for_replies, of
from tests.providers import Fail, Stream
from tests.streams import DONE, asked, delta
from tests.test_backends_local import on_session_loop
from transports.schemas import Message

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.integers(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
TOKENS = st.fixed_dictionaries(
    {},
    optional={name: JSON_VALUES for name in ("token", "logprob", "bytes", "top_logprobs")},
)


def piece(text: str, logprob: float, *others: tuple[str, float], raw: list[int] | None = None) -> dict[str, Any]:
    """A delta with one token, as OpenAI sends it."""
    top = [{"token": one, "logprob": value, "bytes": list(one.encode())} for one, value in ((text, logprob), *others)]
    about = {"token": text, "logprob": logprob, "bytes": raw or list(text.encode()), "top_logprobs": top}
    made = delta(text)
    made["choices"][0]["logprobs"] = {"content": [about], "refusal": None}
    return made


HELLO = [piece("Hel", -0.1, ("Good", -2.5)), piece("lo", -0.2, ("p", -3.0)), delta("", "stop"), DONE]


def logprobs_of(received: Events) -> list[Any]:
    return [each for event in of(received, "token") for each in event.get("logprobs", ())]


async def test_probabilities_are_sent_with_their_tokens(tmp_path: Path) -> None:
    async with asked(tmp_path, Stream(HELLO)) as (house, server):
        received = await house.ask(logprobs=2)
    first, second = of(received, "token")
    assert (first["content"], second["content"]) == ("Hel", "lo")
    assert first["logprobs"] == [{"token": "Hel", "logprob": -0.1, "top": [["Hel", -0.1], ["Good", -2.5]]}]
    assert second["logprobs"] == [{"token": "lo", "logprob": -0.2, "top": [["lo", -0.2], ["p", -3.0]]}]
    body = [request.body for request in server.requests if request.method == "POST"][-1]
    assert (body["logprobs"], body["top_logprobs"]) == (True, 2)


async def test_no_alternatives_leave_the_tokens_own_probability(tmp_path: Path) -> None:
    async with asked(tmp_path, Stream(HELLO)) as (house, _):
        received = await house.ask(logprobs=0)
    assert [each["top"] for each in logprobs_of(received)] == [[], []]


async def test_nothing_is_sent_or_received_without_a_request(tmp_path: Path) -> None:
    async with asked(tmp_path, Stream(HELLO)) as (house, server):
        received = await house.ask()
    assert all("logprobs" not in event for event in received)
    assert not {"logprobs", "top_logprobs"} & [one.body for one in server.requests if one.method == "POST"][-1].keys()


async def test_probabilities_of_held_back_text_come_with_it_and_those_of_thinking_do_not(tmp_path: Path) -> None:
    pieces = [piece("<think>", -0.1), piece("Hm", -0.2), piece("</think>", -0.3), piece("\n", -0.4), piece("Yes", -0.5)]
    async with asked(tmp_path, Stream([*pieces, piece(" <", -0.6), piece("b", -0.7), delta("", "stop")])) as (house, _):
        received = await house.ask(logprobs=1)
    assert [e["content"] for e in of(received, "reasoning")] == ["Hm"]
    tokens = [each["token"] for each in logprobs_of(received)]
    assert tokens[-3:] == ["Yes", " <", "b"] and "Hm" not in tokens


async def test_part_of_a_character_has_its_bytes(tmp_path: Path) -> None:
    parts = [piece("\ufffd", -1.0, raw=[240, 159]), piece("🙂", -1.0, raw=[240, 159, 153, 130]), delta("", "stop")]
    async with asked(tmp_path, Stream(parts)) as (house, _):
        received = await house.ask(logprobs=1)
    assert [each.get("bytes") for each in logprobs_of(received)] == [[240, 159], None]


async def test_server_that_rejects_the_field_still_answers(tmp_path: Path) -> None:
    refusal = Fail(400, "unsupported_parameter", "Unsupported parameter: 'logprobs'")
    async with asked(tmp_path, refusal, Stream(HELLO)) as (house, server):
        received = await house.ask(logprobs=1)
    assert (received[-1]["type"], received[-1]["content"]) == ("complete", "Hello")
    assert not {"logprobs", "top_logprobs"} & asked_for_replies(server)[-1].body.keys()


async def test_backend_that_cannot_tell_says_so(turns: Turns) -> None:
    run = await turns.start(TurnRequest("hello", "anna", logprobs=1))
    assert run.task
    await run.task
    received = check_run(run)
    assert received[-1]["type"] == "complete"
    assert "Script does not report the probabilities of its tokens" in [e["content"] for e in of(received, "status")]


@given(st.lists(TOKENS | JSON_VALUES, max_size=4), st.integers(0, 10))
def test_any_report_becomes_valid_json(tokens: list[Any], alternatives: int) -> None:
    chunk = AIMessageChunk("x", response_metadata={"logprobs": {"content": tokens}})
    for each in read_logprobs(chunk, alternatives):
        json.loads(json.dumps(each, allow_nan=False).encode())
        assert isinstance(each["token"], str) and len(each["top"]) <= alternatives
    assert read_logprobs(chunk, None) == []


@on_session_loop
async def test_probabilities_equal_those_of_a_direct_request_to_the_engine(local: LocalBackend) -> None:
    model: Any = local.chat_model(ModelOptions(8, 0.0, 3))
    found = [
        each async for chunk in model.astream([HumanMessage("Count to five.")]) for each in read_logprobs(chunk, 3)
    ]
    body = {
        "messages": [{"role": "user", "content": "Count to five."}],
        "max_tokens": 8,
        "temperature": 0,
        "logprobs": True,
        "top_logprobs": 3,
        **{k: v for k, v in model.extra_body.items() if k != "return_progress"},
    }
    headers = {"Authorization": f"Bearer {model._key()}"}
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        answer = await client.post(f"{model.openai_api_base}/chat/completions", json=body, headers=headers)
    direct = answer.json()["choices"][0]["logprobs"]["content"]
    assert [each["token"] for each in found] == [one["token"] for one in direct][: len(found)] and found
    for ours, theirs in zip(found, direct, strict=False):
        assert math.isclose(ours["logprob"], theirs["logprob"], abs_tol=0.02)
        assert [token for token, _ in ours["top"]] == [one["token"] for one in theirs["top_logprobs"]]


@pytest.mark.parametrize("value", [-1, 11, "many"])
async def test_wrong_number_of_alternatives_is_rejected(value: Any) -> None:
    with pytest.raises(ValidationError, match="logprobs"):
        Message.model_validate({"message": "Hi", "logprobs": value})
