"""A preview of the model's input for a turn. Nothing is sent to a model or stored."""

import asyncio
from dataclasses import fields, replace

from langchain_core.messages import ToolMessage

from agent.attempt import model_options
from agent.commands import Command
from agent.context_event import build_context
from agent.model_input import build_model_input, mode_limits
from agent.model_middleware import call_messages
from agent.tool_middleware import error_text, failure_text
from agent.tool_results import plain_result
from agent.tool_set import ToolSet
from agent.tools.streaming import PURE
from agent.turn import TurnRequest
from agent.turns import Turns
from agent.validation import validate_message
from agent.visitor_documents import use_documents
from backends import Backend, ModelOptions
from backends.prices import cost_usd
from memory.messages import Message
from runs.errors import ChatError
from runs.events import JSON


async def preview(turns: Turns, request: TurnRequest, message_id: str | None = None) -> JSON:
    """Returns the fields of a `context` event, with {backend, memory, parameters, mode_options, fits, cost}.

    The turn is that of the request's message, of an earlier user message, or, with neither, the conversation's last.
    The caller has checked the conversation's owner. Raises ChatError.
    """
    message = await _message(turns, request, message_id)
    turn = turns.prepare(replace(request, message=message.text, conversation_id=None))
    owner = request.visitor
    if request.conversation_id:
        owner = (await turns.store.conversation(request.conversation_id, request.visitor)).owner
        turn = replace(turn, documents=turn.documents if owner else None)  # as in the turn itself
    backend = turn.backend
    if backend.is_local and not backend.health().ready:
        raise ChatError("backend_unavailable", f"{backend.name} is not ready yet: try again.", retryable=True)
    backend = backend.bind(None)  # no text leaves this machine
    turn = turns.with_history(turn, request.conversation_id or "", message, owner)
    options = model_options(backend, turn.options, turns.settings.limits)
    tool_set = ToolSet() if backend.runs_agent else turn.tool_set.with_backend_tools(backend)
    tool_set, found = await use_documents(turn.documents, backend, tool_set)
    offered = tool_set.offered
    model_input = await build_model_input(turns.settings, backend, turn, options, offered, found.passages)
    messages, unknown = list(model_input.messages), False
    if command := tool_set.command:
        result, unknown = await _result(tool_set, command)
        messages += [command.message(), result]
    context = await build_context(backend, model_input, await call_messages(backend, model_input, command, messages))
    if unknown and command:
        note = f"What /{command.tool} returns is not known before it runs."
        context = replace(context, estimated=True, note=" ".join(filter(None, (context.note, note))))
    limits = mode_limits(turns.settings.memory, turn.options, model_input.input_budget, 0)
    return {
        "backend": backend.name,
        "model": backend.chosen_model,
        "memory": turn.mode.name,
        "parameters": {name: getattr(limits, name) for name in turn.mode.parameters},
        "mode_options": {one.name: one.default for one in turn.mode.options} | dict(limits.options),
        **{field.name: getattr(context, field.name) for field in fields(context)},
        "fits": context.tokens <= model_input.input_budget,
        "cost": _cost(backend, context.tokens, options),
    }


async def _message(turns: Turns, request: TurnRequest, message_id: str | None) -> Message:
    """Returns the user message of the turn."""
    store, head = turns.store, None
    if request.conversation_id:
        head = (await store.conversation(request.conversation_id, request.visitor)).head
        if message_id is None and not request.message.strip() and head:
            history = await turns.histories.up_to(request.conversation_id, head)
            message_id = next((m.id for m in reversed(history.messages) if m.role == "user"), None)
        if message_id:
            message = await store.message(request.conversation_id, message_id)
            if message.role != "user":
                raise ChatError("invalid_request", "A turn begins with a user message: name one.")
            return message
    return Message("next", "user", validate_message(request.message, turns.settings.limits), parent_id=head)


async def _result(tool_set: ToolSet, command: Command) -> tuple[ToolMessage, bool]:
    """Returns the result of a command, and whether it is unknown: only a tool that just computes is run."""
    tool = next(one for one in tool_set.tools if one.name == command.tool)
    call = command.message().tool_calls[0]
    named = {"tool_call_id": command.call_id, "name": command.tool, "id": "result"}
    if command.tool in tool_set.approval or not (tool.metadata or {}).get(PURE):
        return ToolMessage(f"[the result of {command.tool}]", **named), True
    try:
        async with asyncio.timeout(tool_set.seconds):
            found = plain_result(await tool.ainvoke(call), call, tool_set.result_characters)
    except Exception as e:  # in a run, too, every exception of a tool becomes its result
        return ToolMessage(failure_text(error_text(e)), **named), False
    return ToolMessage(found.text, **named), False


def _cost(backend: Backend, tokens: int, options: ModelOptions) -> JSON:
    """Returns the tokens that are read and at most written; in dollars where the settings have a price."""
    cost: JSON = {"input_tokens": tokens, "output_tokens": options.max_tokens, "money": None}
    if price := backend.settings.price:
        read, written = cost_usd(price, tokens, 0), cost_usd(price, 0, options.max_tokens)
        cost["money"] = {"input": read, "output": written, "currency": "USD"}
    return cost
