"""The reader of streamed replies in OpenAI's protocol: it normalizes the chunks of different servers and finds the end.

The end has several signs: a finish reason, `[DONE]`, and the final usage. Any of them ends the reply; an error on the
connection after that does no harm. Usage that follows within `USAGE_S` still counts. Usage alone is a weak sign, since
some servers send it in the middle of a reply: the reply continues if more of it arrives within `USAGE_S`.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import aclosing
from typing import Any

import httpx

from backends.activity import report_activity
from backends.model_events import TIMINGS, TOOL_INPUT
from backends.sse_reader import Done, SSEReader, StreamedError, UnreadableResponse
from backends.thinking_blocks import FIELDS as BLOCK_FIELDS
from backends.tool_deltas import ToolDeltas
from backends.written_calls import WrittenCalls

USAGE_S = 1.0
"""Seconds to wait for usage, or for more of the reply after usage, after the first sign of the end."""
_LINE_S = 0.1
"""Seconds to wait for the end of the body after usage and another sign: only then the connection can be reused."""
_THOUGHTS = ("reasoning_content", "reasoning")
_NO_REASON = {"", "null", "none"}
_SUCCESS = {"none", "", "0", "200", "success", "ok"}
"""Values of `code` that do not stand for an error."""
_USAGE = ("prompt_tokens", "completion_tokens", "total_tokens")

Payload = dict[str, Any] | Done


class ReplyReader:
    """A fold over the objects of one reply."""

    def __init__(self, tools: Collection[str] = ()) -> None:
        """`tools` are the names of the tools in the request."""
        self.finished = False
        """True after a finish reason or `[DONE]`."""
        self.counted = False
        """True after usage with output tokens."""
        self.deltas = 0
        """The number of non-empty deltas."""
        self.started = False
        """True after any delta, even an empty one."""
        self._done = False
        self._usage_last = False
        """True if usage without choices came after the latest delta."""
        self._reason = ""
        self._model: str | None = None
        self._text: list[str] = []
        self._thought = False
        self._by_message = False
        self._calls = ToolDeltas(tools)
        self._timings: dict[str, Any] | None = None
        """llama.cpp's measurements."""

    @property
    def ended(self) -> bool:
        """True after a sign of the end. More of the reply cancels a sign that was usage alone."""
        return self.finished or self._usage_last

    def feed(self, payload: Payload) -> dict[str, Any] | None:
        """Returns an object of the stream as a normalized chunk without tool calls; None if it is empty.

        The field TOOL_INPUT, our own, has the deltas of tool call arguments as returned by `ToolDeltas.add`.

        Raises StreamedError for an error, and TypeError, AttributeError or LookupError for an object of another shape.
        """
        if isinstance(payload, Done):
            self.finished = self._done = True
            return None
        if (error := _error(payload)) is not None:
            raise StreamedError(error)
        choices = payload.get("choices") or []
        usage = _usage(payload.get("usage"))
        counted = usage is not None and usage["completion_tokens"] > 0
        self.counted = self.counted or counted
        payload = dict(payload)
        self._timings = payload.pop("timings", None) or self._timings
        if self._done or not choices:
            self._usage_last = self._usage_last or (counted and self.deltas > 0)
            return {**payload, "choices": [], "usage": usage}
        self.started, before = True, self.deltas
        self._model = payload.get("model") or self._model
        choice = choices[0]
        delta = self._delta(choice)
        self.deltas += any(delta.get(name) for name in ("content", "refusal", *_THOUGHTS))
        inputs: list[dict[str, str]] = []
        if calls := delta.pop("tool_calls", None):
            inputs += self._calls.add(calls)
            self.deltas += 1
        if call := delta.pop("function_call", None):
            inputs += self._calls.add_function_call(call)
            self.deltas += 1
        self._usage_last = self._usage_last and self.deltas == before
        reason = choice.get("finish_reason")
        if reason and str(reason).lower() not in _NO_REASON:
            self._reason, self.finished = str(reason), True
        if payload.get("object") == "chat.completion":  # the whole reply at once
            self.finished = True
        one = {"index": 0, "delta": delta, "finish_reason": None, "logprobs": choice.get("logprobs")}
        return {**payload, "choices": [one], "usage": usage, **({TOOL_INPUT: inputs} if inputs else {})}

    @property
    def has_calls(self) -> bool:
        """True after any delta of a tool call."""
        return bool(self._calls)

    def add_call(self, call: dict[str, Any]) -> None:
        """Adds a complete call: {name, arguments}."""
        self._calls.add({"index": f"written {self.deltas}", "function": call})
        self.deltas += 1

    def last(self) -> dict[str, Any] | None:
        """Returns the last chunk: complete tool calls, finish reason and timings; None without a reply."""
        if not self.started:
            return None
        delta: dict[str, Any] = {"role": "assistant", "content": ""}
        if self._calls:
            delta["tool_calls"] = self._calls.calls()
        choice = {"index": 0, "delta": delta, "finish_reason": self._reason or None, "logprobs": None}
        return {"model": self._model, "choices": [choice], TIMINGS: self._timings}

    def _delta(self, choice: dict[str, Any]) -> dict[str, Any]:
        """The delta of a choice: its `delta`, or the new part of its `message` or `text`."""
        delta = dict(choice.get("delta") or {})
        if message := choice.get("message"):
            added = self._added(message, final=bool(choice.get("finish_reason")))
            delta = added | {name: value for name, value in delta.items() if value}
        elif not delta and choice.get("text"):
            delta = {"content": choice["text"]}
        delta["role"] = "assistant"
        delta["content"] = content = _content(delta.get("content"))
        self._text += [content] if isinstance(content, str) else [_text_of(part) or "" for part in content]
        self._thought = self._thought or any(delta.get(name) for name in _THOUGHTS)
        return delta

    def _added(self, message: dict[str, Any], *, final: bool) -> dict[str, Any]:
        """The new part of a message. A final message is the whole reply; others are deltas under another name."""
        if not self.deltas:
            self._by_message = True
            return dict(message)
        if not final and self._by_message:
            return dict(message)
        added, content = dict(message), _content(message.get("content"))
        so_far = "".join(self._text)
        if isinstance(content, str) and content.startswith(so_far):
            added["content"] = content[len(so_far) :]
        elif not self._by_message:
            added["content"] = ""
        if self._thought:
            added = {name: value for name, value in added.items() if name not in (*_THOUGHTS, *BLOCK_FIELDS)}
        if self._calls:
            added.pop("tool_calls", None)
            added.pop("function_call", None)
        return added


def _content(content: Any) -> str | list[Any]:
    """The content of a delta; parts that are all text become one text. Raises TypeError for another shape."""
    if isinstance(content, dict):
        content = [content]
    if content is None or isinstance(content, str):
        return content or ""
    if not isinstance(content, list):
        raise TypeError("the content is neither a text nor a list of parts")
    texts = [_text_of(part) for part in content]
    return content if None in texts else "".join(str(text) for text in texts)


def _text_of(part: Any) -> str | None:
    """The text of a content part; None for a part of another kind."""
    if isinstance(part, str):
        return part
    if isinstance(part, dict) and part.get("type", "text") in ("text", "output_text"):
        return str(part.get("text") or "")
    return None


def _error(payload: dict[str, Any]) -> Any:
    """The error in a payload, in any of the servers' shapes; None if there is none."""
    error = payload.get("error")
    if error and (not isinstance(error, dict) or any(error.values())):
        return error
    if payload.get("object") == "error" or payload.get("type") == "error":
        return payload
    failed = str(payload.get("code")).lower() not in _SUCCESS
    return payload if failed and payload.get("message") and not payload.get("choices") else None


def _usage(usage: Any) -> dict[str, Any] | None:
    """The numbers of a provider's usage; None if there are none."""
    if not isinstance(usage, dict):
        return None
    figures: dict[str, Any] = {name: usage[name] for name in _USAGE if isinstance(usage.get(name), int)}
    if not figures:
        return None
    given, made = figures.get("prompt_tokens", 0), figures.get("completion_tokens", 0)
    details = {name: value for name, value in usage.items() if isinstance(value, dict)}
    return {"total_tokens": given + made, "prompt_tokens": given, "completion_tokens": made, **figures, **details}


async def payloads(body: AsyncIterator[bytes]) -> AsyncGenerator[Payload, None]:
    """Yields the objects in the body of a streamed response."""
    reader = SSEReader()
    async for data in body:
        report_activity()
        for payload in reader.feed(data):
            yield payload
    for payload in reader.end():
        yield payload


async def read_reply(
    source: AsyncGenerator[Payload, None], tools: Collection[str] = ()
) -> AsyncGenerator[dict[str, Any], None]:
    """Yields the chunks of a reply, with complete tool calls in the last one, and closes the source.

    A text that consists of calls alone becomes calls.

    Raises the source's exceptions before a sign of the end, httpx.RemoteProtocolError for a stream that ends without
    one, and UnreadableResponse for a stream without events.
    """
    reader, written, until = ReplyReader(tools), WrittenCalls(tools), None
    loop = asyncio.get_running_loop()
    async with aclosing(source):
        while True:
            before = reader.deltas
            try:
                async with asyncio.timeout_at(until):
                    chunk = reader.feed(await anext(source))
            except StopAsyncIteration:
                break
            except Exception:  # a reply that has ended is complete, even if the connection then fails
                if not reader.ended:
                    for held in written.release():
                        yield held
                    raise
                break
            if not reader.ended:
                until = None
            elif until is None or reader.deltas > before:
                until = loop.time() + USAGE_S
            if until is not None and reader.finished and reader.counted:
                until = min(until, loop.time() + _LINE_S)
            if chunk:
                for one in written.feed(chunk, calls=reader.has_calls):
                    yield one
    rest, calls = written.end() if reader.ended else (written.release(), [])
    for one in rest:
        yield one
    if not reader.ended and not reader.started:
        raise UnreadableResponse("a stream without events")
    if not reader.ended:
        raise httpx.RemoteProtocolError("the stream ended before the reply did")
    for call in calls:
        reader.add_call(call)
    if last := reader.last():
        yield last
