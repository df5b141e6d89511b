"""The `context` event of a model call: each message that the model is given, with its tokens and its part."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from agent.event_mapper import ROLES
from agent.tool_middleware import shown
from backends import Backend
from backends.base import CountedText, TemplateTokens
from backends.openai_request import REASONING
from runs.errors import ChatError
from runs.events import JSON, Context
from runs.text import valid_text
from runs.threads import in_thread

if TYPE_CHECKING:
    from agent.model_input import ModelInput


async def build_context(backend: Backend, model_input: "ModelInput", messages: Sequence[BaseMessage]) -> Context:
    """The context of a call with these messages of a turn, complete."""
    many = len(messages) > MANY
    beside, texts = await in_thread(many, _read, messages)
    readings = await backend.count_tokens(texts, model_input.key)
    template = backend.template
    prompted = bool(messages) and messages[0].type == "system"
    told = await in_thread(many, _told, template, model_input, messages, beside, readings)
    if template.system and not prompted:
        told.insert(0, _own_system(template))
    once = template.per_prompt(with_system=prompted or bool(template.system))
    if not model_input.tools and not any(beside):
        once = await _counted_whole(backend, model_input, messages, told, once)
    parts: Counter[str] = Counter()
    for one in told:
        parts[one["part"]] += one["tokens"]
    if told and told[0]["part"] == "summary":  # both stand in the same message
        parts["summary"], parts["system"] = model_input.summary_tokens, parts["summary"] - model_input.summary_tokens
    parts["system"] += once
    parts["tools"] += sum(tool["tokens"] for tool in model_input.tools)
    return Context(
        told,
        model_input.left_out,
        tokens=parts.total(),
        limit=model_input.input_budget,
        estimated=bool(model_input.tools) or any(reading.estimated for reading in readings),
        parts={part: parts[part] for part in PARTS if parts[part]},
        note=" ".join(filter(None, (model_input.note, backend.context_note))) or None,
        tools=list(model_input.tools) or None,
    )


def _read(messages: Sequence[BaseMessage]) -> tuple[list[JSON], list[str]]:
    """What each message has beside its text, and the texts to be counted: the messages' own, then the others."""
    beside = [_beside(message) for message in messages]
    others = [json.dumps(made, ensure_ascii=False) for fields in beside for made in fields.values()]
    return beside, [message.text for message in messages] + others


def _told(
    template: TemplateTokens,
    model_input: "ModelInput",
    messages: Sequence[BaseMessage],
    beside: Sequence[JSON],
    readings: Sequence[CountedText],
) -> list[JSON]:
    """The messages as the event has them, with the tokens that each has alone."""
    rest, told = iter(readings[len(messages) :]), list[JSON]()
    for message, reading, made in zip(messages, readings, beside, strict=False):
        role = ROLES.get(message.type, message.type)
        tokens = reading.tokens + template.per_message(role) + sum(next(rest).tokens for _ in made)
        part = model_input.parts.get(str(message.id), "tools")
        line = {"role": role, "content": message.text, "tokens": tokens, "part": part}
        why = model_input.why.get(str(message.id))
        told.append(line | ({"why": why} if why else {}) | made)
    return told


async def _counted_whole(
    backend: Backend, model_input: "ModelInput", messages: Sequence[BaseMessage], told: list[JSON], once: int
) -> int:
    """Puts the tokens that each message has within the whole prompt in place of those that it has alone.

    Returns the tokens that are in none of them. A prompt that is too long to be sent is left as it is.
    """
    if sum(line["tokens"] for line in told) + once > model_input.input_budget + _SLACK:
        return once
    counts = await backend.count_prompt_tokens([(ROLES.get(m.type, m.type), m.text) for m in messages])
    if counts is None:
        return once
    for line, tokens in zip(told, counts, strict=False):
        line["tokens"] = tokens
    return counts[-1]


def _own_system(template: TemplateTokens) -> JSON:
    """The system prompt that a template adds by itself, as a message."""
    tokens = template.without_system - template.with_system
    why = "the model's chat template adds it where no system prompt is given"
    return {"role": "system", "content": template.system, "tokens": tokens, "part": "system", "why": why}


_SLACK = 64
"""Tokens by which texts read alone may have more than in their prompt."""
MANY = 1000
"""Messages, and parts of replies, from which on a context is made in a thread."""
PARTS = ("system", "summary", "recalled", "recent", "message", "tools")
"""What a message may be there as, in the order of a bar."""


async def tool_descriptions(backend: Backend, tools: Sequence[BaseTool]) -> list[JSON]:
    """What a model is told of the tools that it may choose, as {name, content, tokens}; about as much as that takes."""
    if not backend.offers_tools or not tools:
        return []
    texts = [json.dumps(convert_to_openai_tool(tool), ensure_ascii=False) for tool in tools]
    readings = await backend.count_tokens(texts)
    return [
        {"name": tool.name, "content": text, "tokens": reading.tokens}
        for tool, text, reading in zip(tools, texts, readings, strict=True)
    ]


def context_too_long(backend: Backend, model_input: "ModelInput", context: Context) -> ChatError:
    """Says which part is too long, with the numbers."""
    last, input_budget = context.messages[-1]["tokens"], model_input.input_budget
    fixed = context.tokens - sum(m["tokens"] for m in context.messages[:-1] if m["role"] != "system")
    if fixed > input_budget or model_input.memory != "full":
        what = f"Your message has {last:,} tokens, {fixed:,} with the system prompt"
        way_out = "Shorten it, or pick a backend with a longer context."
    else:
        what = f"The whole conversation has {context.tokens:,} tokens"
        way_out = "Pick another memory mode, or a backend with a longer context."
    return ChatError("context_too_long", f"{what}; {backend.name} can be given at most {input_budget:,}. {way_out}")


def _beside(message: BaseMessage) -> JSON:
    """What a message of the model's has beside its text: tool calls, and the thinking that goes back with them."""
    if not isinstance(message, AIMessage) or not message.tool_calls:
        return {}
    calls = [{"name": valid_text(call["name"]), "args": shown(call["args"])} for call in message.tool_calls]
    thinking = "".join((message.additional_kwargs.get(REASONING) or {}).values())
    return {"tool_calls": calls} | ({"reasoning": valid_text(thinking)} if thinking else {})
