"""The agent loop: `create_agent`, followed event by event, with every model call's context told and bounded first."""

import asyncio
import gc
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from langchain_core.callbacks import adispatch_custom_event
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.tools import BaseTool

from agent.call_ids import CallIds
from agent.commands import Command, folded
from agent.context_event import build_context, context_too_long
from agent.event_mapper import CONTEXT, DIRECT_REPLY, MapperState, map_event, map_interruption
from agent.model_input import ModelInput
from agent.thinking_tags import CLOSE, Tags, without_thinking
from agent.tool_middleware import Rules, tool_middleware
from agent.tool_results import direct_reply
from backends import Backend
from backends.activity import report_activity
from backends.model_events import mapped_call_ids
from backends.openai_request import REASONING, SIGNATURES
from runs.contexts import abbreviate_context
from runs.events import Context, Event, ToolInput
from runs.text import valid_text
from runs.tool_calls import ToolCalls

if TYPE_CHECKING:  # langchain.agents costs two seconds of CPU: imported with the first turn, or warmed up before
    from langchain.agents.middleware import ModelRequest, ModelResponse

Place = Callable[[], AbstractAsyncContextManager[None]]

_LEAST = 64
"""Tokens that a result keeps, however little room there is."""
_SAFE = 0.9
"""Tokens are not spread evenly over a text."""


@dataclass(frozen=True, slots=True)
class ToolSet:
    """What a turn may do beside talking; `command` is done first. `rounds`: see `ToolSettings`."""

    tools: Sequence[BaseTool] = ()
    command: Command | None = None
    hidden: frozenset[str] = frozenset()
    """Tools that the command may use, and the model may not."""
    rules: Rules = field(default_factory=Rules)
    rounds: int = 8


def warm_up() -> None:
    """Imports what the first turn needs, and takes it out of garbage collection.

    All of it lives as long as the process. With it, every full collection held all pages and streams for 0.2 s.
    """
    import langchain.agents.middleware  # noqa: F401

    gc.freeze()


async def agent_events(
    model: BaseChatModel,
    backend: Backend,
    model_input: ModelInput,
    tool_set: ToolSet,
    calls: ToolCalls,
    place: Place = nullcontext,
    received: int = 0,
) -> AsyncGenerator[Event, None]:
    """Runs the agent on what it is given and yields its events; closing it ends the model's and the tools' own work.

    Each call of the model holds a `place` while it lasts. The run has `received` so many tokens in earlier attempts.

    Where the run is cut or stopped, the text of a reply that was taken for thinking comes before the exception.

    Raises RoundsError where the model calls tools more often than the kit allows.
    """
    from langchain.agents import create_agent

    direct = frozenset(tool.name for tool in tool_set.tools if tool.return_direct)
    rules = replace(tool_set.rules, direct=direct)
    known = (call["id"] for one in model_input.messages if isinstance(one, AIMessage) for call in one.tool_calls)
    ids, begun = CallIds(call_id for call_id in known if call_id), 0
    middleware = [
        _model_middleware(backend, model_input, tool_set, calls, place, direct, ids),
        tool_middleware(calls, rules),
    ]
    # LangChain would end the run without a reply: the model middleware makes the reply from the results instead
    tools = [
        tool.model_copy(update={"return_direct": False}) if tool.name in direct else tool for tool in tool_set.tools
    ]
    agent: Any = create_agent(model, tools, middleware=middleware, name="agent")
    seen = frozenset(str(m.id) for m in model_input.messages[:-1])
    notes = MapperState(seen=seen, counted=received, tags=known_tags(backend, model_input))
    limit = {"recursion_limit": 4 * (tool_set.rounds + 3)}  # ours is reached first, and says more
    stream = agent.astream_events({"messages": list(model_input.messages)}, version="v2", config=limit)
    async with aclosing(stream):
        try:
            async for raw in stream:
                if raw["event"] == "on_chat_model_stream":
                    report_activity()  # also where it holds nothing to tell
                begun += raw["event"] == "on_custom_event" and raw["name"] == CONTEXT
                found, notes = map_event(raw, notes, time.monotonic())
                if begun and raw["event"] != "on_custom_event":  # what a model tells by these is named already
                    found = [_renamed(event, ids, begun - 1) for event in found]
                if notes.thinks is not None:
                    backend.record_thinking(opened=notes.thinks)
                    notes = replace(notes, tags=known_tags(backend, model_input), thinks=None)
                for event in found:
                    yield event
        except (Exception, asyncio.CancelledError):  # raised again, once the text so far has been given out
            found, notes = map_interruption(notes)
            if notes.thinks is not None:
                backend.record_thinking(opened=notes.thinks)
            for event in found:
                yield event
            raise


def _renamed(event: Event, ids: CallIds, call: int) -> Event:
    """The event with the run's own id of a tool call that the model call of this number is writing."""
    if not isinstance(event, ToolInput):
        return event
    return replace(event, tool_call_id=ids.of(event.tool_call_id, call))


def known_tags(backend: Backend, model_input: ModelInput) -> Tags:
    """What is known of the thinking in a reply's text beforehand.

    A closing tag that nothing opens ends no thinking where the tag is spoken of in what the model is given.
    """
    opened = backend.opens_thinking
    learned = opened and backend.settings.thinking != "open"
    return Tags(
        opened=opened, learned=learned, watched=not any(CLOSE in message.text for message in model_input.messages)
    )


class RoundsError(Exception):
    """The model went on calling tools."""


def _model_middleware(
    backend: Backend,
    model_input: ModelInput,
    tool_set: ToolSet,
    calls: ToolCalls,
    place: Place,
    direct: frozenset[str],
    ids: CallIds,
) -> Any:
    """The middleware around each model call; `direct` names the tools whose result is the reply."""
    from langchain.agents.middleware import AgentMiddleware, ModelResponse

    class ModelMiddleware(AgentMiddleware[Any, Any, Any]):
        """Before each call: a command goes first; what the model is given is fitted, told, and refused if too long."""

        asked = 0
        told: Context | None = None

        async def awrap_model_call(
            self,
            request: "ModelRequest[Any]",
            handler: "Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]",
        ) -> "ModelResponse[Any]":
            self.asked += 1
            if (reply := direct_reply(request.messages, direct)) is not None:
                await adispatch_custom_event(DIRECT_REPLY, {"content": reply})
                return ModelResponse(result=[AIMessage(reply)])
            if tool_set.command and self.asked == 1:
                return ModelResponse(result=[tool_set.command.message()])
            if self.asked > tool_set.rounds + 1 + bool(tool_set.command):
                raise RoundsError
            messages = await call_messages(backend, model_input, tool_set.command, request.messages)
            context = await build_context(backend, model_input, messages)
            await adispatch_custom_event(CONTEXT, abbreviate_context(context, self.told))
            self.told = context
            if context.tokens > model_input.input_budget:
                raise context_too_long(backend, model_input, context)
            offered = [one for one in request.tools if getattr(one, "name", None) not in tool_set.hidden]
            tools = offered if backend.offers_tools else []
            tags = known_tags(backend, model_input)
            ids.begin()
            async with place():
                with mapped_call_ids(ids.of):
                    response = await handler(request.override(messages=cast(Any, messages), tools=tools))
            return _named(response, calls, ids, tags)

    return ModelMiddleware()


def _named(response: "ModelResponse[Any]", calls: ToolCalls, ids: CallIds, tags: Tags) -> "ModelResponse[Any]":
    """The response without thinking in its text, and with a name and an id for each tool call, unique in the run.

    A call whose arguments cannot be read is kept: it fails, and the model is told why.
    """
    result = list(response.result)
    for place, message in enumerate(result):
        if not isinstance(message, AIMessage):
            continue
        if isinstance(message.content, str):
            apart = bool(message.additional_kwargs.get("reasoning_content"))  # then the text has none
            known = replace(tags, opened=tags.opened and not apart, apart=apart)
            text = without_thinking(valid_text(message.content), known)
            result[place] = message = message.model_copy(update={"content": text})
        else:
            result[place] = message = message.model_copy(update={"content": _joined(message.content)})
        if fields := message.additional_kwargs.get(REASONING):  # a character may have come in two halves
            thinking = {name: valid_text(str(thought)) for name, thought in fields.items()}
            extra = {**message.additional_kwargs, REASONING: thinking}
            result[place] = message = message.model_copy(update={"additional_kwargs": extra})
        if not (message.tool_calls or message.invalid_tool_calls):
            continue
        made, signatures = list[dict[str, Any]](), dict(message.additional_kwargs.get(SIGNATURES) or {})
        for call in (*message.tool_calls, *message.invalid_tool_calls):
            call_id = ids.take(call["id"])
            if call["id"] in signatures and call["id"] not in {one["id"] for one in made}:
                signatures[call_id] = signatures.pop(str(call["id"]))
            args = _whole_texts(call["args"]) if isinstance(call["args"], dict) else {}
            if call["type"] == "invalid_tool_call":
                calls.invalid.add(call_id)
            made.append({"type": "tool_call", "name": call["name"] or "unnamed", "args": args, "id": call_id})
        extra = {**message.additional_kwargs, **({SIGNATURES: signatures} if signatures else {})}
        changed = {"tool_calls": made, "invalid_tool_calls": [], "additional_kwargs": extra}
        result[place] = message.model_copy(update=changed)
    return replace(response, result=result)


def _joined(blocks: Sequence[Any]) -> list[Any]:
    """Content blocks with neighbouring texts as one: a stream may put the halves of a character into two of them."""
    made: list[Any] = []
    for block in blocks:
        text = {"type": "text", "text": block} if isinstance(block, str) else block
        plain = text.keys() == {"type", "text"} and text["type"] == "text"
        if plain and made and made[-1].keys() == {"type", "text"}:
            made[-1] = {**made[-1], "text": made[-1]["text"] + text["text"]}
        else:
            made.append(text)
    return [
        {**block, "text": valid_text(block["text"])} if isinstance(block.get("text"), str) else block for block in made
    ]


def _whole_texts(value: Any) -> Any:
    """Arguments whose texts can be encoded: some models write half of a character."""
    match value:
        case str():
            return valid_text(value)
        case dict():
            return {valid_text(str(key)): _whole_texts(one) for key, one in value.items()}
        case list():
            return [_whole_texts(one) for one in value]
        case _:
            return value


async def call_messages(
    backend: Backend, model_input: ModelInput, command: Command | None, messages: Sequence[BaseMessage]
) -> list[BaseMessage]:
    """A run's messages so far as the model's next call is given them."""
    fitted = await _fitted(backend, model_input, messages)
    return folded(fitted, command) if command else fitted


async def _fitted(backend: Backend, model_input: ModelInput, messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """The messages with what came in this run as the model reads it, and cut where it would not fit.

    What came before it has been read and fitted already.
    """
    known = {m.id for m in model_input.messages}
    fresh = [m for m in messages if m.id not in known]
    if not fresh:
        return list(messages)
    spent = (await build_context(backend, model_input, [m for m in messages if m not in fresh])).tokens
    readings = await backend.count_tokens([m.text for m in fresh], model_input.key)
    share = max(_LEAST, (model_input.input_budget - spent) // len(fresh) - 2 * backend.template.user)
    share = min(share, backend.max_result_tokens or share)
    read = {}
    for message, reading in zip(fresh, readings, strict=True):
        text = reading.text
        if reading.tokens > share:
            kept = int(len(text) * share / reading.tokens * _SAFE)
            text = f"{text[:kept]}\n[cut: too long for this model]"
        if text != message.text:
            read[id(message)] = message.model_copy(update={"content": text})
    return [read.get(id(m), m) for m in messages]
