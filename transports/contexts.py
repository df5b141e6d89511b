"""The routes that show what a model is given: by a turn that has been, and by one that could be."""

from dataclasses import fields
from itertools import accumulate
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import ConfigDict, Field

from agent.preview import preview
from agent.turns import Turns
from runs import events
from runs.contexts import complete
from runs.errors import ChatError
from runs.events import JSON, encode_json
from runs.record import decode
from runs.threads import Threads
from transports.asking import Id, Wanted
from transports.finding import find_run
from transports.identity import Identity

_THREADS = Threads("contexts", 2)
_NAMES = tuple(field.name for field in fields(events.Context))


class Look(Wanted):
    """Which turn is looked at, and how it would be answered."""

    model_config = ConfigDict(extra="forbid", strict=True)
    message: Annotated[str, Field(description="The message of a turn that has not been.")] = ""
    message_id: Annotated[Id | None, Field(description="A user's message: the turn that it began.")] = None


def add_contexts(router: APIRouter, turns: Turns, identity: Identity) -> None:
    """Adds `GET /runs/{run_id}/context` and `POST /context`."""

    @router.get("/runs/{run_id}/context", tags=["runs"])
    async def contexts(run_id: str, request: Request) -> Response:
        """What the model was given: one context for each of the run's calls."""
        found = await find_run(turns, run_id, identity.asker(request))
        lines = [line for line in found.lines if line.type in ("run", "status", "context")]
        logged = [line.event if isinstance(line, events.Entry) else decode(line.json).event for line in lines]
        begun = next(event for event in logged if isinstance(event, events.Run))
        named = [event for event in logged if isinstance(event, events.Status) and event.backend]
        answers = named[-1] if named else begun
        contexts = accumulate((e for e in logged if isinstance(e, events.Context)), lambda last, e: complete(e, last))
        told = {
            "run_id": run_id,
            "backend": answers.backend,
            "model": answers.model,
            "memory": begun.memory,
            "contexts": [_shown(context) for context in contexts],
        }
        return Response(await _THREADS.run(_encoded, told), media_type="application/json")

    @router.post("/context", tags=["conversations"])
    async def context(wanted: Look, request: Request) -> Response:
        """What a memory mode would give the model; nothing is sent, and nothing stored. Without a message, of the
        last turn.
        """
        asker = identity.asker(request)
        turns.quota.take_preview(asker)
        ask = await wanted.ask(turns, wanted.message, asker)
        if wanted.message_id and not wanted.conversation_id:
            raise ChatError("invalid_request", "message_id: name its conversation_id, too.")
        return Response(
            await _THREADS.run(_encoded, await preview(turns, ask, wanted.message_id)), media_type="application/json"
        )


def _encoded(told: JSON) -> bytes:
    return encode_json(told).encode()


def _shown(context: events.Context) -> JSON:
    return {name: getattr(context, name) for name in _NAMES}
