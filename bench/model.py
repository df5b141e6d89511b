"""A LangChain chat model that follows a script, and logs when it emitted each of its tokens.

The last message "N=300 R=50" requests 300 tokens at 50 a second, without drift; R=0 is as fast as possible. Token 7
is " w0007", so that the text alone shows whether a reply is complete and in order. "T=3 N=60" requests three calls at
once of the tool `marks`, for 60 marks each; "C=6" calls `calculator` in six rounds, one after another.
"""

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolCall
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

LOCAL = "SmolLM2 135M"
"""The name of the bundled model's backend."""
LOCAL_ENTRY = f'\n[[backends]]\nname = "{LOCAL}"\nkind = "local"\nmodel = "bundled"\n'
MOST_TOKENS = 9999
"""A token's number has four digits."""
SERIES = ("", "a", "b")
"""The suffix of the marks of each of several tools: mark 7 of the second is " w0007a"."""
_TEXT = "seven quiet engineers measure the same page again and print all of it for a friend in the next room "


def token(i: int) -> str:
    """Returns a token of the script."""
    return f" w{i:04d}"


def numbers(text: str) -> list[int]:
    """Returns the numbers of the tokens in a text, in order."""
    return [int(digits) for digits in re.findall(r"w(\d{4})", text)]


def scripted_entry(log: str = "/dev/null") -> str:
    """Returns the settings of a backend "Bench" with this model."""
    entry = 'name = "Bench"\nkind = "langchain"\nclass = "bench.model:ScriptedModel"'
    return f"\n[[backends]]\n{entry}\noptions = {{ log = {json.dumps(log, ensure_ascii=False)} }}\n"


class ScriptedModel(BaseChatModel):
    """A model whose `log` file gets one JSON line at the end of each reply.

    It has `asked`, the message; `how`, "done" or "cancelled"; and in milliseconds since 1970 `start_ms`, `end_ms` (when
    the model's own work ended) and `emitted_ms`, a list with the moment of each token.
    """

    log: Path

    @property
    def _llm_type(self) -> str:
        return "bench"

    def bind_tools(self, tools: Any, **options: Any) -> Any:
        """Returns the model itself: its script names the tools."""
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **options: Any) -> ChatResult:
        tokens, _ = _script(messages[-1].text)
        return ChatResult(generations=[ChatGeneration(message=AIMessage("".join(map(token, range(tokens)))))])

    async def _astream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **options: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        asked = messages[-1].text
        if calls := _tool_calls(messages):
            yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_calls=calls))
            return
        tokens, rate = _script(asked)
        start, emitted = time.time(), list[float]()
        try:
            for i in range(tokens):
                due = start + i / rate if rate else 0.0
                await asyncio.sleep(max(0.0, due - time.time()))  # also at R=0: a model on a network lets others run
                emitted.append(time.time())
                yield ChatGenerationChunk(message=AIMessageChunk(content=token(i)))
        finally:
            record = {
                "asked": asked,
                "how": "done" if len(emitted) == tokens else "cancelled",
                "start_ms": start * 1000,
                "end_ms": time.time() * 1000,
                "emitted_ms": [at * 1000 for at in emitted],
            }
            with self.log.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")


def _script(text: str) -> tuple[int, float]:
    """Returns how many tokens, and how many a second (0: no limit)."""
    found = dict(re.findall(r"\b([NR])=([\d.]+)", text))
    return min(MOST_TOKENS, int(found.get("N", 20))), float(found.get("R", 0))


def _tool_calls(messages: Sequence[BaseMessage]) -> list[ToolCall]:
    """Returns the next tool calls."""
    users = [n for n, message in enumerate(messages) if message.type == "human"]
    text, rounds = messages[users[-1]].text if users else "", sum(m.type == "tool" for m in messages[users[-1] :])
    if (wanted := re.search(r"\bC=(\d+)", text)) and rounds < int(wanted[1]):
        return [ToolCall(name="calculator", args={"expression": f"{rounds} + 1"}, id=f"call {rounds}")]
    asked = None if rounds else re.search(r"\bT=(\d+) N=(\d+)", text)
    many, count = map(int, asked.groups()) if asked else (0, 0)
    return [ToolCall(name="marks", args={"count": count, "series": s}, id=f"call {s}") for s in SERIES[:many]]


def wait_for_end(log: Path, asked: str, timeout_s: float) -> dict[str, Any] | None:
    """Returns the log's record of the latest reply to a message; None if there is none in time."""
    until = time.monotonic() + timeout_s
    while True:
        lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
        for record in reversed([json.loads(line) for line in lines if line.endswith("}")]):
            if record["asked"] == asked:
                return dict(record)
        if time.monotonic() > until:
            return None
        time.sleep(0.05)


def earlier_messages(count: int) -> list[dict[str, str]]:
    """Returns the beginning of a conversation, about 600 characters a message, replies in Markdown."""
    found = []
    for i in range(count):
        text = (_TEXT * 8)[7 * i % len(_TEXT) :]
        question = f"Question {i}: {text[:580]}?"
        answer = f"**Answer {i}.** {text[:280]}\n\n- one {text[20:90]}\n- two `{text[40:60]}`\n\n{text[280:470]}"
        found.append({"role": "assistant", "content": answer} if i % 2 else {"role": "user", "content": question})
    return found
