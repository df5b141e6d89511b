"""Gemini's chat model, made reliable: Stop ends the request, variables of the environment change nothing, a refusal and
a stream that ends before the reply does are errors.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any, Self

import httpx
from google.genai import Client
from google.genai.types import HttpOptions
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.messages import BaseMessage, ToolMessage
from langchain_core.outputs import ChatGenerationChunk
from langchain_google_genai import ChatGoogleGenerativeAI
from langchain_google_genai.chat_models import _ClientCleanup
from pydantic import model_validator

from backends.activity import report_activity
from backends.model_events import RESPONSE_STARTED, dispatch
from backends.reply_reader import USAGE_S
from backends.sse_reader import LineSplitter
from runs.errors import ChatError

_DECLINED = {"SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE", "IMAGE_SAFETY"}
"""Why Gemini ends a reply before its end: https://ai.google.dev/api/generate-content#FinishReason"""
_WHOLE = {"STOP", "MAX_TOKENS"}
_NO_DATA = (":", "event:", "id:", "retry:")
"""How lines of an event stream begin that hold no data."""
_PROMPT = "prompt: "
"""Before the reason for which it does not begin one."""


def _as_output(message: BaseMessage) -> BaseMessage:
    """A tool's result as an object with its text: LangChain would read JSON in it, of which Google refuses NaN."""
    if not isinstance(message, ToolMessage):
        return message
    return message.model_copy(update={"content": json.dumps({"output": message.text}, ensure_ascii=False)})


class GeminiChat(ChatGoogleGenerativeAI):
    """`max_output_tokens` and `temperature` are set on copies of it."""

    temperature: float | None = None
    """The model's own, where nobody sets one; LangChain's class would send 0.7."""

    @model_validator(mode="after")
    def _only_what_it_is_given(self) -> Self:
        """GOOGLE_GENAI_USE_VERTEXAI would turn the SDK to another service, whatever its LangChain class was told."""
        assert self.google_api_key is not None
        options = HttpOptions(
            base_url=str(self.base_url),
            headers=dict(self.additional_headers or {}),
            # the SDK's own follow redirects, and the key would go along; turns have time-outs of their own
            httpx_client=httpx.Client(follow_redirects=False, timeout=None),  # nosec B113
            httpx_async_client=httpx.AsyncClient(  # nosec B113
                follow_redirects=False, timeout=None, event_hooks={"response": [_answered, _split_at_cr_and_lf]}
            ),
        )
        self.client = Client(vertexai=False, api_key=self.google_api_key.get_secret_value(), http_options=options)
        self._client_cleanup = _ClientCleanup(self.client)
        return self

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        """Reads in a task of its own: one that is cancelled within the SDK's read ends the request.

        A cancel between two chunks leaves the SDK's generators suspended and the model at work (33 of 80 measured).
        """
        arrived: asyncio.Queue[ChatGenerationChunk | None] = asyncio.Queue()

        async def read() -> None:
            try:
                plain = [_as_output(message) for message in messages]
                async for chunk in super(GeminiChat, self)._astream(plain, stop, None, **kwargs):
                    arrived.put_nowait(chunk)
            finally:
                arrived.put_nowait(None)

        reading, reason, until = asyncio.create_task(read()), "", None
        try:
            while chunk := await _next(arrived, until):
                reason = _reason(chunk) or reason
                until = until or (asyncio.get_running_loop().time() + USAGE_S if reason else None)
                if run_manager:
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
                yield chunk
            if not reason:
                await reading
        finally:
            reading.cancel()
            await asyncio.wait({reading})
            if not reading.cancelled():
                reading.exception()  # what happens to the line after the reply's end does no harm
        if reason in _DECLINED or reason.startswith(_PROMPT):
            why = reason.removeprefix(_PROMPT).lower()
            raise ChatError("invalid_request", f"Gemini declined to go on ({why}): ask in another way.")
        if not reason:
            raise httpx.RemoteProtocolError("the stream ended before the reply did")
        if reason not in _WHOLE:
            message = f"Gemini gave up on this reply ({reason.lower()}): try again."
            raise ChatError("backend_unavailable", message, retryable=True)


async def _next(
    arrived: "asyncio.Queue[ChatGenerationChunk | None]", until: float | None
) -> ChatGenerationChunk | None:
    """What arrives next; None at the end, and where nothing does until then."""
    try:
        async with asyncio.timeout_at(until):
            return await arrived.get()
    except TimeoutError:
        return None


async def _answered(response: httpx.Response) -> None:
    report_activity()
    await dispatch(RESPONSE_STARTED, {})


async def _split_at_cr_and_lf(response: httpx.Response) -> None:
    """Gives a response lines as the SDK can read them.

    They end as the standard of Server-Sent Events has it (httpx's also end at U+2028). Comments and the fields beside
    `data` are left out: the SDK would take them for JSON.
    """

    async def lines() -> AsyncIterator[str]:
        found = LineSplitter()
        async for data in response.aiter_bytes():
            report_activity()
            for line in found.feed(data):
                if not line.startswith(_NO_DATA):
                    yield line
        if found.rest:
            yield found.rest.decode(errors="replace")

    response.aiter_lines = lines  # type: ignore[method-assign]


def _reason(chunk: ChatGenerationChunk) -> str:
    """Why a chunk says that the reply ends here; a refused prompt has no reply at all."""
    feedback = chunk.message.response_metadata.get("prompt_feedback") or {}
    if feedback.get("block_reason"):
        return f"{_PROMPT}{getattr(feedback['block_reason'], 'value', feedback['block_reason'])}"
    return str((chunk.generation_info or {}).get("finish_reason") or "")
