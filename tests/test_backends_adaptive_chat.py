"""Requests adapt to servers that reject them, by the servers' errors and by the settings."""

import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agent import retries
from agent.tools import Toolbox
from memory.options import TurnOptions
from settings import BackendSettings, ToolSettings
from tests.house import House, asked_for_replies, housed, of
from tests.providers import Answer, Fail, OpenAIServer, Raw, Reply, Request, Tool


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_BACKOFF", lambda state: 0.0)


@asynccontextmanager
async def picky(
    folder: Path,
    *answers: Answer | Callable[[Request], Answer],
    server: type[OpenAIServer] = OpenAIServer,
    tools: Sequence[str] = (),
    PICKY_KEY: str | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[House, OpenAIServer]]:
    """Runs a server with these answers, and a `House` whose backend uses it."""
    with server(*answers) as provider:
        at = {"name": "Picky", "kind": "openai", "model": provider.model, "base_url": provider.base_url}
        keys = {"PICKY_KEY": PICKY_KEY} if PICKY_KEY else {}
        async with housed(folder, BackendSettings(**at, timeout=5.0, **settings), **keys) as house:
            house.turns.toolbox = Toolbox(ToolSettings(enabled=list(tools)))
            yield house, provider


def error_response(status: int, body: Any) -> Raw:
    """Returns a response with an error as JSON, or as a text."""
    if isinstance(body, str):
        return Raw(body, status, "text/plain")
    return Raw(json.dumps(body), status, "application/json")


def openai_error(message: str, param: str | None = None, code: str | None = None) -> Any:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def extra_forbidden(*place: str) -> Any:
    return {"type": "extra_forbidden", "loc": ["body", *place], "msg": "Extra inputs are not permitted", "input": 1}


REJECTIONS: dict[str, dict[str, tuple[int, Any]]] = {
    "max_tokens -> max_completion_tokens": {
        "openai": (
            400,
            openai_error(
                "Unsupported parameter: 'max_tokens' is not supported with this model. "
                "Use 'max_completion_tokens' instead.",
                "max_tokens",
                "unsupported_parameter",
            ),
        ),
        "without a parameter's name": (
            400,
            openai_error("Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens' instead."),
        ),
        "camel case": (400, {"error": "Argument not supported on this model: maxTokens"}),
    },
    "max_tokens -> max_output_tokens": {
        "another name": (422, {"message": "max_tokens is deprecated, use `max_output_tokens` instead"}),
    },
    "stream_options": {
        "azure": (400, openai_error("Unrecognized request argument supplied: stream_options")),
        "go": (400, {"error": 'json: unknown field "stream_options"'}),
        "rust": (
            422,
            "Failed to deserialize: unknown field `stream_options`, expected one of `model`, `messages`, `max_tokens`, "
            "`temperature`",
        ),
        "mistral": (
            422,
            {"object": "error", "message": {"detail": [extra_forbidden("stream_options")]}, "type": "invalid_request"},
        ),
        "fastapi": (422, {"detail": [extra_forbidden("stream_options", "include_usage")]}),
        "detail as text": (
            422,
            {"message": json.dumps({"detail": [extra_forbidden("stream_options")]}), "code": "1000"},
        ),
        "vllm": (
            400,
            {
                "object": "error",
                "message": str([extra_forbidden("stream_options")]),
                "type": "BadRequestError",
                "code": 400,
            },
        ),
        "azure ai": (400, openai_error("Validation error at #/stream_options: Extra inputs are not permitted")),
        "json schema": (
            400,
            openai_error("Additional properties are not allowed ('stream_options' was unexpected)"),
        ),
        "google": (
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
        "cloudflare": (
            400,
            {"success": False, "errors": [{"message": "AiError: unknown parameter 'stream_options'", "code": 5006}]},
        ),
    },
    "temperature": {
        "openai": (
            400,
            openai_error(
                "Unsupported value: 'temperature' does not support 0.3 with this model. Only the default (1) value is "
                "supported.",
                "temperature",
                "unsupported_value",
            ),
        ),
        "litellm": (
            400,
            openai_error(
                "litellm.UnsupportedParamsError: openai does not support parameters: ['temperature'], for model=o"
            ),
        ),
        "xai": (400, {"code": "Client error", "error": "Model X does not support parameter temperature."}),
        "groq": (400, openai_error("property 'temperature' is unsupported")),
        "openrouter": (
            400,
            {
                "error": {
                    "message": "Provider returned error",
                    "code": 400,
                    "metadata": {"raw": json.dumps(openai_error("temperature: not supported", "temperature"))},
                }
            },
        ),
    },
}
"""The rejected field and its new name -> the server -> its error."""


def rejecting(field: str, status: int, body: Any) -> Callable[[Request], Answer]:
    """Rejects every request that has the field, with this error."""
    return lambda request: error_response(status, body) if field in request.body else Reply()


@pytest.mark.parametrize(
    ("change", "name"), [(change, name) for change, errors in REJECTIONS.items() for name in errors]
)
async def test_a_rejected_field_is_renamed_or_left_out(tmp_path: Path, change: str, name: str) -> None:
    field, _, new = change.partition(" -> ")
    async with picky(tmp_path, rejecting(field, *REJECTIONS[change][name])) as (house, server):
        received = [await house.ask(options=TurnOptions(temperature=0.3)) for _ in range(2)]
        stored = [await house.turns.store.history(run.conversation_id) for run in house.runs]
        takes = house.backends.describe("anna")[0]["takes"]
    assert [(one[-1]["type"], one[-1]["content"]) for one in received] == [("complete", "Hello there!")] * 2
    sent = [request.body for request in asked_for_replies(server)]
    assert [field in body for body in sent] == [True, False, False], "the second turn knows it"
    assert not new or [body.get(new) for body in sent[1:]] == [256, 256]
    kept = {"max_tokens", "stream_options", "temperature"} - {field}
    assert all(kept <= body.keys() for body in sent), "nothing else was left out"
    assert [len(of(one, "model_start")) for one in received] == [1, 1]
    word = {"temperature": "temperature", "max_tokens": new}.get(field, field)
    assert word in (stored[0][-1].note or "")
    assert any(word in e["content"] for e in of(received[0], "status"))
    assert stored[1][-1].note is None, "it is said once"
    assert ("temperature" in takes) == (field != "temperature")


async def test_several_fields_are_adapted_in_one_turn(tmp_path: Path) -> None:
    def answer(request: Request) -> Answer:
        for name in ("max_tokens", "max_completion_tokens", "temperature", "stream_options"):
            if name in request.body:
                return error_response(400, openai_error(f"Unknown parameter: '{name}'.", name))
        if request.body["messages"][0]["role"] == "system":
            return Fail(400, None, "System role not supported")
        return Reply()

    async with picky(tmp_path, answer) as (house, server):
        received = await house.ask("Hi", options=TurnOptions(temperature=0.3, system_prompt="Be brief."))
        assert house.backends.describe("anna")[0]["takes"] == ["system_prompt"]
    assert (received[-1]["type"], received[-1]["content"]) == ("complete", "Hello there!")
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
    def answer(request: Request) -> Answer:
        has_system = any(message["role"] == "system" for message in request.body["messages"])
        return error_response(*NO_SYSTEM[name]) if has_system else Reply()

    async with picky(tmp_path, answer) as (house, server):
        options = TurnOptions(system_prompt="Be brief.")
        received = await house.ask("Hi", options=options)
        later = await house.ask("And now?", options=options, conversation_id=received[0]["conversation_id"])
        takes = house.backends.describe("anna")[0]["takes"]
    assert (received[-1]["type"], received[-1]["content"]) == ("complete", "Hello there!")
    assert [m["content"] for m in asked_for_replies(server)[-1].body["messages"]] == [
        "Be brief.\n\nHi",
        "Hello there!",
        "And now?",
    ]
    assert len(asked_for_replies(server)) == 3
    assert "system prompt" in " ".join(e["content"] for e in of(received, "status"))
    assert "system_prompt" in takes
    assert "in front of the first message" in of(later, "context")[0]["note"]


async def test_a_rejection_within_the_stream_is_understood(tmp_path: Path) -> None:
    error = openai_error("Unsupported parameter: 'temperature'", "temperature", "unsupported_parameter")
    stream = Raw(f"data: {json.dumps(error)}\n\n", 200, "text/event-stream")
    async with picky(tmp_path, lambda request: stream if "temperature" in request.body else Reply()) as (house, server):
        received = await house.ask(options=TurnOptions(temperature=0.3))
    assert (received[-1]["type"], len(asked_for_replies(server))) == ("complete", 2)


async def test_two_names_for_one_field_become_one(tmp_path: Path) -> None:
    text = "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported."

    def answer(request: Request) -> Answer:
        return Fail(400, None, text) if {"max_tokens", "max_completion_tokens"} <= request.body.keys() else Reply()

    async with picky(tmp_path, answer, extra_body={"max_completion_tokens": 5}) as (house, server):
        assert (await house.ask())[-1]["type"] == "complete"
    assert asked_for_replies(server)[-1].body["max_completion_tokens"] == 5


async def test_a_learned_shape_is_forgotten_after_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.request_shape._KEPT_S", 0.0)
    field, change, name = "stream_options", "stream_options", "azure"
    async with picky(tmp_path, rejecting(field, *REJECTIONS[change][name])) as (house, server):
        for _ in range(2):
            await house.ask()
    assert [field in request.body for request in asked_for_replies(server)] == [True, False, True, False]


@pytest.mark.parametrize(
    "echoed", ["Unsupported parameter: 'temperature'", "System role not supported", "unknown field max_tokens"]
)
async def test_a_visitors_words_do_not_change_later_requests(tmp_path: Path, echoed: str) -> None:
    async with picky(tmp_path, Fail(400, "content_policy", f"Refused: {echoed}")) as (house, server):
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
async def test_a_rejected_value_is_reported_to_the_visitor(tmp_path: Path, message: str, param: str | None) -> None:
    answer = error_response(400, openai_error(message, param, "invalid_value"))
    async with picky(tmp_path, answer) as (house, server):
        received = await house.ask(options=TurnOptions(temperature=0.3))
    assert received[-1]["code"] == "invalid_request"
    assert not param or f"parameter {param}" in received[-1]["message"]
    assert len(asked_for_replies(server)) == 1


ASKED = "What do temperature and max_tokens mean?"


async def test_only_the_rejected_field_is_left_out_if_a_server_echoes_the_request(tmp_path: Path) -> None:
    def answer(request: Request) -> Answer:
        text = f"Unrecognized argument: stream_options; request was: {request.body['messages']}"
        return Raw(text, 400, "text/plain") if "stream_options" in request.body else Reply()

    async with picky(tmp_path, answer) as (house, server):
        received = await house.ask(ASKED, options=TurnOptions(temperature=0.3))
        assert house.backends.describe("anna")[0]["takes"] == ["system_prompt", "temperature", "max_tokens"]
    assert received[-1]["type"] == "complete"
    first, second = (request.body for request in asked_for_replies(server))
    assert first.keys() - second.keys() == {"stream_options"}
    assert len([e for e in of(received, "status") if "does not accept" in e["content"]]) == 1


@pytest.mark.parametrize("status", [500, 200])
@pytest.mark.parametrize("received_from", ["why is temperature deprecated?", "unknown field max_tokens"])
async def test_a_crash_does_not_change_later_requests(tmp_path: Path, status: int, received_from: str) -> None:
    error = {"error": {"message": f"worker crashed on prompt: {received_from}"}}
    text = json.dumps(error) if status == 500 else f"data: {json.dumps(error)}\n\n"
    crash = Raw(text, status, "application/json" if status == 500 else "text/event-stream")
    async with picky(tmp_path, crash, Reply()) as (house, server):
        options = TurnOptions(temperature=0.3)
        await house.ask("Hi", options=options)  # the error is in other words than the visitor's
        assert (await house.ask("Hi", options=options))[-1]["type"] == "complete"
        assert house.backends.describe("anna")[0]["takes"] == ["system_prompt", "temperature", "max_tokens"]
    assert all((r.body["temperature"], r.body["max_tokens"]) == (0.3, 256) for r in asked_for_replies(server))


@pytest.mark.parametrize(("param", "code"), [(None, None), ("temperature", "unsupported_value")])
async def test_a_value_out_of_range_does_not_remove_the_field(
    tmp_path: Path, param: str | None, code: str | None
) -> None:
    error = openai_error("temperature: 2.0 is not supported, must be between 0 and 1", param, code)
    async with picky(tmp_path, error_response(400, error), Reply()) as (house, server):
        received = await house.ask(options=TurnOptions(temperature=2.0))
        await house.ask(visitor="bert", options=TurnOptions(temperature=0.5))
    assert received[-1]["code"] == "invalid_request"
    _, last = (request.body for request in asked_for_replies(server))
    assert (last["temperature"], last["max_tokens"]) == (0.5, 256)


async def test_thinking_that_a_server_rejects_in_messages_is_left_out(tmp_path: Path) -> None:
    def answer(request: Request) -> Answer:
        if any("reasoning" in message for message in request.body["messages"]):
            return Fail(400, None, "'messages.2' : property 'reasoning' is unsupported")
        done = request.body["messages"][-1]["role"] == "tool"
        return Reply() if done else Reply([], thinking=["Hm"], tools=[CLOCK], thinking_field="reasoning")

    async with picky(tmp_path, answer, tools=["clock"]) as (house, _):
        received = await house.ask()
    assert (received[-1]["type"], received[-1]["content"]) == ("complete", "Hello there!")
    assert len(of(received, "tool_start")) == 1, "no tool runs twice"


@pytest.mark.parametrize(
    "message",
    [
        "Missing `reasoning_content` field in the assistant message at message index 2.",
        "The `reasoning_content` in the thinking mode must be passed back to the API.",
        "thinking is enabled but reasoning_content is missing in assistant tool call message at index 2",
    ],
)
async def test_a_server_may_require_thinking_in_every_message(tmp_path: Path, message: str) -> None:
    def answer(request: Request) -> Answer:
        own = [m for m in request.body["messages"] if m["role"] == "assistant"]
        if not all(m.get("reasoning_content") for m in own):
            return Fail(400, "invalid_request_error", message)
        return Reply() if request.body["messages"][-1]["role"] == "tool" else Reply([], tools=[CLOCK])

    async with picky(tmp_path, answer, tools=["clock"]) as (house, _):
        received = await house.ask()
        assert received[-1]["type"] == "complete"
        later = await house.ask("And now?", conversation_id=received[0]["conversation_id"])
    assert later[-1]["type"] == "complete"


async def test_a_server_may_reject_an_empty_text_beside_tool_calls(tmp_path: Path) -> None:
    def answer(request: Request) -> Answer:
        if any(m["content"] == "" for m in request.body["messages"]):
            return Fail(400, None, "ValidationException: messages: text content blocks must be non-empty")
        return Reply() if request.body["messages"][-1]["role"] == "tool" else Reply([], tools=[CLOCK])

    async with picky(tmp_path, answer, tools=["clock"]) as (house, server):
        assert (await house.ask())[-1]["type"] == "complete"
    assert asked_for_replies(server)[-1].body["messages"][-2]["content"] is None


CLOCK = Tool("clock", ['{"timezone": "Europe/Berlin"}'])
