"""The `context` event of a model call: each message that the model is given, with its tokens and its part."""

import json
from collections import Counter
from collections.abc import Sequence

from langchain_core.messages import AIMessage, BaseMessage

from agent.event_mapper import ROLES
from agent.image_blocks import images_of
from agent.model_input import ModelInput
from agent.token_counts import MANY
from agent.tool_results import input_for_display
from backends import Backend
from backends.base import CountedText, TemplateTokens
from backends.openai_request import REASONING
from runs.errors import ChatError
from runs.events import JSON, Context
from runs.images import image_tokens
from runs.text import valid_text
from runs.threads import in_thread

PARTS = ("system", "summary", "recalled", "recent", "documents", "message", "calls", "tools", "format")
"""The parts of a context, in the order of the bar on the page. Every token belongs to one of them."""
_SLACK = 64
"""Tokens that texts may have more when they are counted alone than within their prompt."""


async def build_context(backend: Backend, model_input: ModelInput, messages: Sequence[BaseMessage]) -> Context:
    """Builds the complete context of a model call with these messages of a turn."""
    many = len(messages) > MANY
    extras, texts = await in_thread(many, _texts, messages)
    readings = await backend.count_tokens(texts)
    template = backend.template
    prompted = bool(messages) and messages[0].type == "system"
    entries = await in_thread(many, _entries, template, model_input, messages, extras, readings)
    if template.system and not prompted:
        entries.insert(0, _template_prompt(template))
    once = template.per_prompt(with_system=prompted or bool(template.system), thinking=model_input.thinking)
    if not model_input.tools and not any(extras):
        once = await _count_prompt(backend, model_input, messages, entries, once)
    parts: Counter[str] = Counter()
    for entry in entries:
        parts[entry["part"]] += entry["tokens"]
    if entries and entries[0]["part"] == "summary":  # prompt and summary are one message
        whole = parts["summary"]
        parts["summary"] = min(model_input.summary_tokens, whole)
        parts["system"] = whole - parts["summary"]
        if parts["system"]:
            entries[0]["why"] = f"system prompt {parts['system']:,} tokens, summary {parts['summary']:,}"
    if model_input.passages.text:
        _split_message(model_input.passages.tokens, entries, parts)
    parts["format"] = once
    parts["tools"] = sum(tool["tokens"] for tool in model_input.tools)
    return Context(
        entries,
        model_input.left_out,
        tokens=parts.total(),
        limit=model_input.input_budget,
        estimated=bool(model_input.tools or model_input.images) or any(reading.estimated for reading in readings),
        parts={part: parts[part] for part in PARTS if parts[part]},
        note=" ".join(filter(None, (model_input.note, backend.context_note))) or None,
        tools=list(model_input.tools) or None,
        memory_limit=model_input.memory_limit,
        turns=list(model_input.turns) or None,
        thinking=model_input.thinking,
    )


def _split_message(passages: int, entries: Sequence[JSON], parts: Counter[str]) -> None:
    """Splits the tokens of the message into those of the passages and its own: they are one message."""
    message = next((one for one in reversed(entries) if one["part"] == "message" and one["role"] == "user"), None)
    if message is None:
        return
    parts["documents"] = min(passages, message["tokens"])
    parts["message"] -= parts["documents"]
    own = message["tokens"] - parts["documents"]
    message["why"] = f"passages of your documents {parts['documents']:,} tokens, your message {own:,}"


def context_too_long(backend: Backend, model_input: ModelInput, context: Context) -> ChatError:
    """Returns the error for a context over its budget: it names the part that is too long, with the numbers."""
    last, budget = context.messages[-1]["tokens"], model_input.input_budget
    fixed = context.tokens - sum(m["tokens"] for m in context.messages[:-1] if m["role"] != "system")
    if fixed > budget or model_input.memory != "full":
        what = f"Your message has {last:,} tokens, {fixed:,} with the system prompt"
        way_out = "Shorten it, or switch to a model with a longer context."
    else:
        what = f"The whole conversation has {context.tokens:,} tokens"
        way_out = "Pick another memory mode, or a model with a longer context."
    return ChatError("context_too_long", f"{what}; {backend.name} can be given at most {budget:,}. {way_out}")


def _texts(messages: Sequence[BaseMessage]) -> tuple[list[JSON], list[str]]:
    """Returns the extra fields of each message, and the texts to count: the messages', then those of the fields."""
    extras = [_extra(message) for message in messages]
    others = [json.dumps(value, ensure_ascii=False) for fields in extras for value in fields.values()]
    return extras, [message.text for message in messages] + others


def _extra(message: BaseMessage) -> JSON:
    """Returns the tool calls of a model's message, and the thinking that is sent back with them."""
    if not isinstance(message, AIMessage) or not message.tool_calls:
        return {}
    calls = [{"name": valid_text(call["name"]), "args": input_for_display(call["args"])} for call in message.tool_calls]
    thinking = "".join((message.additional_kwargs.get(REASONING) or {}).values())
    return {"tool_calls": calls} | ({"reasoning": valid_text(thinking)} if thinking else {})


def _entries(
    template: TemplateTokens,
    model_input: ModelInput,
    messages: Sequence[BaseMessage],
    extras: Sequence[JSON],
    readings: Sequence[CountedText],
) -> list[JSON]:
    """Returns the messages as entries of the event, with the tokens that each has alone."""
    rest, entries = iter(readings[len(messages) :]), list[JSON]()
    for message, reading, extra in zip(messages, readings, extras, strict=False):
        role = ROLES.get(message.type, message.type)
        tokens = reading.tokens + template.per_message(role) + sum(next(rest).tokens for _ in extra)
        if images := images_of(message):
            tokens += image_tokens(images)
            extra = {**extra, "images": [{**image.wire(), "tokens": image.tokens} for image in images]}
        part = model_input.parts.get(str(message.id), "calls")
        entry = {"role": role, "content": message.text, "tokens": tokens, "part": part}
        why = model_input.why.get(str(message.id))
        entries.append(entry | ({"why": why} if why else {}) | extra)
    return entries


async def _count_prompt(
    backend: Backend, model_input: ModelInput, messages: Sequence[BaseMessage], entries: list[JSON], once: int
) -> int:
    """Sets the tokens of each entry to those that it has within the whole prompt.

    Returns the tokens that belong to no message. A prompt that is too long to be sent is not counted.
    """
    if sum(entry["tokens"] for entry in entries) + once > model_input.input_budget + _SLACK:
        return once
    prompt = [(ROLES.get(m.type, m.type), m.text) for m in messages]
    counts = await backend.count_prompt_tokens(prompt, model_input.thinking)
    if counts is None:
        return once
    for entry, tokens in zip(entries, counts, strict=False):
        entry["tokens"] = tokens
    return counts[-1]


def _template_prompt(template: TemplateTokens) -> JSON:
    """Returns the system prompt that a template adds by itself, as an entry."""
    tokens = template.without_system - template.with_system
    why = "the model's chat template adds it where no system prompt is given"
    return {"role": "system", "content": template.system, "tokens": tokens, "part": "system", "why": why}
