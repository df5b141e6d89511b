"""The interrupts of a remote agent: each asks the visitor, and the answers are part of the request that continues.

They come in three forms: the outcome of AG-UI 1.0, the single `interrupt` of its draft, and the custom event of
`ag-ui-langgraph`.
"""

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Literal

from agent.agui_calls import RemoteCall
from agent.agui_fields import parsed
from agent.agui_mapper import AguiMapper
from agent.interrupts import Resume, answered
from backends.agui_client import FailedRun, InvalidEvent, Received
from runs import events
from runs.events import JSON, Event
from runs.live import LiveRun
from runs.tool_calls import ApprovalAnswer

_MOST_INTERRUPTS = 20
"""Most interrupts at the end of a run, and most requests within one."""
_EDITED = "editedArgs"
"""The field of an answer that replaces the arguments of a call, as AG-UI recommends it; Glassbox also takes `input`."""


@dataclass(frozen=True, slots=True)
class RemoteInterrupt:
    """One interrupt."""

    form: Literal["outcome", "draft", "custom"]
    id: str
    value: Any
    """What it asks, for people."""
    call_id: str = ""
    """The tool call that it is about, by the agent's id."""
    schema: Mapping[str, Any] = field(default_factory=dict)
    """The JSON schema of its answer."""

    @property
    def answers(self) -> Mapping[str, Any]:
        """The fields of its answer."""
        fields = self.schema.get("properties")
        return fields if isinstance(fields, Mapping) else {}


def read_interrupts(finished: Received, custom: Sequence[Received]) -> list[RemoteInterrupt]:
    """Returns the interrupts of a run that has ended. Raises FailedRun for one that was stopped, and InvalidEvent."""
    outcome, draft = finished.get("outcome"), finished.get("interrupt")
    kind = outcome.get("type") if isinstance(outcome, Mapping) else outcome
    if kind == "cancelled":
        raise FailedRun({"code": "cancelled"})
    if isinstance(outcome, Mapping) and kind == "interrupt":
        listed = outcome.get("interrupts")
        if not isinstance(listed, list) or not 1 <= len(listed) <= _MOST_INTERRUPTS:
            raise InvalidEvent("RUN_FINISHED: interrupts")
        return [_of_outcome(one) for one in listed]
    if isinstance(draft, Mapping):
        asked = _fields(draft.get("payload"), str(draft.get("reason") or ""))
        return [RemoteInterrupt("draft", str(draft.get("id") or ""), _value(asked))]
    return [_of_custom(one) for one in custom]


async def ask(
    run: LiveRun, mapper: AguiMapper, interrupts: Sequence[RemoteInterrupt]
) -> AsyncGenerator[Event | Resume, None]:
    """Yields the events of the questions, each of which waits for the visitor, and at last a Resume.

    Its value is the fields of the request that continues.
    """
    answers = list[Any]()
    for one in interrupts:
        call = mapper.calls.open.get(one.call_id)
        if call is not None:
            yield events.Approval(call.name, call.id, call.input)
            answer = await run.tool_calls.wait_for_answer(call.id)
            edited = answer.input if answer.input != call.input else None
            yield events.Status("tool", f"Answered: {call.name}", tool_call_id=call.id, edited=edited)
            call.refused = not answer.approved
            answers.append(_approval(one, call, answer))
            continue
        async with aclosing(answered(run, mapper.calls.new_id(one.id), one.value)) as asked:
            async for item in asked:
                if isinstance(item, Resume):
                    answers.append(_answer(one, item.value))
                else:
                    yield item
    yield Resume(_request(interrupts, answers))


def _of_outcome(interrupt: Any) -> RemoteInterrupt:
    if not isinstance(interrupt, Mapping) or not isinstance(interrupt.get("id"), str):
        raise InvalidEvent("RUN_FINISHED: interrupts")
    metadata, schema = interrupt.get("metadata"), interrupt.get("responseSchema")
    graph = metadata.get("langgraph") if isinstance(metadata, Mapping) else None
    if isinstance(graph, Mapping) and "raw" in graph:  # what the graph gave to `interrupt`
        value = graph["raw"]
    else:
        value = _fields(None, str(interrupt.get("message") or interrupt.get("reason") or ""))
    found = RemoteInterrupt(
        "outcome",
        interrupt["id"],
        _value(value),
        str(interrupt.get("toolCallId") or ""),
        schema if isinstance(schema, Mapping) else {},
    )
    if not isinstance(value, Mapping) or "approved" in found.answers or graph:
        return found
    defaults = {name: one.get("default", "") for name, one in found.answers.items() if isinstance(one, Mapping)}
    return RemoteInterrupt("outcome", found.id, {**value, **defaults}, found.call_id, found.schema)


def _of_custom(event: Received) -> RemoteInterrupt:
    raw = event.get("rawEvent")
    interrupt_id = raw.get("id") if isinstance(raw, Mapping) else None
    return RemoteInterrupt("custom", str(interrupt_id or ""), _value(parsed(event.get("value"))))


def _fields(payload: Any, text: str) -> JSON:
    fields = dict(payload) if isinstance(payload, Mapping) else {} if payload is None else {"payload": payload}
    return {"question": text or "The agent asks whether to continue."} | fields


def _value(value: Any) -> Any:
    """The value of an interrupt. One that only looks like requests of LangChain's middleware becomes a question."""
    requests = value.get("action_requests") if isinstance(value, Mapping) else None
    if not requests:
        return value
    sound = isinstance(requests, list) and len(requests) <= _MOST_INTERRUPTS and all(map(_is_request, requests))
    return value if sound else {"question": json.dumps(value, ensure_ascii=False)}


def _is_request(request: Any) -> bool:
    if not isinstance(request, Mapping) or not isinstance(request.get("name"), str):
        return False
    return isinstance(request.get("args") or {}, dict)


def _approval(interrupt: RemoteInterrupt, call: RemoteCall, answer: ApprovalAnswer) -> Any:
    """The answer to the approval of a call."""
    payload: JSON = {"approved": answer.approved}
    if answer.approved and answer.input is not None and answer.input != call.input:
        name = "input" if "input" in interrupt.answers and _EDITED not in interrupt.answers else _EDITED
        payload[name] = answer.input
    return payload


def _answer(interrupt: RemoteInterrupt, value: Any) -> Any:
    """The answer to a question in the form that the interrupt asks for."""
    fields = interrupt.answers
    if interrupt.form == "draft" and isinstance(value, bool):
        return {"approved": value}
    if interrupt.form != "outcome" or not interrupt.schema:
        return value
    if "approved" in fields:
        return {"approved": value is not False}
    kind = interrupt.schema.get("type")
    if kind == "string" and value is True:
        return "yes"
    if kind == "object" and value is not False:
        given = value if isinstance(value, Mapping) else interrupt.value
        found = {name: given[name] for name in fields if isinstance(given, Mapping) and name in given}
        return found | {name: value for name in list(fields)[:1] if isinstance(value, str)}
    return value


def _request(interrupts: Sequence[RemoteInterrupt], answers: Sequence[Any]) -> JSON:
    """The fields of the request that continues."""
    pairs = list(zip(interrupts, answers, strict=True))
    if interrupts[0].form == "custom":
        known = all(one.id for one in interrupts)
        value = answers[0] if len(answers) == 1 else {i.id: a for i, a in pairs} if known else list(answers)
        if isinstance(value, str) and parsed(value) != value:  # the server reads a text as JSON where it can
            value = json.dumps(value)
        return {"forwardedProps": {"command": {"resume": value}}}
    if interrupts[0].form == "draft":
        return {"resume": {"interruptId": interrupts[0].id, "payload": answers[0]}}
    return {"resume": [_entry(one, answer) for one, answer in pairs]}


def _entry(interrupt: RemoteInterrupt, answer: Any) -> JSON:
    """The answer to an interrupt. A refusal cancels it where its schema has no place for one."""
    if answer is False and interrupt.schema and interrupt.schema.get("type") != "boolean":
        return {"interruptId": interrupt.id, "status": "cancelled"}
    return {"interruptId": interrupt.id, "status": "resolved", "payload": answer}
