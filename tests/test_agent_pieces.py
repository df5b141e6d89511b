"""One piece of a stream as thought, text and usage, whatever the provider calls them."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk

from agent.pieces import Call, final_usage, held_back, read_piece


def read(chunks: Iterable[AIMessage]) -> tuple[str, str, Call]:
    """All of a call's chunks, up to its end."""
    call, thoughts, texts = Call(), "", ""
    for chunk in chunks:
        thought, text, call = read_piece(chunk, call)
        thoughts, texts = thoughts + thought, texts + text
    thought, text = held_back(call)
    return thoughts + thought, texts + text, call


def said(*texts: str) -> tuple[str, str]:
    thought, text, _ = read(AIMessageChunk(text) for text in texts)
    return thought, text


def blocks(*content: Any) -> AIMessageChunk:
    return AIMessageChunk(list(content))


@pytest.mark.parametrize(
    "chunk",
    [
        AIMessageChunk("", additional_kwargs={"reasoning_content": "hm"}),
        blocks({"type": "thinking", "thinking": "hm"}),
        blocks({"type": "thinking", "thinking": "hm", "signature": "abc", "index": 0}),
        blocks({"type": "reasoning", "reasoning": "hm"}),
        blocks({"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm", "index": 0}]}),
        blocks({"type": "reasoning", "summary": [{"text": "h"}, {"text": None}, "odd", {"text": "m"}]}),
        blocks({"type": "thinking", "thinking": "h"}, {"type": "thinking", "thinking": "m"}),
        blocks({"type": "thinking", "thinking": [{"type": "text", "text": "h"}, {"type": "text", "text": "m"}]}),
        AIMessageChunk("", additional_kwargs={"reasoning_content": [{"type": "text", "text": "hm"}]}),
        AIMessageChunk("<think>hm</think>"),
        AIMessage("", additional_kwargs={"reasoning_content": "hm"}),
    ],
    ids=lambda chunk: repr(chunk.content)[:40],
)
def test_thinking_is_found_in_every_shape(chunk: AIMessage) -> None:
    assert read([chunk, AIMessageChunk("so")])[:2] == ("hm", "so")


def test_thinking_and_text_may_come_in_one_piece() -> None:
    chunk = blocks({"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "so"})
    assert read([chunk])[:2] == ("hm", "so")


@pytest.mark.parametrize(
    "chunk",
    [
        AIMessageChunk(""),
        blocks(),
        blocks({"type": "reasoning", "summary": []}),
        blocks({"type": "reasoning", "id": "rs_1"}),
        blocks({"type": "thinking", "signature": "abc"}),
        blocks({"type": "redacted_thinking", "data": "abc"}),
        blocks({"type": "tool_call_chunk", "name": "clock", "args": "{}"}),
        blocks({"type": "tool_use", "name": "clock", "input": {}}),
        AIMessageChunk("", additional_kwargs={"reasoning_content": ""}),
    ],
    ids=lambda chunk: repr(chunk.content)[:40],
)
def test_pieces_with_nothing_to_read_say_nothing(chunk: AIMessage) -> None:
    assert read([chunk])[:2] == ("", "")


@pytest.mark.parametrize(
    ("block", "name"),
    [
        ({"type": "image", "base64": "AAAA", "mime_type": "image/png"}, "image"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}, "image"),
        ({"type": "audio", "base64": "AAAA"}, "audio"),
        ({"type": "video", "url": "http://127.0.0.1/x"}, "video"),
        ({"type": "file", "file_id": "AAAA"}, "file"),
    ],
)
def test_what_cannot_be_shown_is_named(block: Any, name: str) -> None:
    found = read([AIMessageChunk("Here: "), blocks(block), AIMessageChunk(" nice")])
    assert found[:2] == ("", f"Here: [{name}: not shown here] nice")


TAGGED = "<think>first 1 < 2\n</thin or </b>\nthen</think>\n\nso: <think>no</think> <"
SPLIT = ("first 1 < 2\n</thin or </b>\nthen", "so: <think>no</think> <")


def cut(text: str, places: Iterable[int]) -> list[str]:
    ends = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[a:b] for a, b in pairwise(ends)]


def test_tags_split_in_two_at_any_place_are_found() -> None:
    assert {said(*cut(TAGGED, [n])) for n in range(len(TAGGED) + 1)} == {SPLIT}


def test_tags_and_line_ends_in_single_characters_are_found() -> None:
    assert said(*TAGGED) == SPLIT


TEXTS = st.lists(
    st.sampled_from(["<", "think>", "</", "<think>", "</think>", "<think", "k>", " ", "\n", "a", "word ", "é"]),
    max_size=12,
).map("".join)
CUTS = st.lists(st.integers(0, 60), max_size=12)


@given(TEXTS, CUTS)
@example("<think>a", [7])
@example(" \n<think>a</think>b", [1, 4, 12])
def test_the_pieces_do_not_matter(text: str, places: list[int]) -> None:
    assert said(*cut(text, places)) == said(text)


@given(TEXTS, CUTS)
def test_nothing_but_tags_and_blanks_is_lost(text: str, places: list[int]) -> None:
    thought, reply = said(*cut(text, places))
    if text.lstrip().startswith("<think>"):
        inner = text.lstrip().removeprefix("<think>")
        assert (thought + reply).replace("\n", "") == inner.replace("</think>", "", 1).replace("\n", "")
        assert "</think>" not in thought
    else:
        assert (thought, reply) == ("", text)


@pytest.mark.parametrize(
    "text",
    [
        "The tag <think> opens, </think> closes.",
        "`<think>`",
        "a<think>b</think>",
        "</think>",
        "<thinking>",
        "<think",
        "<",
        "  \n ",
        "< think>",
    ],
)
def test_a_reply_that_does_not_begin_with_the_tag_is_untouched(text: str) -> None:
    assert said(text) == said(*text) == ("", text)


@pytest.mark.parametrize("text", ["<think>to the end", "<think>to the end</thi"])
def test_thinking_that_is_never_closed_is_thought(text: str) -> None:
    assert said(text) == said(*text) == (text.removeprefix("<think>"), "")


def test_what_cannot_become_a_tag_is_not_held_back() -> None:
    thought, text, call = read_piece(AIMessageChunk("<thin"), Call())
    assert (thought, text, call.held) == ("", "", "<thin")
    thought, text, call = read_piece(AIMessageChunk("g"), call)
    assert (thought, text, call.held) == ("", "<thing", "")
    assert read_piece(AIMessageChunk("<think>"), call)[:2] == ("", "<think>")


def test_thought_comes_as_soon_as_it_is_sure() -> None:
    _, _, call = read_piece(AIMessageChunk("<think>"), Call())
    thought, _, call = read_piece(AIMessageChunk("so far <"), call)
    assert thought == "so far "
    assert read_piece(AIMessageChunk("3"), call)[0] == "<3"


Figures = tuple[int, int]


def usage(given: int, received: int) -> Any:
    return {"input_tokens": given, "output_tokens": received, "total_tokens": given + received}


def counted(told: Sequence[Figures | None]) -> dict[str, int] | None:
    """The figures at the end of a call whose chunks told these, added up by LangChain as it does."""
    chunks = [AIMessageChunk("x", usage_metadata=usage(*one) if one else None) for one in told]
    output = chunks[0]
    for chunk in chunks[1:]:
        output = output + chunk  # type: ignore[assignment]
    return final_usage(output, read(chunks)[2])


def total(given: int, received: int) -> dict[str, int]:
    return {"input_tokens": given, "output_tokens": received}


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([None, None], None),
        ([None, (7, 5), None], (7, 5)),
        ([(7, 5)], (7, 5)),
        ([(7, 1), (7, 2), (7, 3)], (7, 3)),
        ([(7, 0), None, (7, 0), (7, 9)], (7, 9)),
        ([(7, 4), (7, 4)], (7, 4)),
        ([(7, 1), (0, 1), (0, 1)], (7, 3)),
        ([(7, 0), (0, 9)], (7, 9)),
        ([(0, 2), (0, 3)], (0, 5)),
        ([(7, 5), (0, 0)], (7, 5)),
        ([(7, 3), (7, 1), (7, 5)], (21, 9)),
    ],
)
def test_the_figures_of_a_call_are_its_final_ones(told: list[Figures | None], expected: Figures | None) -> None:
    assert counted(told) == (total(*expected) if expected else None)


OUTPUTS = st.lists(st.integers(0, 50), min_size=1, max_size=8)


@given(st.integers(1, 5000), OUTPUTS)
def test_cumulative_figures_end_with_the_last(prompt: int, outputs: list[int]) -> None:
    sums = [sum(outputs[: n + 1]) for n in range(len(outputs))]
    assert counted([(prompt, out) for out in sums]) == total(prompt, sums[-1])


@given(st.integers(1, 5000), OUTPUTS)
def test_increments_are_added_up(prompt: int, outputs: list[int]) -> None:
    told = [(prompt if n == 0 else 0, out) for n, out in enumerate(outputs)]
    assert counted(told) == total(prompt, sum(outputs))


def test_a_model_that_does_not_stream_tells_its_figures_with_its_end() -> None:
    whole = AIMessage("x", usage_metadata=usage(7, 5))
    assert final_usage(whole, read([whole])[2]) == final_usage(whole, Call()) == total(7, 5)
    assert final_usage(AIMessage("x"), Call()) is None
    assert final_usage(None, Call()) is None
