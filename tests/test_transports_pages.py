"""The pages beside Gradio's, and the title that they have from the settings."""

import json
import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from settings import PageSettings
from tests.live_app import client_of, live_app
from transports.pages import embed_script

TITLE = 'Whales & "more" <b>'


@pytest.mark.parametrize("auth", [None, ("zoe", "secret")])
async def test_every_page_has_the_title_of_the_settings(tmp_path: Path, auth: tuple[str, str] | None) -> None:
    page = {"title": TITLE, "embed_origins": ["https://blog.example"]}
    with live_app(tmp_path, page=page, auth=auth) as app:
        async with client_of(app, cookie=False) as client:
            titles = {}
            for path in ("/", "/?embed=1", "/nowhere", "/compare", "/example", "/docs"):
                basic = auth if auth and path in ("/compare", "/example", "/docs") else None
                answer = await client.get(path, headers={"Accept": "text/html"}, auth=basic)
                assert "Glassbox" not in answer.text and TITLE not in answer.text, path
                title = BeautifulSoup(answer.text, "html.parser").title
                titles[path] = title and title.text
            assert titles == {
                "/": TITLE,
                "/?embed=1": TITLE,
                "/nowhere": f"Not found · {TITLE}",
                "/compare": f"Compare · {TITLE}",
                "/example": f"client.js · {TITLE}",
                "/docs": f"Routes of {TITLE}",
            }
            manifest = await client.get("/manifest.json")
            assert manifest.json()["name"] == TITLE
            description = await client.get("/openapi.json", auth=auth)
            assert description.json()["info"]["title"] == TITLE and "Glassbox" not in description.text
            script = await client.get("/embed.js", auth=auth)
            assert "Glassbox" not in script.text


@pytest.mark.parametrize(
    ("page", "own"),
    [
        ({}, {"title": "Glassbox"}),
        ({"title": TITLE, "accent": "#1d4ed8"}, {"title": TITLE, "light": "#1d4ed8"}),
        ({"accent": "#1d4ed8", "accent_dark": "#ffffff"}, {"title": "Glassbox", "light": "#1d4ed8", "dark": "#ffffff"}),
    ],
)
def test_the_script_that_embeds_the_page_has_its_look(page: dict[str, str], own: dict[str, str]) -> None:
    script = embed_script(PageSettings(**page))  # type: ignore[arg-type]
    [written] = re.findall(r"const OWN = (.*);", script)
    assert own.items() <= json.loads(written).items()
