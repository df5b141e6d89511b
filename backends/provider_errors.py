"""The parser of providers' error responses: type, code, parameter and text.

There is no common format. It reads OpenAI's `{"error": {message, type, param, code}}`, FastAPI's
`{"detail": …}` and pydantic's list in it (vLLM, Mistral), Google's `{"error": {status, details}}` (also within a list),
Ollama's `{"error": "text"}`, Cloudflare's `{"errors": […]}`, OpenRouter's `metadata.raw`, plain text and web pages.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from backends.keys import redact_keys

_MOST_TEXT = 4000
"""Characters of a provider's text that are read."""
_MOST_BODY = 100_000
_LONGEST_NAME = 60
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+|\[\d{1,4}\])*|\d{1,5}")
"""The form of a type, code or parameter. Any other text is not shown, since providers echo keys and messages."""
_KEY_LIKE = re.compile(r"[A-Za-z_].*\d{4}")
"""Names with long numbers, which may be keys."""
_PAGE = re.compile(r"\s*<(!doctype|html|head|body)\b", re.I)
_TAG = re.compile(r"<(script|style)\b.*?</\1\s*>|<[^>]*>", re.I | re.S)


@dataclass(frozen=True, slots=True)
class ProviderError:
    """A provider's error. `type`, `code` and `parameter` are names that are safe to show, or empty; `text` is not."""

    status: int | None = None
    type: str = ""
    code: str = ""
    parameter: str = ""
    text: str = ""
    page: bool = False
    """True if the response was a web page, which is not from the provider's API."""

    @property
    def names(self) -> list[str]:
        """The type, code and parameter that are known, each once."""
        codes = [name for name in dict.fromkeys((self.type, self.code)) if name]
        return [*codes, *([f"parameter {self.parameter}"] if self.parameter else [])]


def provider_error(exception: BaseException) -> ProviderError | None:
    """Reads the provider's response in a client library's exception; returns None if there was no response."""
    body = _body(exception)
    status = status_of(exception)
    if status is None and not isinstance(body, Mapping):
        return None
    page = isinstance(body, str) and bool(_PAGE.match(body))
    found = list(_errors(body))
    texts = list(dict.fromkeys(text for error in found if (text := _text(error))))
    text = " ".join(texts) or str(body or "")
    if page:
        text = _TAG.sub(" ", text[:_MOST_TEXT])
    return ProviderError(
        status,
        _first(found, "type", "status"),
        _first([{**error, "code": _other_code(error, status)} for error in found], "code", "reason"),
        _first(found, "param", "parameter", "loc"),
        " ".join(text.split())[:_MOST_TEXT],
        page,
    )


def status_of(exception: BaseException) -> int | None:
    """Returns the HTTP status of a client library's exception; None if it has none."""
    response = getattr(exception, "response", None)
    found = (getattr(exception, name, None) for name in ("status_code", "code"))
    numbers = (*found, getattr(response, "status_code", None))
    return next((int(str(number)) for number in numbers if re.fullmatch(r"[1-5]\d\d", str(number))), None)


def _body(exception: BaseException) -> Any:
    """The response's body, as JSON or text. The response itself takes precedence over the SDK's copy of it."""
    response: Any = getattr(exception, "response", None)
    try:
        text = response.text if isinstance(response.text, str) else ""
    except Exception:  # of any library: there is no response, or it has been closed
        text = ""
    if text:
        try:
            return json.loads(text) if len(text) < _MOST_BODY else text[:_MOST_BODY]
        except (ValueError, RecursionError):
            return text
    found = (getattr(exception, name, None) for name in ("body", "details"))
    return next((body for body in found if isinstance(body, Mapping | list | str)), None)


def _errors(body: Any, depth: int = 0) -> Iterator[Mapping[str, Any]]:
    """All errors in a body, the outer ones first; a text counts as an error with only a message."""
    if depth > 6 or not body:
        return
    if isinstance(body, str):
        inner = _parsed(body)
        if inner is None:
            yield {"message": body}
        else:
            yield from _errors(inner, depth + 1)
    elif isinstance(body, list):
        for one in body[:20]:
            yield from _errors(one, depth + 1)
    elif isinstance(body, Mapping):
        yield body
        metadata = body.get("metadata")
        raw = metadata.get("raw") if isinstance(metadata, Mapping) else None
        for inner in (*(body.get(name) for name in ("error", "errors", "detail", "details", "message")), raw):
            if isinstance(inner, Mapping | list) or (
                isinstance(inner, str) and (inner != body.get("message") or _parsed(inner) is not None)
            ):
                yield from _errors(inner, depth + 1)


def _parsed(text: str) -> Any:
    """The JSON object or list of objects in a text; None for other texts."""
    start = re.search(r"[{\[]", text)
    if start is None or len(text) > _MOST_BODY:
        return None
    try:
        found, _ = json.JSONDecoder().raw_decode(text, start.start())
    except (ValueError, RecursionError):
        return None
    return (
        found
        if isinstance(found, Mapping) or (isinstance(found, list) and found and isinstance(found[0], Mapping))
        else None
    )


def _text(error: Mapping[str, Any]) -> str:
    for name in ("message", "msg", "description", "error_description"):
        if isinstance(text := error.get(name), str) and text.strip():
            place = _name(error.get("loc"))
            return f"{text} ({error.get('type')}: {place})" if place else text
    return ""


def _first(errors: list[Mapping[str, Any]], *names: str) -> str:
    """The first value under one of these names that is safe to show."""
    values = (_name(error.get(name)) for name in names for error in errors)
    return next((value for value in values if value), "")


def _other_code(error: Mapping[str, Any], status: int | None) -> Any:
    """An error's code, unless it repeats the HTTP status."""
    code = error.get("code")
    return None if str(code) == str(status) else code


def _name(value: Any) -> str:
    """A type, code or parameter that is safe to show; empty for any other value."""
    if isinstance(value, list | tuple) and all(isinstance(step, str | int) for step in value):  # pydantic's `loc`
        value = ".".join(str(step) for step in value if step != "body")
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    text = str(value)
    sound = len(text) <= _LONGEST_NAME and _NAME.fullmatch(text) and not _KEY_LIKE.search(text)
    return text if sound and redact_keys(text) == text else ""
