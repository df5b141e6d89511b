"""The pages and scripts beside Gradio's page: the JavaScript client, its example, the script that embeds the page, the
documentation of the routes."""

import html
import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse, HTMLResponse, Response
from fastapi.routing import APIRoute

from hosting.guard import EMBED_SCRIPT
from runs.errors import ChatError
from settings import PageSettings
from tracing import NOTE

_WEB = Path(__file__).parent.parent / "web"
_NO_CACHE = {"Cache-Control": "no-cache"}
_FOR_SITES = {
    "Cache-Control": "public, max-age=300",
    "Access-Control-Allow-Origin": "*",
    "Cross-Origin-Resource-Policy": "cross-origin",
}
"""Headers of a script that pages of any site may load."""
_SWAGGER_FILES = {"swagger-ui-bundle.js", "swagger-ui.css"}
_DESCRIPTION = """Start a run over any of these routes and follow it over any other: each is a view of the same events.

Not described here: the WebSocket `/ws/chat`, and Gradio's endpoint `/chat` for its own clients. docs/api.md shows both.
"""


def add_pages(router: APIRouter, settings: PageSettings, *, traced: bool = False) -> None:
    """Adds `GET /client.js`, `/example`, `/embed.js`, `/docs` and `/openapi.json`. Call it after all other routes.

    `traced` makes the example say that messages go to LangSmith, too.
    """
    title = html.escape(settings.title)
    page = (_WEB / "example.html").read_text(encoding="utf-8").replace("{title}", title)
    if traced:
        page = page.replace('<section id="intro">', f'<section id="intro">\n    <p>{NOTE}</p>', 1)

    @router.get("/client.js", include_in_schema=False)
    async def client() -> FileResponse:
        return FileResponse(_WEB / "client.js", media_type="text/javascript", headers=_NO_CACHE)

    @router.get("/example", include_in_schema=False)
    async def example() -> HTMLResponse:
        return HTMLResponse(page, headers=_NO_CACHE)

    script = embed_script(settings) if settings.embed_origins else ""

    @router.get(EMBED_SCRIPT, include_in_schema=False)
    async def embed() -> Response:
        if not script:
            raise ChatError("not_found", "This page cannot be embedded: embed_origins, under [page], names no site.")
        return Response(script, media_type="text/javascript", headers=_FOR_SITES)

    @router.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="openapi.json",  # relative: the app may be served below a prefix
            title=f"Routes of {title}",
            swagger_js_url="docs/swagger-ui-bundle.js",
            swagger_css_url="docs/swagger-ui.css",
            swagger_favicon_url="favicon.ico",
        )

    @router.get("/docs/{name}", include_in_schema=False)
    async def docs_file(name: str) -> FileResponse:
        if name not in _SWAGGER_FILES:
            raise ChatError("not_found", "There is nothing here.")
        return FileResponse(str(files("fastapi_offline") / "static" / name))

    description: dict[str, Any] = {}

    @router.get("/openapi.json", include_in_schema=False)
    async def openapi(request: Request) -> dict[str, Any]:
        if not description:
            routes = [route for route in router.routes if isinstance(route, APIRoute)]
            description.update(get_openapi(title=settings.title, version="1", description=_DESCRIPTION, routes=routes))
        prefix = request.scope.get("root_path")
        return {**description, "servers": [{"url": prefix}]} if prefix else description


def embed_script(settings: PageSettings) -> str:
    """Returns the script that puts a button and a panel into a page of another site, with the page's own look."""
    light, dark = settings.accents or (None, None)
    own = {name: value for name, value in (("title", settings.title), ("light", light), ("dark", dark)) if value}
    return (_WEB / "embed.js").read_text(encoding="utf-8").replace("const OWN = {};", f"const OWN = {json.dumps(own)};")
