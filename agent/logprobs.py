"""The probabilities of tokens in a chunk, in the form of our events.

The source form is that of OpenAI (https://platform.openai.com/docs/api-reference/chat-streaming/streaming, `logprobs`),
which llama.cpp, vLLM and others share: `{content: [{token, logprob, bytes, top_logprobs}]}`.
"""

import math
from collections.abc import Mapping
from typing import Any

from langchain_core.messages import AIMessage

from runs.events import JSON
from runs.text import valid_text

_LEAST_LOGPROB = -9999.0
"""OpenAI's value for a probability too small to report."""


def read_logprobs(chunk: AIMessage, alternatives: int | None) -> list[JSON]:
    """Returns {token, logprob, top, bytes} for each token of a chunk; `top` has at most `alternatives` pairs.

    The list is empty if `alternatives` is None: the request did not ask. Only a token that is a part of a character
    has `bytes`.
    """
    reported = chunk.response_metadata.get("logprobs") if alternatives is not None else None
    tokens = reported.get("content") if isinstance(reported, Mapping) else None
    if not isinstance(tokens, list):
        return []
    return [_token(one, alternatives or 0) for one in tokens if isinstance(one, Mapping)]


def _token(one: Mapping[str, Any], alternatives: int) -> JSON:
    top = one.get("top_logprobs")
    known = [each for each in top if isinstance(each, Mapping)] if isinstance(top, list) else []
    pairs = [[_text(each), _logprob(each)] for each in known[:alternatives]]
    made: JSON = {"token": _text(one), "logprob": _logprob(one), "top": pairs}
    return made | ({"bytes": one["bytes"]} if _is_part(one.get("bytes")) else {})


def _text(one: Mapping[str, Any]) -> str:
    return valid_text(str(one.get("token") or ""))


def _logprob(one: Mapping[str, Any]) -> float:
    value = one.get("logprob")
    known = isinstance(value, int | float) and math.isfinite(value)
    return round(float(value), 6) if known and value is not None else _LEAST_LOGPROB


def _is_part(raw: Any) -> bool:
    """Whether these bytes are a part of a character."""
    try:
        bytes(raw or ()).decode()
    except UnicodeDecodeError:
        return True
    except (TypeError, ValueError):
        return False
    return False
