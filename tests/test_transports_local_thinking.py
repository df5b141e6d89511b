"""The thinking of a local model: switched off, and ended so that the model answers."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from backends.local import LocalBackend
from runs.json_text import encode_json
from tests.conftest import scripted
from tests.grammar import check
from tests.live_app import Api, Events, client_of, events_of, live_api, refused, run_on_loop, socket_of
from tests.local_model import BUNDLED, THINKING_TEMPLATE, _client, busy_slots, with_template

QUESTION: dict[str, Any] = {
    "message": "Tell me a long story about a whale.",
    "temperature": 0,
    "max_tokens": 60,
    "memory": "none",
}
CLOSED = "<think>\n\n</think>\n\n"


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("thinking")
    entries = [with_template(THINKING_TEMPLATE, folder / "thinker.gguf"), BUNDLED, scripted(speed=1)]
    with live_api(folder, backends=entries) as app:
        yield app


@pytest_asyncio.fixture
async def anna(app: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


def thinker(app: Api) -> LocalBackend:
    backend = next(one for one in app.turns.backends if one.name == "Thinker")
    assert isinstance(backend, LocalBackend)
    return backend


async def sent(client: httpx.AsyncClient, **fields: Any) -> Events:
    events = await events_of(client, "POST", "/stream", json=QUESTION | fields)
    check(events)
    return events


def of(events: Events, kind: str) -> list[dict[str, Any]]:
    return [event for event in events if event["type"] == kind]


def text_of(events: Events, kind: str) -> str:
    return "".join(event["content"] for event in of(events, kind))


async def prompt_of(client: httpx.AsyncClient, events: Events) -> str:
    answer = (await client.get(f"/runs/{events[0]['run_id']}/prompt")).json()
    assert answer["note"] is None
    return "".join(token["text"] for token in answer["tokens"])


async def ended(client: httpx.AsyncClient, **fields: Any) -> Events:
    """The events of a run whose thinking is ended after some of it."""
    found: Events = []
    async with client.stream("POST", "/stream", json=QUESTION | fields) as response:
        async for line in response.aiter_lines():
            if not line.startswith("data: "):
                continue
            found.append(json.loads(line.removeprefix("data: ")))
            if found[-1]["type"] == "reasoning" and len(of(found, "reasoning")) == 12:
                answer = await client.post(f"/runs/{found[0]['run_id']}/end_thinking")
                assert answer.status_code == 200, answer.text
    check(found)
    return found


async def test_thinking_is_switched_where_the_template_can(anna: httpx.AsyncClient) -> None:
    await sent(anna)  # it is loaded
    takes = {one["name"]: one["takes"] for one in (await anna.get("/backends")).json()}
    assert "thinking" in takes["Thinker"] and "thinking" not in takes["Local"]
    for thinking in (None, True, False):
        events = await sent(anna, **({} if thinking is None else {"thinking": thinking}))
        (context,) = of(events, "context")
        assert context.get("thinking") == thinking and ("thinking" in context) == (thinking is not None)
        (end,) = of(events, "model_end")
        read = end["timings"]["prompt_tokens"] + end["timings"].get("cached_tokens", 0)
        assert (context["tokens"], context["estimated"]) == (read, False)
        prompt = await prompt_of(anna, events)
        assert prompt.endswith(CLOSED) if thinking is False else prompt.endswith("<think>\n")
        assert bool(text_of(events, "reasoning").strip()) == (thinking is not False)
        if thinking is False:
            assert text_of(events, "token").strip()


async def test_a_model_without_a_switch_is_not_asked(anna: httpx.AsyncClient) -> None:
    events = await sent(anna, backend="Local", thinking=False)
    assert "thinking" not in of(events, "context")[0] and events[-1]["type"] == "complete"


async def test_ended_thinking_is_followed_by_the_answer(app: Api, anna: httpx.AsyncClient) -> None:
    events = await ended(anna, max_tokens=200)
    last, kinds = events[-1], [event["type"] for event in events]
    assert last["type"] == "complete" and last["content"] == text_of(events, "token") != ""
    thought = text_of(events, "reasoning")
    first, second = of(events, "context")
    begun = f"<think>\n{thought.strip()}\n</think>\n\n"
    assert second["messages"][-1]["content"] == begun and second["messages"][-1]["role"] == "assistant"
    assert "ended" in second["messages"][-1]["why"] and second["tokens"] > first["tokens"]
    answering = len(kinds) - 1 - kinds[::-1].index("model_start")
    assert "reasoning" not in kinds[answering:] and "token" not in kinds[:answering]
    assert last["usage"]["output_tokens"] >= 12 and last["usage"]["estimated"]
    backend = thinker(app)
    assert run_on_loop(app, busy_slots(backend)) == 0, "the thinking call has ended"

    async def directly() -> str:
        assert backend._tokenizer
        messages = [(one["role"], one["content"]) for one in first["messages"]]
        prompt = backend._tokenizer._client.format_prompt([r for r, _ in messages], [c for _, c in messages])
        whole = prompt + begun.removeprefix("<think>\n")
        async with _client(backend) as client:
            body = {"prompt": whole, "temperature": 0, "n_predict": 40, "cache_prompt": False}
            answer = await client.post("/completion", json=body, timeout=60)
            return str(answer.json()["content"])

    assert run_on_loop(app, directly()).strip().startswith(last["content"].strip()[:40])
    exported = (await anna.get(f"/conversations/{last_id(events)}")).json()["messages"][-1]
    assert exported["content"] == last["content"]
    record = (await anna.get(f"/runs/{events[0]['run_id']}")).text
    assert encode_json(thought.strip()[:10])[1:-1] in record


def last_id(events: Events) -> str:
    return str(events[0]["conversation_id"])


async def test_a_socket_ends_the_thinking(app: Api, anna: httpx.AsyncClient) -> None:
    async with socket_of(app, anna) as socket:
        await socket.send(json.dumps({"type": "end_thinking"}))
        assert json.loads(await socket.recv())["code"] == "busy"
        await socket.send(json.dumps(QUESTION | {"max_tokens": 200}))
        received: Events = []
        while not received or received[-1]["type"] not in ("complete", "stopped", "error") or "seq" not in received[-1]:
            received.append(json.loads(await socket.recv()))
            if len(of(received, "reasoning")) == 5 and received[-1]["type"] == "reasoning":
                await socket.send(json.dumps({"type": "end_thinking"}))
    assert received[-1]["type"] == "complete" and received[-1]["content"].strip()


async def test_a_reply_is_continued_outside_of_the_thinking(app: Api, anna: httpx.AsyncClient) -> None:
    first = await sent(anna, thinking=False, logprobs=0)
    event = of(first, "token")[4]
    before = "".join(one["content"] for one in of(first, "token")[:4])
    where = {"run_id": first[0]["run_id"], "seq": event["seq"], "token": " perhaps"}
    body = {"continue_from": where, "temperature": 0, "max_tokens": 12}
    for thinking in (True, False):
        events = await events_of(anna, "POST", "/stream", json=body | {"thinking": thinking})
        assert events[-1]["content"].startswith(before + " perhaps") and not of(events, "reasoning")
        assert len(events[-1]["content"]) > len(before + " perhaps")
        (sent_body,) = await sent_requests(app, events)
        end = sent_body["messages"][-1]["content"]
        assert end == ("\n</think>\n\n" if thinking else "") + before + " perhaps"


async def sent_requests(app: Api, events: Events) -> list[Any]:
    run = app.turns.runs.find(events[0]["run_id"])
    assert run
    return [json.loads(run.requests.body(0) or "")]


async def test_thinking_that_cannot_be_ended_is_refused(app: Api, anna: httpx.AsyncClient) -> None:
    async def refusal(run_id: str, status: int, code: str, client: httpx.AsyncClient = anna) -> str:
        return await refused(await client.post(f"/runs/{run_id}/end_thinking"), status, code)

    done = await sent(anna, max_tokens=5)
    assert "has ended" in await refusal(done[0]["run_id"], 409, "busy")
    await refusal("no such run", 404, "not_found")
    async with client_of(app) as ben:
        await refusal(done[0]["run_id"], 404, "not_found", ben)
    for backend, status, code in (("Script", 400, "invalid_request"), ("Local", 409, "busy")):
        body = QUESTION | {"message": "tour", "backend": backend}
        async with anna.stream("POST", "/stream", json=body) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: ") and json.loads(line[6:])["type"] in ("reasoning", "token"):
                    await refusal(response.headers["X-Run-Id"], status, code)
                    break
            await anna.post(f"/runs/{response.headers['X-Run-Id']}/stop")


async def test_a_run_whose_thinking_was_ended_can_be_stopped(app: Api, anna: httpx.AsyncClient) -> None:
    async with anna.stream("POST", "/stream", json=QUESTION | {"max_tokens": 500}) as response:
        run_id, kinds = response.headers["X-Run-Id"], list[str]()
        async for line in response.aiter_lines():
            if not line.startswith("data: "):
                continue
            kinds.append(json.loads(line[6:])["type"])
            if kinds[-1] == "reasoning" and kinds.count("reasoning") == 5:
                await anna.post(f"/runs/{run_id}/end_thinking")
                asyncio.get_running_loop().create_task(anna.post(f"/runs/{run_id}/stop"))
    assert kinds[-1] == "stopped"
    for _ in range(100):
        if not run_on_loop(app, busy_slots(thinker(app))):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("the model works on")
