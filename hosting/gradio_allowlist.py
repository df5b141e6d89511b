"""Which of Gradio's own routes are open.

Gradio serves more than the page and its clients need: files, proxies, uploads, run history, monitoring, an editor of
its own. Only what is needed is open; all the rest is not found.
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
LOGIN_PAGE = re.compile(
    r"/(|login/?|theme\.css|favicon\.ico|robots\.txt|manifest\.json|pwa_icon(/\w+)?|(assets|static|svelte)/.+)"
    r"|/gradio_api/(startup-events|theme\.css)/?"
)
"""What a browser loads to show the login, and the login itself."""


def is_open(path: str) -> bool:
    """Whether one of Gradio's paths is served at all."""
    return bool(_PAGE.fullmatch(path) or _API.fullmatch(path))
