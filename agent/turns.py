"""Turns: everything between a message that arrives and a reply that is stored, the same for the page and every
transport.
"""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from agent.loop import Given, agent_events, system_message
from agent.saving import ReplySaver
from backends import Backend, Backends, Options
from memory.messages import Message
from memory.modes import LeftOut, Limits, Mode, get_mode
from memory.store import Store
from memory.text import clean
from runs import events
from runs.errors import ChatError
from runs.live import Lifetime, LiveRun, new_id
from runs.registry import Runs
from settings import Settings

logger = logging.getLogger(__name__)

_LOADING_S = 0.5


@dataclass(frozen=True, slots=True)
class Ask:
    """A message and how it is to be answered; None takes what is configured. `visitor` is who asks, None without
    cookie.

    With `instead_of`, the id of an earlier message of the user's, that message and all after it give way to this one.
    """

    message: str
    visitor: str | None = None
    conversation_id: str | None = None
    backend: str | None = None
    memory: str | None = None
    instead_of: str | None = None


class Turns:
    """Starts runs. One for the whole app."""

    def __init__(self, settings: Settings, backends: Backends, store: Store, runs: Runs) -> None:
        self.settings, self.backends, self.store, self.runs = settings, backends, store, runs
        limits = settings.limits
        self._lifetime = Lifetime(limits.run_seconds, limits.abandoned_seconds, limits.stall_seconds)

    async def start(self, ask: Ask) -> LiveRun:
        """Checks and stores the message, and starts its run. Raises ChatError, and then nothing has happened."""
        text = self._checked(ask.message)
        backend = self.backends.get(ask.backend or self.backends.first.name)
        mode = get_mode(ask.memory or self.settings.memory.default)
        owner = ask.visitor
        if ask.conversation_id:
            owner = (await self.store.conversation(ask.conversation_id, ask.visitor)).owner
        conversation_id = ask.conversation_id or new_id()
        run = LiveRun(
            conversation_id=conversation_id,
            backend=backend.name,
            memory=mode.name,
            owner=owner,
            lifetime=self._lifetime,
        )
        self.runs.add(run)
        try:
            new = ask.conversation_id is None
            asked, reply = await self.store.begin_turn(run, text, new=new, instead_of=ask.instead_of)
        except BaseException:
            self.runs.discard(run)
            raise

        saver = ReplySaver(self.store, reply)

        async def work(run: LiveRun) -> None:
            following = asyncio.create_task(saver.follow(run), name=f"grow {run.id}")
            try:
                await self._answer(run, backend, mode, asked)
            finally:
                following.cancel()
                await asyncio.wait({following})

        run.start(work, saver.end)
        return run

    async def delete(self, conversation_id: str) -> None:
        """Deletes a conversation, and ends its live run first. The caller has checked whose it is."""
        if run := self.runs.of(conversation_id):
            run.discarded = True
            await run.stop("user")
        with self.runs.hold(conversation_id):
            await self.store.delete(conversation_id)

    def _checked(self, message: str) -> str:
        most = self.settings.limits.message_characters
        if len(message) > most:
            raise ChatError("too_large", f"Your message has {len(message):,} characters; at most {most:,} can be sent.")
        text = clean(message).strip("\n")
        if not text.strip():
            raise ChatError("invalid_request", "The message is empty: write something first.")
        return text

    async def _answer(self, run: LiveRun, backend: Backend, mode: Mode, asked: Message) -> None:
        try:
            await _wait_ready(run, backend)
            reply_tokens = min(self.settings.limits.reply_tokens, backend.context // 2)
            given = await self._given(run, backend, mode, asked, reply_tokens)
            model = backend.chat_model(Options(max_tokens=reply_tokens))
            async with aclosing(agent_events(model, backend, given)) as found:
                async for event in found:
                    run.emit(event)
        except Exception as e:
            told = backend.error(e)
            if told is None or told is e:
                raise
            logger.info("run %s: %s: %s", run.id, told.code, type(e).__name__)
            raise told from e

    async def _given(self, run: LiveRun, backend: Backend, mode: Mode, asked: Message, reply_tokens: int) -> Given:
        """Selects the context: what the mode keeps of the history, as this backend reads it."""
        stored = await self.store.history(run.conversation_id)
        history, unanswered = _answered(stored[: _place(stored, asked.id)])
        prompt, template = self.settings.system_prompt, backend.template
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
        memory = self.settings.memory
        view = mode.select(sized, Limits(room, spent, memory.window_turns, memory.token_limit))
        messages = [
            *system_message(system.text),
            *(_for_model(m) for m in view.kept),
            HumanMessage(message.text, id=asked.id),
        ]
        left_out = [*unanswered, *view.left_out]
        return Given(messages, [_left_out(item) for item in left_out], room, mode.name)


async def _wait_ready(run: LiveRun, backend: Backend) -> None:
    """Waits for a backend that still loads, and says how far it is."""
    waiting = asyncio.create_task(backend.wait_ready())
    try:
        while not (await asyncio.wait({waiting}, timeout=_LOADING_S))[0]:
            progress = backend.health.progress
            share = "" if progress is None else f", {progress:.0%}"
            run.say("queued", f"Loading {backend.name}{share}")
        await waiting
    finally:
        waiting.cancel()


def _place(stored: Sequence[Message], message_id: str) -> int:
    for place, message in enumerate(stored):
        if message.id == message_id:
            return place
    raise ChatError("not_found", "This conversation was deleted meanwhile.")


def _answered(stored: Sequence[Message]) -> tuple[list[Message], list[LeftOut]]:
    """Without replies that failed before a word, and without what they should have answered: turns must alternate."""
    kept: list[Message] = []
    unanswered: list[LeftOut] = []
    for message in stored:
        if message.text.strip():
            kept.append(message)
        elif kept and kept[-1].role == "user":
            unanswered.append(LeftOut(kept.pop(), "it was never answered"))
    return kept, unanswered


def _for_model(message: Message) -> BaseMessage:
    match message.role:
        case "user":
            return HumanMessage(message.text, id=message.id)
        case "assistant":
            return AIMessage(message.text, id=message.id)
        case "system" | "tool":
            return SystemMessage(message.text, id=message.id)


def _left_out(item: LeftOut) -> events.JSON:
    message = item.message
    return {"role": message.role, "content": message.text, "tokens": message.tokens, "reason": item.reason}
