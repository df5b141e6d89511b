"""Any server that speaks OpenAI's chat protocol: OpenAI, Ollama, vLLM, llama-server, Hugging Face's providers …"""

import asyncio
import re
import time
from typing import Any
from urllib.parse import urlsplit

import httpx
from langchain_core.language_models import BaseChatModel

from backends.base import BackendError, Health
from backends.catalogs import read_list, with_props
from backends.errors import retry_after
from backends.keys import Key
from backends.models import ModelList
from backends.remote import RemoteBackend, Unusable, probed, read_body
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
_UNNAMED = "unnamed"
"""Until the provider has listed its models; requests go out with a model's own name."""
_LISTED, _PROPS = 4_000_000, 1_000_000
"""Bytes that are read of a list of models, and of a llama-server's properties."""


class OpenAIBackend(RemoteBackend):
    kind = "openai"
    uses = frozenset({"model", "models", "ignores", "key", "base_url", "options"})
    model_field = "model_name"

    def __init__(self, settings: BackendSettings, key: Key | None = None) -> None:
        super().__init__(settings, key)
        if not (settings.model or settings.models):
            raise BackendError("model: missing; name the model as its server does")
        if own := settings.options.keys() & {"api_key", "openai_api_key", "base_url", "model"}:
            raise BackendError(f"options: {', '.join(sorted(own))}: has a setting of its own (`key` names a variable)")
        self._address = settings.base_url or OPENAI
        self._without_tools, self._tools_again = "", 0.0
        self._here = urlsplit(self._address).hostname in ("localhost", "127.0.0.1", "::1")
        """On this machine, where no proxy of the environment leads."""

    def build(self, key: Key | None) -> BaseChatModel:
        from backends.compatible import CompatibleChat, own_clients, unknown_options

        wanted: dict[str, Any] = {
            "model": self.model or _UNNAMED,
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
                if not found.ready:
                    return found
                text = await read_body(answer, _LISTED) if answer.status_code == 200 else None
            # in a thread, since a router's list is long; one of too many bytes is not read
            listed = ModelList() if text is None else (await asyncio.to_thread(read_list, text))[0]
            if listed.any_name:
                listed = await self._with_props(client, headers, listed)
        self.remember(key, listed)
        return found

    async def _with_props(self, client: httpx.AsyncClient, headers: dict[str, str], listed: ModelList) -> ModelList:
        """The list of a llama-server, which says elsewhere how long the context is that it runs with."""
        url = f"{self._address.removesuffix('/v1')}/props"
        try:
            async with client.stream("GET", url, headers=headers) as answer:
                text = await read_body(answer, _PROPS) if answer.status_code == 200 else None
        except httpx.HTTPError:
            return listed
        return listed if text is None else with_props(listed, text)
