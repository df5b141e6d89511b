"""The model of a message over each transport, on a running app with a provider's server."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from runs.live import new_id
from settings import BackendSettings
from tests.conftest import scripted, until
from tests.house import asked_for_replies
from tests.live_app import Api, client_of, events_of, events_until_end, live_api, refused, socket_of
from tests.providers import OpenAIServer

MODELS = ["first", "second"]


@dataclass
class House:
    app: Api
    server: OpenAIServer

    @property
    def asked(self) -> list[str]:
        """The models of the requests for replies."""
        return [request.body["model"] for request in asked_for_replies(self.server)]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with OpenAIServer() as server:
        server.models = [{"id": name, "context_length": 4096 * n} for n, name in enumerate(MODELS, 1)]
        many = BackendSettings(name="Many", kind="openai", base_url=server.base_url, models=MODELS)
        with live_api(tmp_path_factory.mktemp("models"), backends=[many, scripted("Script")]) as app:
            yield House(app, server)


@pytest.fixture
def house(shared: House) -> House:
    shared.server.requests.clear()
    return shared


@pytest.fixture
async def anna(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(house.app) as client:
        yield client


async def by_post(house: House, client: httpx.AsyncClient, **more: Any) -> Any:
    return await events_of(client, "POST", "/stream", json={"message": "Hi", **more})


async def by_get(house: House, client: httpx.AsyncClient, **more: Any) -> Any:
    return await events_of(client, "GET", "/stream", params={"query": "Hi", **more})


async def by_socket(house: House, client: httpx.AsyncClient, **more: Any) -> Any:
    async with socket_of(house.app, client) as socket:
        await socket.send(json.dumps({"message": "Hi", **more}))
        return await events_until_end(socket)


async def by_batch(house: House, client: httpx.AsyncClient, **more: Any) -> Any:
    backends = {"backends": [more.pop("backend")]} if "backend" in more else {}
    received = await events_of(client, "POST", "/batch", json={"prompts": ["Hi"], **backends, **more})
    return received[:-1]


async def by_agui(house: House, client: httpx.AsyncClient, **more: Any) -> Any:
    sent = {"threadId": new_id(), "runId": "r", "messages": [{"id": "1", "role": "user", "content": "Hi"}]}
    answer = (await client.post("/agui", json={**sent, "forwardedProps": more})).raise_for_status()
    run = house.app.runs.find(answer.headers["x-run-id"])
    assert run
    await until(lambda: run.ended)
    return [json.loads(entry.json) for entry in run.log.entries]


TRANSPORTS = [by_post, by_get, by_socket, by_batch, by_agui]


@pytest.mark.parametrize("ask", TRANSPORTS)
async def test_message_chooses_its_model(house: House, anna: httpx.AsyncClient, ask: Any) -> None:
    received = [await ask(house, anna), await ask(house, anna, model="second"), await ask(house, anna, model="first")]
    assert house.asked == ["first", "second", "first"]
    assert [one[0]["model"] for one in received] == ["first", "second", "first"]
    assert [one[-1]["type"] for one in received] == ["complete"] * 3
    limits = [next(e["limit"] for e in one if e["type"] == "context") for one in received]
    assert limits[1] > limits[0] == limits[2]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"model": "third"}, "Many offers no model 'third'; it offers "),
        ({"model": "first", "backend": "Script"}, "Script offers no model 'first'"),
        ({"model": "x" * 201}, "model"),
        ({"model": ""}, "Many offers no model ''"),
    ],
)
async def test_a_model_that_is_not_offered_is_refused_everywhere(
    house: House, anna: httpx.AsyncClient, more: dict[str, str], says: str
) -> None:
    batch = {name: [value] if name == "backend" else value for name, value in more.items()}
    batch = {{"backend": "backends"}.get(name, name): value for name, value in batch.items()}
    agui = {"threadId": new_id(), "runId": "r", "messages": [{"id": "1", "role": "user", "content": "Hi"}]}
    answers = [
        await anna.post("/stream", json={"message": "Hi", **more}),
        await anna.get("/stream", params={"query": "Hi", **more}),
        await anna.post("/batch", json={"prompts": ["Hi"], **batch}),
        await anna.post("/agui", json={**agui, "forwardedProps": more}),
        await anna.post("/context", json={"message": "Hi", **more}),
    ]
    for answer in answers:
        assert says in await refused(answer, 400, "invalid_request")
    async with socket_of(house.app, anna) as socket:
        await socket.send(json.dumps({"message": "Hi", **more}))
        error = json.loads(await socket.recv())
        assert (error["type"], error["code"], says in error["message"]) == ("error", "invalid_request", True)
    assert house.asked == []


async def test_the_models_are_listed_and_a_conversation_keeps_its_own(house: House, anna: httpx.AsyncClient) -> None:
    many, script = (await anna.get("/backends")).json()
    assert (many["model"], [one["name"] for one in many["models"]]) == ("first", MODELS)
    assert (script["model"], script["models"]) == (None, [])
    here = {"conversation_id": (await by_post(house, anna, model="second"))[0]["conversation_id"]}
    await by_socket(house, anna, **here)
    context = (await anna.post("/context", json={"message": "Hi", **here})).raise_for_status().json()
    assert (context["backend"], context["model"]) == ("Many", "second")
    await by_post(house, anna, backend="Script", **here)
    await by_post(house, anna, backend="Many", **here)
    assert house.asked == ["second", "second", "first"]


async def test_a_runs_record_has_its_model(house: House, anna: httpx.AsyncClient, tmp_path: Path) -> None:
    received = await by_post(house, anna, model="second")
    record = (await anna.get(f"/runs/{received[0]['run_id']}")).text
    assert json.loads(record.splitlines()[0])["model"] == "second"
    plain = await by_post(house, anna, backend="Script")
    assert "model" not in plain[0], "there is no choice"
