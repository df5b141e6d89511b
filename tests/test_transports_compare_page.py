"""The page that compares: its route, its files, and the cookie with which its runs belong to a visitor."""

import re
from pathlib import Path

import pytest

from settings import PageSettings
from tests.live_app import client_of, live_api, refused
from transports.compare_page import _SCRIPTS, _style

WEB = Path(__file__).parents[1] / "web"
TITLE = 'Whales & "more" <b>'


async def test_the_page_and_all_its_files_are_served(tmp_path: Path) -> None:
    with live_api(tmp_path) as app:
        async with client_of(app, cookie=False) as client:
            page = await client.get("/compare")
            assert page.headers["content-type"].startswith("text/html") and page.headers["cache-control"] == "no-cache"
            assert "HttpOnly" in page.headers["set-cookie"], "its runs belong to a visitor"
            assert not re.search(r"<script(?![^>]*\bsrc=)|\bon\w+=|\{\w+\}", page.text), "no script is inline"
            loaded = set(re.findall(r'(?:src|href)="(compare/[^"]+)"', page.text))
            assert loaded == {"compare/grid.css", "compare/grid_theme.js", "compare/grid.js"}
            imported = {
                name for file in WEB.glob("grid*.js") for name in re.findall(r"'\./([\w.]+)'", file.read_text())
            }
            assert imported <= _SCRIPTS
            for path in [*loaded, *(f"compare/{name}" for name in _SCRIPTS)]:
                answer = await client.get(f"/{path}")
                kind = "text/css" if path.endswith(".css") else "text/javascript"
                assert answer.status_code == 200 and answer.headers["content-type"].startswith(kind), path
                assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("name", ["panel.js", "grid.html", "..%2fapp.py", "%2e%2e/app.py", "grid.js/x"])
async def test_no_other_file_is_served(tmp_path: Path, name: str) -> None:
    with live_api(tmp_path) as app:
        async with client_of(app) as client:
            await refused(await client.get(f"/compare/{name}"), 404, "not_found")


async def test_a_page_with_a_logo_shows_the_tabs_icon_instead_of_ours(tmp_path: Path) -> None:
    for page, shown in ((PageSettings(logo="🐳"), True), (PageSettings(), False)):
        with live_api(tmp_path, page=page) as app:
            async with client_of(app) as client:
                text = (await client.get("/compare")).text
        assert ('<img src="favicon.ico"' in text, "<svg" in text) == (shown, not shown)


async def test_a_slash_at_the_end_leads_to_the_page(tmp_path: Path) -> None:
    with live_api(tmp_path) as app:
        async with client_of(app) as client:
            answer = await client.get("/compare/")
            assert answer.is_redirect and answer.next_request and answer.next_request.url.path == "/compare"


async def test_a_link_on_another_site_may_lead_to_the_page_and_no_site_may_call_it(tmp_path: Path) -> None:
    cross = {"Sec-Fetch-Site": "cross-site"}
    with live_api(tmp_path) as app:
        async with client_of(app) as client:
            assert (await client.get("/compare", headers={**cross, "Sec-Fetch-Mode": "navigate"})).status_code == 200
            for path in ("/compare", "/compare/grid.js"):
                assert (await client.get(path, headers={**cross, "Sec-Fetch-Mode": "cors"})).status_code == 403
            assert (await client.post("/compare")).status_code == 405


def test_the_page_has_the_accent_of_the_settings() -> None:
    style = _style(PageSettings(accent="#1d4ed8", accent_dark="#ffffff"))
    assert ":root:root { --gb-accent: #1d4ed8;" in style and ".dark.dark { --gb-accent: #ffffff;" in style
    assert ":root:root" not in _style(PageSettings())


async def test_the_page_says_that_messages_are_traced(tmp_path: Path) -> None:
    with live_api(tmp_path, tracing={"langsmith": True}, page={"title": TITLE}) as app:
        async with client_of(app) as client:
            page = (await client.get("/compare")).text
    assert "LangSmith" in page and TITLE not in page and "Whales &amp; &quot;more&quot; &lt;b&gt;" in page
