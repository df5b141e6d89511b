"""The interrupts of LangGraph: each asks the visitor for an approval or an answer, and the graph continues with it."""

import json
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from agent.tool_results import input_for_display
from backends.agent_io import shown
from runs import events
from runs.events import Event
from runs.live import LiveRun
from runs.tool_calls import ApprovalAnswer

REFUSED = "refused by the visitor"
"""The error of a call that the visitor refused."""


class Resume:
    """The value with which an interrupted graph continues."""

    def __init__(self, value: Any) -> None:
        self.value = value


async def answered(run: LiveRun, interrupt_id: str, value: Any) -> AsyncGenerator[Event | Resume, None]:
    """Yields the events of an interrupt, each of whose questions waits for the visitor, and at last a Resume.

    `value` is what the graph gave to `interrupt`.
    """
    actions = value.get("action_requests") if isinstance(value, Mapping) else None
    asked = [(one["name"], one.get("args") or {}) for one in actions] if actions else [question(value)]
    answers = list[ApprovalAnswer]()
    for number, (name, given) in enumerate(asked):
        call_id, begun = f"{interrupt_id}-{number}", time.monotonic()
        wanted = input_for_display(shown(given))
        yield events.ToolStart(name, call_id, wanted)
        yield events.Approval(name, call_id, wanted)
        answer = await run.tool_calls.wait_for_answer(call_id)
        answers.append(answer)
        edited = answer.input if answer.input != wanted else None
        yield events.Status("tool", f"Answered: {name}", tool_call_id=call_id, edited=edited)
        output = "" if not answer.approved else "yes" if edited is None else json.dumps(edited, ensure_ascii=False)
        error = None if answer.approved else REFUSED
        yield events.ToolEnd(name, call_id, output, round(time.monotonic() - begun, 3), error)
    if actions:  # the form of langchain's HumanInTheLoopMiddleware
        decisions = [_decision(name, given, answer) for (name, given), answer in zip(asked, answers, strict=True)]
        yield Resume({"decisions": decisions})
    else:
        yield Resume(resume_value(value, answers[0]))


def question(value: Any) -> tuple[str, dict[str, Any]]:
    """The name and the input of a question; the visitor may write into `answer`."""
    fields = dict(value) if isinstance(value, Mapping) else {"question": value}
    return events.QUESTION, fields | {"answer": ""}


def resume_value(value: Any, answer: ApprovalAnswer) -> Any:
    """Returns what the graph gets: the answer's text, else the edited fields, else whether the visitor said yes."""
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
