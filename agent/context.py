"""The `context` event of a model call: each message that the model is given, with its tokens and its part."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from agent.calls import shown
from agent.translate import ROLES
from backends import Backend
from backends.base import Reading
from backends.openai_request import REASONING
from memory.text import whole
from runs.errors import ChatError
from runs.events import JSON, Context
from runs.threads import in_thread

if TYPE_CHECKING:
    from agent.given import Given


async def context_of(backend: Backend, given: "Given", messages: Sequence[BaseMessage]) -> Context:
    """The context of a call with these messages of a turn, complete."""
    beside = [_beside(message) for message in messages]
    asked = [json.dumps(made, ensure_ascii=False) for fields in beside for made in fields.values()]
    readings = await backend.read([m.text for m in messages] + asked, given.key)
    return await in_thread(len(messages) > MANY, _context, backend, given, messages, beside, readings)


def _context(
    backend: Backend,
    given: "Given",
    messages: Sequence[BaseMessage],
    beside: Sequence[JSON],
    readings: Sequence[Reading],
) -> Context:
    rest = iter(readings[len(messages) :])
    told: list[JSON] = []
    parts: Counter[str] = Counter()
    for message, reading, made in zip(messages, readings, beside, strict=False):
        role = ROLES.get(message.type, message.type)
        tokens = reading.tokens + backend.template.message(role) + sum(next(rest).tokens for _ in made)
        part = given.parts.get(str(message.id), "tools")
        line = {"role": role, "content": message.text, "tokens": tokens, "part": part}
        why = given.why.get(str(message.id))
        told.append(line | ({"why": why} if why else {}) | made)
        parts[part] += tokens
    if told and told[0]["part"] == "summary":  # both stand in the same message
        parts["summary"], parts["system"] = given.summary_tokens, parts["summary"] - given.summary_tokens
    parts["system"] += backend.template.once(prompted=bool(told) and told[0]["role"] == "system")
    parts["tools"] += sum(tool["tokens"] for tool in given.tools)
    return Context(
        told,
        given.left_out,
        tokens=parts.total(),
        limit=given.room,
        estimated=bool(given.tools) or any(reading.guessed for reading in readings),
        parts={part: parts[part] for part in PARTS if parts[part]},
        note=" ".join(filter(None, (given.note, backend.context_note))) or None,
        tools=list(given.tools) or None,
    )


MANY = 1000
"""Messages from which on a context is made in a thread."""
PARTS = ("system", "summary", "recalled", "recent", "message", "tools")
"""What a message may be there as, in the order of a bar."""


async def offered(backend: Backend, tools: Sequence[BaseTool]) -> list[JSON]:
    """What a model is told of the tools that it may choose, as {name, content, tokens}; about as much as that takes."""
    if not backend.chooses_tools or not tools:
        return []
    texts = [json.dumps(convert_to_openai_tool(tool), ensure_ascii=False) for tool in tools]
    readings = await backend.read(texts)
    return [
        {"name": tool.name, "content": text, "tokens": reading.tokens}
        for tool, text, reading in zip(tools, texts, readings, strict=True)
    ]


def too_long(backend: Backend, given: "Given", context: Context) -> ChatError:
    """Says which part is too long, with the numbers."""
    last, room = context.messages[-1]["tokens"], given.room
    fixed = context.tokens - sum(m["tokens"] for m in context.messages[:-1] if m["role"] != "system")
    if fixed > room or given.memory != "full":
        what = f"Your message has {last:,} tokens, {fixed:,} with the system prompt"
        way_out = "Shorten it, or pick a backend with a longer context."
    else:
        what = f"The whole conversation has {context.tokens:,} tokens"
        way_out = "Pick another memory mode, or a backend with a longer context."
    return ChatError("context_too_long", f"{what}; {backend.name} can be given at most {room:,}. {way_out}")


def _beside(message: BaseMessage) -> JSON:
    """What a message of the model's has beside its text: tool calls, and the thinking that goes back with them."""
    if not isinstance(message, AIMessage) or not message.tool_calls:
        return {}
    calls = [{"name": whole(call["name"]), "args": shown(call["args"])} for call in message.tool_calls]
    thinking = "".join((message.additional_kwargs.get(REASONING) or {}).values())
    return {"tool_calls": calls} | ({"reasoning": whole(thinking)} if thinking else {})
