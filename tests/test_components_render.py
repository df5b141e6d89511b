import pytest

from backends import Backends
from components import render
from components.conversation_view import _fitting
from components.page_state import ConversationView, PageState
from components.render import (
    render_backends,
    render_live,
    render_messages,
    render_modes,
    render_turns,
)
from components.reply import GrowingReply
from memory.messages import Message
from runs.reply import ReplyPart
from settings import BackendSettings
from tests.conftest import scripted


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
    (drawn,) = render_messages([Message("1", "assistant", "", "failed", note="a*b\n# <img> [x](y)")])
    assert drawn["content"][0]["text"] == "<p class='note'>a*b&#10;# &lt;img&gt; [x](y)</p>"


def test_interrupted_reply_has_a_note() -> None:
    (drawn,) = render_messages([Message("1", "assistant", "so far", "interrupted")])
    assert "Interrupted" in drawn["content"][1]["text"]


def test_live_reply_is_one_message_or_none() -> None:
    assert render_live("", GrowingReply()) == []
    drawn = [m["content"][0]["text"] for m in render_live("so <b>", GrowingReply())]
    assert drawn == ["<p dir='auto'>so &lt;b&gt;"], "without its closing tags, so that it can grow"


def test_thinking_and_tool_calls_are_before_the_reply() -> None:
    parts = (
        ReplyPart("thinking", "Hm", 1.0, 2.5),
        ReplyPart("tool", "391", 2.5, 2.6, "calculator", {"expression": "17*23"}),
    )
    (drawn,) = render_messages([Message("1", "assistant", "It is 391.", parts=parts)])
    folded, text = (part["text"] for part in drawn["content"])
    assert text == "<p dir='auto'>It is 391.</p>"
    assert "<b>Thought</b>" in folded
    assert "<b>calculator</b><span>17*23</span>" in folded


def test_reply_with_only_a_tool_call_has_no_empty_text() -> None:
    (drawn,) = render_messages(
        [Message("1", "assistant", "", "stopped", note="Stopped", parts=(ReplyPart("tool", "", 1.0),))]
    )
    assert len(drawn["content"]) == 2


def test_parts_count_towards_the_limits_of_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    monkeypatch.setattr(render, "parts_html", lambda parts: drawn.append(len(parts)) or "")
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
        for standing in ("whole", "interrupted", "stopped")
        for note in (None, "Stopped")
        for parts in ((), (part,))
    ]
    drawn = [Message("0", "user", ""), Message("0", "user", "text"), *replies]
    rows = [len(message["content"]) for message in render_messages(drawn)]
    for name in ("reply_html", "user_html", "parts_html"):
        monkeypatch.delattr(f"components.render.{name}")
    assert [turn["rows"] for turn in render_turns(ConversationView(PageState("anna"), drawn))] == rows


def test_dropdowns_begin_with_the_configured_names() -> None:
    entries = [scripted("Script"), BackendSettings(name="Local", kind="local", model="absent.gguf")]
    choices = render_backends(Backends(entries), None)
    assert [name for _, name in choices] == ["Script", "Local"]
    assert all(label.startswith(name) for label, name in [*choices, *render_modes()])
    assert "no model" in choices[0][0]
    assert "loading" in choices[1][0]


async def test_backend_label_has_the_health_or_the_time_to_first_token() -> None:
    entry = BackendSettings(name="Keyed", kind="openai", model="m", base_url="http://127.0.0.1:1", key="A_KEY")
    backends = Backends([entry])
    assert render_backends(backends, "anna") == [("Keyed · key missing", "Keyed")]
    backends.keys.put("anna", "Keyed", "sk-of-anna")
    backends.bind("Keyed", "anna").record_outcome(None, 1.26)
    assert render_backends(backends, "anna") == [("Keyed · first token 1.3 s", "Keyed")]
    assert render_backends(backends, "ben") == [("Keyed · key missing", "Keyed")]
    await backends.close()
