"""What a memory mode would give the model for a turn, without sending or storing anything."""

import asyncio
from dataclasses import fields, replace
from functools import partial

from langchain_core.messages import ToolMessage

from agent.attempt import offered_tools, resolve_model_options, with_backend_tools
from agent.commands import Command
from agent.context_event import build_context
from agent.loop import ToolSet, call_messages
from agent.model_input import TurnInput, build_model_input, mode_limits
from agent.tool_middleware import error_of, failure_text
from agent.tool_results import plain_result
from agent.tools.streaming import PURE
from agent.turns import TurnRequest, Turns
from agent.validation import validate_message
from backends import Backend, ModelOptions
from memory.messages import Message
from runs.errors import ChatError
from runs.events import JSON


async def preview(turns: Turns, ask: TurnRequest, message_id: str | None = None) -> JSON:
    """The fields of a `context` event, with {backend, memory, parameters, fits, cost}.

    The turn is that of the message asked; or of an earlier one of the user's; or, with neither, of the last one. The
    caller has checked whose conversation it is. Raises ChatError.
    """
    asked = await _asked(turns, ask, message_id)
    prepared = turns.prepare(TurnRequest(asked.text, ask.visitor, None, ask.backend, ask.memory, ask.options))
    backend, options, conversation_id = prepared.chain[0], prepared.options, ask.conversation_id or ""
    key = turns.backends.key(backend, ask.visitor)
    if backend.in_process and not backend.health(key).ready:
        raise ChatError("backend_unavailable", f"{backend.name} is not ready yet: try again.", retryable=True)
    history = partial(turns.histories.before, conversation_id, asked)
    turn = TurnInput(
        prepared.mode, asked, options, ask.visitor, history, partial(turns.summarizer.summary, conversation_id)
    )
    model_options = resolve_model_options(backend, options, turns.settings.limits)
    tool_set = with_backend_tools(backend, prepared.tool_set)
    model_input = await build_model_input(
        turns.settings, backend, turn, model_options.max_tokens, offered_tools(tool_set)
    )
    messages, unknown = list(model_input.messages), False
    if tool_set.command:
        result, unknown = await _result(tool_set, tool_set.command)
        messages += [tool_set.command.message(), result]
    context = await build_context(
        backend, model_input, await call_messages(backend, model_input, tool_set.command, messages)
    )
    if unknown and tool_set.command:
        note = f"What /{tool_set.command.tool} returns is not known before it runs."
        context = replace(context, estimated=True, note=" ".join(filter(None, (context.note, note))))
    limits = mode_limits(turns.settings.memory, options, model_input.input_budget, 0)
    return {
        "backend": backend.name,
        "model": backend.chosen_model,
        "memory": prepared.mode.name,
        "parameters": {name: getattr(limits, name) for name in prepared.mode.parameters},
        **{field.name: getattr(context, field.name) for field in fields(context)},
        "fits": context.tokens <= model_input.input_budget,
        "cost": _cost(backend, context.tokens, model_options),
    }


async def _result(tool_set: ToolSet, command: Command) -> tuple[ToolMessage, bool]:
    """The result of a command, and whether it is unknown: a tool is only run where that does nothing but compute."""
    tool = next(one for one in tool_set.tools if one.name == command.tool)
    call = command.message().tool_calls[0]
    named = {"tool_call_id": command.call_id, "name": command.tool, "id": "result"}
    if command.tool in tool_set.rules.approval or not (tool.metadata or {}).get(PURE):
        return ToolMessage(f"[the result of {command.tool}]", **named), True
    try:
        async with asyncio.timeout(tool_set.rules.seconds):
            found = plain_result(await tool.ainvoke(call), call, tool_set.rules.characters)
    except Exception as e:  # whatever a tool raises is its result in a run, too
        return ToolMessage(failure_text(error_of(e)), **named), False
    return ToolMessage(found.text, **named), False


async def _asked(turns: Turns, ask: TurnRequest, message_id: str | None) -> Message:
    store, head = turns.store, None
    if ask.conversation_id:
        head = (await store.conversation(ask.conversation_id, ask.visitor)).head
        if message_id is None and not ask.message.strip() and head:
            history = await turns.histories.up_to(ask.conversation_id, head)
            message_id = next((m.id for m in reversed(history.messages) if m.role == "user"), None)
        if message_id:
            asked = await store.message(ask.conversation_id, message_id)
            if asked.role != "user":
                raise ChatError("invalid_request", "A turn begins with a message of the user's: name one of these.")
            return asked
    return Message("next", "user", validate_message(ask.message, turns.settings.limits), parent_id=head)


def _cost(backend: Backend, tokens: int, model_options: ModelOptions) -> JSON:
    """Tokens that are read, and at most written; in dollars where the settings name a price."""
    cost: JSON = {"input_tokens": tokens, "output_tokens": model_options.max_tokens, "money": None}
    if price := backend.settings.price:
        read, written = (each * n / 1e6 for each, n in zip(price, (tokens, model_options.max_tokens), strict=True))
        cost["money"] = {"input": round(read, 8), "output": round(written, 8), "currency": "USD"}
    return cost
