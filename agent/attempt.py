"""One attempt of one backend at a reply: wait until it is ready, build its input, run the agent, bound the reply."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from langchain_core.language_models import BaseChatModel

from agent.agui_run import agui_events
from agent.graph_run import graph_events
from agent.loop import agent_events
from agent.model_input import ModelInput, build_model_input
from agent.model_middleware import RoundsError
from agent.retries import with_idle_timeout
from agent.thinking_end import EndableThinking
from agent.tool_set import ToolSet
from agent.tools.documents import numbered_passages
from agent.turn import Turn
from agent.visitor_documents import report_passages, use_documents
from backends import Backend, ModelOptions
from backends.agent import AgentBackend
from backends.agui import AguiBackend
from backends.errors import log_text
from backends.foreign_agent import ForeignAgent
from memory.history_cache import History
from memory.options import TurnOptions
from runs import events
from runs.errors import ChatError
from runs.live import LiveRun
from runs.state import AgentState
from runs.threads import Threads, use_threads
from settings import LimitSettings, Settings

logger = logging.getLogger(__name__)

_LOADING_S = 0.5
_LONG_TEXTS = 20_000
"""Characters of a visitor's texts from which on they are removed from a provider's error in a thread."""
_THREADS = Threads("provider errors", 1)


async def run_attempt(settings: Settings, run: LiveRun, backend: Backend, turn: Turn) -> None:
    """Lets a backend answer a turn, and records the outcome with the backend. Raises ChatError."""
    await _wait_ready(run, backend)
    backend = backend.with_model(None)  # the provider may have listed its models meanwhile
    run.report_backend(
        backend.name, backend.chosen_model, f"{backend.name} answers with its model {backend.chosen_model}"
    )
    started, model_input = run.now(), None
    try:
        options = model_options(backend, turn.options, settings.limits, turn.logprobs)
        options = replace(options, conversation=run.conversation_id, continues=bool(turn.reply_start))
        tool_set, model = ToolSet(), None
        if not isinstance(backend, ForeignAgent):
            tool_set, model = turn.tool_set.with_backend_tools(backend), backend.chat_model(options)
            backend.check_tools(model, tool_set.offered)
        tool_set, found = await use_documents(turn.documents, backend, tool_set)
        offered = tool_set.offered
        model_input = await build_model_input(settings, backend, turn, options, offered, found.passages)
        report_passages(run, turn.message.text, found, model_input.passages.passages)
        if turn.logprobs is not None and not backend.reports_logprobs:
            run.set_status("queued", f"{backend.name} does not report the probabilities of its tokens")
        if model_input.note:
            run.set_status("queued", model_input.note)
        if isinstance(backend, ForeignAgent):
            stream = _stream_agent(run, backend, turn, model_input, options.max_tokens)
        else:
            assert model is not None
            stream = _stream(run, model, backend, model_input, options, tool_set, turn.reply_start)
        with numbered_passages():
            await with_idle_timeout(run, backend, stream)
    except Exception as e:
        error = backend.to_chat_error(e)
        if error is None:
            raise
        if not run.has_output:
            backend.record_outcome(error)
        if error is e:
            raise
        if logger.isEnabledFor(logging.INFO):
            texts = [] if settings.log_messages else _visitor_texts(run, turn, model_input)
            long = sum(map(len, texts)) > _LONG_TEXTS
            text = await _THREADS.run(log_text, e, texts) if long else log_text(e, texts)
            logger.info("run %s: %s: %s", run.id, error.code, text)
        raise _with_hint(error, backend, model_input) from e
    backend.record_outcome(None, time_to_first_token(run.state, started))


def _with_hint(error: ChatError, backend: Backend, model_input: ModelInput | None) -> ChatError:
    """Returns a provider's error with what may be its cause, where images were sent to a model that may take none."""
    if error.code != "invalid_request" or backend.images is not None or not (model_input and model_input.images):
        return error
    hint = f"It had images, which {backend.name} may not take: choose another model, or a memory mode that gives none."
    return ChatError(error.code, f"{error.message} {hint}", retryable=error.retryable, retry_after=error.retry_after)


def time_to_first_token(state: AgentState, started: float) -> float | None:
    """Returns the seconds from `started` to the first visible output, without those of tools and approvals."""
    if state.first_token is None:
        return None
    ends = [*(one.start for one in state.phase_spans[1:]), state.first_token]
    others = sum(
        max(0.0, min(end, state.first_token) - max(one.start, started))
        for one, end in zip(state.phase_spans, ends, strict=True)
        if one.phase in ("tool", "approval")
    )
    return round(max(0.0, state.first_token - started - others), 3)


def model_options(
    backend: Backend, options: TurnOptions, limits: LimitSettings, logprobs: int | None = None
) -> ModelOptions:
    """Returns the options of the model: the max reply length is at most half of its context."""
    most = min(options.max_tokens or limits.reply_tokens, backend.model_info.reply or limits.reply_tokens)
    temperature = options.temperature if "temperature" in backend.supported_options else None
    thinking = options.thinking if "thinking" in backend.supported_options else None
    return ModelOptions(min(most, backend.context // 2), temperature, logprobs, thinking)


def report_position(run: LiveRun, what: str, position: int) -> None:
    """Reports the position of a run that waits for `what`."""
    ahead = "you are next" if position == 1 else f"{position - 1} ahead of you"
    run.set_status("queued", f"Waiting for {what}: {ahead}")


async def _wait_ready(run: LiveRun, backend: Backend) -> None:
    """Waits for a backend that is loading, and reports its progress."""
    waiting = asyncio.create_task(backend.wait_ready())
    try:
        while not (await asyncio.wait({waiting}, timeout=_LOADING_S))[0]:
            health = backend.health()
            share = "" if health.progress is None else f", {health.progress:.0%}"
            run.set_status("queued", f"Loading {backend.name}{share}")
        await waiting
    finally:
        waiting.cancel()


async def _stream(
    run: LiveRun,
    model: BaseChatModel,
    backend: Backend,
    model_input: ModelInput,
    options: ModelOptions,
    tool_set: ToolSet,
    reply_start: str,
) -> None:
    """Runs the agent and ends a reply that grows too long; `reply_start` is sent with the model's first text.

    A backend that supports `max_tokens` gets twice as many before that: some LangChain classes have the field and do
    not send it.
    """
    cut = f"Cut at the max reply length, {options.max_tokens:,} tokens."
    use_threads(backend.threads)  # for a model whose class has no async methods
    most = options.max_tokens * (2 if "max_tokens" in backend.supported_options else 1)
    slot = partial(backend.slots.acquire, partial(report_position, run, backend.name))
    received = run.state.tokens + bool(reply_start)  # what the reply begins with counts as one, so that the count grows
    try:
        thinking = None
        if backend.continues_replies and not options.continues:
            thinking = EndableThinking(run.thinking, backend.chat_model(replace(options, continues=True)))
        found = agent_events(
            model,
            backend,
            model_input,
            tool_set,
            run.tool_calls,
            slot,
            received,
            options.logprobs,
            run.requests,
            thinking,
        )
        async with aclosing(found):
            async for event in found:
                if reply_start and isinstance(event, events.Token | events.Reasoning | events.ModelEnd):
                    run.emit(events.Token(reply_start, received, begins=True))
                    reply_start = ""
                run.emit(event)
                if isinstance(event, events.ModelEnd) and event.cut:  # one that ends by itself may be as long
                    by_us = (event.usage or {}).get("output_tokens", 0) >= options.max_tokens
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
        await asyncio.sleep(_LOADING_S)  # the run is cancelled meanwhile


async def _stream_agent(
    run: LiveRun, backend: ForeignAgent, turn: Turn, model_input: ModelInput, max_tokens: int
) -> None:
    """Runs an agent of its own, and ends a reply that grows too long."""
    use_threads(backend.threads)
    history = await turn.load_history()
    async with backend.slots.acquire(partial(report_position, run, backend.name)):
        async with aclosing(_agent_events(run, backend, history, model_input)) as found:
            async for event in found:
                run.emit(event)
                if isinstance(event, events.Token) and run.state.open_tokens >= max_tokens:
                    run.notes.append(f"Cut at the max reply length, {max_tokens:,} tokens.")
                    run.request_stop("limit")
    if not run.text.strip() and not run.notes:
        _note(run, "The agent ended without a word.")


def _agent_events(
    run: LiveRun, backend: ForeignAgent, history: History, model_input: ModelInput
) -> AsyncGenerator[events.Event, None]:
    if isinstance(backend, AguiBackend):
        replied = next((one.run_id for one in reversed(history.messages) if one.role == "assistant"), None)
        return agui_events(backend, run, model_input, replied)
    assert isinstance(backend, AgentBackend)
    return graph_events(backend, run, model_input)


def _note(run: LiveRun, text: str) -> None:
    """Stores a sentence with the reply, and reports it to the run's followers."""
    run.notes.append(text)
    run.set_status(run.state.phase, text)


def _visitor_texts(run: LiveRun, turn: Turn, model_input: ModelInput | None) -> list[str]:
    """Returns the visitor's texts in the request, which the provider's error may repeat."""
    messages: list[str] = [message.text for message in model_input.messages] if model_input else []
    messages += model_input.images.values() if model_input else ()
    results = [entry.event.output for entry in run.log.entries if isinstance(entry.event, events.ToolEnd)]
    inputs = [str(entry.event.input) for entry in run.log.entries if isinstance(entry.event, events.ToolStart)]
    return [turn.message.text, *messages, *results, *inputs, run.text]
