import re
from dataclasses import replace

import pytest
from bs4 import BeautifulSoup

from components import messages
from components.conversation_view import _fitting
from components.messages import failure_html, render_message_controls, render_messages
from components.page_state import ConversationView, PageState
from memory.messages import Message
from runs.images import Image
from runs.reply import ReplyPart
from tests.pages import shown_text


def test_messages_have_gradios_wire_format() -> None:
    (question, reply) = render_messages([Message("1", "user", "  def f():\n"), Message("2", "assistant", "<b>")])
    assert question == {
        "role": "user",
        "metadata": None,
        "content": [{"type": "text", "text": "<div class='said' dir='auto'>  def f():&#10;</div>"}],
        "options": None,
    }
    assert reply["role"] == "assistant"
    assert reply["content"][0]["text"] == "<p dir='auto'>&lt;b&gt;</p>"


NOTE = "<p class='note'>Stopped by you</p>"


@pytest.mark.parametrize(("text", "parts"), [("so far", ["<p dir='auto'>so far</p>", NOTE]), ("", [NOTE])])
def test_incomplete_reply_ends_with_a_note(text: str, parts: list[str]) -> None:
    (drawn,) = render_messages([Message("1", "assistant", text, "stopped", note="Stopped by you")])
    assert [part["text"] for part in drawn["content"]] == parts


def test_note_is_escaped() -> None:
    (drawn,) = render_messages([Message("1", "assistant", "", "stopped", note="a*b\n# <img> [x](y)")])
    assert drawn["content"][0]["text"] == "<p class='note'>a*b&#10;# &lt;img&gt; [x](y)</p>"


def test_interrupted_reply_has_a_note() -> None:
    (drawn,) = render_messages([Message("1", "assistant", "so far", "interrupted")])
    assert "Interrupted" in drawn["content"][1]["text"]


PARTS = (
    ReplyPart("thinking", "Hm", 1.0, 2.5),
    ReplyPart("tool", "391", 2.5, 2.6, "calculator", {"expression": "17*23"}, offset=11),
    ReplyPart("tool", "noon", 2.5, 2.7, "clock", offset=11),
)


def kinds(message: Message) -> list[str]:
    """What the rows of a reply show: the names of the parts, or a text."""
    (drawn,) = render_messages([message])
    shown = [part["text"] for part in drawn["content"]]
    return [" ".join(re.findall("<b>(.*?)</b>", one)) if "thought-group" in one else shown_text(one) for one in shown]


def test_texts_and_parts_of_a_reply_are_in_the_order_in_which_they_came() -> None:
    reply = Message("1", "assistant", "Let me see.\n\nIt is 391.", parts=PARTS)
    assert kinds(reply) == ["Thought", "Let me see.", "calculator clock", "It is 391."]


def test_parts_that_an_older_version_stored_are_before_the_reply() -> None:
    stored = [{name: value for name, value in part.wire().items() if name != "offset"} for part in PARTS]
    reply = Message("1", "assistant", "It is 391.", parts=tuple(ReplyPart(**part) for part in stored))
    assert kinds(reply) == ["Thought calculator clock", "It is 391."]


@pytest.mark.parametrize("offset", [99, 10**9])
def test_offset_outside_of_the_text_loses_nothing(offset: int) -> None:
    reply = Message("1", "assistant", "Hello there.", parts=(ReplyPart("thinking", "Hm", 1.0, 2.0, offset=offset),))
    assert sorted(kinds(reply)) == ["Hello there.", "Thought"]


def test_reply_with_only_a_tool_call_has_no_empty_text() -> None:
    (drawn,) = render_messages(
        [Message("1", "assistant", "", "stopped", note="Stopped", parts=(ReplyPart("tool", "", 1.0),))]
    )
    assert len(drawn["content"]) == 2


def test_parts_count_towards_the_limits_of_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    monkeypatch.setattr(messages, "parts_html", lambda parts: drawn.append(len(parts)) or "")
    for part in (ReplyPart("tool", "", 1.0), ReplyPart("tool", "", 1.0, input="i" * 900, error="e" * 900)):
        render_messages([Message("1", "assistant", "", parts=(part,) * 5000)])
    assert drawn[0] <= 1000 and drawn[1] <= 101
    talk = [Message(f"{n}", "assistant", "", parts=(part,) * 50) for n in range(30)]
    assert len(_fitting(talk, 1)) < 6


def test_rows_are_counted_without_rendering(monkeypatch: pytest.MonkeyPatch) -> None:
    part = ReplyPart("thinking", "Hm", 1.0, 2.5)
    replies = [
        Message("1", "assistant", text, standing, note=note, parts=parts)
        for text in ("", "text")
        for standing in ("whole", "interrupted", "stopped", "failed")
        for note in (None, "Stopped")
        for parts in ((), (part,), (part, replace(part, offset=2)), (replace(part, offset=9),))
    ]
    drawn = [Message("0", "user", ""), Message("0", "user", "text"), *replies]
    rows = [len(message["content"]) for message in render_messages(drawn)]
    for name in ("reply_html", "user_html", "parts_html"):
        monkeypatch.delattr(f"components.messages.{name}")
    assert [turn["rows"] for turn in render_message_controls(ConversationView(PageState("anna"), drawn))] == rows


@pytest.mark.parametrize(
    ("note", "cause"),
    [
        ("No response after 20 s. X sent nothing: try again, or switch the model.", "No response after 20 s."),
        (
            "X did not accept the request (HTTP 400: type, param): check it.",
            "X did not accept the request (HTTP 400: type, param):",
        ),
        ("Llama 3.2 cannot be reached: is there a network?", "Llama 3.2 cannot be reached:"),
        ("Something (is broken", "Something (is broken"),
    ],
)
def test_failure_card_begins_with_the_cause_and_says_all(note: str, cause: str) -> None:
    assert f"<p><b>{cause}</b>{note.removeprefix(cause)}</p>" in failure_html(note)


def test_failed_reply_ends_with_a_card_and_its_buttons() -> None:
    (drawn,) = render_messages([Message("1", "assistant", "so far", "failed", note="<b>Broken</b>. Try again.")])
    text, card = (part["text"] for part in drawn["content"])
    assert text == "<p dir='auto'>so far</p>"
    assert "&lt;b&gt;Broken&lt;/b&gt;" in card
    assert re.findall("<button [^>]*>(.*?)</button>", card) == ["Retry", "Switch model", "Show details"]


def test_turns_name_the_author_and_the_message_to_regenerate() -> None:
    talk = [
        Message("1", "user", "Hi"),
        Message("2", "assistant", "Hello", backend="Gemini", model="gemini-pro", run_id="r"),
        Message("3", "assistant", "Imported"),
        Message("4", "system", "Be brief."),
    ]
    turns = render_message_controls(ConversationView(PageState("anna"), talk))
    assert [turn["author"] for turn in turns] == ["You", "gemini-pro", "Model", "System prompt"]
    assert [turn["asked"] for turn in turns] == [None, "1", "1", None]


def test_images_of_a_message_are_links_to_themselves() -> None:
    image = Image("an-id", 60, 40, 1000)
    (drawn,) = render_messages([Message("1", "user", "Hi", images=(image, image))], "a conversation")
    (text,) = [one["text"] for one in drawn["content"]]
    found = BeautifulSoup(text, "html.parser")
    assert [link["href"] for link in found.select(".pictures a")] == ["images/an-id?conversation_id=a+conversation"] * 2
    assert [one["alt"] for one in found.select("img")] == ["Image 1: 60 by 40 pixels", "Image 2: 60 by 40 pixels"]
    assert found.select_one(".said").text == "Hi"  # type: ignore[union-attr]
