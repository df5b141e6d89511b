"""Forms of servers (elicitation): a schema becomes the fields of a question, and the answer is checked against them."""

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from runs.events import JSON
from runs.text import valid_text

_MOST_FIELDS, _MOST_OPTIONS = 30, 100
_LONGEST_TEXT = 2000
"""Characters of the question, and of each text of a field."""
_LONGEST_FORM, _LONGEST_ANSWER = 20_000, 20_000
_FORMATS = ("email", "uri", "date", "date-time")


class FormError(ValueError):
    """A form that cannot be shown, or an answer that does not fit. The message is for people."""


def form_fields(schema: Mapping[str, Any]) -> list[JSON]:
    """Returns the fields of a form: {name, title, type, required, …}. Raises FormError.

    `type` is text, number, integer, boolean, choice or choices; the latter two have `options`, {value, title}.
    """
    properties = schema.get("properties", {})
    if not isinstance(properties, Mapping) or len(properties) > _MOST_FIELDS:
        raise FormError(f"a form has at most {_MOST_FIELDS} fields")
    required = schema.get("required", [])
    required = required if isinstance(required, list) else []
    fields = [_field(name, one, name in required) for name, one in properties.items()]
    if len(json.dumps(fields)) > _LONGEST_FORM:
        raise FormError("the form is too long")
    return fields


def _field(name: str, one: Any, required: bool) -> JSON:
    if not isinstance(one, Mapping):
        raise FormError(f"the field {name[:60]!r} has no description")
    kind, options = _kind(name, one)
    field: JSON = {"name": _text(name), "title": _text(one.get("title") or name), "type": kind, "required": required}
    if one.get("description"):
        field["about"] = _text(one["description"])
    if options:
        field["options"] = options
    if one.get("format") in _FORMATS:
        field["format"] = one["format"]
    for key, wanted in (("minimum", "min"), ("maximum", "max"), ("minLength", "shortest"), ("maxLength", "longest")):
        if isinstance(one.get(key), int | float) and not isinstance(one.get(key), bool):
            field[wanted] = one[key]
    if "default" in one:
        with suppress(FormError):  # the visitor begins with an empty field
            field["default"] = _checked(field, one["default"])
    return field


def _kind(name: str, one: Mapping[str, Any]) -> tuple[str, list[JSON]]:
    """Returns the type of a field, and its options."""
    if one.get("type") == "array":
        items = one.get("items")
        if isinstance(items, Mapping) and (options := _options(items)):
            return "choices", options
    elif options := _options(one):
        return "choice", options
    elif (kind := {"string": "text"}.get(one.get("type", ""), one.get("type"))) in (
        "text",
        "number",
        "integer",
        "boolean",
    ):
        return str(kind), []
    raise FormError(f"the field {name[:60]!r} has a type that no form can show")


def _options(one: Mapping[str, Any]) -> list[JSON]:
    """Returns what can be chosen: from `enum` with `enumNames`, or from `oneOf` or `anyOf` with titles."""
    titled = one.get("oneOf") or one.get("anyOf")
    if isinstance(titled, list):
        found = [(part.get("const"), part.get("title")) for part in titled if isinstance(part, Mapping)]
    else:
        values, titles = one.get("enum"), one.get("enumNames")
        values = values if isinstance(values, list) else []
        titles = titles if isinstance(titles, list) and len(titles) == len(values) else values
        found = list(zip(values, titles, strict=True))
    if len(found) > _MOST_OPTIONS:
        raise FormError(f"a field has at most {_MOST_OPTIONS} options")
    return [{"value": _text(value), "title": _text(title or value)} for value, title in found if isinstance(value, str)]


def _text(value: Any) -> str:
    return valid_text(str(value))[:_LONGEST_TEXT]


def question(server: str, message: str, fields: list[JSON], problem: str = "") -> JSON:
    """Returns the input of a question: a message, a form, and the answer that the visitor completes."""
    answer = {field["name"]: field["default"] for field in fields if "default" in field}
    asked = f"{server} asks: {_text(message)}"
    return {"question": asked, **({"problem": problem} if problem else {}), "form": fields, "answer": answer}


def checked_answer(fields: list[JSON], answer: Any) -> JSON:
    """Returns an answer with the values of its fields. Raises FormError with a sentence about what does not fit."""
    if not isinstance(answer, Mapping):
        raise FormError("The answer is an object with a value for each field.")
    found: JSON = {}
    for field in fields:
        value = answer.get(field["name"])
        if value is None or value == "" or value == []:
            if field["required"] and field["type"] != "choices":
                raise FormError(f"{field['title']}: this needs a value.")
            if value == []:
                found[field["name"]] = []
            continue
        found[field["name"]] = _checked(field, value)
    return found


def _checked(field: JSON, value: Any) -> Any:
    """Returns the value of a field, with numbers and truth values also from texts. Raises FormError."""
    kind, title = field["type"], field["title"]
    values = [option["value"] for option in field.get("options", [])]
    if kind == "choice":
        if value not in values:
            raise FormError(f"{title}: choose one of {', '.join(values)[:_LONGEST_TEXT]}.")
        return value
    if kind == "choices":
        if not isinstance(value, list) or any(one not in values for one in value):
            raise FormError(f"{title}: choose any of {', '.join(values)[:_LONGEST_TEXT]}.")
        return list(dict.fromkeys(value))
    if kind == "boolean":
        if value not in (True, False, "true", "false"):
            raise FormError(f"{title}: this is true or false.")
        return value in (True, "true")
    return _text_value(field, value) if kind == "text" else _number(field, value)


def _text_value(field: JSON, value: Any) -> str:
    text = value if isinstance(value, str) else ""
    shortest, longest = field.get("shortest", 0), min(field.get("longest", _LONGEST_ANSWER), _LONGEST_ANSWER)
    if not isinstance(value, str) or not shortest <= len(text) <= longest:
        raise FormError(f"{field['title']}: this is a text of {shortest:,} to {longest:,} characters.")
    if field.get("format") == "email" and not re.fullmatch(r"[^@\s]+@[^@\s]+", text):
        raise FormError(f"{field['title']}: this is an e-mail address.")
    return valid_text(text)


def _number(field: JSON, value: Any) -> int | float:
    whole = field["type"] == "integer"
    try:
        if isinstance(value, bool):
            raise ValueError
        number = int(str(value)) if whole and not isinstance(value, float) else float(value)
        if number != number or number in (float("inf"), float("-inf")) or (whole and number != int(number)):
            raise ValueError
    except (TypeError, ValueError, OverflowError):
        raise FormError(f"{field['title']}: this is a {'whole ' if whole else ''}number.") from None
    low, high = field.get("min", number), field.get("max", number)
    if not low <= number <= high:
        raise FormError(f"{field['title']}: found {number:g}, allowed: {_range(field)}.")
    return int(number) if whole else number


def _range(field: JSON) -> str:
    return " and ".join(
        [f"at least {field['min']:g}"] * ("min" in field) + [f"at most {field['max']:g}"] * ("max" in field)
    )
