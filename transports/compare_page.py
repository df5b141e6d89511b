"""The page that compares models and memory modes: it sends prompts over `POST /batch` and shows all replies at once."""

import html
from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import FileResponse, HTMLResponse, Response

from runs.errors import ChatError
from settings import PageSettings
from tracing import NOTE

_WEB = Path(__file__).parent.parent / "web"
_NO_CACHE = {"Cache-Control": "no-cache"}
_SCRIPTS = frozenset({"client.js", "dom.js", *(file.name for file in _WEB.glob("grid*.js"))})
"""The scripts of the page, which import each other by relative names."""


def add_compare_page(router: APIRouter, settings: PageSettings, *, traced: bool = False) -> None:
    """Adds `GET /compare` and the files that the page loads.

    `traced` makes it say that messages go to LangSmith, too.
    """
    logo = '<img src="favicon.ico" width="26" height="26" alt="">' if settings.logo else _read("logo.html")
    values = {"title": html.escape(settings.title), "logo": logo, "note": NOTE if traced else ""}
    page, style = _read("grid.html"), _style(settings)
    for name, value in values.items():
        page = page.replace(f"{{{name}}}", value)

    @router.get("/compare", include_in_schema=False)
    async def compare() -> HTMLResponse:
        return HTMLResponse(page, headers=_NO_CACHE)

    @router.get("/compare/grid.css", include_in_schema=False)
    async def compare_style() -> Response:
        return Response(style, media_type="text/css", headers=_NO_CACHE)

    @router.get("/compare/{name}", include_in_schema=False)
    async def compare_script(name: str) -> FileResponse:
        if name not in _SCRIPTS:
            raise ChatError("not_found", "There is nothing here.")
        return FileResponse(_WEB / name, media_type="text/javascript", headers=_NO_CACHE)


def _read(name: str) -> str:
    return (_WEB / name).read_text(encoding="utf-8")


def _style(settings: PageSettings) -> str:
    """The style sheet: the colours of the main page, with the accent of the settings."""
    own = ""
    for selector, colour in zip((":root:root", ".dark.dark"), settings.accents or (), strict=False):
        own += f"{selector} {{ --gb-accent: {colour}; --gb-phase-streaming: {colour}; }}\n"
    return f"{_read('colours.css')}\n{_read('grid.css')}\n{own}"
