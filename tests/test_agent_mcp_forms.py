"""Forms of servers: their fields, and the answers that fit."""

from typing import Any

import pytest

from agent.mcp.forms import FormError, checked_answer, form_fields, question

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "title": "Name", "minLength": 2, "maxLength": 5, "default": "Ann"},
        "mail": {"type": "string", "format": "email"},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "share": {"type": "number", "default": "much"},
        "sure": {"type": "boolean", "default": True},
        "size": {"type": "string", "enum": ["s", "l"], "enumNames": ["Small", "Large"]},
        "city": {"oneOf": [{"const": "b", "title": "Berlin"}, {"const": "p", "title": "Paris"}]},
        "days": {"type": "array", "items": {"type": "string", "enum": ["mo", "tu"]}},
    },
    "required": ["name", "age"],
}


def test_every_type_of_the_protocol_is_a_field() -> None:
    fields = {field["name"]: field for field in form_fields(SCHEMA)}
    kinds = {name: field["type"] for name, field in fields.items()}
    texts = {"name": "text", "mail": "text", "age": "integer", "share": "number", "sure": "boolean"}
    assert kinds == texts | {"size": "choice", "city": "choice", "days": "choices"}
    assert [field["name"] for field in fields.values() if field["required"]] == ["name", "age"]
    assert fields["size"]["options"][1] == {"value": "l", "title": "Large"}
    assert fields["city"]["options"][0] == {"value": "b", "title": "Berlin"}
    assert (fields["age"]["min"], fields["age"]["max"], fields["mail"]["format"]) == (0, 120, "email")
    asked = question("box", "Who?", list(fields.values()))
    assert (asked["question"], asked["answer"]) == ("box asks: Who?", {"name": "Ann", "sure": True})


def test_answers_are_converted_and_unknown_values_dropped() -> None:
    given = {"name": "Bob", "age": "42", "share": "0.5", "sure": "false", "size": "l", "days": ["tu", "tu"], "x": 1}
    found = checked_answer(form_fields(SCHEMA), given | {"mail": "", "city": None})
    assert found == {"name": "Bob", "age": 42, "share": 0.5, "sure": False, "size": "l", "days": ["tu"]}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": ""}, "Name: this needs a value."),
        ({"name": "A"}, "2 to 5 characters"),
        ({"name": 5}, "2 to 5 characters"),
        ({"age": "4.5"}, "age: this is a whole number."),
        ({"age": True}, "age: this is a whole number."),
        ({"age": 121}, "age: found 121, allowed: at least 0 and at most 120."),
        ({"share": "nan"}, "share: this is a number."),
        ({"share": "1e999"}, "share: this is a number."),
        ({"share": []}, None),
        ({"sure": "perhaps"}, "true or false"),
        ({"size": "xl"}, "size: choose one of s, l."),
        ({"days": ["su"]}, "days: choose any of mo, tu."),
        ({"days": "mo"}, "days: choose any of mo, tu."),
        ({"mail": "nobody"}, "e-mail address"),
    ],
)
def test_answers_that_do_not_fit(wrong: dict[str, Any], message: str | None) -> None:
    fields, given = form_fields(SCHEMA), {"name": "Ann", "age": 3} | wrong
    if message is None:
        assert "share" in checked_answer(fields, given)
        return
    with pytest.raises(FormError) as error:
        checked_answer(fields, given)
    assert message in str(error.value)


@pytest.mark.parametrize(
    "properties",
    [
        {"a": {"type": "object", "properties": {}}},
        {"a": {"type": "array", "items": {"type": "object"}}},
        {"a": "text"},
        {f"f{i}": {"type": "string"} for i in range(31)},
        {"a": {"type": "string", "enum": [str(i) for i in range(101)]}},
        {f"f{i}": {"type": "string", "description": "d" * 1900} for i in range(12)},
        ["a"],
    ],
)
def test_forms_that_cannot_be_shown(properties: Any) -> None:
    with pytest.raises(FormError):
        form_fields({"type": "object", "properties": properties})
    with pytest.raises(FormError):
        checked_answer([], "no object")
