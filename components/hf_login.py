"""Signing in with Hugging Face, on a Space: who does pays for Inference Providers themselves.

Gradio does the signing in and keeps what comes of it in a signed cookie of the visitor's own; here it becomes their key
for the backends whose key is the Hub's.
"""

import time
import weakref
from typing import Any

import gradio as gr

from backends import Backend, Backends, Key
from runs.errors import ChatError

_HUB_KEY = "HF_TOKEN"


class HubLogin:
    """One for all pages."""

    def __init__(self, backends: Backends) -> None:
        self._backends = backends
        self._given: weakref.WeakSet[Key] = weakref.WeakSet()
        """The keys that came of signing in: one that a visitor typed is not taken away when they sign out."""

    def look(self, request: gr.Request, visitor: str | None) -> None:
        """Whenever a page is opened: gives the visitor's backends their token, or takes it away."""
        keys, token = self._backends.keys, _token(request)
        for backend in self._served():
            known = keys.get(visitor, backend.name)
            if token is None and known in self._given:
                keys.forget(visitor, backend.name)
            elif token and visitor and (known is None or (known in self._given and known.reveal() != token)):
                try:
                    keys.put(visitor, backend.name, token)
                except ChatError:
                    continue
                if made := keys.get(visitor, backend.name):
                    self._given.add(made)

    def _served(self) -> list[Backend]:
        return [one for one in self._backends if one.settings.key_name == _HUB_KEY]


def build_login_button() -> gr.LoginButton:
    return gr.LoginButton(
        "Sign in",
        logout_value="Sign out ({})",
        variant="secondary",
        size="sm",
        icon=None,
        elem_id="sign-in",
        scale=0,
        min_width=76,
    )


def _token(request: gr.Request) -> str | None:
    """Of who has signed in, and whose signing in still counts."""
    scope: dict[str, Any] = getattr(getattr(request, "request", None), "scope", {})  # Gradio's own is not always there
    session = scope.get("session") or {}
    info = session.get("oauth_info") or {}
    ends = info.get("expires_at")
    return None if ends is not None and ends < time.time() else info.get("access_token")
