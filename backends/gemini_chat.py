"""Gemini's chat model, made reliable.

A cancel ends the request, environment variables have no effect, and a blocked or incomplete reply is an error.
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

from backends.activity import report_activity, report_http_request
from backends.model_events import RESPONSE_STARTED, dispatch
from backends.reply_reader import USAGE_S
from backends.sse_reader import LineSplitter
from runs.errors import ChatError

_BLOCKED = {"SAFETY", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "LANGUAGE", "IMAGE_SAFETY"}
"""Finish reasons of a blocked reply: https://ai.google.dev/api/generate-content#FinishReason"""
_WHOLE = {"STOP", "MAX_TOKENS"}
_NO_DATA = (":", "event:", "id:", "retry:")
"""The prefixes of an event stream's lines without data."""
_PROMPT = "prompt: "
"""The prefix of the reason why a prompt was blocked."""


def _as_output(message: BaseMessage) -> BaseMessage:
    """A tool result as an object with its text: LangChain would parse JSON in it, and Google rejects NaN."""
    if not isinstance(message, ToolMessage):
        return message
    return message.model_copy(update={"content": json.dumps({"output": message.text}, ensure_ascii=False)})


class GeminiChat(ChatGoogleGenerativeAI):
    """LangChain's chat model for Gemini; `max_output_tokens` and `temperature` are set on copies of it."""

    temperature: float | None = None
    """None leaves it to the model; LangChain's class would send 0.7."""

    @model_validator(mode="after")
    def _ignore_environment(self) -> Self:
        """Rebuilds the client: GOOGLE_GENAI_USE_VERTEXAI would select another service, against the arguments."""
        assert self.google_api_key is not None
        options = HttpOptions(
            base_url=str(self.base_url),
            headers=dict(self.additional_headers or {}),
            # the SDK's clients would follow redirects with the key; a turn has its own timeouts
            httpx_client=httpx.Client(follow_redirects=False, timeout=None),  # nosec B113
            httpx_async_client=httpx.AsyncClient(  # nosec B113
                follow_redirects=False,
                timeout=None,
                event_hooks={"request": [report_http_request], "response": [_response_started, _split_at_cr_and_lf]},
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
        """Streams through a task of its own: a cancel within the SDK's read ends the request.

        A cancel between two chunks would leave the SDK suspended and the model running (33 of 80 measured).
        """
        queue: asyncio.Queue[ChatGenerationChunk | None] = asyncio.Queue()

        async def read() -> None:
            try:
                plain = [_as_output(message) for message in messages]
                async for chunk in super(GeminiChat, self)._astream(plain, stop, None, **kwargs):
                    queue.put_nowait(chunk)
            finally:
                queue.put_nowait(None)

        reading, reason, until = asyncio.create_task(read()), "", None
        try:
            while chunk := await _next(queue, until):
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
                reading.exception()  # an error after the reply's end does no harm
        if reason in _BLOCKED or reason.startswith(_PROMPT):
            why = reason.removeprefix(_PROMPT).lower()
            raise ChatError("invalid_request", f"Gemini blocked this reply ({why}): rephrase the message.")
        if not reason:
            raise httpx.RemoteProtocolError("the stream ended before the reply did")
        if reason not in _WHOLE:
            message = f"Gemini ended this reply early ({reason.lower()}): try again."
            raise ChatError("backend_unavailable", message, retryable=True)


async def _next(queue: "asyncio.Queue[ChatGenerationChunk | None]", until: float | None) -> ChatGenerationChunk | None:
    """The next chunk; None at the end, and if none arrives until then."""
    try:
        async with asyncio.timeout_at(until):
            return await queue.get()
    except TimeoutError:
        return None


async def _response_started(response: httpx.Response) -> None:
    report_activity()
    await dispatch(RESPONSE_STARTED, {})


async def _split_at_cr_and_lf(response: httpx.Response) -> None:
    """Replaces a response's `aiter_lines`, so that the SDK can read the lines.

    They end by the standard of Server-Sent Events (httpx also splits at U+2028). Comments and all fields but `data` are
    skipped: the SDK would parse them as JSON.
    """

    async def lines() -> AsyncIterator[str]:
        splitter = LineSplitter()
        async for data in response.aiter_bytes():
            report_activity()
            for line in splitter.feed(data):
                if not line.startswith(_NO_DATA):
                    yield line
        if splitter.rest:
            yield splitter.rest.decode(errors="replace")

    response.aiter_lines = lines  # type: ignore[method-assign]


def _reason(chunk: ChatGenerationChunk) -> str:
    """The finish reason in a chunk, or the reason why the prompt was blocked; empty if there is none."""
    feedback = chunk.message.response_metadata.get("prompt_feedback") or {}
    if feedback.get("block_reason"):
        return f"{_PROMPT}{getattr(feedback['block_reason'], 'value', feedback['block_reason'])}"
    return str((chunk.generation_info or {}).get("finish_reason") or "")
