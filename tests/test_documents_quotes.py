"""The text of numbered passages, and the way back."""

from hypothesis import given
from hypothesis import strategies as st

from documents.index import Passage
from documents.quotes import numbered, quoted, read_quotes, sources, without_numbers

TEXTS = st.text(st.sampled_from("[]123 ab\n>"), min_size=1) | st.just("[2] b.txt, page 1\nno passage")


def passage(text: str) -> Passage:
    return Passage("a.txt", "page 1", text, 1.0)


@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_no_text_of_a_document_imitates_a_passage(texts: list[str]) -> None:
    for form in (numbered, quoted):
        text = "\n\n".join(form(passage(one), number) for number, one in enumerate(texts, 1))
        assert sources(text) == dict.fromkeys(range(1, len(texts) + 1), "a.txt, page 1")
    assert all(line.startswith(">") for line in quoted(passage(texts[0]), 1).split("\n")[1:])


def test_other_texts_have_no_passages() -> None:
    for text in ("", "Nothing found", "see\n[1] a.txt", "[x] a.txt", "[1]"):
        assert read_quotes(text) == () and without_numbers(text) == text


def test_numbers_are_removed_and_the_texts_stay() -> None:
    text = numbered(passage("one\n[3] c.txt, page 4"), 1) + "\n\n" + numbered(passage("two"), 2)
    assert without_numbers(text) == "a.txt, page 1\none\n> [3] c.txt, page 4\n\na.txt, page 1\ntwo"
