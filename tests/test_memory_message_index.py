import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory.message_index import Match, MessageIndex
from memory.messages import Message
from tests.scripts import HELD, UNLIKE


def talk(*texts: str) -> list[Message]:
    return [Message(f"m{n}", "user", text) for n, text in enumerate(texts)]


def found(texts: list[str], query: str, most: int = 10) -> list[Match]:
    return MessageIndex().search(talk(*texts), query, most)


def test_messages_with_more_and_rarer_words_come_first() -> None:
    texts = ["The keeper saw a whale.", "A ship passed.", "Whales sing; the keeper kept a light.", "The light was out."]
    matches = found(texts, "What did the keeper think of whales and ships?")
    assert matches[0] == Match("m0", ("keeper", "whales"))
    assert set(matches[1:]) == {Match("m2", ("keeper", "whales")), Match("m1", ("ships",))}
    assert "m3" not in [match.message_id for match in matches]


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("\u706f\u5854\u5b88\u536b\u8005\u770b\u89c1\u4e86\u9cb8\u9c7c", "\u9cb8\u9c7c\u5728\u54ea\u91cc"),
        ("\u30af\u30b8\u30e9\u304c\u6b4c\u3046", "\u30af\u30b8\u30e9"),
        ("\uace0\ub798\uac00 \ub178\ub798\ud55c\ub2e4", "\uace0\ub798\ub294"),
        ("Der Leuchtturmw\u00e4rter", "leuchtturmwarter"),
        ("\u05dc\u05d5\u05d9\u05ea\u05df \u05e9\u05e8", "\u05dc\u05d5\u05d9\u05ea\u05df"),
        ("order number 4711", "4711?"),
        ("running ships", "a ship that runs"),
    ],
)
def test_many_languages_are_matched(text: str, query: str) -> None:
    assert [match.message_id for match in found(["something else", text], query)] == ["m1"]


@pytest.mark.parametrize("case", HELD)
def test_every_script_is_matched(case: str) -> None:
    text, word = HELD[case]
    assert [match.message_id for match in found(["something else", text], word)] == ["m1"]


@pytest.mark.parametrize("case", UNLIKE)
def test_similar_words_do_not_match(case: str) -> None:
    text, word = UNLIKE[case]
    assert found(["something else", text], word) == []


def test_match_names_the_words_as_written() -> None:
    (match,) = found(["The cafe in Strasse 5"], "CAFÉ Straße")
    assert set(match.words) == {"café", "straße"}


def test_query_of_stop_words_alone_still_matches() -> None:
    assert found(["To be or not to be", "A ship"], "to be?")[0].message_id == "m0"


def test_index_grows_and_finds_only_the_given_messages() -> None:
    index, messages = MessageIndex(), talk("a whale", "a ship", "another whale")
    assert {m.message_id for m in index.search(messages[:1], "whale", 5)} == {"m0"}
    assert {m.message_id for m in index.search(messages, "whale", 5)} == {"m0", "m2"}
    assert {m.message_id for m in index.search(messages[1:], "whale", 5)} == {"m2"}, "a branch without the first"
    assert index.search(messages, "whale", 1) == index.search(messages, "whale", 5)[:1]
    assert index.search([], "whale", 5) == []


HOSTILE = [
    '"',
    "''",
    "a AND",
    "NEAR(",
    "text: x",
    "* OR *",
    "\x02\x03",
    "-- ;",
    "{a b}",
    "^x",
    "\x00",
    "\U0001f40b",
    "",
]


@given(st.lists(st.text(max_size=40) | st.sampled_from(HOSTILE), max_size=6), st.text(max_size=60))
def test_text_is_never_a_query_language(texts: list[str], query: str) -> None:
    for one in (query, *HOSTILE):
        matches = found(texts, one)
        assert len({match.message_id for match in matches}) == len(matches)


def test_huge_query_is_cut_to_its_beginning() -> None:
    words = " ".join(f"word{n}" for n in range(100_000))
    assert found(["word3 and word5", "word99999"], words)[0].message_id == "m0"


def test_repeated_search_gives_the_same_matches() -> None:
    luck = random.Random(1)
    texts = [" ".join(luck.choices(["whale", "ship", "sea", "light", "net"], k=5)) for _ in range(200)]
    assert found(texts, "whale light", 20) == found(texts, "whale light", 20)
