"""The list of Gradio's own routes that are open.

Gradio serves more than the page and its clients need: files, proxies, uploads, run history, monitoring, an editor.
Everything that is not listed here is not found.
"""

import re

_PAGE = re.compile(
    r"/(|config/?|theme\.css|favicon\.ico|robots\.txt|manifest\.json|pwa_icon(/\w+)?|log(in|out)/?"
    r"|login/(huggingface|callback)|(assets|static|svelte)/.+)"
)
_API = re.compile(
    r"/gradio_api/((app_id|user|login_check|info|startup-events|theme\.css|reset|cancel|queue/(join|data)|run/predict)/?"
    r"|heartbeat/[^/]+|call/(v2/)?[^/]+(/[^/]*)?)"
)
_LOGIN_PAGE = re.compile(
    r"/(|login/?|theme\.css|favicon\.ico|robots\.txt|manifest\.json|pwa_icon(/\w+)?|(assets|static|svelte)/.+)"
    r"|/gradio_api/(startup-events|theme\.css)/?"
)


def is_open(path: str) -> bool:
    """Returns whether a path of Gradio's is served at all."""
    return bool(_PAGE.fullmatch(path) or _API.fullmatch(path))


def is_login_page(path: str) -> bool:
    """Returns whether a browser needs the path to show the login page or to log in."""
    return bool(_LOGIN_PAGE.fullmatch(path))
