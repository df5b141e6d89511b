from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components.parts import part_value, parts_html
from runs import events
from runs.events import Entry
from runs.fold import apply
from runs.reply import ReplyPart, reply_parts
from runs.state import AgentState


class Tags(HTMLParser):
    """The tags and the text of HTML, as a browser parses it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text(), st.text(), st.text())
def test_parts_are_escaped_and_have_no_blank_line(name: str, output: str, error: str) -> None:
    part = ReplyPart("tool", output, 1.0, 2.0, name, {"query": output}, error or None)
    html = parts_html([part])
    assert "\n" not in html
    assert Tags(html).tags == ["div", "details", "summary", "b", "span", "small", "p", "pre", "p", "pre"]


@pytest.mark.parametrize(
    "text", ["<img src=x onerror=alert(1)>", "</details><script>", "a\n\n# b", "&amp;", "a\n\n\nb"]
)
def test_text_of_a_part_is_unchanged(text: str) -> None:
    assert text in Tags(parts_html([ReplyPart("thinking", text, 1.0, 2.0)])).text


def test_failed_call_shows_its_error() -> None:
    failed = part_value(ReplyPart("tool", "", 1.0, 2.0, "clock", {}, "no such zone"))
    assert failed["failed"]
    assert failed["blocks"][1] == ["Failed: no such zone", "none"]


def test_running_call_has_no_duration() -> None:
    assert part_value(ReplyPart("tool", "1", 1.0, name="count"))["seconds"] is None
    assert part_value(ReplyPart("thinking", "Hm", 1.0))["title"] == "Thinking"


def test_long_input_is_one_short_line_in_the_summary() -> None:
    hint = part_value(ReplyPart("tool", "", 1.0, 2.0, "search", {"query": "many\nwords " * 50}))["hint"]
    assert "\n" not in hint
    assert len(hint) <= 81


def test_thinking_and_tool_calls_keep_the_order_of_the_run() -> None:
    received = [
        events.Run("c", "b", "m"),
        events.Reasoning("First "),
        events.Reasoning("this."),
        events.ToolStart("clock", "1", {}),
        events.ToolEnd("clock", "1", "noon", 1.0),
        events.Reasoning("Then that."),
        events.Token("Noon.", 1),
    ]
    state = AgentState()
    for seq, event in enumerate(received, 1):
        state = apply(state, Entry(seq, "r", float(seq), event))
    parts = reply_parts(state)
    assert [(part.kind, part.text, part.seconds) for part in parts] == [
        ("thinking", "First this.", 2.0),
        ("tool", "noon", 1.0),
        ("thinking", "Then that.", 1.0),
    ]
    assert tuple(ReplyPart(**part.wire()) for part in parts) == parts
