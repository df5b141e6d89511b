"""The mapping from exceptions of HTTP clients and SDKs to `ChatError`s.

A message never contains an exception's text, since providers echo keys in it. It may contain the HTTP status, and the
type, code and parameter of the provider's error.
"""

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

from langchain_core.exceptions import ContextOverflowError

from backends.provider_errors import ProviderError, provider_error, status_of
from backends.redaction import mask_words
from runs.errors import ChatError

_TIMEOUTS = {"APITimeoutError", "TimeoutException", "Timeout", "TimeoutError"}
_UNREADABLE = {
    "JSONDecodeError",
    "APIResponseValidationError",
    "UnknownApiResponseError",
    "UnicodeDecodeError",
    "SSEError",
    "DecodingError",
}
_UNREACHABLE = {"ConnectError", "ConnectTimeout", "ConnectionRefusedError", "ClientConnectorError", "gaierror"}
_BROKEN = {"TransportError", "ConnectionError", "ClientConnectionError", "ChunkedEncodingError", "ClientPayloadError"}
_TOO_LONG = re.compile(
    r"context.{0,10}(length|size|window)|exceeds? (the )?(available|maximum).{0,30}(token|context)"
    r"|max_new_tokens`? must be <=",
    re.I,
)
_NO_CONNECTION = {"APIConnectionError", "ModelConnectionError"}
_NO_CREDIT = re.compile(r"insufficient_quota|billing|credit balance", re.I)
_MOST_LOGGED = 1000
"""Characters of a provider's text in the log."""
_MARGIN = 1000
"""Additional characters that are read, since masking shortens the text."""
_LONGEST_S = 3600.0
"""The longest `Retry-After` that is respected, in seconds."""
_KEY = re.compile(r"api.?key|API_KEY_INVALID", re.I)
_OPTIONS = {
    "temperature": "temperature",
    **dict.fromkeys(
        ("max_tokens", "max_completion_tokens", "max_output_tokens", "maxOutputTokens"), "max reply length"
    ),
}
"""The page's names for a visitor's options, by the provider's."""


def to_chat_error(name: str, exception: BaseException) -> ChatError | None:
    """Maps a client library's exception to a ChatError; `name` is the backend's. Returns None for an unknown exception.

    The causes are examined too: libraries wrap the exception that has the status.
    """
    causes = list(_causes(exception))
    for one in causes:
        if isinstance(one, ChatError):
            return one
        if isinstance(one, ContextOverflowError):
            return _too_long(name)
        if found := _by_status(name, one):
            return found
    return _by_kind(name, causes)


def log_text(exception: BaseException, words: Iterable[str] = ()) -> str:
    """Describes an exception for the operator's log: its class and the provider's text, with the given words masked.

    This is slow if the words are long; call it in a thread then. The logging itself redacts keys.
    """
    errors = [(error, one) for one in _causes(exception) if (error := provider_error(one)) and error.text]
    if not errors:
        return type(exception).__name__
    error, cause = errors[0]
    status = f" HTTP {error.status}" if error.status else ""
    text = mask_words(error.text, words, most=_MOST_LOGGED + _MARGIN)[:_MOST_LOGGED]
    return f"{type(cause).__name__}{status} {error.names}: {text}"


def connection_lost(name: str) -> ChatError:
    """Returns the error for a connection that ended before the reply did."""
    message = f"Connection lost mid-reply. {name} broke off: try again."
    return ChatError("backend_unavailable", message, retryable=True)


def idle_timeout(name: str, seconds: float) -> ChatError:
    """Returns the error for a backend that sends nothing; `seconds` is the timeout."""
    message = f"No response after {seconds:g} s. {name} sent nothing: try again, or switch the model."
    return ChatError("timeout", message, retryable=True)


def rate_limited(name: str, wait_s: float | None) -> ChatError:
    """Returns the error for a rate limit; `wait_s` is its duration in seconds, if known."""
    when = "later" if wait_s is None else f"in {wait_s:.0f} s" if wait_s < 120 else f"in {wait_s / 60:.0f} minutes"
    message = f"Rate limited. Try again {when}. {name} has too many requests at the moment."
    return ChatError("rate_limited", message, retryable=True, retry_after=wait_s)


def _too_long(name: str) -> ChatError:
    message = f"This is too long for {name}: shorten the message, or pick another memory mode."
    return ChatError("context_too_long", message)


def _causes(exception: BaseException) -> Iterator[BaseException]:
    at: BaseException | None = exception
    for _ in range(8):
        if at is None:
            return
        yield at
        at = at.__cause__ or at.__context__


def _by_kind(name: str, causes: Sequence[BaseException]) -> ChatError | None:
    """The error by the names of classes, from the most specific to the vaguest."""
    kinds = {kind.__name__ for one in causes for kind in type(one).__mro__}
    missing = next((one for one in (causes[0], causes[0].__cause__) if isinstance(one, ImportError)), None)
    if missing is not None:
        package = missing.name or "that it needs"
        return ChatError("backend_unavailable", f"{name} cannot work: the Python package {package} is not installed.")
    if kinds & _UNREADABLE:
        message = f"{name} sent an unreadable reply: try again, or check its address and the key."
        return ChatError("backend_unavailable", message, retryable=True)
    if kinds & _UNREACHABLE:
        message = f"{name} cannot be reached: is its server running, and is there a network?"
        return ChatError("backend_unavailable", message, retryable=True)
    if kinds & _TIMEOUTS:
        return ChatError("timeout", f"{name} did not answer in time: try again.", retryable=True)
    if kinds & _BROKEN:
        return connection_lost(name)
    if kinds & _NO_CONNECTION:
        return ChatError("backend_unavailable", f"{name} cannot be reached: try again.", retryable=True)
    return None


def _by_status(name: str, exception: BaseException) -> ChatError | None:
    response, status = getattr(exception, "response", None), status_of(exception)
    text = f"{getattr(exception, 'code', None)} {exception}"[:20_000]
    if "HttpProcessingError" in {kind.__name__ for kind in type(exception).__mro__}:
        return None  # aiohttp's own: its code is about the connection
    if status is not None and 300 <= status < 400:
        message = f"{name} redirects to another address: check its `base_url`."
        return ChatError("backend_unavailable", message)
    if status is not None and status < 300:
        return None
    if status is None:
        return _in_stream(name, exception, text)
    error = provider_error(exception) or ProviderError(status)
    details = ": ".join(filter(None, (f"HTTP {status}", ", ".join(error.names))))
    if status == 413 or (status in (400, 422, 500) and _TOO_LONG.search(text)):
        return _too_long(name)
    if status in (401, 403) or (status == 400 and _KEY.search(text)):
        return ChatError("authentication", f"{name} rejected the key ({details}): check it, or switch the model.")
    wait = retry_after(response, exception)
    if status == 402 or (status == 429 and wait is None and _NO_CREDIT.search(text)):
        message = f"This key has no credit left at {name} ({details}): use another key, or switch the model."
        return ChatError("rate_limited", message)
    if status == 404:
        return _not_found(name, error, details)
    if status == 429:
        return rate_limited(name, wait)
    if status in (408, 504):
        return ChatError("timeout", f"{name} did not answer in time: try again.", retryable=True)
    if status >= 500:
        message = f"{name} failed ({details}): try again."
        return ChatError("backend_unavailable", message, retryable=True, retry_after=wait)
    return ChatError("invalid_request", f"{name} did not accept the request ({details}): {_advice(error)}.")


def _not_found(name: str, error: ProviderError, details: str) -> ChatError:
    """The error for a 404: the model is unknown, or the address is wrong."""
    if error.page or error.text.lower().strip(".") in ("", "not found", "404 page not found", "404 not found"):
        message = f"{name}'s server has nothing at this address ({details}): check its `base_url` and `model` settings."
    else:
        message = f"{name} does not know this model ({details}): check its `model` setting."
    return ChatError("backend_unavailable", message)


def _advice(error: ProviderError) -> str:
    """The advice for a rejected request, by the parameter that the provider names."""
    if error.page:
        return "a web page answered, not the provider's API; check its `base_url`"
    field = re.split(r"[.\[]", error.parameter)[0]
    if field in _OPTIONS:
        return f"change the {_OPTIONS[field]} under Options, then try again"
    if field in ("tools", "tool_choice", "functions"):
        return "turn its tools off under Options, or by `tools = false` in its entry"
    if field == "messages":
        return "start a new conversation, or switch the model; the server's log has the provider's text"
    if field == "model":
        return "check its `model` setting"
    if field:
        return f"`fields` in its entry can rename {field} or leave it out"
    return "check the options; the server's log has the provider's text"


def _in_stream(name: str, exception: BaseException, text: str) -> ChatError | None:
    """The error that a provider sends within a stream, for which OpenAI's SDK has no status."""
    if type(exception).__name__ != "APIError":
        return None
    code = str(getattr(exception, "code", ""))
    if code == "context_length_exceeded" or _TOO_LONG.search(text):
        return _too_long(name)
    if code == "rate_limit_exceeded":
        return rate_limited(name, None)
    error = provider_error(exception) or ProviderError()
    details = f" ({', '.join(error.names)})" if error.names else ""
    return ChatError(
        "backend_unavailable", f"{name} failed while it was answering{details}: try again.", retryable=True
    )


def retry_after(response: Any, exception: BaseException | None = None) -> float | None:
    """Returns the seconds to wait: the `Retry-After` header, in seconds or as a date, or Google's RetryInfo."""
    headers: Mapping[str, str] = getattr(response, "headers", None) or {}
    given = headers.get("retry-after") or headers.get("Retry-After") or ""
    if re.fullmatch(r"\d+(\.\d+)?", given):
        return min(float(given), _LONGEST_S)
    if given:
        try:
            return min(max(0.0, parsedate_to_datetime(given).timestamp() - time.time()), _LONGEST_S)
        except ValueError:
            return None
    found = re.search(r"retryDelay\W+(\d+(?:\.\d+)?)s", str(exception or ""))
    return min(float(found.group(1)), _LONGEST_S) if found else None
