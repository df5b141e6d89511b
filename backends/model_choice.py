"""What an entry of the settings and its provider's list of models make of each other: which models a visitor may choose
among, which one is used where nobody chooses, and what holds for each. Pure functions.
"""

from collections.abc import Sequence

from backends.base import DEFAULT_CONTEXT, Health
from backends.models import Model, ModelList, nearest
from settings import BackendSettings

_NAME_CHARACTERS = 200


def offered(entry: BackendSettings, listed: ModelList) -> Sequence[Model]:
    """The models that a visitor may choose among: those of the entry, or the provider's by name."""
    if entry.models is None:
        return ()
    if entry.models == "*":
        names = {model.name for model in listed.offered}
        own = [Model(entry.model)] if entry.model and entry.model not in names else []
        return [*own, *listed.offered]
    return [listed.find(name) or Model(name) for name in entry.models]


def default(entry: BackendSettings, listed: ModelList) -> str | None:
    """The model where nobody chooses: the entry's own, else the first that the provider has; None if there is none."""
    own = entry.default_model
    if own and not listed.problem(own):
        return own
    return next((one.name for one in offered(entry, listed) if not listed.problem(one.name)), own)


def health(entry: BackendSettings, listed: ModelList) -> Health:
    """Unavailable where the provider has none of the entry's models; else ready, and the reason names one it lacks."""
    if entry.models == "*" and default(entry, listed) is None:
        return Health("unavailable", "its server lists no chat models: name one in `model`")
    names = entry.models if isinstance(entry.models, list) else [entry.model] if entry.model else []
    missing = [problem for name in names if (problem := listed.problem(name))]
    if missing and len(missing) == len(names) and entry.models != "*":
        return Health("unavailable", missing[0])
    return Health("ready", missing[0] if missing else "")


def refusal(entry: BackendSettings, listed: ModelList, model: str) -> str:
    """Why a model cannot be chosen, naming some that can; empty if it can be."""
    models = offered(entry, listed)
    if any(one.name == model for one in models):
        return ""
    names = ", ".join(nearest(model[:_NAME_CHARACTERS], models)) or "none at the moment"
    return f"{entry.name} offers no model {model[:60]!r}; it offers {names}."


def context(entry: BackendSettings, model_info: Model) -> int:
    """The most tokens of prompt and reply together: what the provider reports, with the entry's own as a bound."""
    return min([size for size in (entry.context, model_info.context) if size], default=DEFAULT_CONTEXT)


def taken(entry: BackendSettings, model_info: Model, options: frozenset[str]) -> frozenset[str]:
    """Those of the options that the model does not ignore."""
    return options - entry.ignored(model_info.name) - model_info.ignores
