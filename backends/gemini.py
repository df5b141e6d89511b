"""Google's Gemini, through langchain-google-genai."""

import asyncio
import hashlib
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

import httpx
from langchain_core.language_models import BaseChatModel

from backends.base import BackendError, CountedText, Health, ModelOptions, TemplateTokens
from backends.chat_model import ChatModelBackend, ModelBuildError, new_client, probed, read_body
from backends.errors import retry_after
from backends.keys import Key
from backends.model_list_parser import parse_model_list
from backends.models import ModelList, joined
from runs.errors import ChatError
from runs.tokens import estimate_tokens
from settings import BackendSettings

logger = logging.getLogger(__name__)

_COUNTED, _COUNTED_AT_ONCE = 5000, 16
_COUNT_S, _COUNT_AGAIN_S = 1.0, 60.0
"""How long a turn waits to have its texts counted, and for how long none does after that was in vain."""
_NO_THINKING = re.compile(
    r"thinking(?! level).{0,40}not.{0,10}(enabled|supported)|not support.{0,20}thinking(?! level)", re.I
)
_LEVEL = re.compile(r"thinking.?level", re.I)
_UNNAMED = "unnamed"
"""Until the provider has listed its models; requests go out with a model's own name."""
_PAGES, _PAGE, _LISTED = 10, 1000, 4_000_000
"""Pages of the list of models that are read, models of one, and bytes of all."""
_GOOGLE = "https://generativelanguage.googleapis.com"


class GeminiBackend(ChatModelBackend):
    kind = "gemini"
    uses = frozenset({"model", "models", "ignores", "key", "base_url", "options"})
    max_tokens_field = "max_output_tokens"
    model_field = "model"
    template = TemplateTokens(with_system=0, without_system=0, user=0, assistant=0)
    """Google counts texts alone."""

    def __init__(self, settings: BackendSettings, key: Key | None = None) -> None:
        super().__init__(settings, key)
        if not (settings.model or settings.models):
            raise BackendError("model: missing; name the model as Google does")
        if own := settings.options.keys() & {"api_key", "google_api_key", "base_url", "model"}:
            raise BackendError(f"options: {', '.join(sorted(own))}: has a setting of its own (`key` names a variable)")
        self._address = settings.base_url or _GOOGLE
        self._resource = f"{self._address}/v1beta/models/{(self.model or '').removeprefix('models/')}"
        self._counted: OrderedDict[bytes, int] = OrderedDict([(_digest(""), 0)])
        """Tokens by the digests of texts, which may be long."""
        self._count_again = 0.0
        self._thinks = True

    def build(self, key: Key | None) -> BaseChatModel:
        from backends.gemini_chat import GeminiChat

        assert key is not None
        wanted = {
            "model": self.model or _UNNAMED,
            "api_key": key.reveal(),
            # always given: else variables would send the key elsewhere, or put it into the environment
            "base_url": self._address,
            "vertexai": False,
            "max_retries": 1,  # one attempt: the SDK takes 0 for its own default
            "include_thoughts": True,
            **self.settings.options,
        }
        fields = GeminiChat.model_fields
        if unknown := self.settings.options.keys() - {*fields, *(about.alias for about in fields.values())}:
            raise ModelBuildError(f"its options are not accepted: there is no {min(unknown)!r}")
        try:
            return GeminiChat(**wanted)
        except Exception as e:  # its text may hold the key
            raise ModelBuildError(f"its options are not accepted ({type(e).__name__})") from None

    def to_chat_error(self, exception: Exception) -> ChatError | None:
        """A model that does not think says so only when it is asked to show it: then it is asked without."""
        told = super().to_chat_error(exception)
        if told and told.code == "invalid_request" and _LEVEL.search(str(exception)):
            message = f"{self.name} does not take the `thinking_level` in its `options`: name another one there."
            return ChatError("invalid_request", message)
        if told and told.code == "invalid_request" and self._thinks and _NO_THINKING.search(str(exception)):
            self._thinks = False
            message = f"{self.name} shows no thinking; it is not asked to."
            return ChatError("backend_unavailable", message, retryable=True)
        return told

    def chat_model(self, options: ModelOptions, key: Key | None = None) -> BaseChatModel:
        model = super().chat_model(options, key)
        return model if self._thinks else model.model_copy(update={"include_thoughts": None})

    async def count_tokens(self, texts: Sequence[str], key: Key | None = None) -> list[CountedText]:
        """Counted by Google, https://ai.google.dev/api/tokens, if it answers at once; else estimated.

        What has been counted is known from then on: a turn asks for what is new to it.
        """
        fresh = [text for text in dict.fromkeys(texts) if text and _digest(text) not in self._counted][
            -_COUNTED_AT_ONCE:
        ]
        if fresh and key and time.monotonic() >= self._count_again:
            await self._count(fresh, key)
        guesses = [CountedText(text, estimate_tokens(text), estimated=True) for text in texts]
        return [
            reading
            if (tokens := self._counted.get(_digest(reading.text))) is None
            else replace(reading, tokens=tokens, estimated=False)
            for reading in guesses
        ]

    async def _count(self, texts: Sequence[str], key: Key) -> None:
        url = f"{self._resource}:countTokens"

        async def count(client: httpx.AsyncClient, text: str) -> None:
            body = {"contents": [{"role": "user", "parts": [{"text": text}]}]}
            answer = await client.post(url, json=body, headers={"x-goog-api-key": key.reveal()})
            self._counted[_digest(text)] = int(answer.raise_for_status().json()["totalTokens"])

        try:
            async with asyncio.timeout(_COUNT_S), await new_client() as client:
                await asyncio.gather(*(count(client, text) for text in texts))
        except (TimeoutError, httpx.HTTPError, ValueError, KeyError, TypeError) as e:
            logger.info("backend %r does not count: %s", self.name, type(e).__name__)
            self._count_again = time.monotonic() + _COUNT_AGAIN_S
        while len(self._counted) > _COUNTED:
            self._counted.popitem(last=False)

    async def probe(self, key: Key | None) -> Health:
        """Asks for the list of models, https://ai.google.dev/api/models#method:-models.list, page by page."""
        assert key is not None
        url, headers = f"{self._address}/v1beta/models", {"x-goog-api-key": key.reveal()}
        query = {"pageSize": str(_PAGE)}
        pages, left, more = list[ModelList](), _LISTED, True
        async with await new_client() as client:
            while more and len(pages) < _PAGES:
                async with client.stream("GET", url, params=query, headers=headers) as answer:
                    # 400 is how Google says that a key is none
                    status = 401 if answer.status_code == 400 and not pages else answer.status_code
                    found = probed(self.name, key, status, retry_after(answer))
                    if not found.ready:
                        return found
                    text = await read_body(answer, left) if status == 200 else None
                if text is None:
                    break
                left -= len(text)
                page, query["pageToken"] = parse_model_list(text, prefix="models/")
                pages.append(page)
                more = bool(query["pageToken"])
        self.remember(key, joined(pages, complete=not more))
        return found


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
