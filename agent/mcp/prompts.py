"""The prompts of a server: those of its list that are sound, and the message that one of them makes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.mcp.faults import McpError
from agent.mcp.forms import FormError, checked_answer, form_fields
from agent.mcp.results import read_contents
from runs.events import JSON
from runs.text import valid_text

MOST_PROMPTS = 12
"""Prompts of one server."""
MOST_ARGUMENTS = 10
_LONGEST_NAME = 100
"""Characters of the name of a prompt, and of an argument."""
_LONGEST_TITLE, _LONGEST_ABOUT = 80, 200
"""Characters that are shown of titles and descriptions."""
_MOST_REFUSED = 20
"""Sentences about refused prompts that are kept of a server."""


@dataclass(frozen=True, slots=True)
class ListedPrompt:
    """A prompt of a server. `form` has a field for each argument, as a question of a server has them."""

    name: str
    title: str
    about: str
    form: list[JSON]

    def listed(self) -> JSON:
        """The prompt as `GET /tool-servers` shows it."""
        return {"name": self.name, "title": self.title, "about": self.about, "form": self.form}

    def arguments(self, given: Mapping[str, Any]) -> dict[str, str]:
        """Returns the arguments as the server gets them. Raises FormError with a sentence about what does not fit."""
        names = [field["name"] for field in self.form]
        if unknown := next((name for name in given if name not in names), None):
            allowed = ", ".join(map(repr, names)) or "none"
            raise FormError(f"arguments: found {unknown[:_LONGEST_NAME]!r}, allowed: {allowed}.")
        return checked_answer(self.form, given)


def check_prompts(listed: Iterable[Any], wanted: Sequence[str] | None) -> tuple[list[ListedPrompt], list[str]]:
    """Returns the sound prompts of a server's list, those that are `wanted`, and sentences about the others."""
    found, refused = dict[str, ListedPrompt](), list[str]()
    for one in listed:
        if wanted is not None and one.name not in wanted:
            continue
        label = f"the prompt {valid_text(one.name)[:_LONGEST_NAME]!r}"
        if one.name in found:
            refused.append(f"{label}: another prompt of the server has the same name.")
        elif len(found) >= MOST_PROMPTS:
            refused.append(f"{label} and those after it: only {MOST_PROMPTS} prompts of a server are offered.")
            break
        else:
            try:
                found[one.name] = _listed_prompt(one)
            except FormError as e:
                refused.append(f"{label}: {e}.")
    known = " ".join(refused)
    missing = [name for name in wanted or () if name not in found and repr(name) not in known]
    refused += [f"the prompt {name!r}: the server has no such prompt." for name in missing]
    return list(found.values()), refused[:_MOST_REFUSED]


def _listed_prompt(one: Any) -> ListedPrompt:
    _check_name(one.name, "its name")
    arguments = one.arguments or []
    if len(arguments) > MOST_ARGUMENTS:
        raise FormError(f"it has more than {MOST_ARGUMENTS} arguments")
    for argument in arguments:
        _check_name(argument.name, "the name of an argument")
    properties = {argument.name: _property(argument) for argument in arguments}
    if len(properties) < len(arguments):
        raise FormError("two of its arguments have the same name")
    form = form_fields({"properties": properties, "required": [one.name for one in arguments if one.required]})
    return ListedPrompt(one.name, _line(one.title or one.name, _LONGEST_TITLE), _line(one.description), form)


def _check_name(name: str, whose: str) -> None:
    if not name.strip() or len(name) > _LONGEST_NAME or name != valid_text(name):
        raise FormError(f"{whose} does not have 1 to {_LONGEST_NAME} characters of text")


def _property(argument: Any) -> JSON:
    """An argument as a property of a schema; all arguments are texts."""
    title = _line(argument.title or argument.name, _LONGEST_TITLE)
    return {"type": "string", "title": title, "description": _line(argument.description)}


def _line(text: str | None, most: int = _LONGEST_ABOUT) -> str:
    """Returns the beginning of a text, on one line."""
    line = " ".join(valid_text(text or "").split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def prompt_text(result: Any, most: int) -> str:
    """Returns the texts of the user's messages of a GetPromptResult. Raises McpError, also for more characters."""
    texts = list[str]()
    for message in result.messages:
        if message.role == "user" and message.content.type == "text":
            texts.append(valid_text(message.content.text))
        elif message.role == "user" and message.content.type == "resource":
            texts.append(read_contents(message.content.resource)[0])
    text = "\n\n".join(one for one in texts if one.strip())
    if not text:
        raise McpError("its prompt has no text of the user.")
    if len(text) > most:
        raise McpError(f"its prompt has {len(text):,} characters, and a message has at most {most:,}.")
    return text
