"""Chunks of a stream as thinking, text and usage, in the formats of all providers."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, AIMessageChunk

from agent.chunks import CallState, final_usage, flush_call, read_chunk
from agent.thinking_tags import Tags
from runs.text import valid_text


def read(chunks: Iterable[AIMessage]) -> tuple[str, str, CallState]:
    """Reads all chunks of a call."""
    call, thoughts, texts, retracted = CallState(), "", "", False
    for chunk in chunks:
        thought, text, call = read_chunk(chunk, call)
        if call.tags.retracted and not retracted:
            retracted, texts = True, ""
        thoughts, texts = thoughts + thought, texts + text
    thought, text, call = flush_call(call)
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
def test_thinking_is_read_in_every_provider_format(chunk: AIMessage) -> None:
    assert read([chunk, AIMessageChunk("so")])[:2] == ("hm", "so")


def test_thinking_and_text_may_be_in_one_chunk() -> None:
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
def test_empty_chunks_have_no_output(chunk: AIMessage) -> None:
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
def test_unsupported_content_is_named(block: Any, name: str) -> None:
    found = read([AIMessageChunk("Here: "), blocks(block), AIMessageChunk(" nice")])
    assert found[:2] == ("", f"Here: [{name}: not shown here] nice")


TAGGED = "<think>first 1 < 2\n</thin or </b>\nthen</think>\n\nso: <think>no</think> <"
SPLIT = ("first 1 < 2\n</thin or </b>\nthen", "so: <think>no</think> <")


def cut(text: str, places: Iterable[int]) -> list[str]:
    ends = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[a:b] for a, b in pairwise(ends)]


def test_tags_split_at_any_position_are_found() -> None:
    assert {said(*cut(TAGGED, [n])) for n in range(len(TAGGED) + 1)} == {SPLIT}


def test_tags_and_newlines_in_single_characters_are_found() -> None:
    assert said(*TAGGED) == SPLIT


TEXTS = st.lists(
    st.sampled_from(["<", "think>", "</", "<think>", "</think>", "<think", "k>", " ", "\n", "a", "word ", "é"]),
    max_size=12,
).map("".join)
CUTS = st.lists(st.integers(0, 60), max_size=12)


@given(TEXTS, CUTS)
@example("<think>a", [7])
@example(" \n<think>a</think>b", [1, 4, 12])
def test_chunk_boundaries_do_not_matter(text: str, places: list[int]) -> None:
    assert said(*cut(text, places)) == said(text)


@given(TEXTS, CUTS)
def test_only_tags_and_blanks_are_dropped(text: str, places: list[int]) -> None:
    thought, reply = said(*cut(text, places))
    if text.lstrip().startswith("<think>"):
        inner = text.lstrip().removeprefix("<think>")
        assert (thought + reply).replace("\n", "") == inner.replace("</think>", "", 1).replace("\n", "")
        assert "</think>" not in thought
    elif thought or reply != text:  # a closing tag that nothing opens
        before, _, after = text.partition("</think>")
        assert "<think>" not in before
        assert (thought, reply) == (before, after.lstrip("\n"))


OPEN = CallState(tags=Tags(opened=True))
CLOSED_ONLY = {
    "on its line": "I add them.\n</think>\n\nIt is 4.",
    "behind a blank line": "I add them.\n\n</think>\nIt is 4.",
    "behind the thought": "I add them.</think>It is 4.",
    "behind the thought, without a full stop": "I add them</think>\nIt is 4.",
    "behind a sentence and a blank": "I add them. </think> It is 4.",
    "before the reply on its line": "I add them.\n</think> It is 4.",
    "behind the thought, and a blank line end": "I add them</think> \r\nIt is 4.",
    "behind a closing bracket": "我来算\uff08二加二\uff09</think>\n四。",
    "behind Chinese": "我来算。</think>\n\n四。",
    "behind code": "I run `2+2` and\n```\nprint(2+2)\n```\n</think>\n\nIt is 4.",
    "behind a list": "- two\n- two more\n</think>\n\nIt is 4.",
    "at the beginning": "</think>\n\nIt is 4.",
    "behind line ends": "\n\n</think>\n\nIt is 4.",
    "and another later": "I add them.\n</think>\n\nIt ends with\n</think>\n.",
}


@pytest.mark.parametrize("text", CLOSED_ONLY.values(), ids=CLOSED_ONLY)
def test_thinking_may_have_only_its_closing_tag(text: str) -> None:
    before, _, after = text.partition("</think>")
    expected = before, after.lstrip("\n") if after.startswith("\n") else after
    assert said(text) == said(*text) == expected
    assert {said(*cut(text, [n, m])) for n in range(len(text)) for m in (n + 1, n + 9)} == {expected}
    thought, reply, call = read(map(AIMessageChunk, text))
    assert (thought, reply) == expected
    assert call.tags.thinks is True


@pytest.mark.parametrize(
    "text",
    [
        "A thought ends with </think> and then comes the answer.",
        "It is written `</think>`.",
        "It is written ``</think>``: with a slash.",
        "```\nI add them.\n</think>\nIt is 4.\n```",
        "~~~xml\n</think>\n~~~",
        'The string "</think>" ends it.',
        "The tag (</think>) ends it.",
        "**</think>** ends it.",
        "- </think>: ends it",
        "1. </think> ends it",
        "> </think>",
        "| </think> | ends it |",
        "    </think>\nis code",
        "Some tags, e.g. </think>, end something.",
        "这通常是服务器没有过滤</think>标签造成的。",
        "结束标签「</think>」\n",
        "结束标签\uff1a</think>\n是这样",
        "The word is</think>, and nothing else.",
        "such as: </think> tags",
        "such as:</think>\nor others",
        "The tag —</think>\n— ends it.",
        "Between <think> and\n</think>\nit thinks.",
    ],
)
def test_mentioned_closing_tag_is_text(text: str) -> None:
    assert said(text) == said(*text) == ("", text)
    assert read(map(AIMessageChunk, text))[2].tags.thinks is None


def test_text_before_an_unexpected_closing_tag_is_retracted() -> None:
    thought, text, call = read_chunk(AIMessageChunk("I add "), CallState())
    assert (thought, text) == ("", "I add ")
    thought, text, call = read_chunk(AIMessageChunk("them.\n</thi"), call)
    assert (thought, text, call.tags.retracted) == ("", "them.\n", False)
    thought, text, call = read_chunk(AIMessageChunk("nk>\n\nIt"), call)
    assert (thought, text, call.tags.retracted) == ("I add them.\n", "It", True)
    assert read_chunk(AIMessageChunk(" is"), call)[:2] == ("", " is")


def test_unsent_text_is_not_retracted() -> None:
    _, _, call = read_chunk(AIMessageChunk("I add them.\n</think>\n\nIt"), CallState())
    assert not call.tags.retracted


@pytest.mark.parametrize("text", [*CLOSED_ONLY.values(), "<think>I add them.</think>It is 4."])
def test_thinking_opened_by_the_template_is_reasoning(text: str) -> None:
    before, _, after = text.removeprefix("<think>").partition("</think>")
    for pieces in ([text], list(text)):
        call, thoughts, texts = OPEN, "", ""
        for piece in pieces:
            thought, shown, call = read_chunk(AIMessageChunk(piece), call)
            thoughts, texts = thoughts + thought, texts + shown
            assert not call.tags.retracted
        assert thoughts.strip() == before.strip()
        assert texts == after.lstrip("\n")


def test_answer_without_expected_thinking_is_not_lost() -> None:
    _, _, call = read_chunk(AIMessageChunk("It is 4, I am sure.</th"), OPEN)
    assert flush_call(call, whole=True)[1] == "It is 4, I am sure.</th"
    assert flush_call(call, whole=True)[2].tags.thinks is False
    assert flush_call(call)[:2] == ("</th", ""), "a thought that was cut is a thought"


def test_cut_reply_is_not_lost_where_thinking_was_only_learned() -> None:
    _, _, call = read_chunk(AIMessageChunk("It is 4, I am sure.</th"), CallState(tags=Tags(opened=True, learned=True)))
    thought, text, call = flush_call(call)
    assert (thought, text, call.tags.thinks) == ("", "It is 4, I am sure.</th", False)


def test_server_that_separates_thinking_may_leave_the_tag() -> None:
    thought = AIMessageChunk("", additional_kwargs={"reasoning_content": "hm"})
    for known in (CallState(), OPEN):
        chunks = [thought, AIMessageChunk("</think>\n\n"), AIMessageChunk("So:\n</think>\nis the tag")]
        call, found = known, ("", "")
        for chunk in chunks:
            one, text, call = read_chunk(chunk, call)
            found = found[0] + one, found[1] + text
        assert found == ("hm", "So:\n</think>\nis the tag")
    assert read([thought, AIMessageChunk("So:\n</think>\nis the tag")])[:2] == ("hm", "So:\n</think>\nis the tag")


def test_tag_mentioned_in_the_prompt_does_not_end_thinking() -> None:
    call = CallState(tags=Tags(watched=False))
    assert read_chunk(AIMessageChunk("So\n</think>\nis"), call)[1] == "So\n</think>\nis"


def thinking(text: str) -> AIMessageChunk:
    return AIMessageChunk("", additional_kwargs={"reasoning_content": text})


@given(st.text(alphabet="a😀👩🎉\u2028é", max_size=8), st.lists(st.integers(0, 20), max_size=8), st.booleans())
def test_halves_of_characters_are_joined(text: str, places: list[int], thought: bool) -> None:
    units = text.encode("utf-16-le")
    halves = "".join(chr(int.from_bytes(units[n : n + 2], "little")) for n in range(0, len(units), 2))
    chunks = [thinking(piece) if thought else AIMessageChunk(piece) for piece in cut(halves, places)]
    found = read(chunks)[:2]
    assert tuple(map(valid_text, found)) == ((text, "") if thought else ("", text))


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
def test_unclosed_thinking_is_reasoning(text: str) -> None:
    assert said(text) == said(*text) == (text.removeprefix("<think>"), "")


def test_text_that_cannot_become_a_tag_is_not_held_back() -> None:
    thought, text, call = read_chunk(AIMessageChunk("<thin"), CallState())
    assert (thought, text, call.tags.held) == ("", "", "<thin")
    thought, text, call = read_chunk(AIMessageChunk("g"), call)
    assert (thought, text, call.tags.held) == ("", "<thing", "")
    assert read_chunk(AIMessageChunk("<think>"), call)[:2] == ("", "<think>")


def test_thinking_is_sent_as_soon_as_it_is_certain() -> None:
    _, _, call = read_chunk(AIMessageChunk("<think>"), CallState())
    thought, _, call = read_chunk(AIMessageChunk("so far <"), call)
    assert thought == "so far "
    assert read_chunk(AIMessageChunk("3"), call)[0] == "<3"


Figures = tuple[int, int]


def usage(given: int, received: int) -> Any:
    return {"input_tokens": given, "output_tokens": received, "total_tokens": given + received}


def counted(received: Sequence[Figures | None]) -> dict[str, int] | None:
    """Returns the usage at the end of a call whose chunks have these counts, as LangChain sums them."""
    chunks = [AIMessageChunk("x", usage_metadata=usage(*one) if one else None) for one in received]
    output = chunks[0]
    for chunk in chunks[1:]:
        output = output + chunk  # type: ignore[assignment]
    return final_usage(output, read(chunks)[2])


def total(given: int, received: int) -> dict[str, int]:
    return {"input_tokens": given, "output_tokens": received}


@pytest.mark.parametrize(
    ("received", "expected"),
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
def test_usage_of_a_call_is_the_final_one(received: list[Figures | None], expected: Figures | None) -> None:
    assert counted(received) == (total(*expected) if expected else None)


OUTPUTS = st.lists(st.integers(0, 50), min_size=1, max_size=8)


@given(st.integers(1, 5000), OUTPUTS)
def test_cumulative_usage_is_the_last_count(prompt: int, outputs: list[int]) -> None:
    sums = [sum(outputs[: n + 1]) for n in range(len(outputs))]
    assert counted([(prompt, out) for out in sums]) == total(prompt, sums[-1])


@given(st.integers(1, 5000), OUTPUTS)
def test_incremental_usage_is_summed(prompt: int, outputs: list[int]) -> None:
    received = [(prompt if n == 0 else 0, out) for n, out in enumerate(outputs)]
    assert counted(received) == total(prompt, sum(outputs))


def test_usage_of_a_model_that_does_not_stream_comes_with_its_end() -> None:
    whole = AIMessage("x", usage_metadata=usage(7, 5))
    assert final_usage(whole, read([whole])[2]) == final_usage(whole, CallState()) == total(7, 5)
    assert final_usage(AIMessage("x"), CallState()) is None
    assert final_usage(None, CallState()) is None
