"""Guessed keys: only few of them reach the provider."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.turn import TurnRequest
from components.handlers import Handlers
from hosting.identity import COOKIE
from runs.errors import ChatError
from settings import BackendSettings, LimitSettings
from tests.conftest import scripted, until
from tests.live_app import Api, client_of, events_of, live_api, refused, run_on_loop
from tests.pages import Request, cookie
from tests.providers import BAD_KEY, Hang, OpenAIServer, Reply

MOST = 5
GOOD = "sk-good"


class Provider(OpenAIServer):
    """A provider that accepts one key."""

    def __init__(self) -> None:
        def good(request: Any) -> bool:
            return str(request.headers.get("authorization", "")).endswith(GOOD)

        super().__init__(lambda request: Reply() if good(request) else BAD_KEY)
        self.listing = lambda request: self.model_entry("/v1/models") if good(request) else BAD_KEY  # type: ignore[assignment]

    @property
    def refusals(self) -> int:
        return sum(not str(one.headers.get("authorization", "")).endswith(GOOD) for one in self.requests)


@pytest.fixture
def provider() -> Iterator[Provider]:
    with Provider() as server:
        yield server


@pytest.fixture
def app(tmp_path: Path, provider: Provider) -> Iterator[Api]:
    keyed = BackendSettings(name="Keyed", kind="openai", model="test-model", base_url=f"{provider.url}/v1", key="A_KEY")
    limits = LimitSettings(refused_keys_per_minute=MOST)
    with live_api(tmp_path, backends=[scripted(), keyed], limits=limits) as app:
        yield app


def tried(app: Api, key: str, address: str, visitor: str | None = None) -> None:
    """Enters a key on a page, as the visitor of a cookie or as a new one."""
    handlers = Handlers(app.turns, app.identity)
    request: Any = Request({COOKIE: visitor or cookie(app.identity)}, SimpleNamespace(host=address))
    run_on_loop(app, handlers.header.on_key(key, "Keyed", request))


@pytest.mark.filterwarnings("ignore:Keyed rejected this key", "ignore:Too many keys")
def test_refused_keys_of_a_page_are_bounded(app: Api, provider: Provider) -> None:
    good = cookie(app.identity)
    tried(app, GOOD, "203.0.113.1", good)
    for n in range(4 * MOST):
        tried(app, f"sk-guess-{n}", "203.0.113.1")  # with a new cookie each time
    assert provider.refusals == MOST
    one = cookie(app.identity)
    for n in range(4 * MOST):
        tried(app, f"sk-guess-{n}", f"203.0.114.{n}", one)  # from a new address each time
    assert provider.refusals == 2 * MOST
    tried(app, f"{GOOD}", "203.0.113.9")
    assert provider.refusals == 2 * MOST, "others may still try, and a good key is not counted"
    for _ in range(2 * MOST):
        tried(app, GOOD, "203.0.113.9", good)
    held = app.backends.keys.get(app.identity.visitor({COOKIE: good}), "Keyed")
    assert held and held.reveal() == GOOD


@pytest.mark.filterwarnings("ignore:Keyed rejected this key", "ignore:Too many keys")
async def test_parallel_key_trials_are_bounded(app: Api, provider: Provider) -> None:
    await asyncio.gather(*(asyncio.to_thread(tried, app, f"sk-guess-{n}", "203.0.113.1") for n in range(4 * MOST)))
    assert provider.refusals == MOST


@pytest.mark.filterwarnings("ignore:Too many keys")
async def test_cancelled_trials_count_as_refused_keys_and_leave_no_key(app: Api, provider: Provider) -> None:
    provider.listing = Hang()
    handlers, visitor = Handlers(app.turns, app.identity), cookie(app.identity)
    request: Any = Request({COOKIE: visitor}, SimpleNamespace(host="203.0.113.1"))

    def guessed() -> int:
        return sum("sk-guess" in str(one.headers.get("authorization")) for one in provider.requests)

    async def cancelled(key: str) -> None:
        asked = guessed()
        trial = asyncio.create_task(handlers.header.on_key(key, "Keyed", request))
        await until(lambda: trial.done() or guessed() > asked)
        trial.cancel()
        await asyncio.wait({trial})

    owner = app.identity.visitor({COOKIE: visitor})
    app.backends.keys.put(owner, "Keyed", "sk-earlier")
    earlier = app.backends.keys.get(owner, "Keyed")
    for n in range(2 * MOST):
        await asyncio.to_thread(run_on_loop, app, cancelled(f"sk-guess-{n}"))
        assert app.backends.keys.get(owner, "Keyed") is earlier
    assert guessed() == MOST


async def test_stopped_messages_with_a_refused_key_count_as_refused_keys(app: Api, provider: Provider) -> None:
    visitor = app.identity.visitor({COOKIE: cookie(app.identity)})
    app.backends.keys.put(visitor, "Keyed", "sk-guess")

    def asked_for_replies() -> int:
        return sum(one.method == "POST" for one in provider.requests)

    async def sent(*, stops: bool) -> None:
        asked = asked_for_replies()
        with suppress(ChatError):
            run = await app.turns.start(TurnRequest("hello", visitor, backend="Keyed"))
            await until(lambda: run.ended or (stops and asked_for_replies() > asked))
            await run.stop("user")

    await asyncio.to_thread(run_on_loop, app, sent(stops=False))  # from now on the key is known to be refused
    provider.answers, asked = [Hang()], asked_for_replies()
    for _ in range(2 * MOST):
        await asyncio.to_thread(run_on_loop, app, sent(stops=True))
    assert asked_for_replies() - asked == MOST - 1


async def test_messages_with_a_refused_key_are_answered_without_the_provider(app: Api, provider: Provider) -> None:
    async with client_of(app) as client, client_of(app) as other:
        named = {"message": "hello", "backend": "Keyed"}
        for one, key in ((client, "sk-guess"), (other, GOOD)):
            app.backends.keys.put(app.identity.visitor(dict(one.cookies)), "Keyed", key)
        for _ in range(MOST):
            received = await events_of(client, "POST", "/stream", json=named)
            assert received[-1]["code"] == "authentication"
        asked = len(provider.requests)
        answer = await client.post("/stream", json=named)
        message = await refused(answer, 429, "rate_limited")
        assert "Too many keys were refused" in message and 0 < int(answer.headers["retry-after"]) <= 60
        received = await events_of(client, "POST", "/batch", json={"prompts": ["a", "b"], "backends": ["Keyed"]})
        assert [event["code"] for event in received if event["type"] == "error"] == ["rate_limited"] * 2
        assert len(provider.requests) == asked
        assert (await events_of(client, "POST", "/stream", json={"message": "hello"}))[-1]["type"] == "complete"
        for _ in range(MOST + 1):
            assert (await events_of(other, "POST", "/stream", json=named))[-1]["type"] == "complete"
