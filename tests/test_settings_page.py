"""The section `[page]`: what is allowed, and readable colours."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from settings import PageSettings, SettingsError, load_settings
from settings.page import contrast

colours = st.integers(0, 0xFFFFFF).map(lambda number: f"#{number:06x}")


def loaded(tmp_path: Path, page: str) -> PageSettings:
    file = tmp_path / "glassbox.toml"
    file.write_text(f"[page]\n{page}")
    return load_settings({"config": str(file)}, {}).page


def test_contrast_is_that_of_the_standard() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#ffffff", "#ffffff") == 1
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@given(colours)
def test_an_accent_is_readable_on_both_schemes_or_another_is_proposed(colour: str) -> None:
    try:
        light, dark = PageSettings(accent=colour).accents or ("", "")
    except ValueError as e:
        proposed = str(e).partition("such as ")[2][:7]
        light, dark = PageSettings(accent=proposed).accents or ("", "")
    assert contrast(light, "#ffffff") >= 4.5
    assert contrast(dark, "#18181b") >= 4.5


@pytest.mark.parametrize(
    ("page", "said"),
    [
        ('accent = "#ffff00"', "accent: #ffff00 has a contrast of 1.1 to white, allowed: at least 4.5, such as #"),
        ('accent = "teal"', "found 'teal', allowed: a colour such as '#7c3aed'"),
        ('accent = "#0f766e"\naccent_dark = "#0f766e"', "to dark pages, allowed: at least 4.5"),
        ('accent_dark = "#ffffff"', "has no effect without `accent`"),
        (
            'embed_origins = ["https://Blog.example/"]',
            "page, embed_origins: found 'https://Blog.example/', allowed: ",
        ),
        ('embed_origins = ["blog.example"]', "did you mean 'https://blog.example'?"),
        (
            'embed_origins = ["https://blog.example/path"]',
            "without path and wildcard; did you mean 'https://blog.example'?",
        ),
        ('embed_origins = ["*"]', "found '*', allowed: https://HOST"),
        ('embed_origins = ["https://*.blog.example"]', "allowed: https://HOST"),
        ('embed_origins = ["null"]', "allowed: https://HOST"),
        ("embed_origins = [\"https://blog.example; script-src 'none'\"]", "allowed: https://HOST"),
        ('embed_origins = "https://blog.example"', "embed_origins"),
        ('panel = "ajar"', "panel"),
        ('titel = "x"', "did you mean 'title'?"),
        ('title = ""', "title"),
        ('hide = ["everything"]', "hide"),
        ('links = [{ text = "x", url = "javascript:alert(1)" }]', "an address that begins with https://"),
        ('links = [{ text = "x", url = "https://a.example/\\" onclick=\\"x" }]', "an address that begins with"),
        ('prompts = [{ title = "x" }]', "message"),
        ('prompts = [{ title = "x", message = "y", backend = "No such" }]', "found 'No such', allowed: "),
    ],
)
def test_a_wrong_value_stops_the_start_with_a_sentence(tmp_path: Path, page: str, said: str) -> None:
    with pytest.raises(SettingsError) as e:
        loaded(tmp_path, page)
    assert said in str(e.value) and "glassbox.toml" in str(e.value)


def test_an_empty_section_is_the_shipped_page(tmp_path: Path) -> None:
    assert loaded(tmp_path, "") == PageSettings()
