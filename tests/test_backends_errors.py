"""`to_chat_error`, on real exceptions of client libraries."""

import json
import math
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any

import aiohttp
import httpx
import openai
import pytest
import requests
from google.genai.errors import APIError, ClientError, ServerError, UnknownApiResponseError
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.exceptions import ContextOverflowError
from langchain_google_genai import chat_models as google

from backends.errors import connection_lost, idle_timeout, retry_after, to_chat_error
from runs.errors import ChatError

CANARY = "sk-canary/0123456789"
REQUEST = httpx.Request("POST", "http://127.0.0.1/v1/chat/completions")
Make = Callable[[], BaseException]


def raised(work: Callable[[], Any]) -> BaseException:
    """Returns the exception that it raises, with its causes."""
    with pytest.raises(BaseException) as caught:
        work()
    return caught.value


def by_openai(status: int, text: str = CANARY, code: str | None = None, **headers: str) -> BaseException:
    """Returns the exception of OpenAI's SDK for a response."""
    error = {"message": f"{text} {CANARY}", "type": "of the tests", "param": None, "code": code}
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    response = httpx.Response(status, json={"error": error}, headers=headers, request=REQUEST)
    return openai.OpenAI(api_key=CANARY)._make_status_error_from_response(response)


def by_google(status: int, text: str = CANARY, *details: Any, **headers: str) -> ClientError | ServerError:
    received = {"error": {"code": status, "message": f"{text} {CANARY}", "status": "X", "details": list(details)}}
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    kind = ServerError if status >= 500 else ClientError
    return kind(status, received, httpx.Response(status, json=received, headers=headers, request=REQUEST))


def wrapped(error: ClientError | ServerError) -> BaseException:
    """Returns the exception as langchain-google-genai re-raises it."""

    def handle() -> None:
        try:
            raise error
        except ClientError as e:
            google._handle_client_error(e, {"model": CANARY})
        except ServerError as e:
            google._handle_server_error(e)

    return raised(handle)


def caused(outer: BaseException, inner: BaseException) -> BaseException:
    def raise_both() -> None:
        try:
            raise inner
        except BaseException as e:
            raise outer from e

    return raised(raise_both)


def no_json() -> BaseException:
    return raised(lambda: json.loads(f"<html>{CANARY}"))


def no_connection(inner: Exception) -> BaseException:
    """Returns the connection error of OpenAI's SDK."""
    return caused(openai.APIConnectionError(message=CANARY, request=REQUEST), inner)


BILLING = "You exceeded your current quota, please check your plan and billing details."
RETRY_INFO = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "7.5s"}
TABLE: list[tuple[str, Make, str, bool, float | None]] = [
    ("openai 400", lambda: by_openai(400), "invalid_request", False, None),
    ("openai 401", lambda: by_openai(401), "authentication", False, None),
    ("openai 403", lambda: by_openai(403), "authentication", False, None),
    ("openai 404", lambda: by_openai(404), "backend_unavailable", False, None),
    ("openai 408", lambda: by_openai(408), "timeout", True, None),
    ("openai 413", lambda: by_openai(413), "context_too_long", False, None),
    ("openai 422", lambda: by_openai(422), "invalid_request", False, None),
    ("openai 402", lambda: by_openai(402), "rate_limited", False, None),
    ("openai 429", lambda: by_openai(429), "rate_limited", True, None),
    ("openai 429, 3 s", lambda: by_openai(429, retry_after="3"), "rate_limited", True, 3.0),
    ("openai 429, half a second", lambda: by_openai(429, retry_after="0.5"), "rate_limited", True, 0.5),
    ("openai 429, in words", lambda: by_openai(429, retry_after="soon"), "rate_limited", True, None),
    ("openai 429, no credit", lambda: by_openai(429, BILLING, "insufficient_quota"), "rate_limited", False, None),
    ("openai 500", lambda: by_openai(500), "backend_unavailable", True, None),
    ("openai 503, 9 s", lambda: by_openai(503, retry_after="9"), "backend_unavailable", True, 9.0),
    ("openai 504", lambda: by_openai(504), "timeout", True, None),
    (
        "openai, too long",
        lambda: by_openai(400, "This model's maximum context length is 8192 tokens.", "context_length_exceeded"),
        "context_too_long",
        False,
        None,
    ),
    (
        "llama-server, too long",
        lambda: by_openai(400, "the request exceeds the available context size", "exceed_context_size_error"),
        "context_too_long",
        False,
        None,
    ),
    (
        "in a stream",
        lambda: openai.APIError(CANARY, request=REQUEST, body={"message": CANARY, "code": None}),
        "backend_unavailable",
        True,
        None,
    ),
    (
        "in a stream, too long",
        lambda: openai.APIError(f"exceeds the context window {CANARY}", request=REQUEST, body=None),
        "context_too_long",
        False,
        None,
    ),
    ("openai, refused", lambda: no_connection(httpx.ConnectError(CANARY)), "backend_unavailable", True, None),
    (
        "openai, broken off",
        lambda: no_connection(httpx.RemoteProtocolError(CANARY)),
        "backend_unavailable",
        True,
        None,
    ),
    ("openai, timeout", lambda: openai.APITimeoutError(request=REQUEST), "timeout", True, None),
    (
        "langchain, too long",
        lambda: caused(ContextOverflowError(CANARY), by_openai(400)),
        "context_too_long",
        False,
        None,
    ),
    ("google 400", lambda: by_google(400), "invalid_request", False, None),
    ("google 400, key", lambda: by_google(400, "API key not valid."), "authentication", False, None),
    ("google 403", lambda: by_google(403), "authentication", False, None),
    ("google 404", lambda: by_google(404), "backend_unavailable", False, None),
    ("google 429", lambda: by_google(429), "rate_limited", True, None),
    ("google 429, info", lambda: by_google(429, CANARY, RETRY_INFO), "rate_limited", True, 7.5),
    ("google 429, header", lambda: by_google(429, CANARY, RETRY_INFO, retry_after="4"), "rate_limited", True, 4.0),
    ("google 500", lambda: by_google(500), "backend_unavailable", True, None),
    ("google 503, info", lambda: by_google(503, CANARY, RETRY_INFO), "backend_unavailable", True, 7.5),
    ("langchain google 400", lambda: wrapped(by_google(400)), "invalid_request", False, None),
    ("langchain google 401", lambda: wrapped(by_google(401)), "authentication", False, None),
    ("langchain google 403", lambda: wrapped(by_google(403)), "authentication", False, None),
    ("langchain google 404", lambda: wrapped(by_google(404)), "backend_unavailable", False, None),
    ("langchain google 429", lambda: wrapped(by_google(429, CANARY, RETRY_INFO)), "rate_limited", True, 7.5),
    ("langchain google 499", lambda: wrapped(by_google(499)), "invalid_request", False, None),
    ("langchain google 503", lambda: wrapped(by_google(503, CANARY, RETRY_INFO)), "backend_unavailable", True, 7.5),
    (
        "langchain google, too long",
        lambda: wrapped(by_google(400, "The input token count exceeds the maximum number of tokens allowed (8).")),
        "context_too_long",
        False,
        None,
    ),
    ("google, unreadable", lambda: UnknownApiResponseError(CANARY), "backend_unavailable", True, None),
    ("httpx refused", lambda: httpx.ConnectError(CANARY), "backend_unavailable", True, None),
    ("httpx cut", lambda: httpx.RemoteProtocolError(CANARY), "backend_unavailable", True, None),
    ("httpx read", lambda: httpx.ReadError(CANARY), "backend_unavailable", True, None),
    ("httpx timeout", lambda: httpx.ReadTimeout(CANARY), "timeout", True, None),
    ("httpx pool", lambda: httpx.PoolTimeout(CANARY), "timeout", True, None),
    (
        "httpx status",
        lambda: raised(httpx.Response(429, headers={"retry-after": "2"}, request=REQUEST).raise_for_status),
        "rate_limited",
        True,
        2.0,
    ),
    ("requests refused", lambda: requests.ConnectionError(CANARY), "backend_unavailable", True, None),
    ("requests timeout", lambda: requests.ReadTimeout(CANARY), "timeout", True, None),
    ("requests cut", lambda: requests.exceptions.ChunkedEncodingError(CANARY), "backend_unavailable", True, None),
    (
        "requests unreadable",
        lambda: requests.exceptions.JSONDecodeError(CANARY, CANARY, 0),
        "backend_unavailable",
        True,
        None,
    ),
    ("aiohttp refused", lambda: aiohttp.ClientConnectionError(CANARY), "backend_unavailable", True, None),
    ("aiohttp gone", lambda: aiohttp.ServerDisconnectedError(CANARY), "backend_unavailable", True, None),
    ("aiohttp timeout", lambda: aiohttp.ServerTimeoutError(CANARY), "timeout", True, None),
    ("aiohttp cut", lambda: aiohttp.ClientPayloadError(CANARY), "backend_unavailable", True, None),
    ("Python's refused", lambda: ConnectionRefusedError(111, CANARY), "backend_unavailable", True, None),
    ("Python's reset", lambda: ConnectionResetError(104, CANARY), "backend_unavailable", True, None),
    ("Python's timeout", lambda: TimeoutError(CANARY), "timeout", True, None),
    ("no JSON", no_json, "backend_unavailable", True, None),
    ("no text", lambda: raised(lambda: b"\xff".decode()), "backend_unavailable", True, None),
    ("wrapped twice", lambda: caused(RuntimeError(CANARY), wrapped(by_google(401))), "authentication", False, None),
]


@pytest.mark.parametrize(("make", "code", "retryable", "wait"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE])
def test_a_librarys_exception_becomes_a_chat_error(make: Make, code: str, retryable: bool, wait: float | None) -> None:
    received = to_chat_error("Model X", make())
    assert received
    assert (received.code, received.retryable, received.retry_after) == (code, retryable, wait)
    assert "Model X" in received.message
    assert "canary" not in received.message


def test_googles_rate_limit_is_temporary_although_it_mentions_billing() -> None:
    received = to_chat_error("Gemini", wrapped(by_google(429, BILLING, RETRY_INFO)))
    assert received
    assert (received.code, received.retryable, received.retry_after) == ("rate_limited", True, 7.5)


@pytest.mark.parametrize(
    ("make", "retryable"),
    [
        (lambda: by_openai(429, CANARY, "insufficient_quota"), False),
        (lambda: openai.APIError(CANARY, request=REQUEST, body={"message": CANARY, "code": 429}), True),
    ],
    ids=["in an answer", "in a stream"],
)
def test_a_code_decides_if_the_text_does_not(make: Make, retryable: bool) -> None:
    received = to_chat_error("Model X", make())
    assert received
    assert (received.code, received.retryable) == ("rate_limited", retryable)


def test_a_response_that_the_sdk_cannot_read_is_not_a_rejection() -> None:
    response = httpx.Response(200, text=CANARY, request=REQUEST)
    received = to_chat_error("Model X", openai.APIResponseValidationError(response, body=CANARY))
    assert received
    assert (received.code, received.retryable) == ("backend_unavailable", True)


def test_no_connection_and_a_lost_one_have_different_advice() -> None:
    refused, cut = (
        to_chat_error("X", no_connection(inner))
        for inner in (httpx.ConnectError(CANARY), httpx.RemoteProtocolError(CANARY))
    )
    assert refused
    assert cut
    assert "cannot be reached" in refused.message
    assert "broke" in cut.message


@pytest.mark.parametrize("wrap", [lambda inner: inner, lambda inner: caused(openai.APITimeoutError(REQUEST), inner)])
def test_a_connect_timeout_means_unreachable(wrap: Callable[[BaseException], BaseException]) -> None:
    received = to_chat_error("X", wrap(caused(httpx.ConnectTimeout(CANARY), TimeoutError())))
    assert received
    assert (received.code, received.retryable) == ("backend_unavailable", True)
    assert "cannot be reached" in received.message


def test_a_chat_error_is_unchanged_even_as_a_cause() -> None:
    known = ChatError("busy", "Wait.")
    assert to_chat_error("X", known) is known
    assert to_chat_error("X", caused(RuntimeError(CANARY), known)) is known


@pytest.mark.parametrize(
    "defect", [ValueError(CANARY), KeyError(CANARY), AssertionError(), ZeroDivisionError()], ids=repr
)
def test_a_bug_gives_none(defect: Exception) -> None:
    assert to_chat_error("X", defect) is None


def test_our_own_errors_name_the_backend_and_are_retryable() -> None:
    for received, code in (
        (connection_lost("Model X"), "backend_unavailable"),
        (idle_timeout("Model X", 0.5), "timeout"),
    ):
        assert (received.code, received.retryable) == (code, True)
        assert "Model X" in received.message
    assert "0.5 s" in idle_timeout("X", 0.5).message


def answer(given: str | None, **more: str) -> httpx.Response:
    return httpx.Response(429, headers=({} if given is None else {"Retry-After": given}) | more)


def test_a_retry_date_becomes_seconds() -> None:
    assert retry_after(answer(formatdate(time.time() + 90, usegmt=True))) == pytest.approx(90, abs=2)
    assert retry_after(answer(formatdate(time.time() - 90, usegmt=True))) == 0.0
    assert retry_after(answer("99999999999999999999")) == 3600, "one answer shuts nobody out for longer"


@pytest.mark.parametrize("given", [None, "", "soon", "-5", "1e9", "5 minutes", "Mon, 99 Jan 2020 25:00:00 GMT", "0 0"])
def test_an_invalid_retry_after_gives_none(given: str | None) -> None:
    assert retry_after(answer(given)) is None
    assert retry_after(None) is None
    assert retry_after(answer(given), APIError(429, {"error": {"details": [RETRY_INFO]}})) == (
        7.5 if not given else None
    )


def test_a_huge_retry_after_is_limited() -> None:
    wait = retry_after(answer("9" * 400))
    assert wait is not None
    assert math.isfinite(wait)


def test_a_response_that_cannot_be_unpacked_is_unreadable() -> None:
    packed = httpx.Response(200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(CANARY.encode()))
    received = to_chat_error("X", raised(packed.read))
    assert received
    assert (received.code, received.retryable) == ("backend_unavailable", True)


def test_the_headers_of_any_library_are_read() -> None:
    response = requests.Response()
    response.status_code, response.headers["retry-after"] = 429, "6"
    received = to_chat_error("X", requests.HTTPError(CANARY, response=response))
    assert received
    assert (received.code, received.retry_after) == ("rate_limited", 6.0)


@given(st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=40))
def test_any_header_is_read_without_an_exception(given_text: str) -> None:
    wait = retry_after(httpx.Response(429, headers=[(b"retry-after", given_text.encode("latin-1"))]))
    assert wait is None or wait >= 0


TEXTS = st.sampled_from(["", "context length", "exceeds the maximum tokens", "billing", "API key", "retryDelay: '3s'"])
STATUSES = st.integers(400, 599)


def in_every_place(kind: int, status: int, text: str) -> BaseException:
    """Returns an exception with the canary in all of its texts."""
    text = f"{text} {CANARY}"
    match kind:
        case 0:
            return by_openai(status, text, CANARY, retry_after=CANARY)
        case 1:
            return by_google(status, text, {"reason": CANARY, "retryDelay": CANARY}, retry_after=CANARY)
        case 2:
            return wrapped(by_google(status, text, RETRY_INFO))
        case 3:
            return openai.APIError(text, request=REQUEST, body={"message": text, "code": status, "param": CANARY})
        case 4:
            response = httpx.Response(status, text=text, headers={"x-canary": CANARY}, request=REQUEST)
            return raised(response.raise_for_status)
        case 5:
            return no_connection(httpx.ConnectError(text))
        case _:
            return caused(RuntimeError(text), caused(ValueError(text), ConnectionResetError(104, text, CANARY)))


@given(st.integers(0, 6), STATUSES, TEXTS)
def test_no_message_contains_an_exceptions_text(kind: int, status: int, text: str) -> None:
    received = to_chat_error("Model X", in_every_place(kind, status, text))
    assert received
    assert "canary" not in received.message
    assert "0123456789" not in f"{received.message} {received.retry_after}"
    assert "canary" not in repr(received.args)
    assert received.message.count("Model X") == 1
