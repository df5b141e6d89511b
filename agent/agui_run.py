"""One turn of a remote agent: it is sent the messages and followed, and its interrupts wait for the visitor.

Each interrupt ends a run of the agent; the answer begins the next one, in the same thread.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any
from uuid import uuid4

from agent.agui_fields import merged
from agent.agui_interrupts import ask, read_interrupts
from agent.agui_mapper import AguiMapper
from agent.agui_transcript import Transcript
from agent.context_event import build_context, context_too_long
from agent.interrupts import Resume
from agent.model_input import ModelInput
from backends.agui import AguiBackend
from backends.agui_client import NoAgent, RunCut
from runs.events import JSON, Event
from runs.live import LiveRun

_AT_ONCE = 50
"""Events that are mapped at once, so that others are served in between; if more arrive together, texts are joined."""


async def agui_events(
    backend: AguiBackend, run: LiveRun, model_input: ModelInput, earlier: str | None = None
) -> AsyncGenerator[Event, None]:
    """Runs the remote agent and yields its events as ours. Closing the generator closes its connection.

    `earlier` is the run of the reply before the message. An agent without a memory of its own is sent its state then.
    """
    messages = model_input.messages[-1:] if backend.keeps_memory else model_input.messages
    context = await build_context(backend, model_input, messages)
    yield context
    if context.tokens > model_input.input_budget:
        raise context_too_long(backend, model_input, context)
    keeps = run.stored and not backend.keeps_memory
    mapper = AguiMapper(backend.name, Transcript(messages), backend.states.get(earlier) if keeps else None)
    if keeps:  # also if this run fails
        backend.states.keep(run.id, run.conversation_id, mapper.state.value)
    for event in mapper.earlier_state():
        yield event
    more: JSON = {}
    while True:
        yield mapper.waiting()
        mapper.begin_request(context.tokens)
        async with aclosing(_followed(backend, run, mapper, more)) as found:
            async for event in found:
                yield event
        assert mapper.finished is not None
        interrupts = read_interrupts(mapper.finished, mapper.interrupts)
        for event in mapper.close(time.monotonic(), pausing=bool(interrupts)):
            yield event
        if not interrupts:
            break
        run.acted = True
        async with aclosing(ask(run, mapper, interrupts)) as asked:
            async for item in asked:
                if isinstance(item, Resume):
                    more = item.value
                else:
                    yield item
    if keeps and not mapper.is_glassbox:
        backend.states.keep(run.id, run.conversation_id, mapper.state.kept())
    for event in mapper.messages.rest(mapper.transcript.answer):
        yield event


async def _followed(
    backend: AguiBackend, run: LiveRun, mapper: AguiMapper, more: Mapping[str, Any]
) -> AsyncGenerator[Event, None]:
    """Yields the events of one run of the agent, up to its last one. Raises NoAgent and RunCut without one."""
    given = backend.settings.options
    body: JSON = {
        "threadId": backend.thread_id(run.id, run.conversation_id),
        "runId": uuid4().hex,
        "state": mapper.state.value,
        "messages": mapper.transcript.messages,
        "tools": [],
        "context": [],
        **more,
        "forwardedProps": {**given, **more.get("forwardedProps", {})},
    }
    begun = False
    async with aclosing(backend.events(body)) as stream:
        async for received in stream:
            begun = True
            for number, one in enumerate(merged(received) if len(received) > _AT_ONCE else received, 1):
                found = mapper.map(one, time.monotonic())
                run.acted = run.acted or mapper.acted
                for event in found:
                    yield event
                if mapper.finished is not None:
                    return
                if number % _AT_ONCE == 0:
                    await asyncio.sleep(0)
    raise RunCut if begun else NoAgent("an empty response")
