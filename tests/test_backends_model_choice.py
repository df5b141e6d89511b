"""The choice of a model, over real HTTP and in complete turns, and providers' descriptions of models."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from agent.tools import Toolbox
from backends.chat_model import ChatModelBackend
from memory.options import TurnOptions
from runs.errors import ChatError
from settings import BackendSettings, ToolSettings
from tests import providers
from tests.house import CANARY, House, asked_for_replies, housed, of
from tests.providers import GeminiServer, OpenAIServer, ProviderServer, Raw, Reply, Request

KINDS = [OpenAIServer, GeminiServer]
each = pytest.mark.parametrize("kind", KINDS, ids=["openai", "gemini"])


def listed(server: ProviderServer, name: str, context: int | None = None, *, chat: bool = True, **more: Any) -> Any:
    """Adds a model to the server's list."""
    if isinstance(server, OpenAIServer):
        received = {"id": name, "object": "model", **({"context_length": context} if context else {})}
        return received | ({} if chat else {"type": "embedding"}) | more
    methods = ["generateContent", "countTokens"] if chat else ["embedContent"]
    received = {"name": f"models/{name}", "supportedGenerationMethods": methods}
    return received | ({"inputTokenLimit": context} if context else {}) | more


def entry(server: ProviderServer, **more: Any) -> BackendSettings:
    kind, address = ("openai", f"{server.url}/v1") if isinstance(server, OpenAIServer) else ("gemini", server.url)
    about = {"name": "Remote", "kind": kind, "key": "TEST_KEY", "timeout": 5.0, "base_url": address}
    return BackendSettings(**{**about, **more})


def model_of(request: Request) -> str:
    """Returns the model of a request."""
    named = request.body.get("model") or request.path.removeprefix("/v1beta/models/").partition(":")[0]
    return str(named)


def listing_of(house: House, visitor: str | None = "anna") -> dict[str, Any]:
    (received,) = house.backends.describe(visitor)
    return received


@each
async def test_a_visitor_chooses_one_of_the_listed_models(kind: type[ProviderServer], tmp_path: Path) -> None:
    with kind() as server:
        server.models = [listed(server, "b", 4096), listed(server, "a", 16384), listed(server, "c")]
        async with housed(tmp_path, entry(server, models=["a", "b"]), TEST_KEY=CANARY) as house:
            assert (await house.health()).ready
            assert [(m["name"], m["ready"], m["context"]) for m in listing_of(house)["models"]] == [
                ("a", True, 16384),
                ("b", True, 4096),
            ]
            assert (listing_of(house)["model"], listing_of(house)["context"]) == ("a", 16384)
            received = [await house.ask(), await house.ask(options=TurnOptions(model="b"))]
            with pytest.raises(ChatError, match="Remote offers no model 'c'; it offers a, b") as refused:
                await house.start(options=TurnOptions(model="c"))
            assert refused.value.code == "invalid_request"
    assert [model_of(request) for request in asked_for_replies(server)] == ["a", "b"]
    assert [one[0]["model"] for one in received] == ["a", "b"]
    assert [of(one, "context")[0]["limit"] for one in received] == [16384 - 256, 4096 - 256]


@each
async def test_a_star_offers_the_chat_models_by_name(kind: type[ProviderServer], tmp_path: Path) -> None:
    with kind() as server:
        models = [listed(server, name) for name in ("zeta", "Beta", "alpha")]
        server.models = [*models, listed(server, "vectors", chat=False)]
        async with housed(tmp_path, entry(server, model="*"), TEST_KEY=CANARY) as house:
            assert (await house.health()).ready
            assert [m["name"] for m in listing_of(house)["models"]] == ["alpha", "Beta", "zeta"]
            await house.ask()
            await house.ask(options=TurnOptions(model="zeta"))
            with pytest.raises(ChatError, match="offers no model 'vectors'; it offers "):
                await house.start(options=TurnOptions(model="vectors"))
    assert [model_of(request) for request in asked_for_replies(server)] == ["alpha", "zeta"]


@each
async def test_a_star_has_a_default_of_the_settings(kind: type[ProviderServer], tmp_path: Path) -> None:
    with kind() as server:
        server.models = [listed(server, "a"), listed(server, "b")]
        async with housed(tmp_path, entry(server, model="b", models="*"), TEST_KEY=CANARY) as house:
            await house.health()
            assert [m["name"] for m in listing_of(house)["models"]] == ["a", "b"]
            await house.ask()
    assert [model_of(request) for request in asked_for_replies(server)] == ["b"]


@each
async def test_a_turn_before_the_list_waits_for_it(kind: type[ProviderServer], tmp_path: Path) -> None:
    with kind() as server:
        server.models = [listed(server, "a", 4096), listed(server, "b")]
        async with housed(tmp_path, entry(server, model="*"), TEST_KEY=CANARY) as house:
            received = [await house.ask(), await house.ask(options=TurnOptions(model="b"))]
            assert [one[-1]["type"] for one in received] == ["complete"] * 2
            assert of(received[0], "context")[0]["limit"] == 4096 - 256
        async with housed(tmp_path, entry(server, model="*"), TEST_KEY=CANARY) as house:
            received = [await house.ask(options=TurnOptions(model="other"))]
    assert [model_of(request) for request in asked_for_replies(server)] == ["a", "b"]
    assert (received[0][-1]["type"], received[0][-1]["code"]) == ("error", "backend_unavailable")
    assert "no model 'other'; it has a, b" in received[0][-1]["message"]


@each
@pytest.mark.parametrize(
    "answer", [providers.NO_MODEL, Raw(json.dumps({"data": [], "models": []}), type="application/json")]
)
async def test_without_a_list_a_star_has_no_models_and_a_named_one_works(
    kind: type[ProviderServer], tmp_path: Path, answer: Any
) -> None:
    with kind() as server:
        server.listing = answer
        async with housed(tmp_path, entry(server, model="any"), TEST_KEY=CANARY) as house:
            assert (await house.health()).ready
            assert (await house.ask())[-1]["type"] == "complete"
        async with housed(tmp_path, entry(server, model="*"), TEST_KEY=CANARY) as house:
            health = await house.health()
            assert (health.state, health.reason) == (
                "unavailable",
                "its server lists no chat models: name one in `model`",
            )
            with pytest.raises(ChatError, match="it offers none at the moment"):
                await house.start(options=TurnOptions(model="any"))
            assert (await house.ask())[-1]["code"] == "backend_unavailable"
    assert len(asked_for_replies(server)) == 1


@each
async def test_a_removed_model_is_reported_with_the_nearest(kind: type[ProviderServer], tmp_path: Path) -> None:
    with kind() as server:
        names = ("family-2.5-pro", "family-3.1-pro", "family-3.5-flash-lite", "family-3.8-flash", "other", "vectors")
        server.models = [listed(server, name, chat=name != "vectors") for name in names]
        async with housed(tmp_path, entry(server, model="family-2.5-flash"), TEST_KEY=CANARY) as house:
            health = await house.health()
            received = await house.ask()
    assert health.state == "unavailable"
    assert "no model 'family-2.5-flash'; it has family-3.8-flash, family-3.5-flash-lite, " in health.reason
    assert (received[-1]["code"], health.reason in received[-1]["message"]) == ("backend_unavailable", True)
    assert asked_for_replies(server) == []


@each
async def test_one_of_several_models_may_be_removed(kind: type[ProviderServer], tmp_path: Path) -> None:
    with kind() as server:
        server.models = [listed(server, "b")]
        async with housed(tmp_path, entry(server, models=["a", "b"]), TEST_KEY=CANARY) as house:
            health = await house.health()
            assert (health.ready, health.reason) == (True, "its server has no model 'a'; it has b")
            assert [(m["name"], m["ready"]) for m in listing_of(house)["models"]] == [("a", False), ("b", True)]
            assert listing_of(house)["model"] == "b", "the default is one that works"
            assert (await house.ask())[-1]["type"] == "complete"
            received = await house.ask(options=TurnOptions(model="a"))
            assert (received[-1]["code"], "no model 'a'" in received[-1]["message"]) == ("backend_unavailable", True)
            server.models = [listed(server, "c")]
            assert (await house.health()).state == "unavailable"


@each
@pytest.mark.parametrize(("own", "reported", "limit"), [(2048, 4096, 2048), (8192, 4096, 4096), (None, 4096, 4096)])
async def test_the_context_is_the_providers_limited_by_the_settings(
    kind: type[ProviderServer], tmp_path: Path, own: int | None, reported: int, limit: int
) -> None:
    with kind() as server:
        server.models = [listed(server, "a", reported)]
        async with housed(tmp_path, entry(server, model="a", context=own), TEST_KEY=CANARY) as house:
            await house.health()
            assert listing_of(house)["context"] == limit
            assert of(await house.ask(), "context")[0]["limit"] == limit - 256


@each
@pytest.mark.parametrize("odd", [0, -5, True, "many", None, 1e300, [], {"a": 1}, 10**30, "8192 "])
async def test_an_implausible_context_is_ignored(kind: type[ProviderServer], tmp_path: Path, odd: Any) -> None:
    with kind() as server:
        server.models = [listed(server, "a") | {"context_length": odd, "inputTokenLimit": odd}]
        async with housed(tmp_path, entry(server, model="a"), TEST_KEY=CANARY) as house:
            assert (await house.health()).ready
            assert listing_of(house)["context"] == 8192


async def test_a_models_abilities_are_listed_and_used(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        able = {"architecture": {"input_modalities": ["text", "image"]}, "top_provider": {"max_completion_tokens": 100}}
        seer = listed(server, "seer", 65536, supported_parameters=["temperature", "reasoning", "max_tokens"], **able)
        plain = listed(server, "plain", supported_parameters=["max_tokens", "tools"])
        server.models = [seer, plain]
        async with housed(tmp_path, entry(server, model="*"), TEST_KEY=CANARY) as house:
            house.turns.toolbox = Toolbox(ToolSettings(enabled=["calculator"]))
            await house.health()
            assert [(m["name"], m["thinking"], m["images"], m["takes"]) for m in listing_of(house)["models"]] == [
                ("plain", False, None, ["system_prompt", "max_tokens"]),
                ("seer", True, True, ["system_prompt", "temperature", "max_tokens"]),
            ]
            for model in ("seer", "plain"):
                await house.ask(options=TurnOptions(model=model, temperature=0.3))
    seer, plain = (request.body for request in asked_for_replies(server))
    assert (seer["temperature"], seer["max_tokens"], "tools" in seer) == (0.3, 100, False)
    assert ("temperature" in plain, plain["max_tokens"], "tools" in plain) == (False, 256, True)


@each
@pytest.mark.parametrize("ignores", [["temperature"], {"family-3*": ["temperature"]}])
async def test_an_ignored_option_is_not_sent(kind: type[ProviderServer], tmp_path: Path, ignores: Any) -> None:
    options = TurnOptions(temperature=0.3, max_tokens=77)
    with kind() as server:
        server.models = [listed(server, "family-3.8"), listed(server, "family-2.5")]
        some = entry(server, models=["family-3.8", "family-2.5"], ignores=ignores)
        async with housed(tmp_path, some, TEST_KEY=CANARY) as house:
            await house.health()
            takes = [m["takes"] for m in listing_of(house)["models"]]
            await house.ask(options=options)
            await house.ask(options=TurnOptions(temperature=0.3, model="family-2.5"))
    first, second = (json.dumps(request.body) for request in asked_for_replies(server))
    assert takes[0] == ["system_prompt", "max_tokens"]
    assert ("temperature" in takes[1]) == ("temperature" in second) == isinstance(ignores, dict)
    assert ("temperature" in first, "77" in first) == (False, True)


async def test_an_ignored_longest_reply_is_not_sent_and_still_cuts_the_reply(tmp_path: Path) -> None:
    with OpenAIServer(Reply(["word "] * 50)) as server:
        async with housed(tmp_path, entry(server, model="a", ignores=["max_tokens"]), TEST_KEY=CANARY) as house:
            received = await house.ask(options=TurnOptions(max_tokens=7))
    assert "max_tokens" not in asked_for_replies(server)[0].body
    assert (received[-1]["type"], received[-1]["content"].split()) == ("stopped", ["word"] * 7)


@each
async def test_each_key_has_its_own_list(kind: type[ProviderServer], tmp_path: Path) -> None:
    """A list may contain a visitor's own models, which no other visitor may see."""
    with kind() as server:
        server.models = [listed(server, "public")]
        async with housed(tmp_path, entry(server, model="*"), TEST_KEY=CANARY) as house:
            await house.health()
            house.backends.keys.put("ben", "Remote", "ben's-key")
            server.models = [listed(server, "public"), listed(server, "bens-own")]
            await house.health("ben")
            assert [m["name"] for m in listing_of(house, "ben")["models"]] == ["bens-own", "public"]
            assert [m["name"] for m in listing_of(house)["models"]] == ["public"]
            with pytest.raises(ChatError, match="it offers public"):
                await house.start(options=TurnOptions(model="bens-own"))
            await house.ask(visitor="ben", options=TurnOptions(model="bens-own"))
    assert [model_of(request) for request in asked_for_replies(server)] == ["bens-own"]


@each
async def test_the_model_stays_with_the_conversation(kind: type[ProviderServer], tmp_path: Path) -> None:
    with kind() as server, kind() as other:
        for one in (server, other):
            one.models = [listed(one, "a"), listed(one, "b")]
        entries = entry(server, models=["a", "b"]), entry(other, name="Other", models=["a", "b"])
        async with housed(tmp_path, *entries, TEST_KEY=CANARY) as house:
            first = await house.start(options=TurnOptions(model="b"))
            assert first.task
            await first.task
            here = first.conversation_id
            await house.ask(conversation_id=here)
            assert (await house.turns.store.conversation(here, "anna")).options.model == "b"
            await house.ask(conversation_id=here, backend="Other")
            assert (await house.turns.store.conversation(here, "anna")).options.model is None
    assert [model_of(request) for request in asked_for_replies(server)] == ["b", "b"]
    assert [model_of(request) for request in asked_for_replies(other)] == ["a"]


@each
async def test_a_removed_model_of_a_conversation_is_replaced_by_the_default(
    kind: type[ProviderServer], tmp_path: Path
) -> None:
    with kind() as server:
        server.models = [listed(server, "a"), listed(server, "b")]
        async with housed(tmp_path, entry(server, model="*"), TEST_KEY=CANARY) as house:
            first = await house.start(options=TurnOptions(model="b"))
            assert first.task
            await first.task
            server.models = [listed(server, "a")]
            await house.health()
            await house.ask(conversation_id=first.conversation_id)
    assert [model_of(request) for request in asked_for_replies(server)] == ["b", "a"]


async def test_a_missing_ability_of_one_model_does_not_affect_another(tmp_path: Path) -> None:
    """A model without tools gets requests without them; the entry's other models keep theirs."""

    def answer(request: Request) -> Any:
        refused = request.body["model"] == "a" and "tools" in request.body
        return providers.Fail(400, None, "a does not support tools") if refused else Reply()

    with OpenAIServer(answer) as server:
        async with housed(tmp_path, entry(server, models=["a", "b"]), TEST_KEY=CANARY) as house:
            house.turns.toolbox = Toolbox(ToolSettings(enabled=["calculator"]))
            for model in ("a", "b", "a"):
                await house.ask(options=TurnOptions(model=model))
    asked = [(model_of(request), "tools" in request.body) for request in asked_for_replies(server)]
    assert asked == [("a", True), ("a", False), ("b", True), ("a", False)]


@each
async def test_a_fallback_answers_with_its_own_default(kind: type[ProviderServer], tmp_path: Path) -> None:
    with kind(providers.FORBIDDEN) as server, kind() as other:
        for one in (server, other):
            one.models = [listed(one, "a"), listed(one, "b")]
        entries = (
            entry(server, models=["a", "b"], fallback="Other"),
            entry(other, name="Other", models=["b", "a"]),
        )
        async with housed(tmp_path, *entries, TEST_KEY=CANARY) as house:
            received = await house.ask(options=TurnOptions(model="a"))
            reply = (await house.turns.store.history(house.runs[0].conversation_id))[-1]
            listed_now = {one["name"]: one["ttft_s"] for one in house.backends.describe("anna")}
    assert received[-1]["type"] == "complete"
    assert [model_of(request) for request in asked_for_replies(other)] == ["b"]
    assert (reply.backend, reply.model) == ("Other", "b")
    assert (house.runs[0].state.backend, house.runs[0].state.model) == ("Other", "b")
    assert listed_now["Other"] is not None, "the time to the first token is shown at the backend that was measured"
    assert [time for name, time in listed_now.items() if name != "Other"] == [None]


async def test_the_pages_of_geminis_list_are_joined(tmp_path: Path) -> None:
    with GeminiServer() as server:
        server.page = 2
        server.models = [listed(server, f"model-{n}", 4096 + n) for n in range(5)]
        async with housed(tmp_path, entry(server, model="model-4"), TEST_KEY=CANARY) as house:
            assert (await house.health()).ready
            assert listing_of(house)["context"] == 4100
            asked = [request.path.partition("?")[2] for request in server.requests]
            assert asked == ["pageSize=1000", "pageSize=1000&pageToken=2", "pageSize=1000&pageToken=4"]
            server.page = 0  # every page leads to another
            begun = time.monotonic()
            assert (await house.health()).ready, "a list that does not end lacks no model"
            assert time.monotonic() - begun < 3
    assert len(server.requests) <= 3 + 10


async def test_a_llama_server_reports_its_context(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        meta = {"owned_by": "llamacpp", "meta": {"n_ctx_train": 131072}}
        server.models = [listed(server, "/models/some.gguf", **meta)]
        server.props = {"default_generation_settings": {"n_ctx": 2048}, "modalities": {"vision": True}}
        async with housed(tmp_path, entry(server, model="whatever"), TEST_KEY=CANARY) as house:
            assert (await house.health()).ready, "it answers to any name"
            assert (listing_of(house)["context"], listing_of(house)["images"]) == (2048, True)
            assert "thinking" not in listing_of(house)["takes"]
            server.props["chat_template"] = (
                "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>"
            )
            assert (await house.health()).ready
            assert "thinking" in listing_of(house)["takes"]
            server.props = None
            assert (await house.health()).ready
            assert listing_of(house)["context"] == 131072
    assert all(request.headers["authorization"] == f"Bearer {CANARY}" for request in server.requests)


@each
async def test_names_of_models_use_bounded_memory(kind: type[ProviderServer], tmp_path: Path) -> None:
    with kind() as server:
        async with housed(tmp_path, entry(server, model="*"), TEST_KEY=CANARY) as house:
            backend = house.backends.bind(house.backend.name, "anna")
            assert isinstance(backend, ChatModelBackend)
            for n in range(1000):  # nobody has asked for the list yet: any name may be there
                backend.with_model(f"m{n}")
            assert len(backend._chosen) <= 100
