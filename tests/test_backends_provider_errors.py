"""Providers' errors in all forms, as the visitor and the operator see them."""

import json
import logging
import threading
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import attempt, retries
from agent.tools import Toolbox
from backends.errors import log_text, to_chat_error
from backends.keys import Key
from backends.provider_errors import provider_error
from backends.redaction import MASK, mask_words
from settings import BackendSettings, ToolSettings
from tests.house import CANARY, housed
from tests.providers import Fail, GeminiServer, OpenAIServer, Raw, Reply, Request, Tool

REQUEST = httpx.Request("POST", "http://127.0.0.1/v1/chat/completions")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_BACKOFF", lambda state: 0.0)


def refused(body: Any, status: int = 400) -> openai.APIStatusError:
    """Returns the SDK's exception for a body."""
    text = body if isinstance(body, str) else json.dumps(body)
    response = httpx.Response(status, text=text, request=REQUEST)
    return openai.OpenAI(api_key="k")._make_status_error_from_response(response)


FORMS: dict[str, tuple[Any, list[str], str]] = {
    "openai": (
        {
            "error": {
                "message": "No such thing.",
                "type": "invalid_request_error",
                "param": "top_k",
                "code": "unknown_x",
            }
        },
        ["invalid_request_error", "unknown_x", "parameter top_k"],
        "No such thing.",
    ),
    "ollama": ({"error": "model is busy"}, [], "model is busy"),
    "fastapi": ({"detail": "Not authenticated"}, [], "Not authenticated"),
    "pydantic": (
        {"detail": [{"type": "int_parsing", "loc": ["body", "seed"], "msg": "Input should be an integer"}]},
        ["int_parsing", "parameter seed"],
        "Input should be an integer",
    ),
    "vllm": (
        {"object": "error", "message": "bad tool choice", "type": "BadRequestError", "param": None, "code": 400},
        ["BadRequestError"],
        "bad tool choice",
    ),
    "mistral": (
        {
            "object": "error",
            "message": {"detail": [{"type": "missing", "loc": ["body", "messages"], "msg": "Required"}]},
        },
        ["missing", "parameter messages"],
        "Required",
    ),
    "mistral's number": (
        {"object": "error", "message": "Expected last role", "type": "invalid_request_message_order", "code": "3230"},
        ["invalid_request_message_order", "3230"],
        "Expected last role",
    ),
    "google": (
        [
            {
                "error": {
                    "code": 400,
                    "message": "Bad schema",
                    "status": "INVALID_ARGUMENT",
                    "details": [{"reason": "ODD"}],
                }
            }
        ],
        ["INVALID_ARGUMENT", "ODD"],
        "Bad schema",
    ),
    "cloudflare": (
        {"success": False, "errors": [{"message": "AiError: bad input", "code": 5006}]},
        ["5006"],
        "AiError: bad input",
    ),
    "openrouter": (
        {
            "error": {
                "message": "Provider returned error",
                "code": 400,
                "metadata": {"raw": '{"error": {"message": "too hot", "type": "value_error", "param": "temperature"}}'},
            }
        },
        ["value_error", "parameter temperature"],
        "too hot",
    ),
    "plain text": ("upstream says no", [], "upstream says no"),
    "a web page": ("<!DOCTYPE html><html><style>p{}</style><body><p>No entry</p></body></html>", [], "No entry"),
    "nothing": ("", [], ""),
    "echoes": (
        {"error": {"message": "x", "type": "my secret is: 12 34", "param": f"{CANARY}!", "code": "a" * 200}},
        [],
        "x",
    ),
    "odd": ({"error": {"message": 5, "type": True, "param": {"a": 1}, "code": [None]}}, [], ""),
    "deep": ("[" * 5000, [], ""),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_error_is_parsed(name: str) -> None:
    body, names, text = FORMS[name]
    error = provider_error(refused(body))
    assert error
    assert (error.names, error.page) == (names, name == "a web page")
    assert text in error.text
    assert len(error.text) <= 4000
    received = to_chat_error("X", refused(body))
    assert received and "HTTP 400" in received.message and all(one in received.message for one in names)
    assert not text or text in log_text(refused(body))


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["error", "message", "type", "detail", "loc"]), inner)
    ),
)


@given(JSON_VALUES, st.integers(400, 599))
def test_any_response_is_parsed_without_an_exception(body: Any, status: int) -> None:
    received = to_chat_error("X", refused(body, status))
    assert received and len(received.message) < 500


def test_a_key_is_never_shown_as_a_name() -> None:
    key = Key("sk_live_abcdefgh")
    received = to_chat_error("X", refused({"error": {"message": "no", "code": key.reveal(), "type": "t"}}, 401))
    assert received and key.reveal() not in received.message


@pytest.mark.parametrize("name", ["a" * 59 + "!", "sk_live_51H8abcd1234", "a_" * 29 + "-", "1" * 60, "a.b.c[1].d"])
def test_odd_names_are_parsed_quickly(name: str) -> None:
    error = provider_error(refused({"error": {"message": "no", "code": name}}))
    assert error and error.code == (name if name == "a.b.c[1].d" else "")


def test_long_pages_and_conversations_are_bounded() -> None:
    error = provider_error(refused("<html>" + "<script" * 14_000 + "<" * 50_000))
    assert error and error.page and len(error.text) <= 4000
    assert mask_words("a" * 4000, ["a" * 32_000]) == MASK
    assert mask_words("Bad input: abcdefgh", ["x" * 1_000_000, "abcdefgh"]) == f"Bad input: {MASK}"


@pytest.mark.parametrize(
    ("parameter", "advice"),
    [
        ("temperature", "temperature under Options"),
        ("max_tokens", "max reply length under Options"),
        ("tools[0].function.name", "turn its tools off"),
        ("messages[2].content", "start a new conversation"),
        ("model", "`model` setting"),
        ("frequency_penalty", "`fields` in its entry"),
        (None, "log has the provider's text"),
    ],
)
def test_the_message_has_advice(parameter: str | None, advice: str) -> None:
    received = to_chat_error("X", refused({"error": {"message": "no", "type": "invalid", "param": parameter}}))
    assert received and advice in received.message


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("<html><body>nginx</body></html>", "base_url"),
        ({"detail": "Not Found"}, "base_url"),
        ("404 page not found", "base_url"),
        ({"error": {"message": "The model `x` does not exist", "code": "model_not_found"}}, "does not know this model"),
        ({"error": "model 'x' not found, try pulling it first"}, "does not know this model"),
    ],
)
def test_a_wrong_address_and_a_missing_model_are_distinguished(body: Any, said: str) -> None:
    received = to_chat_error("X", refused(body, 404))
    assert received and said in received.message


def entry(server: Any, kind: str = "openai", **more: Any) -> BackendSettings:
    address = f"{server.url}/v1" if kind == "openai" else server.url
    about = {"name": "Remote", "kind": kind, "model": server.model, "base_url": address, "timeout": 5.0}
    given = {**about, "key": "TEST_KEY", **more}
    return BackendSettings(**{name: value for name, value in given.items() if value is not None})


SECRET = 'my cat\'s name is "Mitzi" of Zürich'
"""What a visitor wrote."""


def echo(request: Request) -> Raw:
    """Rejects a request and echoes it in every form."""
    said = " | ".join(str(message.get("content")) for message in request.body["messages"])
    key = request.headers.get("authorization", "")
    text = (
        f"Bad input; key {key}; got: {said}; {json.dumps(said)}; {json.dumps(said, ensure_ascii=False)}; {said.upper()}"
    )
    error = {"message": text, "type": "odd_request", "param": "seed", "code": "bad_seed"}
    return Raw(json.dumps({"error": error}), 422, "application/json")


async def test_the_visitor_sees_the_names_and_the_operator_the_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "agent")
    from logs import log_formatter

    caplog.handler.setFormatter(log_formatter("text"))
    with OpenAIServer(Reply(["Your cat is lovely, I say"]), echo) as server:
        async with housed(tmp_path, entry(server), TEST_KEY=CANARY) as house:
            first = await house.ask(SECRET)
            received = await house.ask("What was it?", conversation_id=first[0]["conversation_id"])
    message = received[-1]["message"]
    assert received[-1]["code"] == "invalid_request"
    for name in ("HTTP 422", "odd_request", "bad_seed", "parameter seed"):
        assert name in message
    assert "Bad input" not in message
    assert "Bad input; key Bearer [key]" in caplog.text
    for words in ("Mitzi", "MITZI", "What was", "cat is lovely", CANARY, "rich"):
        assert words not in caplog.text


async def test_tool_results_are_not_logged_either(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "agent")
    call = Reply([], tools=[Tool("calculator", ['{"expression": "123456789+1"}'])])
    with OpenAIServer(call, echo) as server:
        async with housed(tmp_path, entry(server), TEST_KEY=CANARY) as house:
            house.turns.toolbox = Toolbox(ToolSettings(enabled=["calculator"]))
            received = await house.ask("Add them")
    assert received[-1]["code"] == "invalid_request"
    assert "Bad input" in caplog.text
    assert "12345679" not in caplog.text.replace("123456790", "12345679")


async def test_with_messages_in_the_log_the_text_is_not_masked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "agent")
    with OpenAIServer(echo) as server:
        async with housed(tmp_path, entry(server), TEST_KEY=CANARY) as house:
            house.turns.settings = house.turns.settings.model_copy(update={"log_messages": True})
            await house.ask("Mitzi of Zug")
    assert "Mitzi of Zug" in next(r.getMessage() for r in caplog.records if "Bad input" in r.getMessage())


async def test_gemini_errors_have_their_status(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "agent")
    with GeminiServer(Fail(400, None, gemini="The schema is odd.")) as server:
        async with housed(tmp_path, entry(server, "gemini"), TEST_KEY=CANARY) as house:
            received = await house.ask()
    assert "HTTP 400: INVALID_ARGUMENT" in received[-1]["message"]
    assert "The schema is odd." in caplog.text


async def test_a_server_that_asks_for_a_key_says_how_to_set_one(tmp_path: Path) -> None:
    unauthorized = Fail(401, "invalid_api_key", "No key.")
    with OpenAIServer(unauthorized) as server:
        server.listing = unauthorized
        async with housed(tmp_path, entry(server, key=None)) as house:
            health = await house.health()
            received = await house.ask()
            later = house.backends.describe("anna")[0]
    assert (health.state, "asks for a key" in health.reason, "`key`" in health.reason) == ("key_refused", True, True)
    assert received[-1]["code"] == "authentication"
    assert "asks for a key" in received[-1]["message"]
    assert "rejected the key" not in f"{health.reason} {received[-1]['message']} {later['reason']}"


async def test_rejected_headers_are_not_called_a_key(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        server.listing = Fail(403, None, "No.")
        async with housed(tmp_path, entry(server, key=None, headers={"X-Token": "abc"})) as house:
            health = await house.health()
    assert server.requests[0].headers["x-token"] == "abc"
    assert "`headers`" in health.reason


@given(st.text(min_size=8, max_size=60), st.text(max_size=20), st.text(max_size=20), st.booleans())
def test_a_visitors_words_are_masked_everywhere(words: str, before: str, after: str, escaped: bool) -> None:
    echoed = json.dumps(words)[1:-1] if escaped else words
    if len(words.strip()) < 8:
        return
    kept = mask_words(f"{before}{echoed}{after}", [words])
    assert words.strip() not in kept
    assert MASK in kept


def test_a_text_without_the_words_is_unchanged() -> None:
    text = "Unsupported parameter: 'max_tokens' is not supported with this model."
    assert mask_words(text, ["What is the capital of France?", "", "Hi", "\n"]) == text
    assert mask_words("The PIN 4711 is wrong", ["4711"]) == f"The PIN {MASK} is wrong"


async def test_nothing_is_masked_for_a_disabled_log_level(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.WARNING, "agent")
    masked: list[str] = []
    monkeypatch.setattr(attempt, "log_text", lambda exception, words: masked.append("") or "")
    with OpenAIServer(echo) as server:
        async with housed(tmp_path, entry(server), TEST_KEY=CANARY) as house:
            assert (await house.ask(SECRET))[-1]["code"] == "invalid_request"
    assert not masked


@pytest.mark.parametrize("length", [10, 30_000])
async def test_long_words_are_searched_outside_of_the_event_loop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    caplog.set_level(logging.INFO, "agent")
    threads: list[int] = []
    monkeypatch.setattr(
        attempt, "log_text", lambda e, words: threads.append(threading.get_ident()) or log_text(e, words)
    )
    with OpenAIServer(Fail(400, None, "Bad input: my cat is called Mitzi")) as server:
        server.context = 100_000
        async with housed(tmp_path, entry(server, context=100_000), TEST_KEY=CANARY) as house:
            received = await house.ask("my cat is called Mitzi " + "x " * (length // 2))
    assert received[-1]["code"] == "invalid_request"
    assert f"Bad input: {MASK}" in caplog.text and "Mitzi" not in caplog.text
    assert [thread == threading.get_ident() for thread in threads] == [length == 10]


@pytest.mark.parametrize("most", [0, 5, 11, 15, 200])
def test_a_cut_text_does_not_end_in_a_visitors_words(most: int) -> None:
    kept = mask_words("Bad input: abcdefgh and more", ["say:abcdefgh"], most=most)
    assert kept == f"Bad input: {MASK} and more" if most == 200 else kept == ("Bad input: "[:most] + MASK * (most > 11))


LETTERS = "ab\u0130\u03a3\u03c3\u03c2\xe9A "
"""With those whose small form is longer, or depends on the place in a word."""


@given(st.text(LETTERS, min_size=9, max_size=40), st.text(LETTERS, max_size=900))
def test_short_and_long_texts_are_masked_alike(words: str, text: str) -> None:
    """Short and long texts use different algorithms."""
    padding = "".join(chr(0x4E00 + at) for at in range(700))
    assert mask_words(text + padding, [words]) == mask_words(text + "\u4dff", [words])[:-1] + padding


def test_all_of_a_long_log_line_is_bounded() -> None:
    text = log_text(refused({"error": {"message": "x" * 990 + " " + "secret words " * 100}}), ["secret words"])
    assert "secret" not in text
    assert len(text) < 1100
