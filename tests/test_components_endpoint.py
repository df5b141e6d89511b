"""Gradio's public endpoint `/chat`, on a running app, through Gradio's own client."""

import asyncio
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import httpx
import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError

from app import App
from settings import LimitSettings
from tests.conftest import scripted
from tests.live_app import live_app, run_on_loop


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    backends = [scripted("Script"), scripted("Slow script", speed=5)]
    limits = LimitSettings(abandoned_seconds=1)
    with live_app(tmp_path_factory.mktemp("endpoint"), backends=backends, limits=limits) as app:
        yield app


@pytest.fixture(scope="module")
def client(app: App) -> Iterator[Client]:
    client = Client(app.url, verbose=False)
    yield client
    client.close()


def test_chat_is_the_only_public_endpoint(client: Client) -> None:
    named = client.view_api(return_format="dict", print_info=False)
    assert isinstance(named, dict)
    assert list(named["named_endpoints"]) == ["/chat"]
    assert not named["unnamed_endpoints"]
    parameters = named["named_endpoints"]["/chat"]["parameters"]
    assert [one["parameter_name"] for one in parameters][:3] == ["message", "backend", "memory"]


def test_reply_grows_until_it_is_complete(client: Client) -> None:
    texts: list[Any] = list(client.submit("tour", "Slow script", "tokens", api_name="/chat"))
    assert len(texts) > 5
    assert all(later.startswith(earlier) for earlier, later in pairwise(texts))
    assert texts[-1] == client.predict("tour", api_name="/chat")


@pytest.mark.parametrize("given", [["hello"], ["hello", "Script"], ["hello", "Script", "none"]])
def test_missing_inputs_over_plain_http_take_their_defaults(app: App, given: list[str]) -> None:
    begun = httpx.post(f"{app.url}gradio_api/call/chat", json={"data": given}, timeout=20).raise_for_status()
    received = httpx.get(f"{app.url}gradio_api/call/chat/{begun.json()['event_id']}", timeout=20).text
    assert "event: complete" in received and "error" not in received


def test_conversation_continues_by_its_id(app: App, client: Client) -> None:
    conversation_id = httpx.post(app.url + "conversations", json={"messages": []}).json()["conversation_id"]
    for message in ("One", "Two"):
        client.predict(message, conversation_id=conversation_id, api_name="/chat")
    kept = httpx.get(f"{app.url}conversations/{conversation_id}").json()["messages"]
    assert [m["content"] for m in kept if m["role"] == "user"] == ["One", "Two"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (("",), "empty"),
        ((5,), "strings"),
        (({"a": 1},), "strings"),
        ((None,), "empty"),
        (("x", "nope"), "'Script'"),
        (("x", "", "nope"), "window"),
        (("x", "", "", "nope"), "conversation"),
        (("cut",), "broke off"),
        (("x" * 40_000,), "32,000"),
    ],
)
def test_bad_input_and_failures_raise_with_the_reason(client: Client, given: Any, says: str) -> None:
    with pytest.raises(AppError) as raised:
        client.predict(*given, api_name="/chat")
    assert says in str(raised.value)


def test_disconnected_client_leaves_no_run(app: App) -> None:
    client = Client(app.url, verbose=False)
    job = client.submit("endless", "Slow script", api_name="/chat")
    while not job.outputs():
        time.sleep(0.05)
    job.cancel()
    client.close()

    async def ended() -> None:
        async with asyncio.timeout(15):
            while list(app.runs.live()):  # noqa: ASYNC110
                await asyncio.sleep(0.1)

    run_on_loop(app, ended())
