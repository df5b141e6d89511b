"""Google's Gemini, through langchain-google-genai."""

import asyncio

import httpx
from langchain_core.language_models import BaseChatModel

from backends.base import BackendError, Health
from backends.errors import retry_after
from backends.keys import Key
from backends.remote import RemoteBackend, Unusable, probed
from settings import BackendSettings

_GOOGLE = "https://generativelanguage.googleapis.com"


class GeminiBackend(RemoteBackend):
    kind = "gemini"
    uses = frozenset({"model", "key", "base_url", "options"})
    max_tokens_field = "max_output_tokens"

    def __init__(self, settings: BackendSettings, key: Key | None = None) -> None:
        super().__init__(settings, key)
        if not settings.model:
            raise BackendError("model: missing; for example 'gemini-2.5-flash'")
        if own := settings.options.keys() & {"api_key", "google_api_key", "base_url", "model"}:
            raise BackendError(f"options: {', '.join(sorted(own))}: has a setting of its own (`key` names a variable)")
        self._address = settings.base_url or _GOOGLE

    def build(self, key: Key | None) -> BaseChatModel:
        from backends.gemini_chat import GeminiChat

        assert key is not None
        wanted = {
            "model": self.settings.model,
            "api_key": key.reveal(),
            # always given: else variables would send the key elsewhere, or put it into the environment
            "base_url": self._address,
            "vertexai": False,
            "max_retries": 1,  # one attempt: the SDK takes 0 for its own default
            "include_thoughts": True,
            **self.settings.options,
        }
        try:
            return GeminiChat(**wanted)
        except Exception as e:  # its text may hold the key
            raise Unusable(f"its options are not accepted ({type(e).__name__})") from None

    async def probe(self, key: Key | None) -> Health:
        assert key is not None
        url = f"{self._address}/v1beta/models/{self.settings.model}"
        async with await asyncio.to_thread(httpx.AsyncClient, timeout=None) as client:
            answer = await client.get(url, headers={"x-goog-api-key": key.reveal()})
        if answer.status_code == 404:
            return Health("unavailable", f"Google has no model {self.settings.model!r}: check the `model` setting")
        if answer.status_code == 400:  # how Google says that a key is none
            return probed(self.name, key, 401)
        return probed(self.name, key, answer.status_code, retry_after(answer))
