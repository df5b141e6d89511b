"""What a server's refusal says about a request, and the shape of a request that the server may accept.

Wordings were collected from OpenAI, Azure, Mistral, Groq, xAI, Google, vLLM, LiteLLM, llama.cpp and others. A server
may also echo what a visitor wrote: the words of the conversation are no part of a refusal. What follows from a refusal
is only kept where the next request succeeds.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from backends.openai_request import FIXED, LONGEST_REPLY, RequestShape
from backends.provider_errors import ProviderError
from backends.redaction import without_words

_STATUSES = frozenset({None, 400, 404, 405, 415, 422, 500, 501})
"""The HTTP statuses of a refused request: 500 where a chat template fails, None for an error within a stream."""
_ECHO = 16
"""Characters in a row that an error shares with a message by an echo; a field's name alone is mostly shorter."""
_CODES = frozenset(
    {"unsupported_parameter", "unsupported_value", "unknown_parameter", "unrecognized_parameter", "extra_forbidden"}
)
_BAD_REQUEST = re.compile(r"invalid.?(request|argument|param)|bad.?request|validation", re.I)
"""In the type or code of an error that is about the request. Without it, an error within a stream may be a crash."""
_REFUSED = re.compile(
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
"""What states which values a field may have: the server takes the field, and one visitor's value is wrong."""
_ALLOWED = re.compile(
    r"(?<!not )(?<!un)\b(expected|allowed|valid|supported|available|known|accepted|permitted)"
    r"( \w+)? (one of|are|fields?|parameters?|params?|arguments?|properties|keys|values)\b",
    re.I,
)
"""What begins a list of the fields that a server does take."""
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


def accepted_shape(
    shape: RequestShape, error: ProviderError, body: Mapping[str, Any], name: str
) -> tuple[RequestShape, str] | None:
    """The shape that the refused request `body` should have had, and a sentence about it, by the backend's name.

    None where the error does not say, or where following it would change nothing.
    """
    if error.status not in _STATUSES or error.page:
        return None
    messages = body.get("messages") or ()
    error = replace(error, text=without_words(error.text, _texts(messages), run=_ECHO))
    if _may_be_crash(error):
        return _system(shape, error, messages, name)
    return (
        _thinking(shape, error, messages, name)
        or _content(shape, error, messages, name)
        or _fields(shape, error, body, name)
        or _system(shape, error, messages, name)
    )


def _texts(messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """All that the messages of a request say, and the arguments of their tool calls."""
    for message in messages:
        content = message.get("content")
        blocks = content if isinstance(content, list) else [content]
        texts = [block.get("text") if isinstance(block, Mapping) else block for block in blocks]
        arguments = [call["function"]["arguments"] for call in message.get("tool_calls") or ()]
        thinking = (message.get("reasoning_content"), message.get("reasoning"))
        yield from (text for text in (*texts, *arguments, *thinking) if isinstance(text, str))


def _may_be_crash(error: ProviderError) -> bool:
    """Whether an error is no sign that the server refuses the request: the next attempt may succeed as it is."""
    if error.status is not None:
        return error.status >= 500
    names = {error.type, error.code}
    return not (_CODES & names or any(map(_BAD_REQUEST.search, names)))


def _thinking(
    shape: RequestShape, error: ProviderError, messages: Sequence[Mapping[str, Any]], name: str
) -> tuple[RequestShape, str] | None:
    """Some servers refuse their own field for thinking in what comes back, others want it in every message."""
    found = _THINKING.search(f"{error.parameter} {error.text}")
    if found is None:
        return None
    field = next(filter(None, found.groups()))
    sent = [message for message in messages if message["role"] == "assistant"]
    if _MISSING.search(error.text) and any(field not in message for message in sent):
        changed = replace(shape, reasoning=field, without=shape.without - {field})
        return changed, f"{name} wants `{field}` in every message of the model: it was added."
    if _is_refusal(error) and any(field in message for message in sent):
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
    """The shape without the field that the server does not accept, or with another name for the longest reply.

    One field at a time: if the server refuses another one too, it says so of the next request.
    """
    if not _is_refusal(error):
        return None
    sent = {*body, *(body.get("extra_body") or ())} - FIXED - {"tools", "extra_body", "extra_headers", "extra_query"}
    names, named = {**shape.fields}, _named(error, sent)
    if {*named} >= {*LONGEST_REPLY}:  # one in the request and one in `extra_body`, which has the last word
        return replace(shape, fields=names | {LONGEST_REPLY[0]: None}), f"{name} takes one of {LONGEST_REPLY} alone."
    if not named or _is_range(error, named[0]):
        return None
    field = named[0]
    key = next((key for key, given in shape.fields.items() if given == field), field)
    names[key] = _other_name(key, field, names, error) if key in LONGEST_REPLY else None
    return replace(shape, fields=names), _sentence(name, field, names[key])


def _other_name(key: str, refused: str, names: Mapping[str, str | None], error: ProviderError) -> str | None:
    """Another name for the longest reply: the one that the error names, else OpenAI's other one; None after that."""
    found = _INSTEAD.search(error.text)
    if found and found[1].lower() != refused and found[1].lower() != key:
        return found[1].lower()
    other = LONGEST_REPLY[key == LONGEST_REPLY[0]]
    return None if key in names else other


def _sentence(name: str, field: str, new: str | None) -> str:
    if new:
        return f"{name} takes `{new}` in place of `{field}`: the request was changed."
    shown = {"temperature": "The temperature", **dict.fromkeys(LONGEST_REPLY, "The longest reply")}.get(field)
    return f"{shown} was not used: {name} does not accept it." if shown else f"{name} does not accept `{field}`."


def _is_refusal(error: ProviderError) -> bool:
    return bool(_CODES & {error.code, error.type}) or bool(_REFUSED.search(error.text))


def _is_range(error: ProviderError, field: str) -> bool:
    """Whether an error is about the value of a field, not about the field."""
    other = _INSTEAD.search(error.text) if field.startswith("max_") else None
    if (_CODES - {"unsupported_value"}) & {error.code, error.type} or (other and other[1].lower() != field):
        return False
    return bool(_RANGE.search(error.text))


def _named(error: ProviderError, fields: Collection[str]) -> list[str]:
    """Those of the fields that an error names: as its parameter, else in its text in the order of their places."""
    top = re.split(r"[.\[]", error.parameter.removeprefix("body."))[0]
    if found := sorted(field for field in fields if _key(field) == _key(top)):
        return found
    if top and top not in ("messages", "error"):
        return []
    begins = _ALLOWED.search(error.text)
    before = error.text[: begins.start()] if begins else error.text
    return _in_order(before, fields) or _in_order(error.text, fields)


def _in_order(text: str, fields: Collection[str]) -> list[str]:
    return [field for place, field in sorted((_place(text, field), field) for field in fields) if place >= 0]


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _place(text: str, field: str) -> int:
    """Where a text first names a field, -1 if nowhere.

    Camel case counts too. A field that is a plain word counts only where it is marked as a field.
    """
    words = "_?".join(map(re.escape, field.split("_")))
    if "_" in field or field == "temperature":
        pattern = rf"(?<![A-Za-z0-9_]){words}(?![A-Za-z0-9_])"
    else:
        marked = r"(parameters?|params?|arguments?|fields?|property|supplied)\W{1,3}"
        pattern = rf"[\"'`/\[({{]{words}[\"'`\])}}:]|{marked}{words}\b"
    found = re.search(pattern, text, re.I)
    return found.start() if found else -1
