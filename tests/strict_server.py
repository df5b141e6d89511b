"""A server that checks every request by OpenAI's API reference, and refuses whatever is not in it.

Only text is accepted. Sources: OpenAI's API reference ("Create chat completion"), Mistral's (alternation, ids of nine
letters and digits), DeepSeek's "Thinking Mode" (`reasoning_content` comes back with tool calls).
"""

import json
import re
from collections.abc import Collection
from typing import Any

from tests.providers import Answer, Fail, OpenAIServer
from tests.server import Request, Wire

FIELDS = {"model", "messages", "stream", "stream_options", "max_tokens", "temperature", "tools", "tool_choice"}
_KEYS = {
    "system": {"role", "content"},
    "user": {"role", "content"},
    "assistant": {"role", "content", "tool_calls"},
    "tool": {"role", "content", "tool_call_id"},
}
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def _no_constant(name: str) -> Any:
    raise ValueError(name)


class StrictServer(OpenAIServer):
    """`thinking` is the field that each message with tool calls must have; `mistral` adds that provider's own rules."""

    def __init__(self, *answers: Answer, thinking: str = "", mistral: bool = False) -> None:
        super().__init__(*answers)
        self.thinking, self.mistral = thinking, mistral
        self.refused: list[str] = []

    async def respond(self, request: Request, wire: Wire) -> None:
        if request.method == "POST" and request.path.startswith("/v1/chat/completions"):
            try:
                json.dumps(request.body, allow_nan=False).encode()
                self.check(request.body)
            except (AssertionError, KeyError, TypeError, ValueError) as e:
                self.refused.append(f"{type(e).__name__}: {e}")
                await wire.json(self.error(Fail(400, "invalid", self.refused[-1].replace("{", "(")), request), 400)
                return
        await super().respond(request, wire)

    def check(self, body: Any) -> None:
        """Raises AssertionError for a request that is not as the reference says."""
        assert not body.keys() - FIELDS, f"unknown fields: {body.keys() - FIELDS}"
        messages = body["messages"]
        assert messages, "no messages"
        for message in messages:
            self._check_message(message)
        self._check_order(messages)
        for tool in body.get("tools", ()):
            assert tool["type"] == "function"
            assert _NAME.fullmatch(tool["function"]["name"])

    def _check_message(self, message: Any) -> None:
        role, content = message["role"], message["content"]
        more = {self.thinking} if self.thinking and message.get("tool_calls") else set()
        assert message.keys() - more <= _KEYS[role], f"{role} has {message.keys() - _KEYS[role]}"
        assert more <= message.keys() and all(message[name] for name in more), f"{more} is missing"
        assert isinstance(content, str), f"the content of {role} is no text: {content!r}"
        assert content.strip() or message.get("tool_calls"), f"the content of {role} is empty"
        for call in message.get("tool_calls", ()):
            assert call.keys() == {"id", "type", "function"} and call["type"] == "function"
            assert _NAME.fullmatch(call["function"]["name"]), f"name: {call['function']['name']!r}"
            arguments = json.loads(call["function"]["arguments"], parse_constant=_no_constant)
            assert isinstance(arguments, dict), "the arguments are no object"

    def _check_order(self, messages: Any) -> None:
        ids: set[str] = set()
        waiting: list[str] = []
        before = ""
        for place, message in enumerate(messages):
            role = message["role"]
            if role == "tool":
                assert message["tool_call_id"] in waiting, "a result without its call"
                waiting.remove(message["tool_call_id"])
                before = role
                continue
            assert not waiting, f"calls without a result: {waiting}"
            assert role != "system" or place == 0, "a system prompt in the middle"
            expected: Collection[str] = {"": {"system", "user"}, "user": {"assistant"}, "tool": {"assistant"}}.get(
                before, {"user"}
            )
            assert role in expected, f"{role} after {before or 'nothing'}"
            waiting = [call["id"] for call in message.get("tool_calls", ())]
            assert len({*waiting, *ids}) == len(waiting) + len(ids), "an id twice"
            assert all(isinstance(one, str) and 0 < len(one) <= 40 for one in waiting)
            assert not self.mistral or all(re.fullmatch("[a-zA-Z0-9]{9}", one) for one in waiting), waiting
            ids.update(waiting)
            before = role
        assert not waiting, f"calls without a result: {waiting}"
        assert messages[-1]["role"] in ("user", "tool")
