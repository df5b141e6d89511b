"""What a memory mode would give the model for a turn, without sending or storing anything."""

import asyncio
from dataclasses import fields, replace
from functools import partial

from langchain_core.messages import ToolMessage

from agent.answering import choosable, kit_on, options_of
from agent.calls import error_of, failure_text
from agent.checks import checked_message
from agent.commands import Command
from agent.context import context_of
from agent.given import Turn, give, limits_of
from agent.loop import Kit, call_messages
from agent.tool_results import plain_result
from agent.tools.streaming import PURE
from agent.turns import Ask, Turns
from backends import Backend, Options
from memory.messages import Message
from runs.errors import ChatError
from runs.events import JSON


async def preview(turns: Turns, ask: Ask, message_id: str | None = None) -> JSON:
    """The fields of a `context` event, with {backend, memory, parameters, fits, cost}.

    The turn is that of the message asked; or of an earlier one of the user's; or, with neither, of the last one. The
    caller has checked whose conversation it is. Raises ChatError.
    """
    asked = await _asked(turns, ask, message_id)
    prepared = turns.prepare(Ask(asked.text, ask.visitor, None, ask.backend, ask.memory, ask.tuning))
    backend, tuning, conversation_id = prepared.chain[0], prepared.tuning, ask.conversation_id or ""
    key = turns.backends.key(backend, ask.visitor)
    if backend.in_process and not backend.health(key).ready:
        raise ChatError("backend_unavailable", f"{backend.name} is not ready yet: try again.", retryable=True)
    history = partial(turns.histories.before, conversation_id, asked)
    turn = Turn(prepared.mode, asked, tuning, ask.visitor, history, partial(turns.summarizer.summary, conversation_id))
    options = options_of(backend, tuning, turns.settings.limits)
    kit = kit_on(backend, prepared.kit)
    given = await give(turns.settings, backend, turn, options.max_tokens, choosable(kit))
    messages, unknown = list(given.messages), False
    if kit.command:
        result, unknown = await _result(kit, kit.command)
        messages += [kit.command.message(), result]
    context = await context_of(backend, given, await call_messages(backend, given, kit.command, messages))
    if unknown and kit.command:
        note = f"What /{kit.command.tool} returns is not known before it runs."
        context = replace(context, estimated=True, note=" ".join(filter(None, (context.note, note))))
    limits = limits_of(turns.settings.memory, tuning, given.room, 0)
    return {
        "backend": backend.name,
        "model": backend.choice,
        "memory": prepared.mode.name,
        "parameters": {name: getattr(limits, name) for name in prepared.mode.parameters},
        **{field.name: getattr(context, field.name) for field in fields(context)},
        "fits": context.tokens <= given.room,
        "cost": _cost(backend, context.tokens, options),
    }


async def _result(kit: Kit, command: Command) -> tuple[ToolMessage, bool]:
    """The result of a command, and whether it is unknown: a tool is only run where that does nothing but compute."""
    tool = next(one for one in kit.tools if one.name == command.tool)
    call = command.message().tool_calls[0]
    named = {"tool_call_id": command.call_id, "name": command.tool, "id": "result"}
    if command.tool in kit.rules.approval or not (tool.metadata or {}).get(PURE):
        return ToolMessage(f"[the result of {command.tool}]", **named), True
    try:
        async with asyncio.timeout(kit.rules.seconds):
            found = plain_result(await tool.ainvoke(call), call, kit.rules.characters)
    except Exception as e:  # whatever a tool raises is its result in a run, too
        return ToolMessage(failure_text(error_of(e)), **named), False
    return ToolMessage(found.text, **named), False


async def _asked(turns: Turns, ask: Ask, message_id: str | None) -> Message:
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
    return Message("next", "user", checked_message(ask.message, turns.settings.limits), parent_id=head)


def _cost(backend: Backend, tokens: int, options: Options) -> JSON:
    """Tokens that are read, and at most written; in dollars where the settings name a price."""
    cost: JSON = {"input_tokens": tokens, "output_tokens": options.max_tokens, "money": None}
    if price := backend.settings.price:
        read, written = (each * n / 1e6 for each, n in zip(price, (tokens, options.max_tokens), strict=True))
        cost["money"] = {"input": round(read, 8), "output": round(written, 8), "currency": "USD"}
    return cost
