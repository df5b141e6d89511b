"""The choice of models: pure functions of an entry of the settings and its provider's list."""

from collections.abc import Sequence

from backends.base import DEFAULT_CONTEXT, Health
from backends.models import Model, ModelList, nearest
from settings import BackendSettings

_NAME_CHARACTERS = 200


def choices(entry: BackendSettings, listed: ModelList) -> Sequence[Model]:
    """Returns the models that a visitor may choose: those of the entry, or the provider's by name."""
    if entry.models is None:
        return ()
    if entry.models == "*":
        names = {model.name for model in listed.offered}
        own = [Model(entry.model)] if entry.model and entry.model not in names else []
        return [*own, *listed.offered]
    return [listed.find(name) or Model(name) for name in entry.models]


def default(entry: BackendSettings, listed: ModelList) -> str | None:
    """Returns the default model: the entry's own, or the first that the provider has; None if there is none."""
    own = entry.default_model
    if own and not listed.problem(own):
        return own
    return next((one.name for one in choices(entry, listed) if not listed.problem(one.name)), own)


def health(entry: BackendSettings, listed: ModelList) -> Health:
    """Returns `unavailable` if the provider has none of the entry's models; else `ready`, and names a missing one."""
    if entry.models == "*" and default(entry, listed) is None:
        return Health("unavailable", "its server lists no chat models: name one in `model`")
    names = entry.models if isinstance(entry.models, list) else [entry.model] if entry.model else []
    missing = [problem for name in names if (problem := listed.problem(name))]
    if missing and len(missing) == len(names) and entry.models != "*":
        return Health("unavailable", missing[0])
    return Health("ready", missing[0] if missing else "")


def problem(entry: BackendSettings, listed: ModelList, model: str) -> str:
    """Says why a model cannot be chosen, and names similar ones; empty if it can be."""
    models = choices(entry, listed)
    if any(one.name == model for one in models):
        return ""
    names = ", ".join(nearest(model[:_NAME_CHARACTERS], models)) or "none at the moment"
    return f"{entry.name} offers no model {model[:60]!r}; it offers {names}."


def context(entry: BackendSettings, model_info: Model) -> int:
    """Returns the limit of prompt and reply together, in tokens: the smaller of the entry's and the provider's."""
    return min([size for size in (entry.context, model_info.context) if size], default=DEFAULT_CONTEXT)


def supported_options(entry: BackendSettings, model_info: Model, options: frozenset[str]) -> frozenset[str]:
    """Returns the options that the model does not ignore, and `thinking` where its thinking can be switched."""
    switches = model_info.switches_thinking or entry.thinking == "switch"
    return (options | ({"thinking"} if switches else set())) - entry.ignored(model_info.name) - model_info.ignores
