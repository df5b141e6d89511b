"""Gradio's only public endpoint, `/chat`, for Gradio's own clients: it streams the growing reply to a message."""

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import aclosing

import gradio as gr

from agent.turns import Turns
from components.assets import as_text
from hosting.identity import Identity
from runs import events
from runs.errors import ChatError
from transports.schemas import RequestFields

_YIELDS_PER_S = 20
"""Updates per second and client. The rate falls with the number of live runs."""


class Endpoint:
    """The handler of `/chat`."""

    def __init__(self, turns: Turns, identity: Identity) -> None:
        self._turns, self._identity = turns, identity

    async def chat(
        self,
        message: str,
        backend: str = "",
        memory: str = "",
        conversation_id: str = "",
        request: gr.Request = None,  # type: ignore[assignment]  # Gradio fills it in
    ) -> AsyncIterator[str]:
        """Streams the reply to a message: each value is the whole text so far. The other transports send all events.

        `conversation_id` comes from `POST /conversations`; without it the conversation is new.
        """
        if not all(isinstance(value or "", str) for value in (message, backend, memory, conversation_id)):
            raise gr.Error("message, backend, memory and conversation_id must be strings.", print_exception=False)
        fields = RequestFields(backend=backend or None, memory=memory or None, conversation_id=conversation_id or None)
        try:
            turn = await fields.turn_request(self._turns, message or "", self._identity.requester(request))
            run = await self._turns.start(turn)
        except ChatError as e:
            raise gr.Error(as_text(e.message), print_exception=False) from e
        async with aclosing(run.log.follow(wake_s=lambda: 1.0)) as batches:  # to notice a disconnected client
            async for _ in batches:
                yield run.text
                if not run.ended:
                    live = sum(1 for _ in self._turns.runs.live())
                    await asyncio.sleep(math.sqrt(max(1, live)) / _YIELDS_PER_S)
        last = run.log.entries[-1].event
        if isinstance(last, events.Error):
            raise gr.Error(as_text(last.message), print_exception=False)
