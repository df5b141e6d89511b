"""The routes that show what a model is given: in a turn that has been, and in one that could be."""

from dataclasses import fields
from itertools import accumulate
from typing import Annotated

from fastapi import APIRouter, Response
from pydantic import ConfigDict, Field

from agent.preview import preview
from agent.turns import Turns
from runs import events
from runs.contexts import complete_context
from runs.errors import ChatError
from runs.events import JSON, json_texts, memory_bytes, text_bytes
from runs.record import decode
from runs.threads import Threads
from transports.dependencies import CurrentRequester
from transports.run_lookup import RunEvents, load_run
from transports.schemas import Id, RequestFields
from transports.send_budget import BudgetedResponse, SendBudget

_THREADS = Threads("contexts", 2)
_FIELDS = tuple(field.name for field in fields(events.Context))


class PreviewRequest(RequestFields):
    """The turn to preview, and its options."""

    model_config = ConfigDict(strict=True)
    message: Annotated[str, Field(description="The message of a turn that has not been.")] = ""
    message_id: Annotated[Id | None, Field(description="A user's message: the turn that it began.")] = None


def add_contexts(router: APIRouter, turns: Turns, budget: SendBudget) -> None:
    """Adds `GET /runs/{run_id}/context` and `POST /context`."""

    @router.get("/runs/{run_id}/context", tags=["runs"])
    async def contexts(run_id: str, requester: CurrentRequester) -> Response:
        """What the model was given: one context for each of the run's calls."""
        body, size = await _THREADS.run(_contexts_of, await load_run(turns, run_id, requester))
        return BudgetedResponse(json_texts(body, 4), budget.reserve(requester, size))

    @router.post("/context", tags=["conversations"])
    async def context(request: PreviewRequest, requester: CurrentRequester) -> Response:
        """What a memory mode would give the model: nothing is sent or stored. Without a message, the last turn's."""
        turns.quota.take_preview(requester)
        ask = await request.turn_request(turns, request.message, requester)
        if request.message_id and not request.conversation_id:
            raise ChatError("invalid_request", "message_id: name its conversation_id, too.")
        body = await preview(turns, ask, request.message_id)
        return BudgetedResponse(json_texts(body, 2), budget.reserve(requester, await _THREADS.run(text_bytes, body)))


def _contexts_of(run: RunEvents) -> tuple[JSON, int]:
    """The contexts of a run and their approximate memory in bytes; what they share counts once."""
    lines = [line for line in run.lines if line.type in ("run", "status", "context")]
    decoded = [line.event if isinstance(line, events.Entry) else decode(line.json).event for line in lines]
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
