"""Showing a conversation on the page: as it is loaded, and as one is chosen from the list."""

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from agent.turns import Turns
from components.assets import warn
from components.conversation_view import draw, draw_until, last_state
from components.header import render_parameters
from components.header_handlers import HeaderHandlers
from components.hf_login import HubLogin
from components.page_state import INITIAL_MESSAGES, PageState, View, drawn_of
from components.panel import render_panel
from components.render import render_backends, render_buttons, render_frame, render_messages
from components.replay import PlayerCache, render_replay
from hosting.identity import Identity
from memory.messages import TurnOptions
from memory.modes import MODES
from runs.errors import ChatError
from runs.replay import Player, Replay
from runs.requester import Requester
from runs.threads import Threads
from transports.run_lookup import RunEvents, load_run

Updates = tuple[Any, ...]
_THREADS = Threads("replays", 2)
_CHOSEN = 15
"""Outputs after `turns`: what is chosen above the conversation."""


class ConversationLoader:
    """One for all pages. Its handlers give values to page, chat, live, panel, send, stop, intro, earlier, turns; and to
    backend, memory, about, model, options, parameters.
    """

    def __init__(self, turns: Turns, identity: Identity, header_handlers: HeaderHandlers, players: PlayerCache) -> None:
        self._turns, self._identity, self._header, self._players = turns, identity, header_handlers, players
        self._memory, self._signing = turns.settings.memory, HubLogin(turns.backends)

    async def on_load(self, request: gr.Request) -> Updates:
        """The conversation or the run that the address names, or neither."""
        query: Mapping[str, str] = request.query_params or {}
        page = PageState(self._identity.visitor(request.cookies or {}))
        self._signing.look(request, page.visitor)
        try:
            if run_id := query.get("run"):
                return await self._replayed(self._identity.requester(request), run_id)
            if conversation_id := query.get("conversation"):
                return await self._opened(page.visitor, conversation_id)
        except ChatError as e:
            warn(e.message)
        return *self._drawn(View(page), None), *self._chosen(page.visitor, None, None, TurnOptions())

    async def on_open(self, page: PageState, request: gr.Request, data: gr.EventData) -> Updates:
        """The conversation that was chosen; a new one, with the choices of the moment, where that is None.

        A run that the page followed goes on without it.
        """
        visitor = self._identity.visitor(request.cookies or {})
        wanted = data._data.get("id") if isinstance(data._data, dict) else None
        page = page.of(visitor)
        try:
            opened = await self._opened(visitor, wanted) if isinstance(wanted, str) else None
        except ChatError as e:
            warn(e.message)
            opened = None
        page.left = True
        if opened:
            return opened
        return *self._drawn(View(PageState(visitor)), {"cleared": True}), *(gr.skip(),) * _CHOSEN

    async def _opened(self, visitor: str | None, conversation_id: str) -> Updates:
        turns = self._turns
        found = await turns.store.conversation(conversation_id, visitor)
        view = await draw(turns.store, turns.runs, visitor, found.id, INITIAL_MESSAGES)
        page = view.page
        run = turns.runs.live_run(found.id)
        page.run_id = run.id if run else None
        state = run.state if run else await last_state(turns.store, page)
        panel = render_panel(state, whole=True, now=run.now() if run else None) if state.run_id else {"cleared": False}
        return *self._drawn(view, panel), *self._chosen(visitor, found.backend, found.memory, found.options)

    async def _replayed(self, requester: Requester, run_id: str) -> Updates:
        """A recorded run at its beginning, below what it answers; one that is live, in its conversation."""
        turns, visitor = self._turns, requester.visitor
        found = await load_run(turns, run_id, requester)
        if not found.ended:
            return await self._opened(visitor, found.conversation_id)
        try:
            player = await _THREADS.run(_player, found)
        except ValueError:
            raise ChatError("not_found", "This run's record cannot be read, so it cannot be replayed.") from None
        asked = await turns.store.answered_message(run_id)
        messages = await draw_until(turns.store, turns.runs, found.conversation_id, asked) if asked else []
        page = PageState(visitor, drawn=drawn_of(messages), player=self._players.keep(player))
        live, panel = render_replay(player)
        chosen = self._chosen(visitor, panel["backend"], panel["memory"], TurnOptions())
        return *self._drawn(View(page, messages), panel, live), *chosen

    def _drawn(self, view: View, panel: dict[str, Any] | None, live: Sequence[Any] = ()) -> Updates:
        """-> page, chat, live, panel, send, stop, intro, earlier, turns"""
        page, chat = view.page, render_messages(view.messages)
        return page, chat, list(live), panel, *render_buttons(page), *render_frame(view)

    def _chosen(self, visitor: str | None, backend: str | None, memory: str | None, options: TurnOptions) -> Updates:
        """What was used last, or the defaults where that is not there any more.

        -> backend, memory, about, model, options, parameters
        """
        backends = self._turns.backends
        if backend not in {one.name for one in backends}:
            backend = backends.default.name
        memory = str(memory if memory in MODES else self._memory.default)
        return (
            gr.update(choices=render_backends(backends, visitor), value=backend),
            memory,
            backends.describe(visitor),
            self._header.model(backend, visitor, options.model, opened=True),
            *self._header.options(backend, visitor, options),
            *render_parameters(memory, self._memory, options),
        )


def _player(found: RunEvents) -> Player:
    """Raises ValueError for a record that cannot be read. A long one takes seconds: not on the event loop."""
    replay = Replay(found.entries)
    replay.state_at(replay.length_s)
    return Player(replay)
