import json
import re
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from bs4 import BeautifulSoup

from components.brand import Brand
from components.gradio_files import find_files
from components.page_html import GRADIO_ASSETS, PageHtml
from hosting.static_files import StaticFiles
from settings import PageSettings

TEMPLATE = (GRADIO_ASSETS.parent / "index.html").read_text()


class Block:
    def get_block_name(self) -> str:
        return "chatbot"


class Demo:
    theme_css = "@font-face { src: url('static/fonts/a.woff2') } :root { --one: 1 }"
    blocks = MappingProxyType({1: Block()})


def gradio_page(api: Any = None, **config: Any) -> bytes:
    """Gradio's HTML with a configuration."""
    values = {"gradio_config": {"root": "http://here", "theme_hash": "abc", "deep_link_state": "none", **config}}
    values["gradio_api_info"] = api or {}
    text = TEMPLATE
    for name, value in values.items():
        written = json.dumps(value).replace("<", "\\u003c")
        text = re.sub(rf"(window\.{name} = )\{{\{{[^}}]*\}}\}}", lambda found: found[1] + written, text)  # noqa: B023
    return re.sub(r"\{\{[^}]*'root'[^}]*\}\}", '"http://here"', text).encode()


@pytest.fixture
def files() -> StaticFiles:
    return StaticFiles(GRADIO_ASSETS)


@pytest.fixture
def page(files: StaticFiles) -> PageHtml:
    return PageHtml(Demo(), files, Brand(PageSettings(), Path()))


def test_constants_are_in_a_file_and_a_visitors_values_in_the_page(page: PageHtml, files: StaticFiles) -> None:
    html = page.rewrite(
        gradio_page(username="Zoë </script>", css=".a{}", components=[{"id": 1}], api={"named_endpoints": {}})
    ).decode()
    assert "Zo\\u00eb \\u003c/script" in html and ".a{}" not in html and "named_endpoints" not in html
    (name,) = re.findall(r'<script src="\./assets/(page-\w+\.js)">', html)
    script = files.read(name).decode()
    assert '"css":".a{}"' in script and '"components":[{"id":1}]' in script and "Zo" not in script
    assert 'window.gradio_api_info = {"named_endpoints":{}};' in script and "window.glassbox = " in script


@pytest.mark.parametrize("config", [{}, {"auth_required": True}])
def test_the_page_and_its_login_have_the_names_of_the_settings(files: StaticFiles, config: dict[str, Any]) -> None:
    brand = Brand(PageSettings(title='Whales & "more"', tagline="All about <whales>."), Path())
    html = PageHtml(Demo(), files, brand).rewrite(gradio_page(title="other", **config)).decode()
    head = BeautifulSoup(html, "html.parser").head
    assert head and head.title and head.title.text == 'Whales & "more"' and len(head.find_all("title")) == 1
    found = {str(one.get("property") or one.get("name")): one["content"] for one in head.find_all("meta", content=True)}
    assert found["og:title"] == 'Whales & "more"'
    assert found["description"] == found["og:description"] == "All about <whales>."
    assert not any(name.startswith("twitter:") for name in found) and "og:image" not in found
    assert "Gradio" not in " ".join(map(str, found.values()))


def test_equal_constants_have_one_file(page: PageHtml) -> None:
    def named(**config: Any) -> list[str]:
        return re.findall(r"page-\w+\.\w+", page.rewrite(gradio_page(**config)).decode())

    assert named(username="a") == named(username="b") != named(css="b{}")


def test_frame_comes_before_everything_that_is_loaded(page: PageHtml) -> None:
    html = page.rewrite(gradio_page()).decode()
    frame = html.index('<div id="first-frame">')
    assert html.index("<body") < frame < html.index("<gradio-app inert")
    loaded = [found.start() for found in re.finditer(r'(?:src|rel="(?:stylesheet|modulepreload)" [^>]*href)="', html)]
    assert loaded and min(loaded) > frame
    assert f"<h1>{PageSettings().tagline}</h1>" in html


def test_all_scripts_are_preloaded_and_all_styles_are_one(page: PageHtml, files: StaticFiles) -> None:
    html = page.rewrite(gradio_page()).decode()
    found = find_files(GRADIO_ASSETS, *re.findall(r"assets/(index-[\w-]+\.(?:js|css))", TEMPLATE), ["chatbot"])
    assert len(found.scripts) > 10 and len(found.styles) > 5
    assert sorted(re.findall(r'rel="modulepreload" crossorigin href="\./assets/([^"]+)"', html)) == sorted(
        found.scripts
    )
    assert re.findall(r'href="\./assets/([^"]+)" disabled', html) == found.styles
    (styles,) = re.findall(r'rel="stylesheet" href="\./assets/([^"]+)"', html)
    text = files.read(styles).decode()
    assert all(files.read(name).decode() in text for name in found.styles)
    assert "url('../static/fonts/a.woff2')" in text and "--one: 1" in text


def test_unknown_build_of_gradio_loads_as_it_would(tmp_path: Path) -> None:
    (tmp_path / "index.js").write_text("import('./other.js')")
    found = find_files(tmp_path, "index.js", "index.css", ["chatbot"])
    assert (found.scripts, found.styles) == (["index.js"], ["index.css"])


@pytest.mark.parametrize("config", [{"auth_required": True}, {"deep_link_state": "valid"}])
def test_login_page_and_values_of_a_session_stay_in_the_page(page: PageHtml, config: dict[str, Any]) -> None:
    html = page.rewrite(gradio_page(css=".a{}", **config)).decode()
    assert ".a{}" in html and "first-frame" not in html and "inert" not in html
    assert html.index("window.gradio_config.root = ") < html.index("<script data-gradio-mode>")


def test_page_works_below_a_path_prefix(page: PageHtml) -> None:
    html = page.rewrite(gradio_page()).decode()
    assert "const root = window.gradio_config.root;" in html and 'href="./manifest.json"' in html
    assert not re.search(r'(?:src|href)="/', html)


def test_other_pages_stay_as_they_are(page: PageHtml) -> None:
    assert page.rewrite(b"<html><script>1</script></html>") == b"<html><script>1</script></html>"


def test_few_rewritten_pages_are_kept(page: PageHtml) -> None:
    for number in range(12):
        page.rewrite(gradio_page(username=str(number)))
    assert page.rewrite.cache_info().currsize == 8
