"""The slim page for an iframe, `/?embed=1`, which pages of the origins in `[page] embed_origins` may frame.

Everything else stays as closed as without these origins: other pages of the app cannot be framed, and a page that
frames one cannot call the routes.
"""

from urllib.parse import parse_qs

from starlette.datastructures import Headers
from starlette.types import Scope

from hosting.guard import route_path

_PAGE = "/"


def is_embedded(scope: Scope) -> bool:
    """Returns whether a request is for the slim page."""
    if scope["type"] != "http" or route_path(scope) != _PAGE:
        return False
    return parse_qs(scope.get("query_string", b"").decode("latin-1")).get("embed") == ["1"]


def may_be_framed(scope: Scope) -> bool:
    """Returns whether a browser may be loading the slim page into a frame. Those without `Sec-Fetch-Dest` may be."""
    return is_embedded(scope) and Headers(scope=scope).get("sec-fetch-dest") != "document"
