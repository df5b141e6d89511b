"""Any server that speaks OpenAI's chat protocol: OpenAI, Ollama, vLLM, llama-server, Hugging Face's providers …"""

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpx
from langchain_core.language_models import BaseChatModel

from backends.base import BackendError, Health, ModelOptions
from backends.chat_model import ChatModelBackend, ModelBuildError, new_client, probed, read_body, refused
from backends.errors import retry_after
from backends.keys import Key
from backends.model_list_parser import parse_model_list, with_props
from backends.models import ModelList
from backends.openai_request import RequestShape
from backends.request_shape import LearnedShape
from hosting.proxies import on_this_machine
from runs.errors import ChatError
from runs.threads import Threads
from settings import BackendSettings

OPENAI = "https://api.openai.com/v1"
_NO_TOOLS = re.compile(
    r"tools?\W.{0,40}(not|n't|un)\W?(supported|support|enabled|available|allowed)"
    r"|(not|n't) (support|allow|accept|take|have)\w*.{0,40}(tool|function.call)|tool choice requires",
    re.IGNORECASE | re.DOTALL,
)
"""As Ollama, vLLM, llama.cpp, OpenRouter and others say it."""
_WITHOUT_S = 3600.0
_THREADS = Threads("model lists", 2)
_UNNAMED = "unnamed"
"""Until the provider has listed its models; requests go out with a model's own name."""
_LISTED, _PROPS = 4_000_000, 1_000_000
"""Bytes that are read of a list of models, and of a llama-server's properties."""


class OpenAIBackend(ChatModelBackend):
    kind = "openai"
    uses = frozenset({"model", "models", "ignores", "key", "base_url", "options", "thinking"}) | {
        *("headers", "query", "extra_body", "fields", "system_role"),
    }
    model_field = "model_name"

    def __init__(self, settings: BackendSettings, key: Key | None = None) -> None:
        super().__init__(settings, key)
        if not (settings.model or settings.models):
            raise BackendError("model: missing; name the model as its server does")
        if own := settings.options.keys() & {"api_key", "openai_api_key", "base_url", "model"}:
            raise BackendError(f"options: {', '.join(sorted(own))}: has a setting of its own (`key` names a variable)")
        self._address = settings.base_url or OPENAI
        given = {name: new or None for name, new in settings.fields.items()}
        self._adaptation = LearnedShape(self.name, RequestShape(given, settings.system_role))
        self.update_takes()
        self._without_tools, self._tools_again = "", 0.0
        self._here = on_this_machine(urlsplit(self._address).hostname)
        """On this machine, where no proxy of the environment leads."""

    def build(self, key: Key | None) -> BaseChatModel:
        import openai

        from backends.adaptive_chat import AdaptiveChat
        from backends.openai_chat import own_clients, unknown_options

        options = self.settings.options
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
            **options,
            "default_headers": {**(options.get("default_headers") or {}), **self._headers} or None,
            "default_query": {**(options.get("default_query") or {}), **self.settings.query} or None,
            "extra_body": {**(options.get("extra_body") or {}), **self.settings.extra_body} or None,
        }
        if key is None and self._headers and "Authorization" not in self._headers:
            # these are the credentials then; the SDK leaves its own out where each request says so
            more = options.get("model_kwargs") or {}
            without = {"Authorization": openai.Omit(), **(more.get("extra_headers") or {})}
            wanted["model_kwargs"] = {**more, "extra_headers": without}
        if unknown := unknown_options(options):
            raise ModelBuildError(f"its options are not accepted: there is no {unknown[0]!r}")
        try:
            model = AdaptiveChat(**wanted)
        except Exception as e:  # its text may hold the key
            raise ModelBuildError(f"its options are not accepted ({type(e).__name__})") from None
        for client in (model.root_client, model.root_async_client):
            # OPENAI_ORG_ID and the like belong to the operator's account, not to every key and server
            client.organization, client.project = options.get("organization"), None
            client._custom_headers = dict(model.default_headers or {})
            client._client.follow_redirects = False  # what is sent is for this address alone
        return model

    def chat_model(self, options: ModelOptions, key: Key | None = None) -> BaseChatModel:
        self.update_takes()
        model: Any = super().chat_model(options, key)
        made: BaseChatModel = model.adapting(self._adaptation)
        return made

    def unused_options(self) -> frozenset[str]:
        return self._adaptation.unused

    def notices(self, model: BaseChatModel) -> Sequence[str]:
        told: Sequence[str] = getattr(model, "notices", ())
        return told

    @property
    def context_note(self) -> str | None:
        in_front = self._adaptation.shape.system_role == "user"
        return "The system prompt is sent in front of the first message." if in_front else None

    @property
    def _unauthorized(self) -> str:
        """Why a server refuses requests without a key, and what to do."""
        if self.settings.headers or self.settings.query:
            return "its server did not accept the `headers` and `query` of its entry: check them, or set a `key`"
        return refused(None)

    @property
    def _headers(self) -> dict[str, str]:
        """The entry's own headers; `Authorization` is spelt as the SDK does, so that it takes that one's place."""
        headers = self.settings.headers.items()
        return {"Authorization" if name.lower() == "authorization" else name: value for name, value in headers}

    def to_chat_error(self, exception: Exception) -> ChatError | None:
        """A server whose model takes no tools says so only when it is given some: then it is asked without."""
        told = super().to_chat_error(exception)
        if told is not None and told.code == "authentication" and self.settings.key_name is None:
            return ChatError("authentication", f"{self.name} refused the request: {self._unauthorized}.")
        no_tools = told is not None and told.code == "invalid_request" and _NO_TOOLS.search(str(exception))
        if no_tools and self.offers_tools and self.settings.tools is None:
            self.supports_tools, self._without_tools = False, "tried"
            message = f"{self.name} takes no tools; they are left out."
            return ChatError("backend_unavailable", message, retryable=True)
        return told

    def record_outcome(self, key: Key | None, error: ChatError | None, ttft_s: float | None = None) -> None:
        """Without tools is only kept where it helped, and for an hour: the server may have echoed what a visitor wrote
        of tools.
        """
        super().record_outcome(key, error, ttft_s)
        self.update_takes()
        if self._without_tools == "tried" and (error is None or error.code == "invalid_request"):
            self.supports_tools, self._without_tools = error is not None, "kept" if error is None else ""
            self._tools_again = time.monotonic() + _WITHOUT_S
        elif self._without_tools == "kept" and time.monotonic() > self._tools_again:
            self.supports_tools, self._without_tools = True, ""

    async def probe(self, key: Key | None) -> Health:
        headers = {**({"Authorization": f"Bearer {key.reveal()}"} if key else {}), **self._headers}
        async with await new_client(trust_env=not self._here) as client:
            address = httpx.URL(f"{self._address}/models").copy_merge_params(self.settings.query)
            async with client.stream("GET", address, headers=headers) as answer:
                found = probed(self.name, key, answer.status_code, retry_after(answer))
                if found.state == "key_refused" and key is None:
                    found = replace(found, reason=self._unauthorized)
                if not found.ready:
                    return found
                text = await read_body(answer, _LISTED) if answer.status_code == 200 else None
            # in a thread, since a router's list is long; one of too many bytes is not read
            listed = ModelList() if text is None else (await _THREADS.run(parse_model_list, text))[0]
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
