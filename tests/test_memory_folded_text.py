"""Folded text: equal spellings, and positions in the original text."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from memory import folded_text
from memory.folded_text import find_folded, fold_text
from tests.scripts import HELD, UNLIKE, decomposed


@pytest.mark.parametrize("case", HELD)
def test_word_is_found_in_every_spelling(case: str) -> None:
    text, word = HELD[case]
    for around in ("", "\U0001f40b 鲸 ", "e\u0301 \n\t é " * 500):
        place = find_folded(around + text + around, fold_text(word))
        assert place is not None
        assert fold_text((around + text + around)[slice(*place)]) == fold_text(word)


@pytest.mark.parametrize("case", UNLIKE)
def test_different_letters_stay_different(case: str) -> None:
    text, word = UNLIKE[case]
    assert find_folded(text, fold_text(word)) is None


@pytest.mark.parametrize(
    ("text", "word", "found"),
    [
        ("Le café.", "CAFE", "café"),
        (decomposed("Le café."), "cafe", decomposed("café")),
        ("one  \n two", "one two", "one  \n two"),
        ("Straße", "ss", "ß"),
        ("\u0130" * 80 + "ПРИВЕТ", "привет", "ПРИВЕТ"),
        ("so\u00adft", "f", "f"),
        ("①②", "2", "②"),
    ],
)
def test_match_has_complete_characters_of_the_original(text: str, word: str, found: str) -> None:
    place = find_folded(text, fold_text(word))
    assert place and text[slice(*place)] == found


@given(st.text())
@example("\u0345")
@example("\ud800")
@example("\U00010d40\U0001ccf0\U00016130\u0660")  # digits, some of a recent Unicode
@example("\u1e9e\u0130\ufb01\u0f73\u0344")
def test_folding_is_idempotent_in_every_normal_form(text: str) -> None:
    assert fold_text(fold_text(text)) == fold_text(text)
    assert fold_text(decomposed(text)) == fold_text(text)


@given(st.text(), st.text(min_size=1, max_size=5), st.text())
@example("\u0301", "a", "\u0301")
@example("", "\u1100", "\u1161")
def test_match_is_found_in_any_text(before: str, word: str, after: str) -> None:
    text = before + word + after
    place = find_folded(text, fold_text(word))
    if place is not None:
        assert 0 <= place[0] < place[1] <= len(text)
        assert fold_text(word) in fold_text(text[slice(*place)])


def test_endless_marks_are_folded_quickly() -> None:
    text = "a" + "\u0301" * 300_000 + "b" * 300_000 + "whale"
    assert find_folded(text, "whale") == (600_001, 600_006)
    assert find_folded(text, "a") == (0, 300_001)


@pytest.mark.parametrize("end", [" ", "\n\t", "\u200b", "\u0301", "\u200b ", "\u00a0", "\u00ad\n"])
@pytest.mark.parametrize("before", ["ab ", "\u0437\u0430 ", "x"])
def test_search_takes_linear_time(monkeypatch: pytest.MonkeyPatch, before: str, end: str) -> None:
    folded = list[int]()

    def counted(text: str) -> str:
        folded.append(len(text))
        return fold_text(text)

    monkeypatch.setattr(folded_text, "fold_text", counted)
    text = before * 2000 + "needle" + end * 8000
    place = find_folded(text, "needle")
    assert place is not None and place[0] == len(before) * 2000
    assert fold_text(text[slice(*place)]) == "needle" if "\u0301" not in end else place[1] == len(text)
    assert sum(folded) <= 8 * len(text)
    assert len(folded) <= 400


@pytest.mark.parametrize("blank", [" \u200b ", " \u00ad\u00ad\n", "\n\ufeff\t\u2060 "])
def test_match_after_spaces_with_joiners_is_exact(blank: str) -> None:
    text = ("ab" + blank) * 300 + "needle" + blank * 300
    place = find_folded(text, "needle")
    assert place is not None
    assert text[slice(*place)].strip(" \n\t\u200b\u00ad\ufeff\u2060") == "needle"
