"""Search terms of texts and queries, in SQLite's full-text index."""

import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory.search_terms import TOKENIZER, index_text, match, pairs, words
from tests.scripts import HELD, UNLIKE


def finds(text: str, query: str) -> bool:
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute(f"CREATE VIRTUAL TABLE t USING fts5(x, tokenize = '{TOKENIZER}')")
        db.execute("INSERT INTO t VALUES (?)", (index_text(text),))
        return db.execute("SELECT 1 FROM t WHERE t MATCH ?", (query,)).fetchone() is not None


@pytest.mark.parametrize("case", HELD)
def test_every_script_is_found_by_its_words(case: str) -> None:
    text, word = HELD[case]
    assert all(finds(text, match(one)) for one in words(word))


@pytest.mark.parametrize("case", UNLIKE)
def test_other_words_are_not_found(case: str) -> None:
    text, word = UNLIKE[case]
    assert not finds(text, match(word))
    assert not any(finds(text, match(pair)) for pair in pairs(word))


@pytest.mark.parametrize(
    "alike",
    [
        "whale whales",
        "city cities",
        "run runs running",
        "make makes making",
        "try tries tried",
        "box boxes",
        "stop stopped",
    ],
)
def test_english_words_are_found_in_other_numbers_and_tenses(alike: str) -> None:
    for one in alike.split():
        for other in alike.split():
            assert finds(f"the {one} here", match(other))


@pytest.mark.parametrize(
    ("text", "word"), [("string", "str"), ("on", "one"), ("policy", "police"), ("universe", "university")]
)
def test_different_words_do_not_match(text: str, word: str) -> None:
    assert not finds(text, match(word))


def test_word_may_be_a_prefix() -> None:
    assert finds("An extraordinary day", match("extraor", beginning=True))
    assert not finds("An extraordinary day", match("extraor"))


@given(st.text(), st.text())
def test_no_text_breaks_a_query(text: str, query: str) -> None:
    for word in words(query):
        for beginning in (False, True):
            if found := match(word, beginning=beginning):
                finds(text, found)


@given(st.text(min_size=1, max_size=20))
def test_every_word_of_a_text_finds_it(text: str) -> None:
    for word in words(text):
        if found := match(word):
            assert finds(text, found)
