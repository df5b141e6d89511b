"""The test servers speak the providers' protocols, checked with the providers' own clients."""

import asyncio
import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from langchain_core.exceptions import (
    ModelAPIError,
    ModelAuthenticationError,
    ModelInvalidRequestError,
    ModelNotFoundError,
    ModelPermissionDeniedError,
    ModelRateLimitError,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk
from langchain_google_genai import ChatGoogleGenerativeAI
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests import providers
from tests.conftest import until
from tests.hub import TOKEN, HubServer
from tests.providers import Drop, Fail, GeminiServer, Hang, OpenAIServer, ProviderServer, Raw, Reply, Request, Tool

pytestmark = [  # both are the clients' own
    pytest.mark.filterwarnings("ignore:coroutine 'ClientResponse.json' was never awaited:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:Inheritance class AiohttpClientSession:DeprecationWarning"),
]
both = pytest.mark.parametrize("kind", [OpenAIServer, GeminiServer])
KEY = "sk-secret-0123456789"


def client(server: ProviderServer) -> BaseChatModel:
    if isinstance(server, OpenAIServer):
        return ChatOpenAI(
            model=server.model,
            base_url=server.base_url,
            api_key=SecretStr(KEY),
            max_retries=0,
            stream_usage=True,
            stream_chunk_timeout=None,
        )
    return ChatGoogleGenerativeAI(
        model=server.model, base_url=server.url, api_key=SecretStr(KEY), max_retries=1, include_thoughts=True
    )


async def said(server: ProviderServer) -> AIMessageChunk:
    """Returns the complete reply, joined from its chunks."""
    whole = AIMessageChunk(content="")
    async for chunk in client(server).astream("Hi"):
        whole += chunk
    return whole


async def broke(server: ProviderServer) -> tuple[str, Exception]:
    """Returns the text before the error, and the error."""
    text = ""
    try:
        async for chunk in client(server).astream("Hi"):
            text += chunk.text
    except Exception as e:
        return text, e
    pytest.fail(f"no error after {text!r}")


def chain_of(error: BaseException) -> str:
    """Returns the classes of an error and of its causes."""
    names = [kind.__name__ for kind in type(error).__mro__]
    return " ".join(names) + (f" < {chain_of(error.__cause__)}" if error.__cause__ else "")


@both
async def test_a_reply_arrives_with_its_usage(kind: type[ProviderServer]) -> None:
    with kind(Reply(["Hello", ", ", "wörld"])) as server:
        reply = await said(server)
        whole = await client(server).ainvoke("Hi")
    assert reply.text == whole.text == "Hello, wörld"
    assert reply.usage_metadata and whole.usage_metadata
    for usage in (reply.usage_metadata, whole.usage_metadata):
        assert (usage["input_tokens"], usage["output_tokens"], usage["total_tokens"]) == (7, 3, 10)
    assert str(reply.response_metadata["finish_reason"]).lower() == "stop"
    assert [request.method for request in server.requests] == ["POST", "POST"]
    assert "Hi" in json.dumps(server.requests[0].body)
    assert KEY in "".join(server.requests[0].headers.values())
    assert (server.open_streams, server.disconnects) == (0, [])


async def test_gemini_separates_thinking_and_text() -> None:
    with GeminiServer(Reply(["Yes"], thinking=["Hm", ", well"])) as server:
        reply = await said(server)
    assert [b["reasoning"] for b in reply.content_blocks if b["type"] == "reasoning"] == ["Hm, well"]
    assert reply.text == "Yes"
    assert reply.usage_metadata and reply.usage_metadata["output_tokens"] == 3
    assert reply.usage_metadata["output_token_details"]["reasoning"] == 2


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_compatible_servers_have_a_field_for_thinking(field: Any) -> None:
    with OpenAIServer(Reply(["Yes"], thinking=["Hm", ", well"], thinking_field=field)) as server:
        sdk = openai.AsyncOpenAI(base_url=server.base_url, api_key=KEY)
        stream = await sdk.chat.completions.create(
            model=server.model, messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        deltas = [chunk.choices[0].delta async for chunk in stream]
        reply = await said(server)
    assert [getattr(delta, field) for delta in deltas if hasattr(delta, field)] == ["Hm", ", well"]
    assert reply.text == "Yes"  # and langchain-openai drops the thinking


async def test_usage_in_every_chunk_grows() -> None:
    with OpenAIServer(Reply(["a", "b", "c"], usage="every")) as server:
        counts = [c.usage_metadata["output_tokens"] async for c in client(server).astream("Hi") if c.usage_metadata]
    assert counts == [0, 1, 2, 3, 3, 3]


@both
async def test_tools_are_called(kind: type[ProviderServer]) -> None:
    with kind(Reply([], tools=[Tool("add", ['{"a": 1', ', "b": 2}'])])) as server:
        assert [(c["name"], c["args"]) for c in (await said(server)).tool_calls] == [("add", {"a": 1, "b": 2})]


@both
async def test_a_slow_response_splits_lines_and_characters(kind: type[ProviderServer]) -> None:
    with kind(Reply(["Zażółć ", "gęślą ", "🦊"], drip=3)) as server:
        assert (await said(server)).text == "Zażółć gęślą 🦊"


@both
@pytest.mark.parametrize(
    ("answer", "before"),
    [(Reply(breaks="cut", after=2), "Hello there"), (Reply(breaks="reset", after=2), "Hello there"), (Drop(), "")],
)
async def test_a_cut_connection_is_an_error(kind: type[ProviderServer], answer: Any, before: str) -> None:
    with kind(answer) as server:
        text, error = await broke(server)
    assert text == before
    expected = {OpenAIServer: "OpenAIConnectionError", GeminiServer: "ClientError"}[kind]
    assert expected in chain_of(error)


@both
async def test_an_early_end_shows_only_by_the_missing_reason(kind: type[ProviderServer]) -> None:
    with kind(Reply(breaks="eof", after=2)) as server:
        reply = await said(server)
    assert reply.text == "Hello there"
    assert "finish_reason" not in reply.response_metadata


@both
@pytest.mark.parametrize("answer", [Reply(breaks="garbage", after=1), Raw()])
async def test_garbage_is_an_error(kind: type[ProviderServer], answer: Any) -> None:
    with kind(answer) as server:
        _, error = await broke(server)
    assert isinstance(error, ValueError)


@both
@pytest.mark.parametrize(
    ("fail", "expected"),
    [
        (providers.BAD_KEY, ModelAuthenticationError),
        (providers.FORBIDDEN, ModelPermissionDeniedError),
        (providers.NO_MODEL, ModelNotFoundError),
        (providers.rate_limit(7), ModelRateLimitError),
        (providers.NO_QUOTA, ModelRateLimitError),
        (providers.NO_IMAGES, ModelInvalidRequestError),
        (providers.TOO_LONG, Exception),
        (providers.BROKEN, ModelAPIError),
        (providers.OVERLOADED, ModelAPIError),
    ],
)
async def test_http_errors(kind: type[ProviderServer], fail: Fail, expected: type[Exception]) -> None:
    with kind(fail) as server:
        text, error = await broke(server)
    assert (text, len(server.requests)) == ("", 1)
    assert isinstance(error, expected)
    cause: Any = error.__cause__
    status = cause.status_code if kind is OpenAIServer else cause.code
    assert status == fail.status
    if fail.retry_after:
        assert cause.response.headers["retry-after"] == "7"
        assert kind is OpenAIServer or cause.details["error"]["details"][0]["retryDelay"] == "7s"
    assert (KEY in str(error)) == (fail is providers.BAD_KEY)
    if kind is OpenAIServer:
        assert cause.code == fail.code


@both
async def test_an_error_within_the_stream(kind: type[ProviderServer]) -> None:
    with kind(Reply(breaks=providers.OVERLOADED, after=2)) as server:
        text, error = await broke(server)
    assert text == "Hello there"
    assert "APIError" in chain_of(error)


@both
async def test_replies_are_used_in_order_or_chosen_by_the_request(kind: type[ProviderServer]) -> None:
    def choose(request: Request) -> Reply:
        return Reply(["a greeting" if "Hi" in json.dumps(request.body) else "none"])

    with kind(providers.rate_limit(1), Reply(["one"]), Reply(["two"])) as server:
        assert isinstance((await broke(server))[1], ModelRateLimitError)
        assert [(await said(server)).text for _ in range(3)] == ["one", "two", "two"]
        server.answers = [choose]
        assert (await said(server)).text == "a greeting"


@both
@pytest.mark.parametrize("answer", [Hang(), Reply(["a"], breaks="hang"), Reply(["a"] * 1000, pause=0.002)])
async def test_a_stop_ends_the_connection(kind: type[ProviderServer], answer: Any) -> None:
    with kind(answer) as server:
        reading = asyncio.create_task(said(server))
        await until(lambda: server.open_streams)
        await asyncio.sleep(0.05)
        reading.cancel()
        await until(lambda: not server.open_streams, most=2)
        assert len(server.disconnects) == len(server.requests) == 1


def test_a_hanging_request_does_not_delay_the_end() -> None:
    def ask(url: str) -> None:
        with pytest.raises(httpx.HTTPError):
            httpx.post(url, json={"stream": True}, timeout=10)

    before = threading.active_count()
    with OpenAIServer(Hang()) as server:
        asking = threading.Thread(target=ask, args=(f"{server.base_url}/chat/completions",))
        asking.start()
        while not server.open_streams:
            time.sleep(0.01)
        begun = time.monotonic()
    assert time.monotonic() - begun < 1
    asking.join(5)
    assert threading.active_count() == before


def test_models_are_listed() -> None:
    with OpenAIServer(model="some-model") as server:
        assert httpx.get(f"{server.base_url}/models").json()["data"][0]["id"] == "some-model"
        assert httpx.get(f"{server.base_url}/models/other").status_code == 404
        assert httpx.post(f"{server.base_url}/other", json={}).json()["error"]["code"] == "model_not_found"
    with GeminiServer(model="some-model") as server:
        assert httpx.get(f"{server.url}/v1beta/models/some-model").json()["inputTokenLimit"] == server.context
        server.listing = providers.BAD_GEMINI_KEY
        refused = httpx.get(f"{server.url}/v1beta/models/some-model")
        assert refused.json()["error"]["details"][0]["reason"] == "API_KEY_INVALID"


def download(server: HubServer, home: Path, *files: str, token: str = "") -> list[str]:
    """Returns each file's path in the cache or the class of the error, from the Hub's client in another process."""
    code = """if True:
        import sys
        from huggingface_hub import hf_hub_download
        for name in sys.argv[1:]:
            try:
                print(hf_hub_download(*name.rsplit("/", 1)))
            except Exception as e:
                print(type(e).__name__)"""
    known = {"HF_ENDPOINT": server.url, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    env = {**os.environ, **known, **({"HF_TOKEN": token} if token else {})}
    command = [sys.executable, "-c", code, *files]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=20, check=True)
    return done.stdout.splitlines()


def test_a_cut_download_resumes(tmp_path: Path) -> None:
    data, kept = b"GGUF" + random.randbytes(24_000_000), 10 * 1024 * 1024  # the client keeps whole chunks of 10 MiB
    with HubServer({"owner/repo/model.gguf": data}, piece=1_000_000) as server:
        server.cut_at, server.pause = 15_000_000, 0.001
        (path,) = download(server, tmp_path, "owner/repo/model.gguf")
    assert Path(path).read_bytes() == data
    got = [(r.method, r.headers.get("range")) for r in server.requests if "/resolve/" in r.path]
    assert got == [("HEAD", None), ("GET", None), ("GET", f"bytes={kept}-")]


def test_the_hub_rejects(tmp_path: Path) -> None:
    names = "owner/repo/none.gguf", "owner/none/model.gguf", "owner/gated/model.gguf"
    with HubServer({"owner/repo/model.gguf": b"GGUF", "owner/gated/model.gguf": b"GGUF"}, {"owner/gated"}) as server:
        received = download(server, tmp_path, *names)
        assert received == ["RemoteEntryNotFoundError", "RepositoryNotFoundError", "GatedRepoError"]
        assert download(server, tmp_path, names[2], token=TOKEN)[0].endswith("model.gguf")
