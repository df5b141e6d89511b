"""The lists of models that providers answer with, as `ModelList`s.

The same facts have other names at each provider. Sources: Google's "Models" (`supportedGenerationMethods`,
`inputTokenLimit`, `outputTokenLimit`, `thinking`), OpenAI's "List models", vLLM (`max_model_len`), llama-server
(`meta.n_ctx_train`, `capabilities`, `/props`), OpenRouter's "Models" (`context_length`, `architecture`, `top_provider`,
`supported_parameters`), Hugging Face's router (`providers`), Mistral's "List models" (`max_context_length`,
`capabilities`, `aliases`), Groq (`context_window`, `max_completion_tokens`), Together (a bare list, `type`), LM Studio
(`loaded_context_length`, `type`), Ollama (`:latest`), Moonshot (`supports_image_in`), LiteLLM (names with `*`).
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from backends.models import KEPT, Model, ModelList

JSON = Mapping[str, Any]

_NAME_CHARACTERS = 200
_CONTEXTS = range(256, 1_000_000_000)
"""Sizes of a context that are believed, in tokens."""
_REPLIES = range(1, 1_000_000_000)

_CONTEXT = (
    *("loaded_context_length", "meta.n_ctx", "n_ctx", "max_model_len", "context_length", "context_window"),
    *("max_context_length", "context_size", "inputTokenLimit", "max_input_tokens", "meta.n_ctx_train"),
)
"""Where the size of the context is; what the server uses at the moment stands before what the model could do."""
_REPLY = ("outputTokenLimit", "max_completion_tokens", "max_output_tokens", "top_provider.max_completion_tokens")
_INPUTS = ("architecture.input_modalities", "input_modalities", "supported_input_modalities")
_OUTPUTS = ("architecture.output_modalities", "output_modalities", "supported_output_modalities")
_IMAGES = ("capabilities.vision", "supports_vision", "supports_image_in", "supports_image_input")
_THINKING = ("thinking", "capabilities.reasoning", "capabilities.thinking", "supports_reasoning", "supports_thinking")
_TOOLS = ("capabilities.function_calling", "supports_tools", "supports_function_calling", "supports_tool_calling")
_NO_CHAT = frozenset(
    ("embed", "embedding", "embeddings", "rerank", "reranker", "moderation", "tts", "stt", "transcribe")
)
"""Words in the names of models that do not chat, and types of such models."""
_NO_CHAT_TYPES = _NO_CHAT | {"image", "audio", "video", "speech"}


def parse_model_list(text: bytes, *, prefix: str = "") -> tuple[ModelList, str]:
    """The list in a provider's answer and the token of its next page, empty if there is none.

    What is no list of models is an empty one. `prefix` is left out of names.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return ModelList(), ""
    found: dict[str, Model] = {}
    entries = list(_entries(data))
    for entry in entries:
        if (model := _model(entry, prefix)) and (len(found) < KEPT or model.name in found):
            found[model.name] = _merged(found[model.name], model) if model.name in found else model
    complete = len({_name(entry, prefix) for entry in entries} - {""}) <= KEPT
    one = len(found) == 1 and any(entry.get("owned_by") == "llamacpp" for entry in entries)
    token = data.get("nextPageToken") if isinstance(data, dict) else None
    return ModelList(tuple(found.values()), complete, one), token if isinstance(token, str) else ""


def with_props(listed: ModelList, text: bytes) -> ModelList:
    """The list of a llama-server with what its `/props` says: the context that it runs with, and whether it sees."""
    try:
        props = json.loads(text)
    except (ValueError, RecursionError):
        return listed
    if not isinstance(props, dict):
        return listed
    context = _size(props, ("default_generation_settings.n_ctx", "n_ctx"), _CONTEXTS)
    images = _flag(props, ("modalities.vision",))
    models = [
        replace(one, context=context or one.context, images=one.images if images is None else images)
        for one in listed.models
    ]
    return ModelList(tuple(models), listed.complete, listed.any_name)


def _entries(data: Any) -> Iterator[JSON]:
    """The dictionaries of a bare list, or of the lists `data` and `models`: llama-server gives both."""
    named = [data.get("data"), data.get("models")] if isinstance(data, dict) else []
    for entries in [data, *named]:
        yield from (entry for entry in entries if isinstance(entry, dict)) if isinstance(entries, list) else ()


def _name(entry: JSON, prefix: str = "") -> str:
    found = (entry.get(field) for field in ("id", "key", "model", "name"))
    name = next((one for one in found if isinstance(one, str)), "").removeprefix(prefix)
    return name if name.isprintable() and name == name.strip() and len(name) <= _NAME_CHARACTERS else ""


def _model(entry: JSON, prefix: str) -> Model | None:
    if not (name := _name(entry, prefix)):
        return None
    parameters = _strings(entry, ("supported_parameters",))
    abilities = _strings(entry, ("capabilities",)) or []
    inputs = _strings(entry, _INPUTS)
    contexts = _contexts(entry)
    kind = entry.get("type")
    return Model(
        name,
        _context(entry, contexts),
        _size(entry, _REPLY, _REPLIES),
        _known(_flag(entry, _THINKING), "reasoning" in parameters if parameters else None, _in(abilities, "thinking")),
        _known(
            _flag(entry, _IMAGES),
            "image" in inputs if inputs else None,
            _in(abilities, "vision", "multimodal", "image"),
            True if kind == "vlm" else None,
        ),
        _known(
            _flag(entry, _TOOLS),
            "tools" in parameters if parameters else None,
            _in(abilities, "tools", "tool_use"),
            _any_provider(entry, "supports_tools"),
        ),
        _chats(entry, name, abilities),
        frozenset({"temperature"} - set(parameters or ["temperature"])),
        tuple(alias for alias in (_strings(entry, ("aliases",)) or [])[:20] if len(alias) <= _NAME_CHARACTERS),
        contexts,
    )


def _chats(entry: JSON, name: str, abilities: Sequence[str]) -> bool:
    """Whether it is a chat model, as far as the list tells."""
    methods, outputs = _strings(entry, ("supportedGenerationMethods",)), _strings(entry, _OUTPUTS)
    kind = entry.get("type")
    return not (
        (methods is not None and "generateContent" not in methods)
        or (outputs and "text" not in outputs)
        or _flag(entry, ("capabilities.completion_chat",)) is False
        or ("embedding" in abilities and "completion" not in abilities)
        or (isinstance(kind, str) and kind.casefold() in _NO_CHAT_TYPES)
        or _NO_CHAT & set(re.split(r"[^a-z]+", name.casefold()))
    )


def _context(entry: JSON, contexts: Sequence[tuple[str, int]]) -> int | None:
    """A router may ask any of its providers: what all of them can take counts."""
    sizes = [_size(entry, _CONTEXT, _CONTEXTS), _size(entry, ("top_provider.context_length",), _CONTEXTS)]
    return min([size for size in sizes if size] + [size for _, size in contexts], default=None)


def _contexts(entry: JSON) -> tuple[tuple[str, int], ...]:
    found = []
    for provider in _live(entry):
        name, size = provider.get("provider"), _size(provider, _CONTEXT, _CONTEXTS)
        if isinstance(name, str) and size:
            found.append((name.casefold(), size))
    return tuple(found[:50])


def _any_provider(entry: JSON, field: str) -> bool | None:
    told = [flag for provider in _live(entry) if (flag := _flag(provider, (field,))) is not None]
    return any(told) if told else None


def _live(entry: JSON) -> list[JSON]:
    providers = entry.get("providers")
    found = [one for one in providers if isinstance(one, dict)] if isinstance(providers, list) else []
    return [one for one in found if one.get("status") in (None, "live")]


def _merged(first: Model, second: Model) -> Model:
    """Two entries of one model: what the first does not say is taken from the second."""
    names = ("context", "reply", "thinking", "images", "tools")
    missing = {name: getattr(second, name) for name in names if getattr(first, name) is None}
    return replace(first, **missing, chat=first.chat and second.chat)


def _at(entry: JSON, path: str) -> Any:
    value: Any = entry
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _size(entry: JSON, paths: Iterable[str], believed: range) -> int | None:
    """The first number at the paths that can be one; some servers write it as text."""
    for path in paths:
        value = _at(entry, path)
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}", value):
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and value in believed:
            return value
    return None


def _flag(entry: JSON, paths: Iterable[str]) -> bool | None:
    """The first answer at the paths; an object, as some give for an ability with settings of its own, is a yes."""
    for path in paths:
        value = _at(entry, path)
        if isinstance(value, bool):
            return value
        if isinstance(value, dict) and value:
            return True
    return None


def _strings(entry: JSON, paths: Iterable[str]) -> list[str] | None:
    for path in paths:
        value = _at(entry, path)
        if isinstance(value, list):
            return [one for one in value if isinstance(one, str)]
    return None


def _in(abilities: Sequence[str], *words: str) -> bool | None:
    """A list of abilities says yes for what is in it; what is not may only be left out."""
    return True if any(word in abilities for word in words) else None


def _known(*answers: bool | None) -> bool | None:
    return next((answer for answer in answers if answer is not None), None)
