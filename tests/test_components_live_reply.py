import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from components import live_reply
from components.live_reply import LiveReply
from components.messages import render_messages
from components.parts import cited_passages
from components.reply import reply_html
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
    monkeypatch.setattr(live_reply, "reply_html", lambda text, sources: rendered.append(text) or text)
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


CITING = "Before [1].\n\nIt is [1], `[1]`, [2, 1], [3] and [1](https://example.org). \\[1] [3][1]"
FOUND = ReplyPart("tool", "[1] a <b>.txt, page 1\nText.\n\n[2] b.txt, 'x'\nMore.", 0, 1, "documents", offset=11)


def test_growing_and_ended_replies_have_the_same_citations() -> None:
    message = Message("r", "assistant", CITING, parts=(FOUND,))
    ended = [one["text"] for one in render_messages([message])[0]["content"]]
    live = LiveReply()
    for end in range(11, len(CITING) + 1):
        grown = live.messages(CITING[:end], [11], cited_passages([FOUND]))
    texts = [one["content"][0]["text"] for one in grown]
    assert texts[0] == ended[0] and "cite" not in texts[0], "a text before the passages cites none of them"
    assert [re.sub(r"(</\w+>)+$", "", text) for text in (texts[2], ended[2])] == [texts[2]] * 2
    numbers = re.findall(r"<button class='cite' type='button' value='(\d)' [^>]*>([^<]*)</button>", ended[2])
    assert numbers == [("1", "[1]"), ("2", "2"), ("1", "1"), ("1", "[1]")]
    assert "title='Passage 1: a &lt;b&gt;.txt, page 1'" in ended[2]
    assert "title='Passage 2: b.txt, &#x27;x&#x27;'" in ended[2]
    assert "<code dir='ltr'>[1]</code>" in ended[2] and '<a href="https://example.org">1</a>' in ended[2]


def test_same_text_without_passages_has_no_citations() -> None:
    assert "cite" in reply_html("See [1].", {1: "a.txt, page 1"})
    assert reply_html("See [1].") == "<p dir='auto'>See [1].</p>"
    assert "b.txt" in reply_html("See [1].", {1: "b.txt, page 1"})
