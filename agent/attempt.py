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

from agent.loop import RoundsError, ToolSet, agent_events
from agent.model_input import ModelInput, TurnInput, build_model_input
from agent.retries import with_idle_timeout
from backends import Backend, Key, ModelOptions
from backends.errors import log_text
from memory.messages import TurnOptions
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


async def run_attempt(
    settings: Settings, run: LiveRun, backend: Backend, key: Key | None, turn: TurnInput, tool_set: ToolSet
) -> None:
    """Lets a backend answer, and lets it learn from how that went. Raises ChatError for what it knows to be its own."""
    await _wait_ready(run, backend, key)
    backend = backend.with_model(None, key)  # with what the provider has said of its models meanwhile
    run.report_backend(
        backend.name, backend.chosen_model, f"{backend.name} answers with its model {backend.chosen_model}"
    )
    begun, model_input = run.now(), None
    try:
        model_options, tool_set = (
            resolve_model_options(backend, turn.options, settings.limits),
            with_backend_tools(backend, tool_set),
        )
        model = backend.chat_model(model_options, key)
        backend.check_tools(model, offered_tools(tool_set))
        model_input = await build_model_input(
            settings, backend, turn, model_options.max_tokens, offered_tools(tool_set), key
        )
        if model_input.note:
            run.set_status("queued", model_input.note)
        await with_idle_timeout(run, backend, _stream(run, model, backend, model_input, model_options, tool_set))
    except Exception as e:
        told = backend.to_chat_error(e)
        if told is None:
            raise
        if not run.has_output:
            backend.record_outcome(key, told)
        if told is e:
            raise
        if logger.isEnabledFor(logging.INFO):
            words = [] if settings.log_messages else _words(run, turn, model_input)
            long = sum(map(len, words)) > _LONG
            text = await _THREADS.run(log_text, e, words) if long else log_text(e, words)
            logger.info("run %s: %s: %s", run.id, told.code, text)
        raise told from e
    backend.record_outcome(key, None, time_to_first_token(run.state, begun))


def time_to_first_token(state: AgentState, begun: float) -> float | None:
    """Seconds from a moment to the first visible piece, without those in which tools worked or a person was asked."""
    if state.first_token is None:
        return None
    ends = [*(one.start for one in state.phase_spans[1:]), state.first_token]
    others = sum(
        max(0.0, min(end, state.first_token) - max(one.start, begun))
        for one, end in zip(state.phase_spans, ends, strict=True)
        if one.phase in ("tool", "approval")
    )
    return round(max(0.0, state.first_token - begun - others), 3)


def _words(run: LiveRun, turn: TurnInput, model_input: ModelInput | None) -> list[str]:
    """What the request may hold of the visitor's: the provider may echo it."""
    messages = [message.text for message in model_input.messages] if model_input else []
    results = [entry.event.output for entry in run.log.entries if isinstance(entry.event, events.ToolEnd)]
    inputs = [str(entry.event.input) for entry in run.log.entries if isinstance(entry.event, events.ToolStart)]
    return [turn.asked.text, *messages, *results, *inputs, run.text]


def resolve_model_options(backend: Backend, options: TurnOptions, limits: LimitSettings) -> ModelOptions:
    """What a backend is asked for: at most half of its context is for the reply, and no more than its model writes."""
    most = min(options.max_tokens or limits.reply_tokens, backend.model_info.reply or limits.reply_tokens)
    temperature = options.temperature if "temperature" in backend.supported_options else None
    return ModelOptions(min(most, backend.context // 2), temperature)


def with_backend_tools(backend: Backend, tool_set: ToolSet) -> ToolSet:
    """The kit with a backend's own tools."""
    own = [one for one in backend.tools if one.name not in {tool.name for tool in tool_set.tools}]
    rules = replace(tool_set.rules, approval=tool_set.rules.approval | backend.approval)
    return replace(tool_set, tools=[*tool_set.tools, *own], rules=rules)


def offered_tools(tool_set: ToolSet) -> list[BaseTool]:
    """The tools that the model may choose."""
    return [tool for tool in tool_set.tools if tool.name not in tool_set.hidden]


async def _stream(
    run: LiveRun,
    model: BaseChatModel,
    backend: Backend,
    model_input: ModelInput,
    model_options: ModelOptions,
    tool_set: ToolSet,
) -> None:
    """Lets the agent answer, and bounds the reply of a backend that does not do so itself.

    One that says it does may have forgotten to: some LangChain classes have the field and do not send it.
    """
    cut = f"Cut at the longest reply, {model_options.max_tokens:,} tokens."
    use_threads(backend.threads)  # for a model whose class has no async methods
    most = model_options.max_tokens * (2 if "max_tokens" in backend.supported_options else 1)
    try:
        place = partial(backend.slots.acquire, partial(report_position, run, f"for {backend.name}"))
        received = run.state.tokens
        async with aclosing(
            agent_events(model, backend, model_input, tool_set, run.tool_calls, place, received)
        ) as found:
            async for event in found:
                run.emit(event)
                if isinstance(event, events.ModelEnd) and event.cut:  # one that ends by itself may be as long
                    by_us = (event.usage or {}).get("output_tokens", 0) >= model_options.max_tokens
                    theirs = f"Cut by {backend.name}: it writes no longer reply, or has no more room for it."
                    _note(run, cut if by_us else theirs)
                if isinstance(event, events.Token) and run.state.open_tokens >= most:
                    run.notes.append(cut)
                    run.request_stop("limit")
        if not run.text.strip() and not run.notes:
            _note(run, "The model ended its reply without a word.")
        run.notes.extend(backend.notices(model))
    except RoundsError:
        run.notes.append(f"Ended after {tool_set.rounds} rounds of tool calls, the most that one reply may take.")
        run.request_stop("limit")
        await asyncio.sleep(_LOADING_S)  # for the end to come


def _note(run: LiveRun, text: str) -> None:
    """What a reader of the reply should know of it: kept with it, and told to all who follow."""
    run.notes.append(text)
    run.set_status(run.state.phase, text)


def report_position(run: LiveRun, what: str, place: int) -> None:
    """A run that waits in a line says how far it is."""
    before = "you are the next" if place == 1 else f"{place - 1} before you"
    run.set_status("queued", f"In line {what}: {before}")


async def _wait_ready(run: LiveRun, backend: Backend, key: Key | None) -> None:
    """Waits for a backend that still loads, and says how far it is."""
    waiting = asyncio.create_task(backend.wait_ready(key))
    try:
        while not (await asyncio.wait({waiting}, timeout=_LOADING_S))[0]:
            health = backend.health(key)
            share = "" if health.progress is None else f", {health.progress:.0%}"
            run.set_status("queued", f"Loading {backend.name}{share}")
        await waiting
    finally:
        waiting.cancel()
