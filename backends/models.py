"""The models of a provider: what is known of each, and which name stands for which."""

import difflib
import heapq
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property

KEPT = 1000
"""Models of one list that are kept."""
OFFERED = 300
"""Models of one list that a visitor can choose among."""
_NAMED, _LIKELY = 5, 40
"""Models that a sentence names, and that are looked at for it."""
_PROBLEMS = 100


@dataclass(frozen=True, slots=True)
class Model:
    """What a provider says of one model; None where it says nothing. Sizes are in tokens."""

    name: str
    context: int | None = None
    """The most that prompt and reply may have together; Gemini counts the prompt alone."""
    reply: int | None = None
    """The longest reply."""
    thinking: bool | None = None
    images: bool | None = None
    """Whether it takes images."""
    tools: bool | None = None
    """Whether it can choose tools."""
    chat: bool = True
    """False where the list says that it does not chat, such as a model for embeddings."""
    ignores: frozenset[str] = frozenset()
    """The visitor's options that it does not take."""
    aliases: tuple[str, ...] = ()
    contexts: tuple[tuple[str, int], ...] = ()
    """The context by the name of the provider that runs it, where a router says so."""


@dataclass(frozen=True)
class ModelList:
    """The models that a provider lists. `complete` is False for a list that was cut: a model may be there unlisted."""

    models: tuple[Model, ...] = ()
    complete: bool = True
    any_name: bool = False
    """The server has one model and answers with it to every name, as llama-server does."""
    _problems: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def offered(self) -> tuple[Model, ...]:
        """The chat models by name, as many as a visitor can choose among."""
        return tuple(sorted((one for one in self.models if one.chat and "*" not in one.name), key=_by_name)[:OFFERED])

    @cached_property
    def _places(self) -> dict[str, Model]:
        return {_key(name): model for model in reversed(self.models) for name in (*model.aliases, model.name)}

    def find(self, name: str) -> Model | None:
        """The model that a provider takes a name for, under that name.

        Ollama leaves `:latest` out, and routers take words behind a colon that no list tells, such as `:fastest`.
        """
        key = _key(name)
        plain, _, route = key.partition(":")
        found = self._places.get(key) or self._places.get(f"{key}:latest") or self._places.get(plain)
        if found is None:
            found = next((one for one in self.models if "*" in one.name and fnmatchcase(key, _key(one.name))), None)
        if found is None and self.any_name:
            found = self.models[0]
        if found is None:
            return None
        return replace(found, name=name, context=dict(found.contexts).get(route, found.context))

    def problem(self, name: str) -> str:
        """Says that the list lacks a model, and names the nearest that are there; empty if it does not lack it."""
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
    """The names most like a name, chat models first. Versions count least: a family's next model is near."""
    versioned, plain = (difflib.SequenceMatcher(b=text, autojunk=False) for text in (_key(name), _family(name)))

    def roughly(model: Model) -> tuple[bool, float]:
        plain.set_seq1(_family(model.name))
        return not model.chat, -plain.quick_ratio()

    def exactly(model: Model) -> tuple[bool, float, float, str]:
        plain.set_seq1(_family(model.name))
        versioned.set_seq1(_key(model.name))
        return not model.chat, -plain.ratio(), -versioned.ratio(), model.name

    likely = heapq.nsmallest(_LIKELY, models, roughly)  # an exact look at a thousand takes a quarter of a second
    return [model.name for model in sorted(likely, key=exactly)[:most]]


def joined(lists: Sequence[ModelList], *, complete: bool) -> ModelList:
    """The pages of one list."""
    models = {model.name: model for page in lists for model in page.models}
    kept = tuple(models.values())[:KEPT]
    return ModelList(kept, complete and len(models) <= KEPT and all(page.complete for page in lists))


def _key(name: str) -> str:
    return name.casefold().removeprefix("models/")


def _family(name: str) -> str:
    """A name without its numbers."""
    return " ".join(re.findall(r"[^\W\d_]+", _key(name)))


def _by_name(model: Model) -> tuple[str, str]:
    return model.name.casefold(), model.name
