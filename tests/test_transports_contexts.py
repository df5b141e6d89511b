"""The contexts of `GET /runs/{id}/context` and `POST /context`."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from settings import BackendSettings, LimitSettings
from tests.conftest import scripted
from tests.live_app import Api, client_of, events_of, live_api, refused
from tests.providers import Fail, OpenAIServer, Reply

TALK = [{"role": ("user", "assistant")[n % 2], "content": f"{n} whale " + "words " * 20} for n in range(20)]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    priced = scripted("Priced").model_copy(update={"price": [0.5, 2.0]})
    folder: Path = tmp_path_factory.mktemp("contexts")
    gone: Any = {"name": "Gone", "kind": "langchain", "fallback": "Script", "class": "no_such_package:Model"}
    backends = [scripted(), priced, BackendSettings(**gone)]
    with live_api(folder, backends=backends, limits=LimitSettings(reply_tokens=1000)) as app:
        yield app


async def imported(client: httpx.AsyncClient) -> str:
    answer = await client.post("/conversations", json={"messages": TALK})
    return str(answer.json()["conversation_id"])


async def looked(client: httpx.AsyncClient, **wanted: Any) -> dict[str, Any]:
    answer = await client.post("/context", json=wanted)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


@pytest.mark.parametrize("memory", ["none", "full", "window", "tokens", "summary", "recall"])
async def test_preview_equals_the_context_of_the_run(app: Api, memory: str) -> None:
    async with client_of(app) as client:
        this = await imported(client)
        wanted = {"message": "whale 7", "conversation_id": this, "memory": memory, "window_turns": 2, "recall_turns": 1}
        received = await looked(client, **wanted)
        again = await looked(client, **wanted)
        assert received == again
        assert len((await client.get(f"/conversations/{this}")).json()["messages"]) == len(TALK), "nothing is stored"
        events = await events_of(client, "POST", "/stream", json=wanted)
        given = next(event for event in events if event["type"] == "context")
        for name in ("messages", "left_out", "tokens", "limit", "parts", "estimated"):
            assert received[name] == given[name]
        assert (received["backend"], received["memory"], received["fits"]) == ("Script", memory, True)
        assert received["note"] == given.get("note")
        run = await client.get(f"/runs/{events[0]['run_id']}/context")
        whole = run.json()
        assert (whole["backend"], whole["memory"], len(whole["contexts"])) == ("Script", memory, 1)
        assert whole["contexts"][0]["messages"] == received["messages"]
        # the same turn, when it has ended
        asked = (await client.get(f"/conversations/{this}")).json()["messages"][-2]["id"]
        for later in ({"message_id": asked}, {}):
            named = {name: value for name, value in wanted.items() if name != "message"} | later
            assert (await looked(client, **named))["messages"] == received["messages"]


@pytest.mark.parametrize("message", ["/calculator 17*23", "/calculator 1/0"])
async def test_preview_of_a_command_equals_the_context_of_its_run(app: Api, message: str) -> None:
    async with client_of(app) as client:
        received = await looked(client, message=message)
        events = await events_of(client, "POST", "/stream", json={"message": message})
        given = next(event for event in events if event["type"] == "context")
        for name in ("messages", "left_out", "tokens", "limit", "parts", "estimated"):
            assert received[name] == given[name]
        assert "Here is what the tool calculator found" in received["messages"][-1]["content"]


async def test_preview_of_a_command_runs_only_pure_tools(app: Api) -> None:
    async with client_of(app) as client:
        received = await looked(client, message="/clock UTC")
    assert received["messages"][-1]["content"].startswith("Here is what the tool clock found:\n\n[the result of clock]")
    assert (received["estimated"], received["note"]) == (True, "What /clock returns is not known before it runs.")


async def test_the_backend_that_answered_is_named_in_the_context_the_export_and_its_import(app: Api) -> None:
    async with client_of(app) as client:
        events = await events_of(client, "POST", "/stream", json={"message": "Hi", "backend": "Gone"})
        assert (events[0]["backend"], events[-1]["type"]) == ("Gone", "complete")
        assert (await client.get(f"/runs/{events[0]['run_id']}/context")).json()["backend"] == "Script"
        exported = (await client.get(f"/conversations/{events[0]['conversation_id']}")).json()
        assert [m["backend"] for m in exported["messages"]] == [None, "Script"]
        again = (await client.post("/conversations", json=exported)).json()["conversation_id"]
        received = (await client.get(f"/conversations/{again}")).json()["messages"]
        assert [(m["backend"], m["model"]) for m in received] == [(None, None), ("Script", None)]


async def test_preview_has_parameters_and_cost(app: Api) -> None:
    async with client_of(app) as client:
        this = (await client.post("/conversations", json={"messages": TALK * 2})).json()["conversation_id"]
        received = await looked(client, conversation_id=this, message="Hi", backend="Priced", memory="window")
        assert received["parameters"] == {"window_turns": 4}
        assert sum(m["part"] == "recent" for m in received["messages"]) == len(TALK) * 2 - 22
        wanted = {"conversation_id": this, "message": "Hi", "backend": "Priced", "memory": "window"}
        more = await looked(client, **wanted, window_turns=10, max_tokens=10)
        assert more["parameters"] == {"window_turns": 10}
        assert sum(m["part"] == "recent" for m in more["messages"]) == len(TALK) * 2
        read = more["cost"]["input_tokens"]
        assert read == more["tokens"] > received["tokens"]
        money = {"input": round(read * 0.5 / 1e6, 8), "output": round(10 * 2.0 / 1e6, 8), "currency": "USD"}
        assert more["cost"] == {"input_tokens": read, "output_tokens": 10, "money": money}


async def test_preview_shows_a_message_that_does_not_fit(app: Api) -> None:
    async with client_of(app) as client:
        talk = [{"role": "user", "content": "word " * 6000}, {"role": "assistant", "content": "word " * 6000}]
        this = (await client.post("/conversations", json={"messages": talk})).json()["conversation_id"]
        received = await looked(client, conversation_id=this, message="Hi", memory="full")
        assert (received["fits"], len(received["messages"])) == (False, 4)
        assert received["tokens"] > received["limit"]


async def test_new_conversation_has_a_preview(app: Api) -> None:
    async with client_of(app, cookie=False) as client:
        received = await looked(client, message="Hi")
        assert [(m["role"], m["part"]) for m in received["messages"]] == [("system", "system"), ("user", "message")]


async def test_invalid_preview_requests_are_refused(app: Api) -> None:
    async with client_of(app) as client, client_of(app) as other:
        this = await imported(client)
        theirs = (await client.get(f"/conversations/{this}")).json()["messages"]
        for wanted, status, code in (
            ({}, 400, "invalid_request"),
            ({"message": "Hi", "memory": "telepathy"}, 404, "not_found"),
            ({"message": "Hi", "backend": "none"}, 404, "not_found"),
            ({"message": "Hi", "conversation_id": "no such"}, 404, "not_found"),
            ({"message_id": theirs[0]["id"]}, 400, "invalid_request"),
            ({"conversation_id": this, "message_id": "no such"}, 404, "not_found"),
            ({"conversation_id": this, "message_id": theirs[1]["id"]}, 400, "invalid_request"),
            ({"message": "Hi", "window_turns": 0}, 400, "invalid_request"),
            ({"message": "Hi", "window_turns": 10**30}, 400, "invalid_request"),
            ({"message": "Hi", "token_limit": 1.5}, 400, "invalid_request"),
            ({"message": "x" * 40_000}, 413, "too_large"),
            ({"message": "Hi", "surprise": 1}, 400, "invalid_request"),
        ):
            await refused(await client.post("/context", json=wanted), status, code)
        await refused(await other.post("/context", json={"conversation_id": this, "message": "Hi"}), 404, "not_found")
        mine = await events_of(client, "POST", "/stream", json={"message": "tour"})
        await refused(await other.get(f"/runs/{mine[0]['run_id']}/context"), 404, "not_found")


KEY, PASSWORD = "sk-a-key-of-the-operator", "a-password-in-a-query"


async def test_request_is_shown_to_its_visitor_as_it_was_sent(tmp_path: Path) -> None:
    variables: Any = {"headers": {"X-Password": "${REMOTE_PASSWORD}"}, "query": {"password": "${REMOTE_PASSWORD}"}}
    with OpenAIServer(Reply()) as server:
        entry = BackendSettings(
            name="Remote", kind="openai", model="test-model", base_url=server.base_url, key="REMOTE_KEY", **variables
        )
        secrets = {"REMOTE_KEY": SecretStr(KEY), "REMOTE_PASSWORD": SecretStr(PASSWORD)}
        with live_api(tmp_path, backends=[entry], keys=secrets) as app:
            async with client_of(app) as anna, client_of(app) as ben:
                events = await events_of(anna, "POST", "/stream", json={"message": "Hi \N{RIGHT-TO-LEFT OVERRIDE}"})
                run = events[0]["run_id"]
                path = f"/runs/{run}/prompt"
                shown = (await anna.get(path)).json()
                (sent,) = (request for request in server.requests if request.method == "POST")
                assert KEY in str(sent.headers) and PASSWORD in str(sent.headers) and PASSWORD in sent.path
                assert json.loads(shown["body"]) == sent.body and shown["tokens"] == []
                assert "as it was sent" in shown["note"]
                await refused(await ben.get(path), 404, "not_found")
                app.turns.runs._runs.clear()  # as after a restart
                later = (await anna.get(path)).json()
                assert json.loads(later["body"]) == sent.body and later["note"] == shown["note"]
                await refused(await ben.get(path), 404, "not_found")
                record = (await anna.get(f"/runs/{run}")).text
    (end,) = (event for event in events if event["type"] == "model_end")
    assert end["request"]["model"] == "test-model"
    assert json.loads(record.splitlines()[end["seq"] - 1]) == end
    assert KEY not in record and PASSWORD not in record


async def test_request_of_a_failed_call_is_recorded(tmp_path: Path) -> None:
    with OpenAIServer(Fail(400)) as server:
        entry = BackendSettings(name="Remote", kind="openai", model="test-model", base_url=server.base_url)
        with live_api(tmp_path, backends=[entry]) as app:
            async with client_of(app) as anna:
                events = await events_of(anna, "POST", "/stream", json={"message": "Hi"})
                app.turns.runs._runs.clear()
                shown = (await anna.get(f"/runs/{events[0]['run_id']}/prompt")).json()
                (sent,) = (request for request in server.requests if request.method == "POST")
    assert events[-1]["type"] == "error"
    assert json.loads(shown["body"]) == sent.body


async def test_request_with_the_visitors_own_key_in_it_is_not_kept(tmp_path: Path) -> None:
    with OpenAIServer(Reply()) as server:
        entry = BackendSettings(
            name="Remote", kind="openai", model="test-model", base_url=server.base_url, key="REMOTE_KEY"
        )
        secrets = {"REMOTE_KEY": SecretStr(KEY)}
        with live_api(tmp_path, backends=[entry], keys=secrets) as app:
            async with client_of(app) as anna:
                events = await events_of(anna, "POST", "/stream", json={"message": f"Is {KEY} a good key?"})
                shown = (await anna.get(f"/runs/{events[0]['run_id']}/prompt")).json()
    assert shown["body"] is None
    assert not any("request" in event for event in events)
