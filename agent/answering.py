"""One backend's answer to one turn: it is waited for, given its context, streamed, and bounded where it does not bound
itself; what it fails with becomes our errors.
"""

import asyncio
import logging
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from langchain_core.language_models import BaseChatModel
from langchain_core.tools import BaseTool

from agent.attempts import while_heard
from agent.given import Given, Turn, give
from agent.loop import Kit, RoundsError, agent_events
from backends import Backend, Key, Options
from backends.errors import logged
from memory.messages import Tuning
from runs import events
from runs.live import LiveRun
from runs.state import AgentState
from runs.threads import Threads, use_threads
from settings import LimitSettings, Settings

logger = logging.getLogger(__name__)

_LOADING_S = 0.5
_LONG = 20_000
"""Characters of a visitor's words; the search for more of them in a provider's error would hold up the event loop."""
_THREADS = Threads("provider errors", 1)


async def answer(settings: Settings, run: LiveRun, backend: Backend, key: Key | None, turn: Turn, kit: Kit) -> None:
    """Lets a backend answer, and lets it learn from how that went. Raises ChatError for what it knows to be its own."""
    await _wait_ready(run, backend, key)
    backend = backend.with_model(None, key)  # with what the provider has said of its models meanwhile
    run.name_backend(backend.name, backend.choice, f"{backend.name} answers with its model {backend.choice}")
    begun, given = run.now(), None
    try:
        options, kit = options_of(backend, turn.tuning, settings.limits), kit_on(backend, kit)
        model = backend.chat_model(options, key)
        backend.check_tools(model, choosable(kit))
        given = await give(settings, backend, turn, options.max_tokens, choosable(kit), key)
        if given.note:
            run.say("queued", given.note)
        await while_heard(run, backend, _stream(run, model, backend, given, options, kit))
    except Exception as e:
        told = backend.error(e)
        if told is None:
            raise
        if not run.spoke:
            backend.learn(key, told)
        if told is e:
            raise
        if logger.isEnabledFor(logging.INFO):
            words = [] if settings.log_messages else _words(run, turn, given)
            long = sum(map(len, words)) > _LONG
            text = await _THREADS.run(logged, e, words) if long else logged(e, words)
            logger.info("run %s: %s: %s", run.id, told.code, text)
        raise told from e
    backend.learn(key, None, time_to_first_token(run.state, begun))


def time_to_first_token(state: AgentState, begun: float) -> float | None:
    """Seconds from a moment to the first visible piece, without those in which tools worked or a person was asked."""
    if state.first_token is None:
        return None
    ends = [*(one.start for one in state.stretches[1:]), state.first_token]
    others = sum(
        max(0.0, min(end, state.first_token) - max(one.start, begun))
        for one, end in zip(state.stretches, ends, strict=True)
        if one.phase in ("tool", "approval")
    )
    return round(max(0.0, state.first_token - begun - others), 3)


def _words(run: LiveRun, turn: Turn, given: Given | None) -> list[str]:
    """What the request may hold of the visitor's: the provider may echo it."""
    messages = [message.text for message in given.messages] if given else []
    results = [entry.event.output for entry in run.log.entries if isinstance(entry.event, events.ToolEnd)]
    inputs = [str(entry.event.input) for entry in run.log.entries if isinstance(entry.event, events.ToolStart)]
    return [turn.asked.text, *messages, *results, *inputs, run.text]


def options_of(backend: Backend, tuning: Tuning, limits: LimitSettings) -> Options:
    """What a backend is asked for: at most half of its context is for the reply, and no more than its model writes."""
    most = min(tuning.max_tokens or limits.reply_tokens, backend.facts.reply or limits.reply_tokens)
    temperature = tuning.temperature if "temperature" in backend.takes else None
    return Options(min(most, backend.context // 2), temperature)


def kit_on(backend: Backend, kit: Kit) -> Kit:
    """The kit with a backend's own tools."""
    own = [one for one in backend.tools if one.name not in {tool.name for tool in kit.tools}]
    rules = replace(kit.rules, approval=kit.rules.approval | backend.approval)
    return replace(kit, tools=[*kit.tools, *own], rules=rules)


def choosable(kit: Kit) -> list[BaseTool]:
    """The tools that the model may choose."""
    return [tool for tool in kit.tools if tool.name not in kit.hidden]


async def _stream(
    run: LiveRun, model: BaseChatModel, backend: Backend, given: Given, options: Options, kit: Kit
) -> None:
    """Lets the agent answer, and bounds the reply of a backend that does not do so itself.

    One that says it does may have forgotten to: some LangChain classes have the field and do not send it.
    """
    cut = f"Cut at the longest reply, {options.max_tokens:,} tokens."
    use_threads(backend.threads)  # for a model whose class has no async methods
    most = options.max_tokens * (2 if "max_tokens" in backend.takes else 1)
    try:
        place = partial(backend.line.place, partial(tell_place, run, f"for {backend.name}"))
        received = run.state.tokens
        async with aclosing(agent_events(model, backend, given, kit, run.calls, place, received)) as found:
            async for event in found:
                run.emit(event)
                if isinstance(event, events.ModelEnd) and event.cut:  # one that ends by itself may be as long
                    by_us = (event.usage or {}).get("output_tokens", 0) >= options.max_tokens
                    theirs = f"Cut by {backend.name}: it writes no longer reply, or has no more room for it."
                    _note(run, cut if by_us else theirs)
                if isinstance(event, events.Token) and run.state.pieces >= most:
                    run.notes.append(cut)
                    run.end_soon("limit")
        if not run.text.strip() and not run.notes:
            _note(run, "The model ended its reply without a word.")
        run.notes.extend(backend.notices(model))
    except RoundsError:
        run.notes.append(f"Ended after {kit.rounds} rounds of tool calls, the most that one reply may take.")
        run.end_soon("limit")
        await asyncio.sleep(_LOADING_S)  # for the end to come


def _note(run: LiveRun, text: str) -> None:
    """What a reader of the reply should know of it: kept with it, and told to all who follow."""
    run.notes.append(text)
    run.say(run.state.phase, text)


def tell_place(run: LiveRun, what: str, place: int) -> None:
    """A run that waits in a line says how far it is."""
    before = "you are the next" if place == 1 else f"{place - 1} before you"
    run.say("queued", f"In line {what}: {before}")


async def _wait_ready(run: LiveRun, backend: Backend, key: Key | None) -> None:
    """Waits for a backend that still loads, and says how far it is."""
    waiting = asyncio.create_task(backend.wait_ready(key))
    try:
        while not (await asyncio.wait({waiting}, timeout=_LOADING_S))[0]:
            health = backend.health(key)
            share = "" if health.progress is None else f", {health.progress:.0%}"
            run.say("queued", f"Loading {backend.name}{share}")
        await waiting
    finally:
        waiting.cancel()
