"""The routes that show what a model is given: in a turn that has been, and in one that could be."""

from dataclasses import asdict, fields
from itertools import accumulate
from typing import Annotated

from fastapi import APIRouter, Response
from fastapi import Query as QueryParameter
from pydantic import ConfigDict, Field

from agent.preview import preview
from agent.turns import Turns
from runs import events
from runs.contexts import complete_context
from runs.errors import ChatError
from runs.events import JSON, memory_bytes
from runs.json_text import encode_json, json_texts, text_bytes
from runs.record import decode
from runs.recorded_requests import complete_request
from runs.threads import Threads
from transports.dependencies import CurrentRequester
from transports.run_lookup import RunEvents, load_run
from transports.schemas import Id, RequestFields
from transports.send_budget import BudgetedResponse, SendBudget

_THREADS = Threads("contexts", 2)
_TOKEN_BYTES = 400
"""The memory of a token with its JSON, about."""
_FIELDS = tuple(field.name for field in fields(events.Context))


class PreviewRequest(RequestFields):
    """The turn to preview, and its options."""

    model_config = ConfigDict(strict=True)
    message: Annotated[str, Field(description="The message of a turn that has not been.")] = ""
    message_id: Annotated[Id | None, Field(description="A user's message: the turn that it began.")] = None


def add_contexts(router: APIRouter, turns: Turns, budget: SendBudget) -> None:
    """Adds `GET /runs/{run_id}/context`, `GET /runs/{run_id}/prompt` and `POST /context`."""

    @router.get("/runs/{run_id}/context", tags=["runs"])
    async def contexts(run_id: str, requester: CurrentRequester) -> Response:
        """What the model was given: one context for each of the run's calls."""
        body, size = await _THREADS.run(_contexts_of, await load_run(turns, run_id, requester))
        return BudgetedResponse(json_texts(body, 4), budget.reserve(requester, size))

    @router.get("/runs/{run_id}/prompt", tags=["runs"])
    async def prompt(
        run_id: str, requester: CurrentRequester, call: Annotated[int | None, QueryParameter(ge=0)] = None
    ) -> Response:
        """The prompt of a model call, the last one by default: token by token, or the request as it was sent."""
        turns.quota.take_preview(requester)
        run = await load_run(turns, run_id, requester)
        calls = await _THREADS.run(_calls_of, run)
        number = len(calls) - 1 if call is None else call
        if not 0 <= number < len(calls):
            raise ChatError("not_found", "This run has no such call of a model.")
        backend, context, request = calls[number]
        answer = await _prompt_of(turns, backend, _fields(context))
        if not answer["tokens"]:
            answer |= await _THREADS.run(_request_of, run, number, answer["note"], request, context)
        size = _TOKEN_BYTES * len(answer["tokens"]) + len(answer.get("body") or "")
        return BudgetedResponse(json_texts(answer, 2), budget.reserve(requester, size))

    @router.post("/context", tags=["conversations"])
    async def context(request: PreviewRequest, requester: CurrentRequester) -> Response:
        """What a memory mode would give the model: nothing is sent or stored. Without a message, the last turn's."""
        turns.quota.take_preview(requester)
        ask = await request.turn_request(turns, request.message, requester)
        if request.message_id and not request.conversation_id:
            raise ChatError("invalid_request", "message_id: name its conversation_id, too.")
        body = await preview(turns, ask, request.message_id)
        return BudgetedResponse(json_texts(body, 2), budget.reserve(requester, await _THREADS.run(text_bytes, body)))


async def _prompt_of(turns: Turns, backend: str, context: JSON) -> JSON:
    """Returns {tokens, note}. Without tokens, the note says why there are none."""
    found = next((one for one in turns.backends if one.name == backend), None)
    if found is None:
        return {"tokens": [], "note": "This backend is no longer configured."}
    messages = context["messages"]
    if not found.tells_prompt:
        return {"tokens": [], "note": f"{backend} does not tell what it makes of the messages."}
    if context["tools"] or any(one["role"] == "tool" for one in messages):
        return {"tokens": [], "note": "The prompt of a call with tools cannot be shown."}
    if messages and messages[-1]["role"] == "assistant":
        return {"tokens": [], "note": "The prompt of a continued reply cannot be shown."}
    given = [(str(one["role"]), str(one["content"])) for one in messages]
    tokens = await found.prompt_tokens(given, context["thinking"])
    note = None
    if not context["estimated"] and len(tokens) != context["tokens"]:
        made = f"The model that is loaded now turns these messages into {len(tokens):,}."
        note = f"The model read {context['tokens']:,} tokens. {made}"
    return {"tokens": await _THREADS.run(lambda: [asdict(token) for token in tokens]), "note": note}


def _request_of(run: RunEvents, call: int, note: str, recorded: JSON | None, context: events.Context) -> JSON:
    """Returns {body, note} of a model call; `body` is the JSON that was sent, or None where it is not known."""
    body = run.live.requests.body(call) if run.live else None
    if not body and recorded:
        body = encode_json(complete_request(recorded, context))
    if body:
        return {"body": body, "note": f"{note} This is the request as it was sent, without its headers."}
    return {"body": None, "note": note if run.live else f"{note} Its request was not recorded."}


def _calls_of(run: RunEvents) -> list[tuple[str, events.Context, JSON | None]]:
    """The backend, the context and the recorded request of each model call of a run."""
    found, backend, last = list[tuple[str, events.Context, JSON | None]](), "", None
    for event in _decoded(run, "model_end"):
        if isinstance(event, events.Context):
            last = complete_context(event, last)
            found.append((backend, last, None))
        elif isinstance(event, events.ModelEnd):
            if event.request and found:
                found[-1] = (*found[-1][:2], event.request)
        elif isinstance(event, events.Run | events.Status) and event.backend:
            backend = event.backend
    return found


def _decoded(run: RunEvents, *more: str) -> list[events.Event]:
    """The events of a run that tell its contexts and backends, and those of the types `more`."""
    lines = [line for line in run.lines if line.type in ("run", "status", "context", *more)]
    return [line.event if isinstance(line, events.Entry) else decode(line.json).event for line in lines]


def _contexts_of(run: RunEvents) -> tuple[JSON, int]:
    """The contexts of a run and their approximate memory in bytes; what they share counts once."""
    decoded = _decoded(run)
    start = next(event for event in decoded if isinstance(event, events.Run))
    fallbacks = [event for event in decoded if isinstance(event, events.Status) and event.backend]
    backend = fallbacks[-1] if fallbacks else start
    given = [event for event in decoded if isinstance(event, events.Context)]
    body = {
        "run_id": run.run_id,
        "backend": backend.backend,
        "model": backend.model,
        "memory": start.memory,
        "contexts": [_fields(context) for context in accumulate(given, lambda last, e: complete_context(e, last))],
    }
    return body, sum(memory_bytes(context) for context in given)


def _fields(context: events.Context) -> JSON:
    return {name: getattr(context, name) for name in _FIELDS}
