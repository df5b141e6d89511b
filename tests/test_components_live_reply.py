import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components import live_reply
from components.live_reply import LiveReply
from components.messages import render_messages
from memory.messages import Message
from runs.reply import ReplyPart

BLOCK = "<div class='parts thought-group'></div>"


def texts(live: LiveReply, text: str, offsets: list[int]) -> list[str]:
    return [message["content"][0]["text"] for message in live.messages(text, offsets)]


def test_reply_without_text_or_parts_has_no_message() -> None:
    assert LiveReply().messages("", []) == []
    assert LiveReply().messages(" \n", []) == []


def test_text_is_one_message_without_its_closing_tags() -> None:
    assert texts(LiveReply(), "so <b>", []) == ["<p dir='auto'>so &lt;b&gt;"]


def test_blocks_stand_between_the_texts() -> None:
    live = LiveReply()
    assert texts(live, "", [0]) == [BLOCK]
    assert texts(live, "Hm", [0]) == [BLOCK, "<p dir='auto'>Hm"]
    assert texts(live, "Hm. ", [0, 4]) == [BLOCK, "<p dir='auto'>Hm.</p>", BLOCK]
    assert texts(live, "Hm. Yes", [0, 4]) == [BLOCK, "<p dir='auto'>Hm.</p>", BLOCK, "<p dir='auto'>Yes"]


def test_ended_texts_are_rendered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    live, rendered = LiveReply(), list[str]()
    monkeypatch.setattr(live_reply, "reply_html", lambda text: rendered.append(text) or text)
    for end in range(1, 40):
        live.messages("One. Two. " + "x" * end, [5, 10])
    assert rendered == ["One. ", "Two. "]


def test_retracted_text_disappears_and_its_block_stays() -> None:
    live = LiveReply()
    assert texts(live, "Let me think", []) == ["<p dir='auto'>Let me think"]
    assert texts(live, "", [0]) == [BLOCK]
    assert texts(live, "It is", [0]) == [BLOCK, "<p dir='auto'>It is"]


def test_characters_to_send_are_those_of_the_growing_text() -> None:
    live = LiveReply()
    live.messages("x" * 500, [500])
    assert live.sent == 0
    live.messages("x" * 500 + "yes", [500])
    assert 0 < live.sent < 60


PIECES = st.lists(
    st.tuples(st.sampled_from(["One. ", "**two** ", "\n\n- three\n", " ", "```\nx\n```\n"]), st.booleans())
)


@given(PIECES)
def test_live_and_ended_reply_have_the_same_rows(pieces: list[tuple[str, bool]]) -> None:
    live, text, parts = LiveReply(), "", list[ReplyPart]()
    drawn: list[str] = []
    for piece, has_part in pieces:
        if has_part:
            parts.append(ReplyPart("thinking", "Hm", 1.0, 2.0, offset=len(text)))
        text += piece
        drawn = texts(live, text, sorted({part.offset for part in parts}))
    if not drawn:
        return
    (ended,) = render_messages([Message("1", "assistant", text, parts=tuple(parts))])
    shown = [content["text"] for content in ended["content"]]
    assert ["thought-group" in one for one in shown] == ["thought-group" in one for one in drawn]
    for whole, growing in zip(shown, drawn, strict=True):
        same = whole == growing or re.fullmatch(r"(</\w+>)*", whole.removeprefix(growing))
        assert "thought-group" in whole or same
