"""Any server that speaks OpenAI's chat protocol: OpenAI, Ollama, vLLM, llama-server, Hugging Face's providers …"""

import asyncio
import re
import time
from typing import Any
from urllib.parse import urlsplit

import httpx
from langchain_core.language_models import BaseChatModel

from backends.base import BackendError, Health
from backends.errors import retry_after
from backends.keys import Key
from backends.remote import RemoteBackend, Unusable, probed
from proxies import on_this_machine
from runs.errors import ChatError
from settings import BackendSettings

OPENAI = "https://api.openai.com/v1"
_NO_TOOLS = re.compile(
    r"tools?\W.{0,40}(not|n't|un)\W?(supported|support|enabled|available|allowed)"
    r"|(not|n't) (support|allow|accept|take|have)\w*.{0,40}(tool|function.call)|tool choice requires",
    re.IGNORECASE | re.DOTALL,
)
"""As Ollama, vLLM, llama.cpp, OpenRouter and others say it."""
_WITHOUT_S = 3600.0
_LISTED = 2_000_000
"""Bytes of a list of models that are read."""


class OpenAIBackend(RemoteBackend):
    kind = "openai"
    uses = frozenset({"model", "key", "base_url", "options"})

    def __init__(self, settings: BackendSettings, key: Key | None = None) -> None:
        super().__init__(settings, key)
        if not settings.model:
            raise BackendError("model: missing; name the model as its server does")
        if own := settings.options.keys() & {"api_key", "openai_api_key", "base_url", "model"}:
            raise BackendError(f"options: {', '.join(sorted(own))}: has a setting of its own (`key` names a variable)")
        self._address = settings.base_url or OPENAI
        self._without_tools, self._tools_again = "", 0.0
        self._here = on_this_machine(urlsplit(self._address).hostname)
        """On this machine, where no proxy of the environment leads."""

    def build(self, key: Key | None) -> BaseChatModel:
        from backends.compatible import CompatibleChat, own_clients, unknown_options

        wanted: dict[str, Any] = {
            "model": self.settings.model,
            "base_url": self._address,
            # always given: else langchain-openai would take OPENAI_API_KEY, and send it to whatever address this is
            "api_key": key.reveal() if key else "none",
            "stream_usage": True,
            "max_retries": 0,
            "timeout": self.timeout,
            # langchain-openai's own guard loses cancels on Python 3.11: the model would run on
            "stream_chunk_timeout": None,
            **(own_clients() if self._here else {}),
            **self.settings.options,
        }
        if unknown := unknown_options(self.settings.options):
            raise Unusable(f"its options are not accepted: there is no {unknown[0]!r}")
        try:
            model = CompatibleChat(**wanted)
        except Exception as e:  # its text may hold the key
            raise Unusable(f"its options are not accepted ({type(e).__name__})") from None
        for client in (model.root_client, model.root_async_client):
            # OPENAI_ORG_ID and the like belong to the operator's account, not to every key and server
            client.organization, client.project = self.settings.options.get("organization"), None
            client._custom_headers = dict(model.default_headers or {})
            client._client.follow_redirects = False  # what is sent is for this address alone
        return model

    def error(self, exception: Exception) -> ChatError | None:
        """A server whose model takes no tools says so only when it is given some: then it is asked without."""
        told = super().error(exception)
        refused = told is not None and told.code == "invalid_request" and _NO_TOOLS.search(str(exception))
        if refused and self.chooses_tools and self.settings.tools is None:
            self.knows_tools, self._without_tools = False, "tried"
            message = f"{self.name} takes no tools; they are left out."
            return ChatError("backend_unavailable", message, retryable=True)
        return told

    def learn(self, key: Key | None, error: ChatError | None, ttft_s: float | None = None) -> None:
        """Without tools is only kept where it helped, and for an hour: the server may have echoed what a visitor wrote
        of tools.
        """
        super().learn(key, error, ttft_s)
        if self._without_tools == "tried" and (error is None or error.code == "invalid_request"):
            self.knows_tools, self._without_tools = error is not None, "kept" if error is None else ""
            self._tools_again = time.monotonic() + _WITHOUT_S
        elif self._without_tools == "kept" and time.monotonic() > self._tools_again:
            self.knows_tools, self._without_tools = True, ""

    async def probe(self, key: Key | None) -> Health:
        headers = {"Authorization": f"Bearer {key.reveal()}"} if key else {}
        making = asyncio.to_thread(httpx.AsyncClient, timeout=None, trust_env=not self._here)  # reads certificates
        async with await making as client:
            async with client.stream("GET", f"{self._address}/models", headers=headers) as answer:
                found = probed(self.name, key, answer.status_code, retry_after(answer))
                if not found.ready or answer.status_code != 200:
                    return found
                text = b""
                async for piece in answer.aiter_bytes():
                    text += piece
                    if len(text) > _LISTED:
                        return found
        return self._listed(text)

    def _listed(self, text: bytes) -> Health:
        """Whether a server that lists its models has this one; one that lists in another way is taken as ready."""
        import json

        try:
            names = {str(model["id"]) for model in json.loads(text)["data"]}
        except (ValueError, KeyError, TypeError):
            return Health("ready")
        model = str(self.settings.model)
        plain = model.partition(":")[0]  # of what routers take behind a name, such as ":fastest", no list tells
        if not names or names & {model, plain} or any(name.partition(":")[0] == model for name in names):
            return Health("ready")
        few = ", ".join(sorted(names)[:5])
        return Health("unavailable", f"its server has no model {model!r}; it has {few}{' …' if len(names) > 5 else ''}")
