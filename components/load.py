"""Opens a conversation on the page: when the page loads, and when the visitor chooses one from the list."""

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from agent.turns import Turns
from components.assets import warn
from components.conversation_view import last_state, load_view, messages_until
from components.header import render_parameters
from components.header_handlers import HeaderHandlers
from components.hf_login import HubLogin
from components.page_state import INITIAL_MESSAGES, ConversationView, PageState, Updates, shown_messages
from components.panel import render_panel
from components.render import render_view
from components.replay import PlayerCache, render_replay
from hosting.identity import Identity
from memory.messages import Message
from memory.mode_options import known_options
from memory.modes import MODES
from memory.options import TurnOptions
from runs.errors import ChatError
from runs.example_run import EXAMPLE_ID, example_message
from runs.replay import Player, Replay
from runs.requester import Requester
from runs.threads import Threads
from transports.run_lookup import RunEvents, load_run

_THREADS = Threads("replays", 2)


class ConversationLoader:
    """The handlers that open a conversation or a replay. One instance serves all pages."""

    def __init__(self, turns: Turns, identity: Identity, header: HeaderHandlers, players: PlayerCache) -> None:
        self._turns, self._identity, self._header, self._players = turns, identity, header, players
        self._memory, self._login = turns.settings.memory, HubLogin(turns.backends)

    async def on_load(self, request: gr.Request) -> Updates:
        """Opens the run or the conversation that the page's URL names, else an empty conversation."""
        query: Mapping[str, str] = request.query_params or {}
        page = PageState().for_request(self._identity, request)
        self._login.sync_keys(request, page.visitor)
        try:
            if run_id := query.get("run"):
                return await self._replay(self._identity.requester(request), run_id)
            if conversation_id := query.get("conversation"):
                return await self._conversation(page.visitor, conversation_id)
        except ChatError as e:
            warn(e.message)
        idle = await self._idle(page.visitor)
        return self._view(ConversationView(page), idle) | self._choices(page.visitor, None, None, TurnOptions())

    async def on_open(self, page: PageState, request: gr.Request, data: gr.EventData) -> Updates:
        """Opens the conversation that the event names by {id}. With an id of None it opens a new one, which keeps the
        visitor's choices.

        A run that the page followed continues without it.
        """
        page = page.for_request(self._identity, request)
        chosen = data._data.get("id") if isinstance(data._data, dict) else None
        opened: Updates | None = None
        try:
            opened = await self._conversation(page.visitor, chosen) if isinstance(chosen, str) else None
        except ChatError as e:
            warn(e.message)
        page.closed = True
        if opened is None:
            opened = self._view(ConversationView(PageState(page.visitor)), await self._idle(page.visitor, cleared=True))
        return opened

    async def _idle(self, visitor: str | None, *, cleared: bool = False) -> dict[str, Any]:
        """Renders the panel without a run: it offers to play the visitor's latest one, or the example."""
        latest = await self._turns.store.latest_run(visitor) if visitor else None
        return {"cleared": cleared, "latest": latest or EXAMPLE_ID, "example": latest is None}

    async def _conversation(self, visitor: str | None, conversation_id: str) -> Updates:
        turns = self._turns
        found = await turns.store.conversation(conversation_id, visitor)
        view = await load_view(turns.store, turns.runs, visitor, found.id, INITIAL_MESSAGES)
        run = turns.runs.live_run(found.id)
        if run is None:
            turns.ahead.begin(turns, found, visitor)
        view.page.run_id = run.id if run else None
        state = run.state if run else await last_state(turns.store, view.page)
        panel = render_panel(state, whole=True, now=run.now() if run else None) if state.run_id else {"cleared": False}
        return self._view(view, panel) | self._choices(visitor, found.backend, found.memory, found.options)

    async def _replay(self, requester: Requester, run_id: str) -> Updates:
        """Opens a recorded run at its start, below the message that it answers; a live run in its conversation."""
        turns, visitor = self._turns, requester.visitor
        found = await load_run(turns, run_id, requester)
        if not found.ended:
            return await self._conversation(visitor, found.conversation_id)
        try:
            player = await _THREADS.run(_player, found)
        except ValueError:
            raise ChatError("not_found", "This run's record cannot be read, so it cannot be replayed.") from None
        if run_id == EXAMPLE_ID:
            messages = [Message(EXAMPLE_ID, "user", example_message())]
        else:
            last, of = await turns.store.answered_message(run_id), found.conversation_id
            messages = await messages_until(turns.store, turns.runs, of, last) if last else []
        page = PageState(visitor, shown=shown_messages(messages), player=self._players.keep(player))
        live, panel = render_replay(player)
        choices = self._choices(visitor, panel["backend"], panel["memory"], TurnOptions())
        return self._view(ConversationView(page, messages), panel, live) | choices

    def _view(self, view: ConversationView, panel: dict[str, Any] | None, live: Sequence[Any] = ()) -> Updates:
        embedded = {"visitor": view.page.visitor is not None, "found": view.page.conversation_id is not None}
        return render_view(view) | {"live": list(live), "panel": panel, "embedded": embedded}

    def _choices(self, visitor: str | None, backend: str | None, memory: str | None, options: TurnOptions) -> Updates:
        """Renders the fields with a conversation's choices, or the defaults where those are no longer available."""
        backends = self._turns.backends
        if backend not in {one.name for one in backends}:
            backend = backends.default.name
        memory = str(memory if memory in MODES else self._memory.default)
        return {
            "backend": backend,
            "memory": memory,
            "about": backends.describe(visitor),
            "model": self._header.model(backend, visitor, options.model, opened=True),
            **self._header.options(backend, visitor, options),
            **render_parameters(memory, self._memory, options),
            "mode_options": {memory: known_options(MODES[memory].options, options.mode_options)},
        }


def _player(found: RunEvents) -> Player:
    """Builds the player of a run, which takes seconds for a long record. Raises ValueError for an unreadable one."""
    replay = Replay(found.entries)
    replay.state_at(replay.length_s)
    return Player(replay)
