"""One run of a foreign agent: it is followed event by event, and its interrupts wait for the visitor."""

import json
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from agent.context_event import build_context, context_too_long
from agent.graph_mapper import GraphMapper
from agent.model_input import ModelInput
from agent.tool_results import input_for_display
from backends.activity import report_activity
from backends.agent import AgentBackend
from backends.agent_io import shown
from runs import events
from runs.events import Event
from runs.live import LiveRun
from runs.tool_calls import ApprovalAnswer

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
            async with aclosing(_answered(run, one)) as asked:
                async for item in asked:
                    if isinstance(item, _Resume):
                        answers[one.id] = item.value
                    else:
                        yield item
        from langgraph.types import Command

        given = Command(resume=answers)
    for event in mapper.finish(output):
        yield event


class _Resume:
    """The value with which an interrupted graph continues."""

    def __init__(self, value: Any) -> None:
        self.value = value


async def _answered(run: LiveRun, interrupt: Any) -> AsyncGenerator[Event | _Resume, None]:
    """Yields the events of an interrupt, each of whose questions waits for the visitor, and at last a _Resume."""
    actions = interrupt.value.get("action_requests") if isinstance(interrupt.value, Mapping) else None
    asked = [(one["name"], one.get("args") or {}) for one in actions] if actions else [_question(interrupt.value)]
    answers = list[ApprovalAnswer]()
    for number, (name, given) in enumerate(asked):
        call_id, begun = f"{interrupt.id}-{number}", time.monotonic()
        wanted = input_for_display(shown(given))
        yield events.ToolStart(name, call_id, wanted)
        yield events.Approval(name, call_id, wanted)
        answer = await run.tool_calls.wait_for_answer(call_id)
        answers.append(answer)
        edited = answer.input if answer.input != wanted else None
        yield events.Status("tool", f"Answered: {name}", tool_call_id=call_id, edited=edited)
        output = "" if not answer.approved else "yes" if edited is None else json.dumps(edited, ensure_ascii=False)
        error = None if answer.approved else "refused by the visitor"
        yield events.ToolEnd(name, call_id, output, round(time.monotonic() - begun, 3), error)
    if actions:  # the form of langchain's HumanInTheLoopMiddleware
        decisions = [_decision(name, given, answer) for (name, given), answer in zip(asked, answers, strict=True)]
        yield _Resume({"decisions": decisions})
    else:
        yield _Resume(_resume_value(interrupt.value, answers[0]))


def _question(value: Any) -> tuple[str, dict[str, Any]]:
    """The name and the input of a question; the visitor may write into `answer`."""
    fields = dict(value) if isinstance(value, Mapping) else {"question": value}
    return events.QUESTION, fields | {"answer": ""}


def _resume_value(value: Any, answer: ApprovalAnswer) -> Any:
    """What the graph gets: the answer's text, else the edited fields, else whether the visitor said yes."""
    if not answer.approved:
        return False
    fields = dict(answer.input or {})
    text = fields.pop("answer", "")
    if text:
        return text
    edited = isinstance(value, Mapping) and answer.input is not None and fields != shown(dict(value))
    return fields if edited else True


def _decision(name: str, given: dict[str, Any], answer: ApprovalAnswer) -> dict[str, Any]:
    if not answer.approved:
        return {"type": "reject", "message": "The visitor refused this call."}
    if answer.input is not None and answer.input not in (given, input_for_display(shown(given))):
        return {"type": "edit", "edited_action": {"name": name, "args": answer.input}}
    return {"type": "approve"}
