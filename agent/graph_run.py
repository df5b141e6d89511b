"""One run of a foreign agent: it is followed event by event, and its interrupts wait for the visitor."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from agent.context_event import build_context, context_too_long
from agent.graph_mapper import GraphMapper
from agent.interrupts import Resume, answered
from agent.model_input import ModelInput
from backends.activity import report_activity
from backends.agent import AgentBackend
from runs import events
from runs.events import Event
from runs.live import LiveRun

_MOST_STEPS = 100
"""Steps of a graph in one reply."""


async def graph_events(backend: AgentBackend, run: LiveRun, model_input: ModelInput) -> AsyncGenerator[Event, None]:
    """Runs the agent and yields its events. Closing the generator ends its work."""
    messages = model_input.messages[-1:] if backend.keeps_memory else model_input.messages
    context = await build_context(backend, model_input, messages)
    yield context
    if context.tokens > model_input.input_budget:
        raise context_too_long(backend, model_input, context)
    yield events.Status("waiting", f"Waiting for {backend.name}")
    mapper = GraphMapper(model_input, context, backend.reply_nodes if backend.is_graph else None)
    agent: Any = backend.agent()
    config = {"configurable": backend.configurable(run.id, run.conversation_id), "recursion_limit": _MOST_STEPS}
    modes = {"stream_mode": ["updates", "custom"], "subgraphs": True} if backend.is_graph else {}
    given = backend.input.value(messages)
    while True:
        async with aclosing(agent.astream_events(given, config, version="v2", **modes)) as stream:
            async for raw in stream:
                report_activity()
                found = mapper.map(raw, time.monotonic())
                run.acted = run.acted or mapper.acted
                for event in found:
                    yield event
        if not backend.is_graph:
            output = mapper.output
            break
        state = await agent.aget_state(config)
        if not state.interrupts:
            output = state.values
            break
        run.acted, answers = True, {}
        for event in mapper.pause(time.monotonic()):
            yield event
        for one in state.interrupts:
            async with aclosing(answered(run, one.id, one.value)) as asked:
                async for item in asked:
                    if isinstance(item, Resume):
                        answers[one.id] = item.value
                    else:
                        yield item
        from langgraph.types import Command

        given = Command(resume=answers)
    for event in mapper.finish(output):
        yield event
