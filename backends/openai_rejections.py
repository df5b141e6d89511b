"""The parser of servers' rejections: it derives the shape of a request that the server may accept.

The wordings were collected from OpenAI, Azure, Mistral, Groq, xAI, Google, vLLM, LiteLLM, llama.cpp and others. A
server may echo the conversation, so its words are masked first. A new shape is kept only if the next request succeeds.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from backends.provider_errors import ProviderError
from backends.redaction import mask_words
from backends.request_shape import FIXED, LONGEST_REPLY, RequestShape

_STATUSES = frozenset({None, 400, 404, 405, 415, 422, 500, 501})
"""The HTTP statuses of a rejection: 500 if a chat template fails, None for an error within a stream."""
_ECHO = 16
"""The shortest run of characters that counts as an echo; names of fields are mostly shorter."""
_CODES = frozenset(
    {"unsupported_parameter", "unsupported_value", "unknown_parameter", "unrecognized_parameter", "extra_forbidden"}
)
_BAD_REQUEST = re.compile(r"invalid.?(request|argument|param)|bad.?request|validation", re.I)
"""The types and codes of errors about the request; another error within a stream may be a crash."""
_REJECTED = re.compile(
    r"unsupported|unrecogni[sz]ed|unknown|unexpected|disallowed|forbidden|deprecated|no longer|only the default"
    r"|(not|n['\u2019]t|cannot|never)( \w+)? (be )?(support|permit|allow|accept|recogni[sz]|enable|available|use)"
    r"|extra.?(input|field|parameter|argument)|additional propert|cannot both|cannot find field"
    r"|(invalid|no such) (field|parameter|argument)|(use|try) \W?max_\w+tokens\W? instead",
    re.I,
)
_RANGE = re.compile(
    r"\bbetween\W+\S+\W+and\b|\bat (most|least)\b|[<>]=|[≤≥]|[<>] ?-?\d|\bmust be (in|within)\b|\bout of range\b"
    r"|\b(in|within|valid|allowed|supported) (the )?range\b|\bexceed|\btoo (large|small|high|low|big)\b"
    r"|\b(greater|less|more|larger|smaller|lower|higher|fewer) than\b"
    r"|\bor (greater|less|more|larger|smaller|lower|higher|fewer|above|below)\b"
    r"|\b(max|min)(imum)?\b[^.;,]{0,40}?[ =:]-?\d|\b(maximum|minimum) (of|is|value|allowed)\b"
    r"|\b(up to|above|below) -?\d|\d to -?\d|[\[(] ?-?[\d.]+, ?-?[\d.]+ ?[\])]",
    re.I,
)
"""The phrases about the range of a field: the server accepts the field, but not one visitor's value."""
_ALLOWED = re.compile(
    r"(?<!not )(?<!un)\b(expected|allowed|valid|supported|available|known|accepted|permitted)"
    r"( \w+)? (one of|are|fields?|parameters?|params?|arguments?|properties|keys|values)\b",
    re.I,
)
"""The beginning of a list of accepted fields."""
_INSTEAD = re.compile(r"(?:use|try|by|of|mean)\W{1,4}(max_(?:completion_|output_|new_)?tokens)\b", re.I)
_NO_SYSTEM = re.compile(
    r"(system|developer).{0,3}(role|message|prompt|instruction)s?.{0,40}"
    r"(not|n['\u2019]t|un)\W?.{0,20}(support|allow|enabled|accept|permit|implement)"
    r"|(not|n['\u2019]t|un) ?(support|accept|allow|recogni)\w*.{0,30}\b(system|developer)\b"
    r"|(invalid|unexpected|unknown|unsupported)( message)? role\W{0,4}(of )?\W?(system|developer)"
    r"|role\W{1,4}(system|developer)\W.{0,30}(not|n['\u2019]t|unsupported|invalid|unknown)"
    r"|(system|developer)\W{1,3}is not (one of|a valid|an allowed)|first (message|role).{0,30}\buser\b"
    r"|(only|should be)\W+user\W.{0,5}(and|or)?\W+assistant|roles must alternate",
    re.I | re.S,
)
_EMPTY = re.compile(
    r"(content|text|message).{0,80}(empty|blank|at least (one|1)|too short)|(empty|blank).{0,30}(content|text)",
    re.I | re.S,
)
_MISSING = re.compile(r"missing|must be (passed|provided|included|present|sent)|required|need", re.I)
_THINKING = re.compile(r"\b(reasoning_content)\b|[`'\".](reasoning)\b|\b(reasoning) field")


def corrected_shape(
    shape: RequestShape, error: ProviderError, body: Mapping[str, Any], name: str
) -> tuple[RequestShape, str] | None:
    """Derives the shape that the rejected request `body` should have had, with a sentence for the visitor.

    `name` is the backend's. Returns None if the error does not say, or if nothing would change.
    """
    if error.status not in _STATUSES or error.page:
        return None
    messages = body.get("messages") or ()
    error = replace(error, text=mask_words(error.text, _texts(messages), run=_ECHO))
    if _may_be_crash(error):
        return _system(shape, error, messages, name)
    return (
        _thinking(shape, error, messages, name)
        or _content(shape, error, messages, name)
        or _fields(shape, error, body, name)
        or _system(shape, error, messages, name)
    )


def _texts(messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """All texts of a request's messages, with the arguments of their tool calls."""
    for message in messages:
        content = message.get("content")
        blocks = content if isinstance(content, list) else [content]
        texts = [block.get("text") if isinstance(block, Mapping) else block for block in blocks]
        arguments = [call["function"]["arguments"] for call in message.get("tool_calls") or ()]
        thinking = (message.get("reasoning_content"), message.get("reasoning"))
        yield from (text for text in (*texts, *arguments, *thinking) if isinstance(text, str))


def _may_be_crash(error: ProviderError) -> bool:
    """True if the error may be a crash, so that the same request may succeed the next time."""
    if error.status is not None:
        return error.status >= 500
    names = {error.type, error.code}
    return not (_CODES & names or any(map(_BAD_REQUEST.search, names)))


def _thinking(
    shape: RequestShape, error: ProviderError, messages: Sequence[Mapping[str, Any]], name: str
) -> tuple[RequestShape, str] | None:
    """The shape for a rejected field for thinking, or for a missing one: servers differ."""
    found = _THINKING.search(f"{error.parameter} {error.text}")
    if found is None:
        return None
    field = next(filter(None, found.groups()))
    sent = [message for message in messages if message["role"] == "assistant"]
    if _MISSING.search(error.text) and any(field not in message for message in sent):
        changed = replace(shape, reasoning=field, without=shape.without - {field})
        return changed, f"{name} requires `{field}` in every assistant message: it was added."
    if _is_rejection(error) and any(field in message for message in sent):
        changed = replace(shape, without=shape.without | {field})
        return changed, f"{name} does not accept `{field}` in messages: it was left out."
    return None


def _content(
    shape: RequestShape, error: ProviderError, messages: Sequence[Mapping[str, Any]], name: str
) -> tuple[RequestShape, str] | None:
    empty = any(message.get("tool_calls") and message.get("content") == "" for message in messages)
    if shape.null_content or not empty or not _EMPTY.search(error.text):
        return None
    sentence = f"{name} does not accept an empty text beside tool calls: it was left out."
    return replace(shape, null_content=True), sentence


def _system(
    shape: RequestShape, error: ProviderError, messages: Sequence[Mapping[str, Any]], name: str
) -> tuple[RequestShape, str] | None:
    has_system = bool(messages) and messages[0]["role"] in ("system", "developer")
    of_role = re.search(r"messages.*\brole$", error.parameter)
    first = re.search(r"messages\W0\W", error.parameter) or re.search("system|developer", error.text)
    if not has_system or shape.system_role == "user" or not ((of_role and first) or _NO_SYSTEM.search(error.text)):
        return None
    changed = replace(shape, system_role="user")
    return changed, f"{name} has no system role: the system prompt was put in front of the first message."


def _fields(
    shape: RequestShape, error: ProviderError, body: Mapping[str, Any], name: str
) -> tuple[RequestShape, str] | None:
    """The shape without the rejected field, or with another name for the max reply length.

    It changes one field at a time: if the server rejects another one too, the next error says so.
    """
    if not _is_rejection(error):
        return None
    sent = {*body, *(body.get("extra_body") or ())} - FIXED - {"tools", "extra_body", "extra_headers", "extra_query"}
    names, named = {**shape.fields}, _named(error, sent)
    if {*named} >= {*LONGEST_REPLY}:  # one in the request and one in `extra_body`, which takes precedence
        return replace(shape, fields=names | {LONGEST_REPLY[0]: None}), f"{name} accepts only one of {LONGEST_REPLY}."
    if not named or _is_range(error, named[0]):
        return None
    field = named[0]
    key = next((key for key, given in shape.fields.items() if given == field), field)
    names[key] = _other_name(key, field, names, error) if key in LONGEST_REPLY else None
    return replace(shape, fields=names), _sentence(name, field, names[key])


def _other_name(key: str, rejected: str, names: Mapping[str, str | None], error: ProviderError) -> str | None:
    """Another name for the max reply length: the one in the error, or OpenAI's other one; None after that."""
    found = _INSTEAD.search(error.text)
    if found and found[1].lower() != rejected and found[1].lower() != key:
        return found[1].lower()
    other = LONGEST_REPLY[key == LONGEST_REPLY[0]]
    return None if key in names else other


def _sentence(name: str, field: str, new: str | None) -> str:
    if new:
        return f"{name} expects `{new}` instead of `{field}`: the request was changed."
    shown = {"temperature": "The temperature", **dict.fromkeys(LONGEST_REPLY, "The max reply length")}.get(field)
    return f"{shown} was not used: {name} does not accept it." if shown else f"{name} does not accept `{field}`."


def _is_rejection(error: ProviderError) -> bool:
    return bool(_CODES & {error.code, error.type}) or bool(_REJECTED.search(error.text))


def _is_range(error: ProviderError, field: str) -> bool:
    """True if an error is about the value of a field, not about the field."""
    other = _INSTEAD.search(error.text) if field.startswith("max_") else None
    if (_CODES - {"unsupported_value"}) & {error.code, error.type} or (other and other[1].lower() != field):
        return False
    return bool(_RANGE.search(error.text))


def _named(error: ProviderError, fields: Collection[str]) -> list[str]:
    """The fields that an error names: as its parameter, or in its text, in the order of appearance."""
    top = re.split(r"[.\[]", error.parameter.removeprefix("body."))[0]
    if found := sorted(field for field in fields if _key(field) == _key(top)):
        return found
    if top and top not in ("messages", "error"):
        return []
    begins = _ALLOWED.search(error.text)
    before = error.text[: begins.start()] if begins else error.text
    return _in_order(before, fields) or _in_order(error.text, fields)


def _in_order(text: str, fields: Collection[str]) -> list[str]:
    return [field for at, field in sorted((_position(text, field), field) for field in fields) if at >= 0]


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _position(text: str, field: str) -> int:
    """The position at which a text first names a field, also in camel case; -1 if it does not.

    A field that is a plain word counts only if it is marked as a field.
    """
    words = "_?".join(map(re.escape, field.split("_")))
    if "_" in field or field == "temperature":
        pattern = rf"(?<![A-Za-z0-9_]){words}(?![A-Za-z0-9_])"
    else:
        marked = r"(parameters?|params?|arguments?|fields?|property|supplied)\W{1,3}"
        pattern = rf"[\"'`/\[({{]{words}[\"'`\])}}:]|{marked}{words}\b"
    found = re.search(pattern, text, re.I)
    return found.start() if found else -1
