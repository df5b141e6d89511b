"""The options that a memory mode of one's own has for visitors: numbers, switches and choices.

They are the keyword-only parameters of the function that chooses messages. The annotation of each gives its type, its
limits and its texts.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import Field
from pydantic.fields import FieldInfo

from runs.errors import ChatError
from runs.events import JSON

MOST_OPTIONS = 10
"""Options of one mode."""
_MOST_CHOICES = 50
_LONGEST = 200
"""Characters of a name, a title, a description or a choice."""
_FARTHEST = 2**53
"""The largest limit of a number, which browsers can still count."""
_SHOWN = 60
"""Characters of a refused value in the sentence about it."""

Kind = Literal["integer", "number", "boolean", "choice"]
OptionValue = bool | int | float | str
OptionValues = Annotated[dict[str, Any], Field(max_length=MOST_OPTIONS)]
"""Values of a request, by the names of options; `check_options` checks them."""


@dataclass(frozen=True, slots=True)
class ModeOption:
    """An option of a mode. `minimum` and `maximum` are those of a number, `choices` those of a choice."""

    name: str
    title: str
    about: str
    kind: Kind
    default: OptionValue
    minimum: float = 0
    maximum: float = 0
    choices: tuple[str, ...] = ()

    def listed(self) -> JSON:
        """The option as `GET /memory-modes` lists it: as a field of a form, see `agent/mcp/forms.py`."""
        field: JSON = {"name": self.name, "title": self.title, "type": self.kind, "required": True}
        field |= {"about": self.about} if self.about else {}
        if self.kind == "choice":
            field["options"] = [{"value": choice, "title": choice} for choice in self.choices]
        elif self.kind != "boolean":
            field |= {"min": self.minimum, "max": self.maximum}
        return field | {"default": self.default}

    def problem(self, value: Any) -> str | None:
        """Returns what was found and what is allowed, if a value does not fit; else None."""
        if self.kind == "boolean":
            fits, allowed = isinstance(value, bool), "true or false"
        elif self.kind == "choice":
            fits, allowed = value in self.choices, ", ".join(map(repr, self.choices))
        else:
            kinds: Any = int if self.kind == "integer" else int | float
            fits = isinstance(value, kinds) and not isinstance(value, bool) and self.minimum <= value <= self.maximum
            whole = "a whole number of " if self.kind == "integer" else ""
            allowed = f"{whole}{self.minimum:,} to {self.maximum:,}"
        return None if fits else f"found {str(value)[:_SHOWN]!r}, allowed: {allowed}"


def declared_options(choose: Callable[..., Any]) -> tuple[ModeOption, ...]:
    """Returns the keyword-only parameters of a function. Raises ValueError for one that cannot be shown."""
    try:
        named = [one.kind is one.KEYWORD_ONLY for one in inspect.signature(choose).parameters.values()]
        parameters = inspect.signature(choose, eval_str=True).parameters.values() if any(named) else ()
    except (TypeError, ValueError):  # a built-in function has no signature
        return ()
    options = tuple(_declared(one) for one in parameters if one.kind is one.KEYWORD_ONLY)
    if len(options) > MOST_OPTIONS:
        raise ValueError(f"options: found {len(options)}, allowed: at most {MOST_OPTIONS}")
    return options


def _declared(parameter: inspect.Parameter) -> ModeOption:
    name = parameter.name
    if parameter.annotation is parameter.empty or parameter.default is parameter.empty:
        raise ValueError(f"options: {name!r} needs an annotation and a default, such as {name}: bool = True")
    field = FieldInfo.from_annotated_attribute(parameter.annotation, parameter.default)
    limits = {end: getattr(one, end) for one in field.metadata for end in ("ge", "le") if hasattr(one, end)}
    texts = field.title or name.replace("_", " ").capitalize(), field.description or ""
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    if choices:
        if len(choices) > _MOST_CHOICES or not all(
            isinstance(one, str) and 0 < len(one) <= _LONGEST for one in choices
        ):
            raise ValueError(f"options: {name!r} has other choices than 1 to {_MOST_CHOICES} texts")
        option = ModeOption(name, *texts, "choice", field.default, choices=choices)
    elif field.annotation is bool:
        option = ModeOption(name, *texts, "boolean", field.default)
    elif field.annotation in (int, float) and limits.keys() == {"ge", "le"}:
        kind: Kind = "integer" if field.annotation is int else "number"
        option = ModeOption(name, *texts, kind, field.default, limits["ge"], limits["le"])
    else:
        allowed = "bool, Literal of texts, or Annotated[int, Field(ge=…, le=…)], with float as well"
        raise ValueError(f"options: {name!r} cannot be shown; allowed: {allowed}")
    if max(map(len, (name, *texts))) > _LONGEST or max(abs(option.minimum), abs(option.maximum)) > _FARTHEST:
        raise ValueError(f"options: {name!r} has a text of more than {_LONGEST} characters, or a limit beyond 2^53")
    if problem := option.problem(option.default):
        raise ValueError(f"options: the default of {name!r}: {problem}")
    return option


def check_options(mode: str, options: Sequence[ModeOption], given: Mapping[str, Any]) -> None:
    """Raises ChatError, with a sentence, for a value that is for no option of the mode, or does not fit."""
    known = {option.name: option for option in options}
    for name, value in given.items():
        if name not in known:
            allowed = ", ".join(map(repr, known)) or "none"
            found = f"found {name[:_SHOWN]!r}, allowed in the memory mode {mode}: {allowed}"
            raise ChatError("invalid_request", f"mode_options: {found}.")
        if problem := known[name].problem(value):
            raise ChatError("invalid_request", f"mode_options, {name}: {problem}.")


def known_options(options: Sequence[ModeOption], given: Mapping[str, Any] | None) -> dict[str, OptionValue]:
    """Returns the values that are for these options and fit."""
    given = given or {}
    return {one.name: given[one.name] for one in options if one.name in given and not one.problem(given[one.name])}


def chosen_options(mode: str, options: Sequence[ModeOption], given: Any) -> dict[str, OptionValue] | None:
    """Returns a mode's values of a page's field, {mode: {option: value}}, without the defaults; None if all are."""
    defaults = {option.name: option.default for option in options}
    values = given.get(mode) if isinstance(given, dict) else None
    values = values if isinstance(values, dict) else {}
    chosen = {name: value for name, value in values.items() if name not in defaults or value != defaults[name]}
    return chosen or None
