"""A provider's models: their properties, and the lookup of names."""

import difflib
import heapq
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property

KEPT = 1000
"""The most models of one list that are kept."""
OFFERED = 300
"""The most models of one list that a visitor can choose."""
_NAMED, _LIKELY = 5, 40
"""The number of models that a message names, and of candidates that are compared for it."""
_PROBLEMS = 100


@dataclass(frozen=True, slots=True)
class Model:
    """A provider's description of one model; None stands for unknown. Sizes are in tokens."""

    name: str
    context: int | None = None
    """The limit of prompt and reply together; Gemini counts the prompt alone."""
    reply: int | None = None
    """The max reply length."""
    thinking: bool | None = None
    """True if it shows its thinking."""
    images: bool | None = None
    """True if it accepts images."""
    tools: bool | None = None
    """True if it can choose tools."""
    chat: bool = True
    """False for a model that does not chat, such as one for embeddings."""
    ignores: frozenset[str] = frozenset()
    """The visitors' options that it does not accept."""
    aliases: tuple[str, ...] = ()
    """Its other names."""
    contexts: tuple[tuple[str, int], ...] = ()
    """A router's contexts, by the name of the provider that runs the model."""
    switches_thinking: bool = False
    """True if its chat template can leave out the thinking."""


@dataclass(frozen=True)
class ModelList:
    """The models that a provider lists."""

    models: tuple[Model, ...] = ()
    complete: bool = True
    """False for a list that was cut: the provider may have other models."""
    any_name: bool = False
    """True for a server with one model, which answers to every name, as llama-server does."""
    _problems: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def offered(self) -> tuple[Model, ...]:
        """The chat models, sorted by name; at most `OFFERED`."""
        return tuple(sorted((one for one in self.models if one.chat and "*" not in one.name), key=_sort_key)[:OFFERED])

    @cached_property
    def _by_name(self) -> dict[str, Model]:
        return {_key(name): model for model in reversed(self.models) for name in (*model.aliases, model.name)}

    def find(self, name: str) -> Model | None:
        """Returns the model that the provider uses for a name, with that name; None if it has none.

        Ollama omits `:latest`, and routers accept suffixes behind a colon, such as `:fastest`, that no list contains.
        """
        key = _key(name)
        plain, _, route = key.partition(":")
        found = self._by_name.get(key) or self._by_name.get(f"{key}:latest") or self._by_name.get(plain)
        if found is None:
            found = next((one for one in self.models if "*" in one.name and fnmatchcase(key, _key(one.name))), None)
        if found is None and self.any_name:
            found = self.models[0]
        if found is None:
            return None
        return replace(found, name=name, context=dict(found.contexts).get(route, found.context))

    def problem(self, name: str) -> str:
        """Says that the list lacks a model, and names the nearest ones; empty if it has it."""
        if not self.models or not self.complete or self.find(name):
            return ""
        if name not in self._problems:
            if len(self._problems) >= _PROBLEMS:
                self._problems.clear()
            more = " …" if len(self.models) > _NAMED else ""
            names = ", ".join(nearest(name, self.models))
            self._problems[name] = f"its server has no model {name!r}; it has {names}{more}"
        return self._problems[name]


def nearest(name: str, models: Iterable[Model], most: int = _NAMED) -> list[str]:
    """Returns the most similar names, chat models first. Versions count least: the next of a family is near."""
    versioned, plain = (difflib.SequenceMatcher(b=text, autojunk=False) for text in (_key(name), _family(name)))

    def rough(model: Model) -> tuple[bool, float]:
        plain.set_seq1(_family(model.name))
        return not model.chat, -plain.quick_ratio()

    def exact(model: Model) -> tuple[bool, float, float, str]:
        plain.set_seq1(_family(model.name))
        versioned.set_seq1(_key(model.name))
        return not model.chat, -plain.ratio(), -versioned.ratio(), model.name

    likely = heapq.nsmallest(_LIKELY, models, rough)  # exact ratios of a thousand take a quarter of a second
    return [model.name for model in sorted(likely, key=exact)[:most]]


def joined(lists: Sequence[ModelList], *, complete: bool) -> ModelList:
    """Joins the pages of one list."""
    models = {model.name: model for page in lists for model in page.models}
    kept = tuple(models.values())[:KEPT]
    return ModelList(kept, complete and len(models) <= KEPT and all(page.complete for page in lists))


def _key(name: str) -> str:
    return name.casefold().removeprefix("models/")


def _family(name: str) -> str:
    """A model's name without its numbers."""
    return " ".join(re.findall(r"[^\W\d_]+", _key(name)))


def _sort_key(model: Model) -> tuple[str, str]:
    return model.name.casefold(), model.name
