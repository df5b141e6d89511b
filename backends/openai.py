"""The kind `openai`: any server that speaks OpenAI's chat protocol, such as OpenAI, Ollama, vLLM or llama-server."""

import re
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import httpx
from langchain_core.language_models import BaseChatModel

from backends.activity import report_http_request
from backends.base import BackendError, Health, ModelOptions
from backends.chat_model import ChatModelBackend, ModelBuildError, health_of, key_rejection, new_client, read_body
from backends.errors import retry_after
from backends.keys import Key
from backends.model_list_parser import parse_model_list, with_props
from backends.models import ModelList
from backends.openai_request import logprob_fields, with_thinking
from backends.request_shape import LearnedShape, RequestShape
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
"""The rejections of Ollama, vLLM, llama.cpp, OpenRouter and others."""
_WITHOUT_S = 3600.0
"""Seconds for which tools are left out after a rejection."""
_THREADS = Threads("model lists", 2)
_UNNAMED = "unnamed"
"""The model's name until the provider's list is known; requests have the real name."""
_LISTED, _PROPS = 4_000_000, 1_000_000
"""The limits of a list of models and of a llama-server's properties, in bytes."""


class OpenAIBackend(ChatModelBackend):
    """An entry of the kind `openai`. Its requests adapt to what the server rejects."""

    kind = "openai"
    reports_logprobs = True
    sends_images = True
    uses = frozenset({"model", "models", "ignores", "key", "base_url", "options", "thinking", "images"}) | {
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
        fields = {name: new or None for name, new in settings.fields.items()}
        self._learned = LearnedShape(self.name, RequestShape(fields, settings.system_role))
        self.update_options()
        self._without_tools, self._tools_again = "", 0.0
        self._is_local = on_this_machine(urlsplit(self._address).hostname)
        """True for a server on this machine, which is never reached through a proxy."""

    def build(self) -> BaseChatModel:
        """Builds an AdaptiveChat."""
        import openai

        from backends.adaptive_chat import AdaptiveChat
        from backends.openai_chat import local_clients, unknown_options

        options = self.settings.options
        arguments: dict[str, Any] = {
            "model": self.model or _UNNAMED,
            "base_url": self._address,
            # always given: otherwise langchain-openai would send OPENAI_API_KEY to this address
            "api_key": self.key.reveal() if self.key else "none",
            "stream_usage": True,
            "max_retries": 0,
            "timeout": self.timeout,
            # langchain-openai's own timeout loses cancels on Python 3.11: the model would run on
            "stream_chunk_timeout": None,
            **(local_clients() if self._is_local else {}),
            **options,
            "default_headers": {**(options.get("default_headers") or {}), **self._headers} or None,
            "default_query": {**(options.get("default_query") or {}), **self.settings.query} or None,
            "extra_body": {**(options.get("extra_body") or {}), **self.settings.extra_body} or None,
        }
        if self.key is None and self._headers and "Authorization" not in self._headers:
            # the entry's headers are the credentials; each request must tell the SDK to omit its own
            more = options.get("model_kwargs") or {}
            without = {"Authorization": openai.Omit(), **(more.get("extra_headers") or {})}
            arguments["model_kwargs"] = {**more, "extra_headers": without}
        if unknown := unknown_options(options):
            raise ModelBuildError(f"its options are not accepted: there is no {unknown[0]!r}")
        try:
            model = AdaptiveChat(**arguments)
        except Exception as e:  # its text may hold the key
            raise ModelBuildError(f"its options are not accepted ({type(e).__name__})") from None
        for client in (model.root_client, model.root_async_client):
            # OPENAI_ORG_ID and similar variables belong to the operator's account, not to every key and server
            client.organization, client.project = options.get("organization"), None
            client._custom_headers = dict(model.default_headers or {})
            client._client.follow_redirects = False  # a redirect would receive the key and the messages
        model.root_async_client._client.event_hooks = {"request": [report_http_request]}
        return model

    def chat_model(self, options: ModelOptions) -> BaseChatModel:
        """Returns the model of one turn, which shares what the backend has learned."""
        self.update_options()
        model: Any = super().chat_model(options)
        if options.logprobs is not None:
            model = model.model_copy(update=logprob_fields(options.logprobs))
        if options.thinking is not None:
            model = model.model_copy(update={"extra_body": with_thinking(model.extra_body, options.thinking)})
        made: BaseChatModel = model.for_turn(self._learned)
        return made

    def unused_options(self) -> frozenset[str]:
        """The options that the request shape omits."""
        return self._learned.unused

    def notices(self, model: BaseChatModel) -> Sequence[str]:
        """Returns the notices of a turn's AdaptiveChat."""
        notices: Sequence[str] = getattr(model, "notices", ())
        return notices

    @property
    def context_note(self) -> str | None:
        """A sentence about the place of the system prompt, if the server has no role for it."""
        in_front = self._learned.shape.system_role == "user"
        return "The system prompt is sent in front of the first message." if in_front else None

    @property
    def _unauthorized(self) -> str:
        """The reason for an HTTP 401 without a key, and what to do."""
        if self.settings.headers or self.settings.query:
            return "its server did not accept the `headers` and `query` of its entry: check them, or set a `key`"
        return key_rejection(None)

    @property
    def _headers(self) -> dict[str, str]:
        """The entry's headers; `Authorization` is spelt as in the SDK, so that it replaces the SDK's."""
        headers = self.settings.headers.items()
        return {"Authorization" if name.lower() == "authorization" else name: value for name, value in headers}

    def to_chat_error(self, exception: Exception) -> ChatError | None:
        """Maps an exception; after a rejection of tools, the turn is retried without them."""
        error = super().to_chat_error(exception)
        if error is not None and error.code == "authentication" and self.settings.key_name is None:
            return ChatError("authentication", f"{self.name} rejected the request: {self._unauthorized}.")
        no_tools = error is not None and error.code == "invalid_request" and _NO_TOOLS.search(str(exception))
        if no_tools and self.offers_tools and self.settings.tools is None:
            self.supports_tools, self._without_tools = False, "tried"
            message = f"{self.name} does not support tools; they are left out."
            return ChatError("backend_unavailable", message, retryable=True)
        return error

    def record_outcome(self, error: ChatError | None, ttft_s: float | None = None) -> None:
        """Records an outcome. Tools stay off for an hour if the retry without them succeeded.

        If it did not, the server may only have echoed a visitor's words about tools.
        """
        super().record_outcome(error, ttft_s)
        self.update_options()
        if self._without_tools == "tried" and (error is None or error.code == "invalid_request"):
            self.supports_tools, self._without_tools = error is not None, "kept" if error is None else ""
            self._tools_again = time.monotonic() + _WITHOUT_S
        elif self._without_tools == "kept" and time.monotonic() > self._tools_again:
            self.supports_tools, self._without_tools = True, ""

    async def probe(self) -> Health:
        """Requests the list of models."""
        headers = {**({"Authorization": f"Bearer {self.key.reveal()}"} if self.key else {}), **self._headers}
        async with await new_client(trust_env=not self._is_local) as client:
            address = httpx.URL(f"{self._address}/models").copy_merge_params(self.settings.query)
            async with client.stream("GET", address, headers=headers) as response:
                health = health_of(self.name, self.key, response.status_code, retry_after(response))
                if health.state == "key_refused" and self.key is None:
                    health = replace(health, reason=self._unauthorized)
                if not health.ready:
                    return health
                text = await read_body(response, _LISTED) if response.status_code == 200 else None
            # in a thread, since a router's list is long; a list of too many bytes is not read
            listed = ModelList() if text is None else (await _THREADS.run(parse_model_list, text))[0]
            if listed.any_name:
                listed = await self._with_props(client, headers, listed)
        self.remember(listed)
        return health

    async def _with_props(self, client: httpx.AsyncClient, headers: dict[str, str], listed: ModelList) -> ModelList:
        """The list of a llama-server with the context of its `/props`."""
        url = f"{self._address.removesuffix('/v1')}/props"
        try:
            async with client.stream("GET", url, headers=headers) as response:
                text = await read_body(response, _PROPS) if response.status_code == 200 else None
        except httpx.HTTPError:
            return listed
        return listed if text is None else with_props(listed, text)
