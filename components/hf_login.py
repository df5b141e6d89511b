"""Signing in with Hugging Face on a Space, so that visitors pay for Inference Providers themselves.

Gradio performs the login and keeps the token in a signed cookie of the visitor. This module makes the token the
visitor's key for the backends whose key is `HF_TOKEN`.
"""

import time
import weakref
from typing import Any

import gradio as gr

from backends import Backend, Backends, Key
from runs.errors import ChatError

_HUB_KEY = "HF_TOKEN"


class HubLogin:
    """Gives visitors' tokens to the backends, and takes them away again. One instance serves all pages."""

    def __init__(self, backends: Backends) -> None:
        self._backends = backends
        self._from_login: weakref.WeakSet[Key] = weakref.WeakSet()
        """The keys that came from a login. A key that the visitor typed is kept when they sign out."""

    def sync_keys(self, request: gr.Request, visitor: str | None) -> None:
        """Sets or removes the visitor's keys by the login of the request. It runs whenever a page is opened."""
        keys, token = self._backends.keys, _token(request)
        for backend in self._hub_backends():
            known = keys.get(visitor, backend.name)
            if token is None and known in self._from_login:
                keys.forget(visitor, backend.name)
            elif token and visitor and (known is None or (known in self._from_login and known.reveal() != token)):
                try:
                    keys.put(visitor, backend.name, token)
                except ChatError:
                    continue
                if key := keys.get(visitor, backend.name):
                    self._from_login.add(key)

    def _hub_backends(self) -> list[Backend]:
        return [one for one in self._backends if one.settings.key_name == _HUB_KEY]


def build_login_button() -> gr.LoginButton:
    """Builds the button to sign in or out."""
    return gr.LoginButton(
        "Sign in",
        logout_value="Sign out ({})",
        variant="secondary",
        size="sm",
        icon=None,
        elem_id="sign-in",
    )


def _token(request: gr.Request) -> str | None:
    """Returns the token of the request's login; None without a login, or after it has expired."""
    scope: dict[str, Any] = getattr(getattr(request, "request", None), "scope", {})  # Gradio may have no request
    session = scope.get("session") or {}
    info = session.get("oauth_info") or {}
    expires = info.get("expires_at")
    return None if expires is not None and expires < time.time() else info.get("access_token")
