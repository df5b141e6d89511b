"""A provider of OpenAI's protocol that plays scripts, and writes down for each request what it received, what it sent
and when, and how many tokens that were by its own count: one for four characters.
"""

import asyncio
import json
import re
import time
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.providers import Fail, OpenAIServer
from tests.server import Request, Wire
from tests.truth.scripts import TELLS, Call, Script, Tool

BROKEN = "broken-model"
"""The model that answers nothing but HTTP 500."""

Kind = Literal["hidden", "thinking", "text", "arguments"]
VISIBLE = ("thinking", "text")
_MARK = re.compile(r"Play script (\d+)")
_EXTRA = 7
"""Tokens of a prompt that only the provider knows of, so that its count is not everybody's estimate."""


@dataclass(frozen=True)
class Piece:
    at: float
    """When it was sent, `time.monotonic()`."""
    kind: Kind
    tokens: int


@dataclass
class Sent:
    """One request, and the answer to it as far as it was sent."""

    request: Request
    call: Call
    place: int = 0
    """Of the call in its script."""
    status: int = 200
    pieces: list[Piece] = field(default_factory=list)
    received: tuple[int, int] | None = None
    """The latest usage that was reported: tokens of input and output."""
    ended: float | None = None
    """When all was sent but the last sign of the end."""
    doubtful: bool = False
    """Whether the visitor stopped the run at about that time: its end may have been seen or not."""

    @property
    def known(self) -> bool:
        """Whether its usage was reported, and in time to be seen."""
        return self.ended is not None and self.call.usage in TELLS and not self.doubtful

    @property
    def prompt(self) -> int:
        """Tokens of the prompt."""
        body = self.request.body
        words = sum(len(json.dumps(message)) for message in body["messages"])
        return (words + len(json.dumps(body.get("tools") or ""))) // 4 + _EXTRA

    @property
    def tokens(self) -> int:
        """Tokens written."""
        return sum(piece.tokens for piece in self.pieces)


class Provider(OpenAIServer):
    """A script is asked for by its number, in the last message of the user's; each request plays its next call."""

    def __init__(self) -> None:
        super().__init__(model="true-model")
        self.models = [{"id": name, "object": "model", "max_model_len": 60_000} for name in (self.model, BROKEN)]
        self.scripts: list[Script] = []
        self.sent: dict[int, list[Sent]] = {}

    def add(self, script: Script) -> int:
        """The number under which the script is played."""
        self.scripts.append(script)
        self.sent[len(self.scripts) - 1] = []
        return len(self.scripts) - 1

    async def respond(self, request: Request, wire: Wire) -> None:
        if request.method != "POST":
            return await super().respond(request, wire)
        said = [str(m["content"]) for m in request.body["messages"] if m["role"] == "user"]
        number = int(_MARK.findall(said[-1])[-1])
        played = self.sent[number]
        if request.body["model"] == BROKEN:
            played.append(Sent(request, Call(0), -1, 500))
            return await wire.json(self.error(Fail(500), request), 500)
        place = sum(sent.status == 200 for sent in played)
        call = self.scripts[number].calls[place]
        refused = sum(sent.place == place for sent in played)
        sent = Sent(request, call, place)
        played.append(sent)
        if refused < len(call.refusals):
            sent.status = call.refusals[refused]
            after = {"Retry-After": "0.1"} if sent.status == 429 else {}
            return await wire.json(self.error(Fail(sent.status), request), sent.status, after)
        await self._play(sent, number, wire)

    async def _play(self, sent: Sent, number: int, wire: Wire) -> None:
        call, usage = sent.call, sent.call.usage
        if call.comments:
            await wire.head(200, {"Content-Type": "text/event-stream"})
            await wire.send(b": queued\n\n")
        await asyncio.sleep(call.reading)
        if not call.comments:
            await wire.head(200, {"Content-Type": "text/event-stream"})

        async def send(delta: dict[str, Any] | None, finish: str | None = None, *, tell: bool = False) -> None:
            choice = {"index": 0, "delta": delta, "finish_reason": finish}
            received = self._reply_object("chat.completion.chunk", [] if delta is None else [choice])
            if tell:
                sent.received = (0, 0) if usage == "zero" else (sent.prompt, sent.tokens)
                received["usage"] = _usage(sent)
            elif usage == "null":
                received["usage"] = None
            await wire.send(f"data: {json.dumps(received)}\n\n".encode())

        await send({"role": "assistant", "content": ""})
        for at, (kind, tokens, delta) in enumerate(_pieces(call, f"{number}-{sent.place}")):
            await asyncio.sleep(call.pause if at else 0)
            sent.pieces.append(Piece(time.monotonic(), kind, tokens))
            if delta is not None:
                await send(delta, tell=usage == "every")
        await send({}, "tool_calls" if call.tools else "stop", tell=usage in ("last", "every"))
        if usage in ("final", "details", "zero"):
            await send(None, tell=True)
        sent.ended = time.monotonic()
        await wire.send(b"data: [DONE]\n\n")
        await wire.end()


def _usage(sent: Sent) -> dict[str, Any]:
    assert sent.received
    given, written = sent.received
    usage: dict[str, Any] = {"prompt_tokens": given, "completion_tokens": written, "total_tokens": given + written}
    if sent.call.usage == "details":
        usage["prompt_tokens_details"] = {"cached_tokens": given // 2}
    if sent.call.usage == "details" or (sent.call.hidden and written):
        thought = sum(piece.tokens for piece in sent.pieces if piece.kind in ("hidden", "thinking"))
        usage["completion_tokens_details"] = {"reasoning_tokens": thought}
    return usage


def _pieces(call: Call, mark: str) -> list[tuple[Kind, int, dict[str, Any] | None]]:
    """What is written: its kind, its tokens, and its delta, None for what is not sent."""
    words = "".join(f"{n:03d} " for n in range(call.size))
    pieces: list[tuple[Kind, int, dict[str, Any] | None]] = [("hidden", call.size, None)] * call.hidden
    pieces += [("thinking", call.size, {"reasoning_content": words})] * call.thinking
    pieces += [("text", call.size, {"content": words})] * call.text
    for index, tool in enumerate(call.tools):
        arguments = arguments_of(tool, f"{mark}-{index}")
        step = 4 * call.size
        about = {"index": index, "id": f"call_{index}", "type": "function"}
        for at in range(0, len(arguments), step):
            part = arguments[at : at + step]
            begins = {**about, "function": {"name": tool.name, "arguments": part}}
            goes_on = {"index": index, "function": {"arguments": part}}
            pieces.append(("arguments", -(-len(part) // 4), {"tool_calls": [goes_on if at else begins]}))
    return pieces


def arguments_of(tool: Tool, mark: str) -> str:
    """The JSON of a tool call's arguments, with as many tokens as the script says or a few more."""
    bare = json.dumps({"seconds": tool.seconds, "note": f"{mark} "})
    note = f"{mark} " + "x" * max(0, 4 * tool.tokens - len(bare))
    return json.dumps({"seconds": tool.seconds, "note": note})
