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
from backends.base import Reading, Template
from backends.openai_request import REASONING
from memory.text import whole
from runs.errors import ChatError
from runs.events import JSON, Context
from runs.threads import in_thread

if TYPE_CHECKING:
    from agent.given import Given


async def context_of(backend: Backend, given: "Given", messages: Sequence[BaseMessage]) -> Context:
    """The context of a call with these messages of a turn, complete."""
    many = len(messages) > MANY
    beside, texts = await in_thread(many, _read, messages)
    readings = await backend.read(texts, given.key)
    template = backend.template
    prompted = bool(messages) and messages[0].type == "system"
    told = await in_thread(many, _told, template, given, messages, beside, readings)
    if template.system and not prompted:
        told.insert(0, _own_system(template))
    once = template.once(prompted=prompted or bool(template.system))
    if not given.tools and not any(beside):
        once = await _counted_whole(backend, given, messages, told, once)
    parts: Counter[str] = Counter()
    for one in told:
        parts[one["part"]] += one["tokens"]
    if told and told[0]["part"] == "summary":  # both stand in the same message
        parts["summary"], parts["system"] = given.summary_tokens, parts["summary"] - given.summary_tokens
    parts["system"] += once
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


def _read(messages: Sequence[BaseMessage]) -> tuple[list[JSON], list[str]]:
    """What each message has beside its text, and the texts to be counted: the messages' own, then the others."""
    beside = [_beside(message) for message in messages]
    others = [json.dumps(made, ensure_ascii=False) for fields in beside for made in fields.values()]
    return beside, [message.text for message in messages] + others


def _told(
    template: Template,
    given: "Given",
    messages: Sequence[BaseMessage],
    beside: Sequence[JSON],
    readings: Sequence[Reading],
) -> list[JSON]:
    """The messages as the event has them, with the tokens that each has alone."""
    rest, told = iter(readings[len(messages) :]), list[JSON]()
    for message, reading, made in zip(messages, readings, beside, strict=False):
        role = ROLES.get(message.type, message.type)
        tokens = reading.tokens + template.message(role) + sum(next(rest).tokens for _ in made)
        part = given.parts.get(str(message.id), "tools")
        line = {"role": role, "content": message.text, "tokens": tokens, "part": part}
        why = given.why.get(str(message.id))
        told.append(line | ({"why": why} if why else {}) | made)
    return told


async def _counted_whole(
    backend: Backend, given: "Given", messages: Sequence[BaseMessage], told: list[JSON], once: int
) -> int:
    """Puts the tokens that each message has within the whole prompt in place of those that it has alone.

    Returns the tokens that are in none of them. A prompt that is too long to be sent is left as it is.
    """
    if sum(line["tokens"] for line in told) + once > given.room + _SLACK:
        return once
    counts = await backend.read_prompt([(ROLES.get(m.type, m.type), m.text) for m in messages])
    if counts is None:
        return once
    for line, tokens in zip(told, counts, strict=False):
        line["tokens"] = tokens
    return counts[-1]


def _own_system(template: Template) -> JSON:
    """The system prompt that a template adds by itself, as a message."""
    tokens = template.bare - template.prompted
    why = "the model's chat template adds it where no system prompt is given"
    return {"role": "system", "content": template.system, "tokens": tokens, "part": "system", "why": why}


_SLACK = 64
"""Tokens by which texts read alone may have more than in their prompt."""
MANY = 1000
"""Messages, and parts of replies, from which on a context is made in a thread."""
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
