"""The page's own look and words: files, escapes, styles."""

import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from components.assets import WEB
from components.brand import _MOST_LOGO, _MOST_PICTURE, Brand
from settings import PageSettings, SettingsError
from settings.page import PROMPTS, Link, Starter

HOSTILE = "<script>x</script> ${alert(1)} {{value}} \"'&"


def soup(html: str) -> BeautifulSoup:
    return BeautifulSoup(html, "html.parser")


def test_the_shipped_page_has_its_prompts_and_no_style(tmp_path: Path) -> None:
    brand = Brand(PageSettings(), tmp_path)
    intro = soup(brand.intro())
    assert [b["data-prompt"] for b in intro.select(".prompts button")] == [one.message for one in PROMPTS]
    assert intro.h2 and intro.h2.text == PageSettings().tagline
    assert not re.search(r"\{\w+\}", brand.intro() + brand.header() + brand.frame())
    assert brand.style() == "" and brand.favicon(tmp_path) == WEB / "favicon.svg"


def test_texts_are_shown_as_they_are_written(tmp_path: Path) -> None:
    (tmp_path / "intro.md").write_text(f"**Bold** {HOSTILE}\n\n[a link](https://example.org)")
    page = PageSettings(
        title=HOSTILE[:60],
        tagline=HOSTILE,
        intro="intro.md",
        prompts=[Starter(title=HOSTILE, message=HOSTILE, about=HOSTILE, memory="window")],
        links=[Link(text=HOSTILE, url="https://example.org/?a=${b}&c={{d}}")],
    )
    brand = Brand(page, tmp_path)
    for html in (brand.intro(), brand.header(), brand.frame()):
        assert "${" not in html and "{{" not in html and "<script" not in html
    intro = soup(brand.intro())
    assert intro.h2 and intro.h2.text == HOSTILE
    (button,) = intro.select(".prompts button")
    assert (button["data-prompt"], button["data-memory"]) == (HOSTILE, "window")
    assert button.b and button.b.text == HOSTILE
    assert [a["href"] for a in intro.select(".links a")] == ["https://example.org/?a=${b}&c={{d}}"]
    prose = intro.select_one(".prose")
    assert prose and prose.strong and prose.strong.text == "Bold" and "<script>x</script>" in prose.text
    assert soup(brand.header()).select_one("h1 span") and HOSTILE[:60] in soup(brand.header()).text


def test_a_logo_is_an_emoji_or_a_file(tmp_path: Path) -> None:
    whale = Brand(PageSettings(logo="🐳"), tmp_path)
    assert "🐳" in whale.header() and "🐳" in whale.frame()
    assert "🐳" in whale.favicon(tmp_path / "data").read_text()
    (tmp_path / "logo.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>")
    image = Brand(PageSettings(logo="logo.svg"), tmp_path)
    assert soup(image.header()).img and "onload" not in image.header()
    assert image.favicon(tmp_path).name == "favicon.svg"
    both = Brand(PageSettings(logo="logo.svg", favicon="🐳"), tmp_path)
    assert "🐳" in both.favicon(tmp_path).read_text() and soup(both.header()).img
    icon = Brand(PageSettings(logo="🐳", favicon="logo.svg"), tmp_path).favicon(tmp_path).read_text()
    assert "🐳" not in icon and "data:image/svg+xml" in icon


def test_a_prompt_has_a_picture(tmp_path: Path) -> None:
    (tmp_path / "cake.png").write_bytes(b"cake")
    pictures = ["🎂", "cake.png", None]
    prompts = [Starter(title="x", message="y", picture=picture) for picture in pictures]
    emoji, file, none = soup(Brand(PageSettings(prompts=prompts), tmp_path).intro()).select(".prompts button")
    assert emoji.i and emoji.i.text == "🎂" and emoji.i["aria-hidden"] == "true"
    assert file.img and (file.img["src"], file.img["alt"]) == ("data:image/png;base64,Y2FrZQ==", "")
    assert not none.select(".picture")


def test_the_panel_may_begin_closed(tmp_path: Path) -> None:
    for state in ("open", "closed"):
        frame = soup(Brand(PageSettings(panel=state), tmp_path).frame()).select_one("#first-frame .side")  # type: ignore[arg-type]
        assert frame and frame["data-panel"] == state


@pytest.mark.parametrize(
    ("page", "content", "said"),
    [
        (
            PageSettings(prompts=[Starter(title="x", message="y", picture="none.png")]),
            None,
            "page, prompts: picture: .*none.png cannot be read",
        ),
        (
            PageSettings(prompts=[Starter(title="x", message="y", picture="logo.png")]),
            b"x" * (_MOST_PICTURE + 1),
            "allowed: at most 60,000",
        ),
        (PageSettings(logo="none.svg"), None, "page, logo: .*none.svg cannot be read"),
        (PageSettings(favicon="none.ico"), None, "page, favicon: found 'none.ico', allowed: an emoji, or a file"),
        (PageSettings(logo="logo.exe"), b"", "allowed: an emoji, or a file that ends with .svg"),
        (PageSettings(logo="logo.png"), b"x" * (_MOST_LOGO + 1), "allowed: at most 200,000"),
        (PageSettings(intro="logo.png"), b"\xff\xfe\xfa", "is not UTF-8 text"),
        (PageSettings(intro="none.md"), None, "page, intro: .*none.md cannot be read"),
        (PageSettings(prompts=[Starter(title="x", message="y", memory="none at all")]), None, "memory: found"),
    ],
)
def test_what_cannot_be_used_stops_the_start(
    tmp_path: Path, page: PageSettings, content: bytes | None, said: str
) -> None:
    if content is not None:
        (tmp_path / "logo.png").write_bytes(content)
    with pytest.raises(SettingsError, match=said):
        Brand(page, tmp_path)


def test_an_accent_is_in_the_styles_and_in_the_icon(tmp_path: Path) -> None:
    brand = Brand(PageSettings(accent="#1d4ed8", hide=["memory", "share"]), tmp_path)
    assert "--gb-accent: #1d4ed8" in brand.style() and "#memory-control, #share { display: none" in brand.style()
    assert "#1d4ed8" in brand.favicon(tmp_path).read_text()
