"""The kind `gemini`: Google's Gemini API, through langchain-google-genai."""

import asyncio
import hashlib
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Sequence

import httpx
from langchain_core.language_models import BaseChatModel

from backends.base import BackendError, CountedText, Health, ModelOptions, TemplateTokens
from backends.chat_model import ChatModelBackend, ModelBuildError, health_of, new_client, read_body
from backends.errors import retry_after
from backends.keys import Key
from backends.model_list_parser import parse_model_list
from backends.models import ModelList, joined
from runs.errors import ChatError
from runs.tokens import estimate_tokens
from settings import BackendSettings

logger = logging.getLogger(__name__)

_COUNTED, _COUNTED_AT_ONCE = 5000, 16
"""The most counts that are kept, and texts that are counted together."""
_COUNT_S, _COUNT_AGAIN_S = 1.0, 60.0
"""The timeout of counting, and the pause after it has failed, in seconds."""
_NO_THINKING = re.compile(
    r"thinking(?! level).{0,40}not.{0,10}(enabled|supported)|not support.{0,20}thinking(?! level)", re.I
)
_LEVEL = re.compile(r"thinking.?level", re.I)
_UNNAMED = "unnamed"
"""The model's name until the provider's list is known; requests have the real name."""
_PAGES, _PAGE, _LISTED = 10, 1000, 4_000_000
"""Limits of the list of models: pages, models per page, and bytes of all pages."""
GOOGLE = "https://generativelanguage.googleapis.com"


class GeminiBackend(ChatModelBackend):
    """An entry of the kind `gemini`."""

    kind = "gemini"
    sends_images = True
    uses = frozenset({"model", "models", "ignores", "key", "base_url", "options", "images"})
    max_tokens_field = "max_output_tokens"
    model_field = "model"
    template = TemplateTokens(with_system=0, without_system=0, user=0, assistant=0)
    """Google's counts do not include a template."""

    def __init__(self, settings: BackendSettings, key: Key | None = None) -> None:
        super().__init__(settings, key)
        if not (settings.model or settings.models):
            raise BackendError("model: missing; name the model as Google does")
        if own := settings.options.keys() & {"api_key", "google_api_key", "base_url", "model"}:
            raise BackendError(f"options: {', '.join(sorted(own))}: has a setting of its own (`key` names a variable)")
        self._address = settings.base_url or GOOGLE
        self._resource = f"{self._address}/v1beta/models/{(self.model or '').removeprefix('models/')}"
        self._counted: OrderedDict[bytes, int] = OrderedDict([(_digest(""), 0)])
        """Token counts by the texts' digests, since texts may be long."""
        self._count_again = 0.0
        self._shows_thinking = True

    def build(self) -> BaseChatModel:
        """Builds a GeminiChat."""
        from backends.gemini_chat import GeminiChat

        assert self.key is not None
        arguments = {
            "model": self.model or _UNNAMED,
            "api_key": self.key.reveal(),
            # always given: otherwise environment variables would send the key elsewhere, or receive it
            "base_url": self._address,
            "vertexai": False,
            "max_retries": 1,  # one attempt; 0 stands for the SDK's default
            "include_thoughts": True,
            **self.settings.options,
        }
        fields = GeminiChat.model_fields
        if unknown := self.settings.options.keys() - {*fields, *(about.alias for about in fields.values())}:
            raise ModelBuildError(f"its options are not accepted: there is no {min(unknown)!r}")
        try:
            return GeminiChat(**arguments)
        except Exception as e:  # its text may hold the key
            raise ModelBuildError(f"its options are not accepted ({type(e).__name__})") from None

    def to_chat_error(self, exception: Exception) -> ChatError | None:
        """Maps an exception; after a rejection of `include_thoughts`, the turn is retried without it."""
        error = super().to_chat_error(exception)
        if error and error.code == "invalid_request" and _LEVEL.search(str(exception)):
            message = f"{self.name} does not accept the `thinking_level` in its `options`: change it there."
            return ChatError("invalid_request", message)
        if error and error.code == "invalid_request" and self._shows_thinking and _NO_THINKING.search(str(exception)):
            self._shows_thinking = False
            message = f"{self.name} does not show thinking; the request is sent without it."
            return ChatError("backend_unavailable", message, retryable=True)
        return error

    def chat_model(self, options: ModelOptions) -> BaseChatModel:
        """Returns the model of one turn, without `include_thoughts` if it was rejected."""
        model = super().chat_model(options)
        return model if self._shows_thinking else model.model_copy(update={"include_thoughts": None})

    async def count_tokens(self, texts: Sequence[str]) -> list[CountedText]:
        """Counts the tokens through Google's API, https://ai.google.dev/api/tokens, or estimates them if that is slow.

        Counts are cached: each turn counts only its new texts.
        """
        new = [text for text in dict.fromkeys(texts) if text and _digest(text) not in self._counted]
        if new and self.key and time.monotonic() >= self._count_again:
            await self._count(new[-_COUNTED_AT_ONCE:], self.key.reveal())
        counts = [self._counted.get(_digest(text)) for text in texts]
        return [
            CountedText(text, estimate_tokens(text), estimated=True) if tokens is None else CountedText(text, tokens)
            for text, tokens in zip(texts, counts, strict=True)
        ]

    async def _count(self, texts: Sequence[str], key: str) -> None:
        url = f"{self._resource}:countTokens"

        async def count(client: httpx.AsyncClient, text: str) -> None:
            body = {"contents": [{"role": "user", "parts": [{"text": text}]}]}
            response = await client.post(url, json=body, headers={"x-goog-api-key": key})
            self._counted[_digest(text)] = int(response.raise_for_status().json()["totalTokens"])

        try:
            async with asyncio.timeout(_COUNT_S), await new_client() as client:
                await asyncio.gather(*(count(client, text) for text in texts))
        except (TimeoutError, httpx.HTTPError, ValueError, KeyError, TypeError) as e:
            logger.info("backend %r: counting tokens failed: %s", self.name, type(e).__name__)
            self._count_again = time.monotonic() + _COUNT_AGAIN_S
        while len(self._counted) > _COUNTED:
            self._counted.popitem(last=False)

    async def probe(self) -> Health:
        """Requests the list of models, https://ai.google.dev/api/models#method:-models.list, page by page."""
        assert self.key is not None
        url, headers = f"{self._address}/v1beta/models", {"x-goog-api-key": self.key.reveal()}
        query = {"pageSize": str(_PAGE)}
        pages, left, more = list[ModelList](), _LISTED, True
        async with await new_client() as client:
            while more and len(pages) < _PAGES:
                async with client.stream("GET", url, params=query, headers=headers) as response:
                    # Google's status for a malformed key is 400
                    status = 401 if response.status_code == 400 and not pages else response.status_code
                    health = health_of(self.name, self.key, status, retry_after(response))
                    if not health.ready:
                        return health
                    text = await read_body(response, left) if status == 200 else None
                if text is None:
                    break
                left -= len(text)
                page, query["pageToken"] = parse_model_list(text, prefix="models/")
                pages.append(page)
                more = bool(query["pageToken"])
        self.remember(joined(pages, complete=not more))
        return health


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
