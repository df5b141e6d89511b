"""The routes that show what a model is given: by a turn that has been, and by one that could be."""

from dataclasses import fields
from itertools import accumulate
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict, Field

from agent.preview import preview
from agent.turns import Turns
from hosting.identity import Identity
from runs import events
from runs.contexts import complete_context
from runs.errors import ChatError
from runs.events import JSON, json_texts, memory_bytes, text_bytes
from runs.record import decode
from runs.threads import Threads
from transports.run_lookup import RunEvents, load_run
from transports.schemas import Id, RequestFields
from transports.send_budget import Answer, SendBudget

_THREADS = Threads("contexts", 2)
_NAMES = tuple(field.name for field in fields(events.Context))


class Look(RequestFields):
    """Which turn is looked at, and how it would be answered."""

    model_config = ConfigDict(strict=True)
    message: Annotated[str, Field(description="The message of a turn that has not been.")] = ""
    message_id: Annotated[Id | None, Field(description="A user's message: the turn that it began.")] = None


def add_contexts(router: APIRouter, turns: Turns, identity: Identity, held: SendBudget) -> None:
    """Adds `GET /runs/{run_id}/context` and `POST /context`."""

    @router.get("/runs/{run_id}/context", tags=["runs"])
    async def contexts(run_id: str, request: Request) -> Response:
        """What the model was given: one context for each of the run's calls."""
        requester = identity.requester(request)
        told, size = await _THREADS.run(_told, await load_run(turns, run_id, requester))
        return Answer(json_texts(told, 4), held.hold(requester, size))

    @router.post("/context", tags=["conversations"])
    async def context(wanted: Look, request: Request) -> Response:
        """What a memory mode would give the model; nothing is sent, and nothing stored. Without a message, of the
        last turn.
        """
        requester = identity.requester(request)
        turns.quota.take_preview(requester)
        ask = await wanted.turn_request(turns, wanted.message, requester)
        if wanted.message_id and not wanted.conversation_id:
            raise ChatError("invalid_request", "message_id: name its conversation_id, too.")
        told = await preview(turns, ask, wanted.message_id)
        return Answer(json_texts(told, 2), held.hold(requester, await _THREADS.run(text_bytes, told)))


def _told(found: RunEvents) -> tuple[JSON, int]:
    """The contexts of a run, and about how many characters of memory they take: what they share counts once."""
    lines = [line for line in found.lines if line.type in ("run", "status", "context")]
    logged = [line.event if isinstance(line, events.Entry) else decode(line.json).event for line in lines]
    begun = next(event for event in logged if isinstance(event, events.Run))
    named = [event for event in logged if isinstance(event, events.Status) and event.backend]
    answers = named[-1] if named else begun
    given = [event for event in logged if isinstance(event, events.Context)]
    told = {
        "run_id": found.run_id,
        "backend": answers.backend,
        "model": answers.model,
        "memory": begun.memory,
        "contexts": [_shown(context) for context in accumulate(given, lambda last, e: complete_context(e, last))],
    }
    return told, sum(memory_bytes(context) for context in given)


def _shown(context: events.Context) -> JSON:
    return {name: getattr(context, name) for name in _NAMES}
