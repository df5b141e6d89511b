"""Playing a recorded run again, on the same parts of the page that showed it live: `/?run=ID`.

`web/replay.js` has the controls and says what is wanted; here it is shown.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from components.assets import warn
from components.page_state import PageState
from components.panel import render_panel
from components.render import render_live
from components.reply import GrowingReply
from hosting.identity import Identity
from runs.live import new_id
from runs.replay import Player
from runs.state import AgentState

_FRAME_S = 0.1
_KEPT_BYTES = 32_000_000
_SLOWEST, _FASTEST = 0.1, 100.0

Updates = tuple[Any, ...]


class PlayerCache:
    """The players of open pages, with at most so many bytes together; the one least lately used goes first.

    The newest stays however long it is.
    """

    def __init__(self, most: int = _KEPT_BYTES) -> None:
        self._players: OrderedDict[str, Player] = OrderedDict()
        self._most = most

    def keep(self, player: Player) -> str:
        """Keeps a player, and returns its id."""
        made = new_id()
        self._players[made] = player
        size = sum(one.replay.memory_bytes for one in self._players.values())
        while size > self._most and len(self._players) > 1:
            size -= self._players.popitem(last=False)[1].replay.memory_bytes
        return made

    def get(self, player_id: str | None) -> Player | None:
        """A player that is still kept."""
        if player_id is None or player_id not in self._players:
            return None
        self._players.move_to_end(player_id)
        return self._players[player_id]


class ReplayHandlers:
    """One for all pages."""

    def __init__(self, identity: Identity, players: PlayerCache) -> None:
        self._identity, self._players = identity, players

    async def on_play(self, page: PageState, request: gr.Request, event: gr.EventData) -> None:
        """Goes to a moment, and stands there or plays from it: {at, speed, playing}."""
        page, given = page.of(self._identity.visitor(request.cookies or {})), event._data
        if page.player is None or not isinstance(given, dict):
            return
        if (player := self._players.get(page.player)) is None:
            warn("This replay was unloaded to save memory. Reload the page to continue.")
            return
        at, speed = _number(given.get("at"), 0.0), _number(given.get("speed"), 1.0)
        player.seek(at, min(max(_SLOWEST, speed), _FASTEST), playing=given.get("playing") is True)

    async def follow(self, page: PageState, request: gr.Request) -> AsyncIterator[Updates]:
        """Shows the replay until it stands still, or something else is wanted of it. -> live, panel"""
        page = page.of(self._identity.visitor(request.cookies or {}))
        if (player := self._players.get(page.player)) is None:
            yield gr.skip(), gr.skip()
            return
        turn, drawn, growing, played = player.turn, None, GrowingReply(), page.player
        while True:
            live, panel, drawn = _frame(player, drawn, growing)
            yield live, panel
            if not panel["replay"]["playing"]:
                return
            await asyncio.sleep(_FRAME_S)
            if page.left or page.player != played or player.turn != turn:
                # Gradio sends the last values once more, and others are shown by now
                yield gr.skip(), gr.skip()
                return


def render_replay(player: Player) -> Updates:
    """What the page shows of the moment that the replay is at. -> live, panel"""
    return _frame(player, None, GrowingReply())[:2]


def _frame(player: Player, before: AgentState | None, growing: GrowingReply) -> tuple[Any, Any, AgentState]:
    """As `render_replay`, and the state: the next frame leaves out what has been drawn `before`."""
    moment, length = player.position_s, player.replay.length_s
    state, text = player.replay.state_at(moment)
    whole = before is None or state.context is not before.context
    panel = render_panel(state, whole=whole, now=player.replay.started + moment)
    panel["approvals"] = []  # they have been answered
    if whole:
        panel.setdefault("context", None)
    playing = player.playing and moment < length
    told = {"at_s": round(moment, 2), "length_s": round(length, 2), "speed": player.speed, "playing": playing}
    return render_live(text, growing), panel | {"replay": told}, state


def _number(value: Any, otherwise: float) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else otherwise
