"""Servers that do not take a request as it is: it is adapted where they say why, and where the settings say so."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent import retries
from agent.tools import Toolbox
from backends import Backends
from backends.openai_rejections import accepted_shape
from backends.openai_request import RequestShape
from backends.provider_errors import ProviderError
from backends.request_shape import LearnedShape
from memory.options import TurnOptions
from settings import BackendSettings, SettingsError, ToolSettings, load_settings
from tests.providers import Answer, Fail, OpenAIServer, Raw, Reply, Request, Tool
from tests.remote import CANARY, asked_for_replies, housed, of


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_BACKOFF", lambda state: 0.0)


def entry(server: OpenAIServer, **more: Any) -> BackendSettings:
    about = {"name": "Picky", "kind": "openai", "model": server.model, "base_url": server.base_url, "timeout": 5.0}
    return BackendSettings(**{**about, **more})


def openai_error(message: str, param: str | None = None, code: str | None = None) -> Any:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def extra_forbidden(*place: str) -> Any:
    return {"type": "extra_forbidden", "loc": ["body", *place], "msg": "Extra inputs are not permitted", "input": 1}


REFUSALS: dict[str, tuple[str, str | None, int, Any]] = {
    "openai, max_tokens": (
        "max_tokens",
        "max_completion_tokens",
        400,
        openai_error(
            "Unsupported parameter: 'max_tokens' is not supported with this model. "
            "Use 'max_completion_tokens' instead.",
            "max_tokens",
            "unsupported_parameter",
        ),
    ),
    "without a parameter's name": (
        "max_tokens",
        "max_completion_tokens",
        400,
        openai_error("Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."),
    ),
    "another name": (
        "max_tokens",
        "max_output_tokens",
        422,
        {"message": "max_tokens is deprecated, use `max_output_tokens` instead"},
    ),
    "azure, stream_options": (
        "stream_options",
        None,
        400,
        openai_error("Unrecognized request argument supplied: stream_options"),
    ),
    "go": ("stream_options", None, 400, {"error": 'json: unknown field "stream_options"'}),
    "rust": (
        "stream_options",
        None,
        422,
        "Failed to deserialize: unknown field `stream_options`, expected one of `model`, `messages`, `max_tokens`, "
        "`temperature`",
    ),
    "mistral": (
        "stream_options",
        None,
        422,
        {"object": "error", "message": {"detail": [extra_forbidden("stream_options")]}, "type": "invalid_request"},
    ),
    "fastapi": ("stream_options", None, 422, {"detail": [extra_forbidden("stream_options", "include_usage")]}),
    "detail as text": (
        "stream_options",
        None,
        422,
        {"message": json.dumps({"detail": [extra_forbidden("stream_options")]}), "code": "1000"},
    ),
    "vllm": (
        "stream_options",
        None,
        400,
        {
            "object": "error",
            "message": str([extra_forbidden("stream_options")]),
            "type": "BadRequestError",
            "code": 400,
        },
    ),
    "azure ai": (
        "stream_options",
        None,
        400,
        openai_error("Validation error at #/stream_options: Extra inputs are not permitted"),
    ),
    "json schema": (
        "stream_options",
        None,
        400,
        openai_error("Additional properties are not allowed ('stream_options' was unexpected)"),
    ),
    "openai, temperature": (
        "temperature",
        None,
        400,
        openai_error(
            "Unsupported value: 'temperature' does not support 0.3 with this model. Only the default (1) value is "
            "supported.",
            "temperature",
            "unsupported_value",
        ),
    ),
    "litellm": (
        "temperature",
        None,
        400,
        openai_error(
            "litellm.UnsupportedParamsError: openai does not support parameters: ['temperature'], for model=o"
        ),
    ),
    "xai": (
        "temperature",
        None,
        400,
        {"code": "Client error", "error": "Model X does not support parameter temperature."},
    ),
    "camel case": (
        "max_tokens",
        "max_completion_tokens",
        400,
        {"error": "Argument not supported on this model: maxTokens"},
    ),
    "groq": ("temperature", None, 400, openai_error("property 'temperature' is unsupported")),
    "google": (
        "stream_options",
        None,
        400,
        [
            {
                "error": {
                    "code": 400,
                    "message": 'Invalid JSON payload received. Unknown name "stream_options": Cannot find field.',
                    "status": "INVALID_ARGUMENT",
                }
            }
        ],
    ),
    "openrouter": (
        "temperature",
        None,
        400,
        {
            "error": {
                "message": "Provider returned error",
                "code": 400,
                "metadata": {"raw": json.dumps(openai_error("temperature: not supported", "temperature"))},
            }
        },
    ),
    "cloudflare": (
        "stream_options",
        None,
        400,
        {"success": False, "errors": [{"message": "AiError: unknown parameter 'stream_options'", "code": 5006}]},
    ),
}


def refusing(field: str, status: int, body: Any) -> Callable[[Request], Answer]:
    """Answers every request that has the field with this error."""
    text = body if isinstance(body, str) else json.dumps(body)
    kind = "text/plain" if isinstance(body, str) else "application/json"
    return lambda request: Raw(text, status, kind) if field in request.body else Reply()


@pytest.mark.parametrize("name", REFUSALS)
async def test_a_refused_field_is_renamed_or_left_out(tmp_path: Path, name: str) -> None:
    field, new, status, body = REFUSALS[name]
    with OpenAIServer(refusing(field, status, body)) as server:
        async with housed(tmp_path, entry(server)) as house:
            told = [await house.ask(options=TurnOptions(temperature=0.3)) for _ in range(2)]
            stored = [await house.turns.store.history(run.conversation_id) for run in house.runs]
            takes = house.backends.describe("anna")[0]["takes"]
    assert [(one[-1]["type"], one[-1]["content"]) for one in told] == [("complete", "Hello there!")] * 2
    sent = [request.body for request in asked_for_replies(server)]
    assert [field in body for body in sent] == [True, False, False], "the second turn knows it"
    assert not new or [body.get(new) for body in sent[1:]] == [256, 256]
    kept = {"max_tokens", "stream_options", "temperature"} - {field}
    assert all(kept <= body.keys() for body in sent), "nothing else was left out"
    assert [len(of(one, "model_start")) for one in told] == [1, 1]
    word = {"temperature": "temperature", "max_tokens": new or ""}.get(field, field)
    assert word in (stored[0][-1].note or "")
    assert any(word in e["content"] for e in of(told[0], "status"))
    assert stored[1][-1].note is None, "it is said once"
    assert ("temperature" in takes) == (field != "temperature")


async def test_several_fields_are_adapted_in_one_turn(tmp_path: Path) -> None:
    def answer(request: Request) -> Answer:
        for name in ("max_tokens", "max_completion_tokens", "temperature", "stream_options"):
            if name in request.body:
                return Raw(json.dumps(openai_error(f"Unknown parameter: '{name}'.", name)), 400, "application/json")
        if request.body["messages"][0]["role"] == "system":
            return Fail(400, None, "System role not supported")
        return Reply()

    with OpenAIServer(answer) as server:
        async with housed(tmp_path, entry(server)) as house:
            told = await house.ask("Hi", options=TurnOptions(temperature=0.3, system_prompt="Be brief."))
            assert house.backends.describe("anna")[0]["takes"] == ["system_prompt"]
    assert (told[-1]["type"], told[-1]["content"]) == ("complete", "Hello there!")
    last = asked_for_replies(server)[-1].body
    assert last["messages"] == [{"role": "user", "content": "Be brief.\n\nHi"}]
    assert last.keys() == {"model", "messages", "stream"}


NO_SYSTEM: dict[str, tuple[int, Any]] = {
    "gemma": (400, openai_error("System role not supported")),
    "template": (
        500,
        {"error": {"code": 500, "message": "Jinja Exception: System role not supported", "type": "server"}},
    ),
    "google": (
        400,
        [{"error": {"code": 400, "message": "Developer instruction is not enabled for models/gemma-3-27b-it"}}],
    ),
    "openai": (
        400,
        openai_error(
            "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
            "messages[0].role",
            "unsupported_value",
        ),
    ),
    "mistral": (400, openai_error("Only user, assistant and tool roles are supported!")),
    "alternate": (400, {"detail": "Conversation roles must alternate user/assistant/user/assistant/..."}),
    "pydantic": (
        422,
        {
            "detail": [
                {
                    "loc": ["body", "messages", 0, "role"],
                    "msg": "Input should be 'user' or 'assistant'",
                    "input": "system",
                }
            ]
        },
    ),
    "plain": (400, "system messages are not allowed for this model"),
    "role first": (400, {"error": {"message": "role 'system' is not supported"}}),
    "one of": (400, openai_error("'system' is not one of ['user', 'assistant'] - 'messages.0.role'")),
    "first": (400, {"message": 'messages: first message must use the "user" role'}),
    "unknown": (422, {"detail": "Unknown role system"}),
    "instruction": (400, {"error": "The input system_instruction is not supported."}),
}


@pytest.mark.parametrize("name", NO_SYSTEM)
async def test_a_server_without_a_system_role_gets_the_prompt_with_the_first_message(tmp_path: Path, name: str) -> None:
    status, body = NO_SYSTEM[name]
    text = body if isinstance(body, str) else json.dumps(body)

    def answer(request: Request) -> Answer:
        has_system = any(message["role"] == "system" for message in request.body["messages"])
        return (
            Raw(text, status, "text/plain" if isinstance(body, str) else "application/json") if has_system else Reply()
        )

    with OpenAIServer(answer) as server:
        async with housed(tmp_path, entry(server)) as house:
            options = TurnOptions(system_prompt="Be brief.")
            told = await house.ask("Hi", options=options)
            later = await house.ask("And now?", options=options, conversation_id=told[0]["conversation_id"])
            takes = house.backends.describe("anna")[0]["takes"]
    assert (told[-1]["type"], told[-1]["content"]) == ("complete", "Hello there!")
    assert [m["content"] for m in asked_for_replies(server)[-1].body["messages"]] == [
        "Be brief.\n\nHi",
        "Hello there!",
        "And now?",
    ]
    assert len(asked_for_replies(server)) == 3
    assert "system prompt" in " ".join(e["content"] for e in of(told, "status"))
    assert "system_prompt" in takes
    assert "in front of the first message" in of(later, "context")[0]["note"]


async def test_a_refusal_within_the_stream_is_understood(tmp_path: Path) -> None:
    error = openai_error("Unsupported parameter: 'temperature'", "temperature", "unsupported_parameter")
    stream = Raw(f"data: {json.dumps(error)}\n\n", 200, "text/event-stream")
    with OpenAIServer(lambda request: stream if "temperature" in request.body else Reply()) as server:
        async with housed(tmp_path, entry(server)) as house:
            told = await house.ask(options=TurnOptions(temperature=0.3))
    assert (told[-1]["type"], len(asked_for_replies(server))) == ("complete", 2)


async def test_a_field_of_extra_body_may_take_anothers_place(tmp_path: Path) -> None:
    more = {"fields": {"max_tokens": False}, "extra_body": {"max_completion_tokens": 5}}
    with OpenAIServer() as server:
        async with housed(tmp_path, entry(server, **more)) as house:
            await house.ask()
    (request,) = asked_for_replies(server)
    assert ("max_tokens" in request.body, request.body["max_completion_tokens"]) == (False, 5)


async def test_two_names_for_one_field_are_one_too_many(tmp_path: Path) -> None:
    text = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."

    def answer(request: Request) -> Answer:
        return Fail(400, None, text) if {"max_tokens", "max_completion_tokens"} <= request.body.keys() else Reply()

    with OpenAIServer(answer) as server:
        async with housed(tmp_path, entry(server, extra_body={"max_completion_tokens": 5})) as house:
            assert (await house.ask())[-1]["type"] == "complete"
    assert asked_for_replies(server)[-1].body["max_completion_tokens"] == 5


async def test_what_was_learned_is_forgotten_after_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.request_shape._KEPT_S", 0.0)
    field, _, status, body = REFUSALS["azure, stream_options"]
    with OpenAIServer(refusing(field, status, body)) as server:
        async with housed(tmp_path, entry(server)) as house:
            for _ in range(2):
                await house.ask()
    assert [field in request.body for request in asked_for_replies(server)] == [True, False, True, False]


@pytest.mark.parametrize(
    "echoed", ["Unsupported parameter: 'temperature'", "System role not supported", "unknown field max_tokens"]
)
async def test_words_of_a_visitor_change_no_later_request(tmp_path: Path, echoed: str) -> None:
    with OpenAIServer(Fail(400, "content_policy", f"Refused: {echoed}")) as server:
        async with housed(tmp_path, entry(server)) as house:
            options = TurnOptions(temperature=0.3)
            assert (await house.ask(echoed, options=options))[-1]["code"] == "invalid_request"
            server.answers = [Reply()]
            assert (await house.ask(options=options))[-1]["type"] == "complete"
            assert house.backends.describe("anna")[0]["takes"] == ["system_prompt", "temperature", "max_tokens"]
    last = asked_for_replies(server)[-1].body
    assert (last["temperature"], last["max_tokens"], last["messages"][0]["role"]) == (0.3, 256, "system")


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("Invalid value for 'temperature': must be at most 1.", "temperature"),
        ("max_tokens is too large: 256. This model supports at most 16 completion tokens.", "max_tokens"),
        ("The temperature of this conversation is refused.", None),
        ("messages: image_url is not supported", "messages[0].content"),
    ],
)
async def test_a_refused_value_is_the_visitors_to_change(tmp_path: Path, message: str, param: str | None) -> None:
    answer = Raw(json.dumps(openai_error(message, param, "invalid_value")), 400, "application/json")
    with OpenAIServer(answer) as server:
        async with housed(tmp_path, entry(server)) as house:
            told = await house.ask(options=TurnOptions(temperature=0.3))
    assert told[-1]["code"] == "invalid_request"
    assert not param or f"parameter {param}" in told[-1]["message"]
    assert len(asked_for_replies(server)) == 1


ASKED = "What do temperature and max_tokens mean?"


async def test_only_the_refused_field_is_left_out_where_a_server_repeats_the_request(tmp_path: Path) -> None:
    def answer(request: Request) -> Answer:
        text = f"Unrecognized argument: stream_options; request was: {request.body['messages']}"
        return Raw(text, 400, "text/plain") if "stream_options" in request.body else Reply()

    with OpenAIServer(answer) as server:
        async with housed(tmp_path, entry(server)) as house:
            told = await house.ask(ASKED, options=TurnOptions(temperature=0.3))
            assert house.backends.describe("anna")[0]["takes"] == ["system_prompt", "temperature", "max_tokens"]
    assert told[-1]["type"] == "complete"
    first, second = (request.body for request in asked_for_replies(server))
    assert first.keys() - second.keys() == {"stream_options"}
    assert len([e for e in of(told, "status") if "does not accept" in e["content"]]) == 1


@pytest.mark.parametrize("status", [500, 200])
@pytest.mark.parametrize("told_of", ["why is temperature deprecated?", "unknown field max_tokens"])
async def test_a_crash_changes_no_later_request(tmp_path: Path, status: int, told_of: str) -> None:
    error = {"error": {"message": f"worker crashed on prompt: {told_of}"}}
    text = json.dumps(error) if status == 500 else f"data: {json.dumps(error)}\n\n"
    crash = Raw(text, status, "application/json" if status == 500 else "text/event-stream")
    with OpenAIServer(crash, Reply()) as server:
        async with housed(tmp_path, entry(server)) as house:
            options = TurnOptions(temperature=0.3)
            await house.ask("Hi", options=options)  # the error is in other words than the visitor's
            assert (await house.ask("Hi", options=options))[-1]["type"] == "complete"
            assert house.backends.describe("anna")[0]["takes"] == ["system_prompt", "temperature", "max_tokens"]
    assert all((r.body["temperature"], r.body["max_tokens"]) == (0.3, 256) for r in asked_for_replies(server))


@pytest.mark.parametrize(
    "message",
    [
        "temperature: 2.0 is not supported, must be between 0 and 1",
        "temperature 2 is not allowed: it must be <= 1",
        "Unsupported value for temperature: at most 1",
        "temperature=2.0 is not supported by this model; the maximum is 1.0",
        "'temperature' does not support 2.0: the valid range is [0, 1]",
        "Unsupported temperature: values greater than 1 are rejected",
        "temperature 2 not supported, use 0 to 1",
        "max_tokens 256 is not supported: up to 128",
        "max_tokens 256 is not supported, use max_tokens <= 128",
        "max_tokens is not allowed to exceed the model's limit",
    ],
)
@pytest.mark.parametrize(("param", "code"), [(None, None), ("temperature", "unsupported_value")])
async def test_a_value_out_of_range_leaves_the_field_to_others(
    tmp_path: Path, message: str, param: str | None, code: str | None
) -> None:
    answer = Raw(json.dumps(openai_error(message, param, code)), 400, "application/json")
    with OpenAIServer(answer, Reply()) as server:
        async with housed(tmp_path, entry(server)) as house:
            told = await house.ask(options=TurnOptions(temperature=2.0))
            await house.ask(visitor="bert", options=TurnOptions(temperature=0.5))
    assert told[-1]["code"] == "invalid_request"
    _, last = (request.body for request in asked_for_replies(server))
    assert (last["temperature"], last["max_tokens"]) == (0.5, 256)


def changed(text: str, *messages: dict[str, Any], status: int | None = 400, **more: str) -> dict[str, str | None]:
    """The names of fields after an error of this text."""
    body = {"messages": messages, "max_tokens": 1, "temperature": 0.3, "stream_options": {}}
    found = accepted_shape(RequestShape(), ProviderError(status, text=text, **more), body, "X")
    return dict(found[0].fields) if found else {}


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": ASKED},
        {"role": "user", "content": [{"type": "text", "text": ASKED}]},
        {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "a", "arguments": ASKED}}]},
        {"role": "assistant", "content": "", "reasoning_content": ASKED},
        {"role": "tool", "content": ASKED},
    ],
)
def test_words_of_the_conversation_name_no_field(message: dict[str, Any]) -> None:
    assert changed(f"Request {{{ASKED}}} has an unknown field: stream_options", message) == {"stream_options": None}
    assert changed(f"Unsupported model. {ASKED}", message) == {}


def test_one_field_is_changed_at_a_time_in_the_order_of_the_text() -> None:
    assert changed("Unsupported parameters: stream_options, temperature") == {"stream_options": None}
    assert changed("Unsupported parameters: temperature, stream_options") == {"temperature": None}


def test_a_refusal_counts_where_a_visitor_mentions_the_field() -> None:
    asked = {"role": "user", "content": "At what temperature does water boil?"}
    assert changed("property 'temperature' is unsupported", asked) == {"temperature": None}


@pytest.mark.parametrize(
    "text",
    [
        "Unsupported parameter: 'max_tokens' sets the maximum of 1 reply. Use 'max_completion_tokens' instead.",
        "max_tokens is not supported by gpt-4-1106, use max_completion_tokens, the maximum for gpt-5",
    ],
)
def test_a_new_name_is_no_range(text: str) -> None:
    assert changed(text) == {"max_tokens": "max_completion_tokens"}


def test_an_error_within_a_stream_counts_where_it_is_about_the_request() -> None:
    text = "Unsupported parameter: 'temperature'"
    assert changed(text, status=None) == {}
    assert changed(text, status=None, type="invalid_request_error") == {"temperature": None}
    assert changed(text, status=None, type="BadRequestError") == {"temperature": None}
    assert [changed(text, status=status) for status in (500, 501)] == [{}, {}]


async def test_thinking_that_a_server_refuses_in_messages_is_left_out(tmp_path: Path) -> None:
    def answer(request: Request) -> Answer:
        if any("reasoning" in message for message in request.body["messages"]):
            return Fail(400, None, "'messages.2' : property 'reasoning' is unsupported")
        done = request.body["messages"][-1]["role"] == "tool"
        return Reply() if done else Reply([], thinking=["Hm"], tools=[CLOCK], thinking_field="reasoning")

    with OpenAIServer(answer) as server:
        async with housed(tmp_path, entry(server)) as house:
            house.turns.toolbox = Toolbox(ToolSettings(enabled=["clock"]))
            told = await house.ask()
    assert (told[-1]["type"], told[-1]["content"]) == ("complete", "Hello there!")
    assert len(of(told, "tool_start")) == 1, "no tool runs twice"


@pytest.mark.parametrize(
    "message",
    [
        "Missing `reasoning_content` field in the assistant message at message index 2.",
        "The `reasoning_content` in the thinking mode must be passed back to the API.",
        "thinking is enabled but reasoning_content is missing in assistant tool call message at index 2",
    ],
)
async def test_a_server_may_want_thinking_in_every_message(tmp_path: Path, message: str) -> None:
    def answer(request: Request) -> Answer:
        own = [m for m in request.body["messages"] if m["role"] == "assistant"]
        if not all(m.get("reasoning_content") for m in own):
            return Fail(400, "invalid_request_error", message)
        return Reply() if request.body["messages"][-1]["role"] == "tool" else Reply([], tools=[CLOCK])

    with OpenAIServer(answer) as server:
        async with housed(tmp_path, entry(server)) as house:
            house.turns.toolbox = Toolbox(ToolSettings(enabled=["clock"]))
            told = await house.ask()
            assert told[-1]["type"] == "complete"
            later = await house.ask("And now?", conversation_id=told[0]["conversation_id"])
    assert later[-1]["type"] == "complete"


async def test_a_server_may_refuse_an_empty_text_beside_tool_calls(tmp_path: Path) -> None:
    def answer(request: Request) -> Answer:
        if any(m["content"] == "" for m in request.body["messages"]):
            return Fail(400, None, "ValidationException: messages: text content blocks must be non-empty")
        return Reply() if request.body["messages"][-1]["role"] == "tool" else Reply([], tools=[CLOCK])

    with OpenAIServer(answer) as server:
        async with housed(tmp_path, entry(server)) as house:
            house.turns.toolbox = Toolbox(ToolSettings(enabled=["clock"]))
            assert (await house.ask())[-1]["type"] == "complete"
    assert asked_for_replies(server)[-1].body["messages"][-2]["content"] is None


CLOCK = Tool("clock", ['{"timezone": "Europe/Berlin"}'])


async def test_the_settings_rename_drop_and_add_fields(tmp_path: Path) -> None:
    more = {
        "fields": {"max_tokens": "max_completion_tokens", "temperature": False, "stream_options": False},
        "extra_body": {"think": False, "provider": {"order": ["a"]}},
        "headers": {"X-Title": "Glassbox", "api-key": "${PICKY_KEY}"},
        "query": {"api-version": "2026-01-01", "token": "t-${PICKY_KEY}"},
        "system_role": "developer",
    }
    with OpenAIServer() as server:
        server.answers = [Reply()]
        async with housed(tmp_path, entry(server, **more), PICKY_KEY=CANARY) as house:
            await house.health()
            takes = house.backends.describe("anna")[0]["takes"]
    assert takes == ["system_prompt", "max_tokens"]
    (probe,) = server.requests
    assert probe.path == f"/v1/models?api-version=2026-01-01&token=t-{CANARY}"
    assert (probe.headers["x-title"], probe.headers["api-key"]) == ("Glassbox", CANARY)
    assert "authorization" not in probe.headers


class WithQuery(OpenAIServer):
    """Answers on the path alone, whatever the query is."""

    def streams(self, request: Request) -> bool | None:
        return bool(request.body.get("stream")) if request.path.startswith("/v1/chat/completions") else None


async def test_requests_have_the_settings_fields_headers_and_query(tmp_path: Path) -> None:
    more = {
        "fields": {"max_tokens": "max_completion_tokens", "temperature": False, "stream_options": False},
        "extra_body": {"think": False},
        "headers": {"X-Title": "Glassbox", "api-key": "${PICKY_KEY}"},
        "query": {"api-version": "2026-01-01"},
        "system_role": "developer",
        "options": {"extra_body": {"top_k": 5}, "default_headers": {"X-More": "yes"}},
    }
    with WithQuery() as server:
        async with housed(tmp_path, entry(server, **more), PICKY_KEY=CANARY) as house:
            told = await house.ask(options=TurnOptions(temperature=0.3, system_prompt="Be brief."))
    assert told[-1]["type"] == "complete", told[-1]
    (request,) = server.requests
    assert request.path == "/v1/chat/completions?api-version=2026-01-01"
    assert request.body == {
        "model": "test-model",
        "messages": [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Hi"}],
        "stream": True,
        "max_completion_tokens": 256,
        "think": False,
        "top_k": 5,
    }
    assert (request.headers["x-title"], request.headers["x-more"]) == ("Glassbox", "yes")
    assert request.headers["api-key"] == CANARY
    assert "authorization" not in request.headers


async def test_an_authorization_header_takes_the_keys_place(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        more = {"headers": {"authorization": "Basic ${PICKY_KEY}"}}
        async with housed(tmp_path, entry(server, **more), PICKY_KEY=CANARY) as house:
            assert (await house.health()).ready
            assert (await house.ask())[-1]["type"] == "complete"
    assert [request.headers["authorization"] for request in server.requests] == [f"Basic {CANARY}"] * 2


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"headers": {"X Y": "a"}}, "'X Y'"),
        ({"headers": {"X": "a\nb"}}, "'X'"),
        ({"headers": f"Bearer {CANARY}"}, "headers"),
        ({"headers": {"X": ["" + CANARY]}}, "headers"),
        ({"fields": {"messages": False}}, "'messages'"),
        ({"fields": {"temperature": True}}, "fields"),
        ({"fields": {"temperature": "a b"}}, "'a b'"),
        ({"system_role": "boss"}, "'boss'"),
        ({"headers": {"X": "${NOT_SET_ANYWHERE}"}}, "NOT_SET_ANYWHERE"),
    ],
)
def test_wrong_settings_stop_the_start(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    def toml(value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{json.dumps(key)} = {toml(one)}" for key, one in value.items()) + "}"
        return json.dumps(value)

    lines = [f"{name} = {toml(value)}" for name, value in more.items()]
    file = tmp_path / "glassbox.toml"
    file.write_text("\n".join(['[[backends]]\nname = "A"\nkind = "openai"\nmodel = "m"', *lines]))
    with pytest.raises(SettingsError) as raised:
        load_settings({"config": str(file)}, {})
    assert said in str(raised.value)
    assert CANARY not in str(raised.value)


def test_variables_reach_the_backend_and_nothing_that_is_printed(tmp_path: Path) -> None:
    file = tmp_path / "glassbox.toml"
    head = '[[backends]]\nname = "A"\nkind = "openai"\nmodel = "m"\nbase_url = "http://127.0.0.1:1/v1"\n'
    file.write_text(head + 'headers = { "X-Key" = "${OWN_TOKEN}" }')
    settings = load_settings({"config": str(file)}, {"OWN_TOKEN": CANARY})
    backends = Backends(settings.backends, settings.keys)
    assert backends.default.settings.headers == {"X-Key": CANARY}
    assert CANARY not in f"{settings!r} {settings} {backends.default.settings!r}"


def test_a_shape_that_changes_nothing_is_none() -> None:
    error = ProviderError(400, parameter="temperature", code="unsupported_parameter", text="temperature")
    assert accepted_shape(RequestShape(), error, {"messages": [], "max_tokens": 1}, "X") is None
    assert (
        accepted_shape(RequestShape(), ProviderError(401, text="unknown field max_tokens"), {"max_tokens": 1}, "X")
        is None
    )


def test_what_was_learned_ends() -> None:
    adaptation = LearnedShape("X", RequestShape())
    adaptation.keep(RequestShape(fields={"temperature": None}))
    assert adaptation.unused == {"temperature"}
    adaptation._until = time.monotonic() - 1
    assert adaptation.unused == frozenset()
