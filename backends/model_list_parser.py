"""The parser of providers' lists of models.

Each provider has its own names for the same properties. Sources: Google's "Models" (`supportedGenerationMethods`,
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
"""Plausible context sizes, in tokens."""
_REPLIES = range(1, 1_000_000_000)
"""Plausible reply sizes, in tokens."""

_CONTEXT = (
    *("loaded_context_length", "meta.n_ctx", "n_ctx", "max_model_len", "context_length", "context_window"),
    *("max_context_length", "context_size", "inputTokenLimit", "max_input_tokens", "meta.n_ctx_train"),
)
"""Paths of the context size; the size that the server uses comes before the model's maximum."""
_REPLY = ("outputTokenLimit", "max_completion_tokens", "max_output_tokens", "top_provider.max_completion_tokens")
_INPUTS = ("architecture.input_modalities", "input_modalities", "supported_input_modalities")
_OUTPUTS = ("architecture.output_modalities", "output_modalities", "supported_output_modalities")
_IMAGES = ("capabilities.vision", "supports_vision", "supports_image_in", "supports_image_input")
_THINKING = ("thinking", "capabilities.reasoning", "capabilities.thinking", "supports_reasoning", "supports_thinking")
_TOOLS = ("capabilities.function_calling", "supports_tools", "supports_function_calling", "supports_tool_calling")
_NO_CHAT = frozenset(
    ("embed", "embedding", "embeddings", "rerank", "reranker", "moderation", "tts", "stt", "transcribe")
)
"""Words in the names and types of models that do not chat."""
_NO_CHAT_TYPES = _NO_CHAT | {"image", "audio", "video", "speech"}


def parse_model_list(text: bytes, *, prefix: str = "") -> tuple[ModelList, str]:
    """Parses a provider's list; returns it with the token of its next page, empty for the last page.

    Anything else than a list of models gives an empty list. `prefix` is removed from names.
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
    """Adds what a llama-server's `/props` tells to its list: context, image support, a switch for the thinking."""
    try:
        props = json.loads(text)
    except (ValueError, RecursionError):
        return listed
    if not isinstance(props, dict):
        return listed
    context = _size(props, ("default_generation_settings.n_ctx", "n_ctx"), _CONTEXTS)
    images = _flag(props, ("modalities.vision",))
    switches = "enable_thinking" in str(props.get("chat_template"))

    def completed(one: Model) -> Model:
        known = one.images if images is None else images
        return replace(one, context=context or one.context, images=known, switches_thinking=switches)

    models = map(completed, listed.models)
    return ModelList(tuple(models), listed.complete, listed.any_name)


def _entries(data: Any) -> Iterator[JSON]:
    """The objects of a bare list, or of the lists `data` and `models`; llama-server sends both."""
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
        _first_known(
            _flag(entry, _THINKING), "reasoning" in parameters if parameters else None, _in(abilities, "thinking")
        ),
        _first_known(
            _flag(entry, _IMAGES),
            "image" in inputs if inputs else None,
            _in(abilities, "vision", "multimodal", "image"),
            True if kind == "vlm" else None,
        ),
        _first_known(
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
    """False if the list says that it is no chat model."""
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
    """The smallest context of all providers, since a router may use any of them."""
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
    flags = [flag for provider in _live(entry) if (flag := _flag(provider, (field,))) is not None]
    return any(flags) if flags else None


def _live(entry: JSON) -> list[JSON]:
    providers = entry.get("providers")
    found = [one for one in providers if isinstance(one, dict)] if isinstance(providers, list) else []
    return [one for one in found if one.get("status") in (None, "live")]


def _merged(first: Model, second: Model) -> Model:
    """Two entries of one model as one; the first takes precedence."""
    names = ("context", "reply", "thinking", "images", "tools")
    missing = {name: getattr(second, name) for name in names if getattr(first, name) is None}
    return replace(first, **missing, chat=first.chat and second.chat)


def _at(entry: JSON, path: str) -> Any:
    value: Any = entry
    for step in path.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return value


def _size(entry: JSON, paths: Iterable[str], plausible: range) -> int | None:
    """The first plausible number at the paths; some servers write it as text."""
    for path in paths:
        value = _at(entry, path)
        if isinstance(value, str) and re.fullmatch(r"[0-9]{1,10}", value):
            value = int(value)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int) and not isinstance(value, bool) and value in plausible:
            return value
    return None


def _flag(entry: JSON, paths: Iterable[str]) -> bool | None:
    """The first boolean at the paths. An object counts as True: some servers give an ability settings of its own."""
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
    """True if a list of abilities has one of the words; None if not, since such lists may be incomplete."""
    return True if any(word in abilities for word in words) else None


def _first_known(*flags: bool | None) -> bool | None:
    return next((flag for flag in flags if flag is not None), None)
