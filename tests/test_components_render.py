import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends import Backends
from components.render import (
    meant_text,
    render_backends,
    render_live,
    render_messages,
    render_modes,
    render_text,
)
from memory.messages import Message
from runs.parts import Part
from settings import BackendSettings
from tests.conftest import scripted

JOINER = "\u2060"


@pytest.mark.parametrize(
    ("typed", "drawn"),
    [
        ("<script>alert(1)</script>", f"<{JOINER}script>alert(1)<{JOINER}/script>"),
        ("<img src=x onerror=alert(1)>", f"<{JOINER}img src=x onerror=alert(1)>"),
        ("<!-- x -->", f"<{JOINER}!-- x -->"),
        ("&lt;b&gt; &#60; &amp", f"&{JOINER}lt;b&{JOINER}gt; &{JOINER}#60; &amp"),
        ("[x](javascript:alert(1))", f"[x]{JOINER}(javascript:alert(1))"),
        ("[x]( JavaScript:alert(1))", f"[x]{JOINER}( JavaScript:alert(1))"),
        ("[x](data:text/html,x)", f"[x]{JOINER}(data:text/html,x)"),
        ("[x](https://a.example) **b** 1 < 2 & 3", "[x](https://a.example) **b** 1 < 2 & 3"),
        ("<|im_start|>system", "<|im_start|>system"),
        ("שלום \u202eevil", "שלום \u202eevil"),
    ],
)
def test_markup_in_a_text_is_shown_as_it_was_typed(typed: str, drawn: str) -> None:
    assert render_text(typed) == drawn


@pytest.mark.parametrize(
    "code", ["`<b>` &", "```html\n<script>&lt;\n```", "~~~\n<b>\n~~~", "```\n<b> still growing", "a `x[1](data:)` b"]
)
def test_code_is_left_alone(code: str) -> None:
    assert render_text(code) == code


def test_markup_after_code_is_text_again() -> None:
    assert render_text("```\n<b>\n```\n<b>") == f"```\n<b>\n```\n<{JOINER}b>"


MARKUP = st.lists(
    st.sampled_from(["<", "script>", "&", "lt;", "`", "```", "\n", "](", "javascript:", "x", " ", "[", "~~~"]),
    max_size=15,
).map("".join)


@given(MARKUP | st.text().filter(lambda text: JOINER not in text))
def test_what_a_person_meant_comes_back(text: str) -> None:
    assert meant_text(render_text(text)) == text


@given(MARKUP)
def test_outside_of_code_no_tag_or_entity_is_left(text: str) -> None:
    if "`" not in text and "~" not in text:
        drawn = render_text(text)
        assert not re.search(r"</?[a-z!]", drawn)
        assert not re.search(r"&\w+;", drawn)
        assert not re.search(r"\]\(\s*javascript:", drawn)


def test_messages_are_in_the_shape_of_the_wire() -> None:
    (question, reply) = render_messages([Message("1", "user", "  def f():\n"), Message("2", "assistant", "<b>")])
    assert question == {
        "role": "user",
        "metadata": None,
        "content": [{"type": "text", "text": "  def f():\n"}],
        "options": None,
    }
    assert reply["role"] == "assistant"
    assert reply["content"][0]["text"] == f"<{JOINER}b>"


@pytest.mark.parametrize(("text", "parts"), [("so far", ["so far", "*Stopped by you*"]), ("", ["*Stopped by you*"])])
def test_a_reply_that_is_not_whole_says_so_in_its_own_part(text: str, parts: list[str]) -> None:
    (drawn,) = render_messages([Message("1", "assistant", text, "stopped", note="Stopped by you")])
    assert [part["text"] for part in drawn["content"]] == parts


def test_a_note_cannot_break_out_of_its_emphasis() -> None:
    (drawn,) = render_messages([Message("1", "assistant", "", "failed", note="a*b\n# <img> [x](y)")])
    assert drawn["content"][0]["text"] == r"*a\*b # \<img\> \[x\](y)*"


def test_an_interrupted_reply_says_so() -> None:
    (drawn,) = render_messages([Message("1", "assistant", "so far", "interrupted")])
    assert "Interrupted" in drawn["content"][1]["text"]


def test_the_live_reply_is_one_message_or_none() -> None:
    assert render_live("") == []
    assert [m["content"][0]["text"] for m in render_live("so <b>")] == [f"so <{JOINER}b>"]


def test_thinking_and_tool_calls_stand_before_the_reply() -> None:
    parts = (Part("thinking", "Hm", 1.0, 2.5), Part("tool", "391", 2.5, 2.6, "calculator", {"expression": "17*23"}))
    (drawn,) = render_messages([Message("1", "assistant", "It is 391.", parts=parts)])
    folded, text = (part["text"] for part in drawn["content"])
    assert text == "It is 391."
    assert "<b>Thought</b>" in folded
    assert "<b>calculator</b><span>17*23</span>" in folded


def test_a_reply_that_is_only_a_tool_call_has_no_empty_text() -> None:
    (drawn,) = render_messages(
        [Message("1", "assistant", "", "stopped", note="Stopped", parts=(Part("tool", "", 1.0),))]
    )
    assert len(drawn["content"]) == 2


def test_dropdowns_begin_with_the_configured_names() -> None:
    entries = [scripted("Script"), BackendSettings(name="Local", kind="local", model="absent.gguf")]
    choices = render_backends(Backends(entries), None)
    assert [name for _, name in choices] == ["Script", "Local"]
    assert all(label.startswith(name) for label, name in [*choices, *render_modes()])
    assert "no model" in choices[0][0]
    assert "loading" in choices[1][0]


async def test_a_choice_says_why_it_cannot_answer_or_how_quick_it_is() -> None:
    entry = BackendSettings(name="Keyed", kind="openai", model="m", base_url="http://127.0.0.1:1", key="A_KEY")
    backends = Backends([entry])
    assert render_backends(backends, "anna") == [("Keyed · key missing", "Keyed")]
    backends.keys.put("anna", "Keyed", "sk-of-anna")
    backends.first.learn(backends.key(backends.first, "anna"), None, 1.26)
    assert render_backends(backends, "anna") == [("Keyed · first token 1.3 s", "Keyed")]
    assert render_backends(backends, "ben") == [("Keyed · key missing", "Keyed")]
    await backends.close()
