"""The shape that follows from a server's rejection, and how long it is kept."""

import time
from typing import Any

import pytest

from backends.openai_rejections import corrected_shape
from backends.provider_errors import ProviderError
from backends.request_shape import LearnedShape, RequestShape

ASKED = "What do temperature and max_tokens mean?"


def changed(text: str, *messages: dict[str, Any], status: int | None = 400, **more: str) -> dict[str, str | None]:
    """Returns the names of fields after an error with this text."""
    body = {"messages": messages, "max_tokens": 1, "temperature": 0.3, "stream_options": {}}
    found = corrected_shape(RequestShape(), ProviderError(status, text=text, **more), body, "X")
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
def test_words_of_the_conversation_are_not_fields(message: dict[str, Any]) -> None:
    assert changed(f"Request {{{ASKED}}} has an unknown field: stream_options", message) == {"stream_options": None}
    assert changed(f"Unsupported model. {ASKED}", message) == {}


def test_one_field_is_changed_at_a_time_in_the_order_of_the_text() -> None:
    assert changed("Unsupported parameters: stream_options, temperature") == {"stream_options": None}
    assert changed("Unsupported parameters: temperature, stream_options") == {"temperature": None}


def test_a_rejection_counts_even_if_a_visitor_mentions_the_field() -> None:
    asked = {"role": "user", "content": "At what temperature does water boil?"}
    assert changed("property 'temperature' is unsupported", asked) == {"temperature": None}


@pytest.mark.parametrize(
    "text",
    [
        "Unsupported parameter: 'max_tokens' sets the maximum of 1 reply. Use 'max_completion_tokens' instead.",
        "max_tokens is not supported by gpt-4-1106, use max_completion_tokens, the maximum for gpt-5",
    ],
)
def test_a_new_name_is_not_a_range(text: str) -> None:
    assert changed(text) == {"max_tokens": "max_completion_tokens"}


def test_an_error_within_a_stream_counts_if_it_is_about_the_request() -> None:
    text = "Unsupported parameter: 'temperature'"
    assert changed(text, status=None) == {}
    assert changed(text, status=None, type="invalid_request_error") == {"temperature": None}
    assert changed(text, status=None, type="BadRequestError") == {"temperature": None}
    assert [changed(text, status=status) for status in (500, 501)] == [{}, {}]


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
@pytest.mark.parametrize("more", [{}, {"parameter": "temperature", "code": "unsupported_value"}])
def test_a_value_out_of_range_changes_nothing(message: str, more: dict[str, str]) -> None:
    assert changed(message, **more) == {}


def test_an_unchanged_shape_gives_none() -> None:
    error = ProviderError(400, parameter="temperature", code="unsupported_parameter", text="temperature")
    assert corrected_shape(RequestShape(), error, {"messages": [], "max_tokens": 1}, "X") is None
    assert (
        corrected_shape(RequestShape(), ProviderError(401, text="unknown field max_tokens"), {"max_tokens": 1}, "X")
        is None
    )


def test_a_learned_shape_expires() -> None:
    adaptation = LearnedShape("X", RequestShape())
    adaptation.keep(RequestShape(fields={"temperature": None}))
    assert adaptation.unused == {"temperature"}
    adaptation._until = time.monotonic() - 1
    assert adaptation.unused == frozenset()
