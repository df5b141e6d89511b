"""What HTTP clients and providers' SDKs raise, as the errors that a visitor may read.

Nothing of an exception's own text goes into a message: providers echo keys in it. A status, a class name and the
provider's own error codes are enough.
"""

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any

from langchain_core.exceptions import ContextOverflowError

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
_LONGEST_S = 3600.0
"""A provider that asks for more is asked again after that: it may not have meant it."""
_KEY = re.compile(r"api.?key|API_KEY_INVALID", re.I)


def explain(name: str, exception: BaseException) -> ChatError | None:
    """The exception of a client library as one to read; `name` is the backend's. None for what nobody foresaw.

    A library wraps the one with the status in one of its own, so the causes are looked at too.
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


def broken_off(name: str) -> ChatError:
    """A connection that ended before the reply did."""
    message = f"The connection to {name} broke off: try again."
    return ChatError("backend_unavailable", message, retryable=True)


def silent(name: str, seconds: float) -> ChatError:
    """A backend of which nothing comes."""
    message = f"{name} sent nothing of a reply for {seconds:g} s: try again, or pick another backend."
    return ChatError("timeout", message, retryable=True)


def limited(name: str, wait_s: float | None) -> ChatError:
    """A backend that asks not to be asked, for so many seconds if it says."""
    when = "a little" if wait_s is None else f"{wait_s:.0f} s" if wait_s < 120 else f"{wait_s / 60:.0f} minutes"
    message = f"{name} has too many requests at the moment: wait {when}, then try again."
    return ChatError("rate_limited", message, retryable=True, retry_after=wait_s)


def _too_long(name: str) -> ChatError:
    message = f"{name} says that this is too long for it: shorten the message, or pick another memory mode."
    return ChatError("context_too_long", message)


def _causes(exception: BaseException) -> Iterator[BaseException]:
    at: BaseException | None = exception
    for _ in range(8):
        if at is None:
            return
        yield at
        at = at.__cause__ or at.__context__


def _by_kind(name: str, causes: Sequence[BaseException]) -> ChatError | None:
    """By the names of classes, from the surest sign to the vaguest: libraries wrap all of them in much the same."""
    kinds = {kind.__name__ for one in causes for kind in type(one).__mro__}
    missing = next((one for one in (causes[0], causes[0].__cause__) if isinstance(one, ImportError)), None)
    if missing is not None:
        package = missing.name or "that it needs"
        return ChatError("backend_unavailable", f"{name} cannot work: the Python package {package} is not installed.")
    if kinds & _UNREADABLE:
        message = f"{name} sent something that is no reply: try again, or check its address and the key."
        return ChatError("backend_unavailable", message, retryable=True)
    if kinds & _UNREACHABLE:
        message = f"{name} cannot be reached: is its server running, and is there a network?"
        return ChatError("backend_unavailable", message, retryable=True)
    if kinds & _TIMEOUTS:
        return ChatError("timeout", f"{name} did not answer in time: try again.", retryable=True)
    if kinds & _BROKEN:
        return broken_off(name)
    if kinds & _NO_CONNECTION:
        return ChatError("backend_unavailable", f"{name} cannot be reached: try again.", retryable=True)
    return None


def _by_status(name: str, exception: BaseException) -> ChatError | None:
    response = getattr(exception, "response", None)
    code = getattr(exception, "code", None)
    found = (getattr(exception, "status_code", None), code, getattr(response, "status_code", None))
    status = next((int(str(s)) for s in found if re.fullmatch(r"[1-5]\d\d", str(s))), None)
    text = f"{code} {exception}"[:20_000]
    if "HttpProcessingError" in {kind.__name__ for kind in type(exception).__mro__}:
        return None  # aiohttp's own: its code is about the connection
    if status is not None and 300 <= status < 400:
        message = f"{name} sends whoever asks it to another address: check its `base_url`."
        return ChatError("backend_unavailable", message)
    if status is not None and status < 300:
        return None
    if status is None:
        return _in_stream(name, exception, text)
    if status == 413 or (status in (400, 422, 500) and _TOO_LONG.search(text)):
        return _too_long(name)
    if status in (401, 403) or (status == 400 and _KEY.search(text)):
        return ChatError("authentication", f"{name} refused the key: check it, or pick another backend.")
    wait = retry_after(response, exception)
    if status == 402 or (status == 429 and wait is None and _NO_CREDIT.search(text)):
        return ChatError("rate_limited", f"{name} says that this key has no credit left: use another key or backend.")
    if status == 404:
        return ChatError("backend_unavailable", f"{name} does not know this model: check its `model` setting.")
    if status == 429:
        return limited(name, wait)
    if status in (408, 504):
        return ChatError("timeout", f"{name} did not answer in time: try again.", retryable=True)
    if status >= 500:
        message = f"{name} failed (HTTP {status}): try again."
        return ChatError("backend_unavailable", message, retryable=True, retry_after=wait)
    return ChatError("invalid_request", f"{name} did not accept the request (HTTP {status}): check the options.")


def _in_stream(name: str, exception: BaseException, text: str) -> ChatError | None:
    """An error that a provider sends within a stream it has begun: OpenAI's SDK gives it no status."""
    if type(exception).__name__ != "APIError":
        return None
    code = str(getattr(exception, "code", ""))
    if code == "context_length_exceeded" or _TOO_LONG.search(text):
        return _too_long(name)
    if code == "rate_limit_exceeded":
        return limited(name, None)
    return ChatError("backend_unavailable", f"{name} failed while it was answering: try again.", retryable=True)


def retry_after(response: Any, exception: BaseException | None = None) -> float | None:
    """Seconds that a provider asks to wait: the header, as seconds or as a date, else Google's RetryInfo."""
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
