import pytest
from hypothesis import given
from hypothesis import strategies as st

from runs.text import clean_text


@pytest.mark.parametrize(
    ("given_text", "shown"),
    [
        ("a\r\nb\rc\nd", "a\nb\nc\nd"),
        ("a\x00b\x1bc\x7f", "a\u2400b\u241bc\u2421"),
        ("half \ud83d pair", "half \ufffd pair"),
        ("\ud83d\ude00", "\U0001f600"),
        ("tab\tstays", "tab\tstays"),
        ("שלום \u202eevil", "שלום \u202eevil"),
    ],
)
def test_clean_text_shows_control_characters(given_text: str, shown: str) -> None:
    assert clean_text(given_text) == shown


@given(st.text(st.characters(exclude_categories=[]) | st.characters(min_codepoint=0xD800, max_codepoint=0xDFFF)))
def test_clean_text_is_valid_and_idempotent(text: str) -> None:
    once = clean_text(text)
    assert once.encode().decode() == once
    assert clean_text(once) == once
