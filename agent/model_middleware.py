"""The middleware around each model call: its input is fitted into the context and shown, its output is cleaned."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from langchain_core.callbacks import adispatch_custom_event
from langchain_core.messages import AIMessage, BaseMessage

from agent.call_ids import CallIds
from agent.commands import Command, folded
from agent.context_event import build_context, context_too_long
from agent.event_mapper import DIRECT_REPLY, THINKING_ENDED, dispatch_event
from agent.image_blocks import with_data, without_data
from agent.model_input import REPLY_START, ModelInput
from agent.thinking_end import EndableThinking, answer_input
from agent.thinking_tags import Tags, without_thinking
from agent.tool_results import direct_reply
from agent.tool_set import ToolSet
from backends import Backend
from backends.activity import request_listener
from backends.model_events import mapped_call_ids
from backends.openai_request import REASONING, SIGNATURES
from runs.contexts import abbreviate_context
from runs.events import Context
from runs.sent_requests import SentRequests
from runs.text import valid_text
from runs.thinking_control import ThinkingEndedError
from runs.tool_calls import ToolCalls

if TYPE_CHECKING:  # langchain.agents costs two seconds of CPU: imported with the first turn, or warmed up before
    from langchain.agents.middleware import ModelRequest, ModelResponse

EnterSlot = Callable[[], AbstractAsyncContextManager[None]]

STATE_MESSAGES = 100
"""Messages that the agent's state begins with: the latest ones, which are all that a tool can read in the state.

LangGraph goes through the state several times for each step. The model is given the earlier messages too.
"""
_LEAST_RESULT_TOKENS = 64
"""Tokens that a result keeps, however small the budget."""
_SAFE = 0.9
"""Share of a text's characters that is kept of those that would fit on average: tokens are not spread evenly."""


class RoundsError(Exception):
    """The model called tools in more rounds than one reply may have."""


def initial_tags(backend: Backend, model_input: ModelInput) -> Tags:
    """Returns what is known of the thinking in a reply's text before the reply begins.

    A closing tag that nothing opens does not end thinking where the input itself contains the tag.
    """
    if model_input.messages and model_input.messages[-1].id == REPLY_START:
        return Tags(watched=False)  # the template opens thinking only for a reply that has not begun
    opened = backend.opens_thinking
    learned = opened and backend.settings.thinking != "open"
    return Tags(opened=opened, learned=learned, watched=not model_input.closing_tag)


def model_middleware(
    backend: Backend,
    model_input: ModelInput,
    tool_set: ToolSet,
    calls: ToolCalls,
    slot: EnterSlot,
    ids: CallIds,
    requests: SentRequests,
    thinking: EndableThinking | None = None,
) -> Any:
    """Returns the middleware that prepares each model call and names the tool calls in its response.

    A call whose thinking is ended is followed by one that answers.
    """
    from langchain.agents.middleware import AgentMiddleware, ModelResponse

    direct, command = tool_set.direct, tool_set.command
    earlier = model_input.messages[:-STATE_MESSAGES]

    class ModelMiddleware(AgentMiddleware[Any, Any, Any]):
        """Runs a command first; fits, shows and bounds the input of each call."""

        rounds = 0
        context: Context | None = None

        async def awrap_model_call(
            self,
            request: "ModelRequest[Any]",
            handler: "Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]",
        ) -> "ModelResponse[Any]":
            self.rounds += 1
            if (reply := direct_reply(request.messages, direct)) is not None:
                await adispatch_custom_event(DIRECT_REPLY, {"content": reply})
                return ModelResponse(result=[AIMessage(reply)])
            if command and self.rounds == 1:
                return ModelResponse(result=[command.message()])
            if self.rounds > tool_set.rounds + 1 + bool(command):
                raise RoundsError
            messages = await call_messages(backend, model_input, command, [*earlier, *request.messages])
            await self.begin_call(model_input, messages)
            offered = [one for one in request.tools if getattr(one, "name", None) not in tool_set.hidden]
            tools = offered if backend.offers_tools else []
            tags = initial_tags(backend, model_input)
            with_images = with_data(messages, model_input.images)
            prepared = request.override(messages=cast(Any, with_images), tools=tools)
            keep = partial(_keep_request, backend, requests, model_input.images)
            async with slot():
                with mapped_call_ids(ids.of), request_listener(keep):
                    if thinking is None:
                        response = await handler(prepared)
                    else:
                        try:
                            response = await thinking.control.run(handler(prepared))
                        except ThinkingEndedError as e:
                            tags = Tags(watched=False)
                            await adispatch_custom_event(THINKING_ENDED, {})
                            given, messages = await answer_input(backend, model_input, messages, e.thought)
                            await self.begin_call(given, messages)
                            answering = prepared.override(messages=cast(Any, messages), model=thinking.model)
                            response = await handler(answering)
            result = [_cleaned(one, calls, ids, tags) for one in response.result]
            return replace(response, result=result)

        async def begin_call(self, given: ModelInput, messages: Sequence[BaseMessage]) -> None:
            """Shows the context of a call. Raises ChatError if it is too long."""
            context = await build_context(backend, given, messages)
            await dispatch_event(abbreviate_context(context, self.context))
            requests.begin_call()
            self.context = context
            if context.tokens > given.input_budget:
                raise context_too_long(backend, given, context)
            ids.begin()

    return ModelMiddleware()


def _keep_request(backend: Backend, requests: SentRequests, images: Mapping[str, str], body: bytes) -> None:
    """Keeps the body of a request without the data of images, unless it contains the key."""
    requests.add(b"" if backend.key and backend.key.is_in(body) else without_data(body, images))


async def call_messages(
    backend: Backend, model_input: ModelInput, command: Command | None, messages: Sequence[BaseMessage]
) -> list[BaseMessage]:
    """Returns a run's messages so far as the model's next call gets them."""
    fitted = await _fitted(backend, model_input, messages)
    return folded(fitted, command) if command else fitted


async def _fitted(backend: Backend, model_input: ModelInput, messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Returns the messages with those of this run as the backend reads them, cut where they would not fit."""
    known = {m.id for m in model_input.messages}
    fresh = [m for m in messages if m.id not in known]
    if not fresh:
        return list(messages)
    given = [m for m in messages if m.id in known]
    spent = (await build_context(backend, model_input, given)).tokens
    readings = await backend.count_tokens([m.text for m in fresh])
    share = max(_LEAST_RESULT_TOKENS, (model_input.input_budget - spent) // len(fresh) - 2 * backend.template.user)
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


def _cleaned(message: BaseMessage, calls: ToolCalls, ids: CallIds, tags: Tags) -> BaseMessage:
    """Returns a response without thinking in its text, and with a name and a unique id for each tool call."""
    if not isinstance(message, AIMessage):
        return message
    extra = dict(message.additional_kwargs)
    if isinstance(message.content, str):
        apart = bool(extra.get("reasoning_content"))  # then the text has no thinking
        known = replace(tags, opened=tags.opened and not apart, apart=apart)
        content: Any = without_thinking(valid_text(message.content), known)
    else:
        content = _joined(message.content)
    if fields := extra.get(REASONING):  # a character may have come in two halves
        extra[REASONING] = {name: valid_text(str(thought)) for name, thought in fields.items()}
    changed: dict[str, Any] = {"content": content, "additional_kwargs": extra}
    if message.tool_calls or message.invalid_tool_calls:
        changed |= {"tool_calls": _named_calls(message, extra, calls, ids), "invalid_tool_calls": []}
    return message.model_copy(update=changed)


def _named_calls(message: AIMessage, extra: dict[str, Any], calls: ToolCalls, ids: CallIds) -> list[dict[str, Any]]:
    """Returns the tool calls with ids of the run; `extra` gets the provider's signatures under these ids.

    A call with unreadable arguments is kept: it fails, and the model gets the reason.
    """
    made, signatures = list[dict[str, Any]](), dict(extra.get(SIGNATURES) or {})
    for call in (*message.tool_calls, *message.invalid_tool_calls):
        call_id = ids.take(call["id"])
        if call["id"] in signatures and call["id"] not in {one["id"] for one in made}:
            signatures[call_id] = signatures.pop(str(call["id"]))
        args = _valid_texts(call["args"]) if isinstance(call["args"], dict) else {}
        if call["type"] == "invalid_tool_call":
            calls.invalid.add(call_id)
        made.append({"type": "tool_call", "name": call["name"] or "unnamed", "args": args, "id": call_id})
    if signatures:
        extra[SIGNATURES] = signatures
    return made


def _joined(blocks: Sequence[Any]) -> list[Any]:
    """Joins neighbouring text blocks: a stream may put the halves of a character into two of them."""
    made: list[Any] = []
    for block in blocks:
        text = {"type": "text", "text": block} if isinstance(block, str) else block
        plain = text.keys() == {"type", "text"} and text["type"] == "text"
        if plain and made and made[-1].keys() == {"type", "text"}:
            made[-1] = {**made[-1], "text": made[-1]["text"] + text["text"]}
        else:
            made.append(text)
    return [{**one, "text": valid_text(one["text"])} if isinstance(one.get("text"), str) else one for one in made]


def _valid_texts(value: Any) -> Any:
    """Replaces half characters in the texts of arguments, which could not be encoded."""
    match value:
        case str():
            return valid_text(value)
        case dict():
            return {valid_text(str(key)): _valid_texts(one) for key, one in value.items()}
        case list():
            return [_valid_texts(one) for one in value]
        case _:
            return value
