"""What one turn gives the model: selected by the memory mode, as the backend reads it, in a shape any model takes."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from backends import Backend
from memory.messages import Message, Tuning
from memory.modes import LeftOut, Limits, Mode
from runs import events
from runs.errors import ChatError
from settings import Settings

History = Callable[[], Awaitable[Sequence[Message]]]
"""Reads a conversation's messages, the one to be answered among them."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What is to be answered, however often that takes."""

    mode: Mode
    asked: Message
    tuning: Tuning
    visitor: str | None
    history: History


@dataclass(frozen=True, slots=True)
class Given:
    """What one turn gives the model: `messages` (the system prompt first), and what its memory mode left out.

    `room` is the most tokens that may be given in all.
    """

    messages: Sequence[BaseMessage]
    left_out: list[events.JSON]
    room: int
    memory: str


async def give(settings: Settings, backend: Backend, turn: Turn, reply_tokens: int) -> Given:
    """Selects the context: what the mode keeps of the history, as this backend reads it."""
    asked, prompt = turn.asked, turn.tuning.system_prompt
    if prompt is None:
        prompt = settings.system_prompt
    stored = await turn.history()
    history, unanswered = _answered(stored[: _place(stored, asked.id)])
    template = backend.template
    readings = await backend.read([m.text for m in history] + [asked.text, prompt])
    sized = [
        replace(m, text=r.text, tokens=r.tokens + template.message(m.role))
        for m, r in zip(history, readings, strict=False)
    ]
    message, system = readings[-2], readings[-1]
    prompted = bool(system.text.strip())
    spent = template.once(prompted=prompted) + message.tokens + template.message("user")
    if prompted:
        spent += system.tokens + template.message("system")
    room = backend.context - reply_tokens
    memory = settings.memory
    view = turn.mode.select(sized, Limits(room, spent, memory.window_turns, memory.token_limit))
    messages = [
        *_system(system.text),
        *_alternating([*(_for_model(m) for m in view.kept), HumanMessage(message.text, id=asked.id)]),
    ]
    left_out = [*unanswered, *view.left_out]
    return Given(messages, [_left_out(item) for item in left_out], room, turn.mode.name)


def _place(stored: Sequence[Message], message_id: str) -> int:
    for place, message in enumerate(stored):
        if message.id == message_id:
            return place
    raise ChatError("not_found", "This conversation was deleted meanwhile.")


def _answered(stored: Sequence[Message]) -> tuple[list[Message], list[LeftOut]]:
    """Without replies that failed before a word, and without what they should have answered: turns must alternate."""
    kept: list[Message] = []
    unanswered: list[LeftOut] = []
    for message, following in zip_longest(stored, stored[1:]):
        if message.text.strip():
            kept.append(message)
        elif kept and kept[-1].role == "user" and (following is None or following.role == "user"):
            unanswered.append(LeftOut(kept.pop(), "it was never answered"))
    return kept, unanswered


def _for_model(message: Message) -> BaseMessage:
    """A stored message for any model: not all know tools, or a system's word in the middle of a conversation."""
    match message.role:
        case "user":
            return HumanMessage(message.text, id=message.id)
        case "assistant":
            return AIMessage(message.text, id=message.id)
        case "system":
            return HumanMessage(f"[Instruction] {message.text}", id=message.id)
        case "tool":
            return HumanMessage(f"[Result of a tool] {message.text}", id=message.id)


def _alternating(messages: Sequence[BaseMessage]) -> list[BaseMessage]:
    """Messages of one side in a row become one, since many models refuse anything but turns that alternate."""
    joined: list[BaseMessage] = []
    for message in messages:
        if joined and joined[-1].type == message.type:
            before = joined.pop()
            message = type(message)(f"{before.text}\n\n{message.text}", id=message.id)
        joined.append(message)
    return joined


def _left_out(item: LeftOut) -> events.JSON:
    message = item.message
    return {"role": message.role, "content": message.text, "tokens": message.tokens, "reason": item.reason}


def _system(text: str) -> list[BaseMessage]:
    """The system prompt as the first message; none if it is blank."""
    return [SystemMessage(text, id="system")] if text.strip() else []
