"""Replays a recorded run on the parts of the page that show a live one: `/?run=ID`. `web/replay.js` controls it."""

import asyncio
import math
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import Any

import gradio as gr

from components.assets import warn
from components.live_reply import LiveReply
from components.page_state import PageState
from components.panel import render_panel
from components.parts import cited_passages
from hosting.identity import Identity
from runs.live import new_id
from runs.replay import Player
from runs.reply import part_offsets, reply_parts
from runs.state import AgentState

_FRAME_S = 0.1
_KEPT_BYTES = 32_000_000
_SLOWEST, _FASTEST = 0.1, 100.0


class PlayerCache:
    """The players of open pages, within a limit of bytes.

    The least recently used one is dropped first; the newest is kept whatever its size.
    """

    def __init__(self, most: int = _KEPT_BYTES) -> None:
        self._players: OrderedDict[str, Player] = OrderedDict()
        self._most = most

    def keep(self, player: Player) -> str:
        """Adds a player and returns its id."""
        player_id = new_id()
        self._players[player_id] = player
        size = sum(one.replay.memory_bytes for one in self._players.values())
        while size > self._most and len(self._players) > 1:
            size -= self._players.popitem(last=False)[1].replay.memory_bytes
        return player_id

    def get(self, player_id: str | None) -> Player | None:
        """Returns a player, or None if it was dropped."""
        if player_id is None or player_id not in self._players:
            return None
        self._players.move_to_end(player_id)
        return self._players[player_id]


class ReplayHandlers:
    """The handlers of replays. One instance serves all pages."""

    def __init__(self, identity: Identity, players: PlayerCache) -> None:
        self._identity, self._players = identity, players

    async def on_play(self, page: PageState, request: gr.Request, event: gr.EventData) -> None:
        """Moves the replay to a moment, and pauses or plays from it: the event is {at, speed, playing}."""
        page, sent = page.for_request(self._identity, request), event._data
        if page.player is None or not isinstance(sent, dict):
            return
        if (player := self._players.get(page.player)) is None:
            warn("This replay was unloaded to save memory. Reload the page to continue.")
            return
        at, speed = _number(sent.get("at"), 0.0), _number(sent.get("speed"), 1.0)
        player.seek(at, min(max(_SLOWEST, speed), _FASTEST), playing=sent.get("playing") is True)

    async def follow(self, page: PageState, request: gr.Request) -> AsyncIterator[tuple[Any, Any]]:
        """Shows the replay until it pauses, gets another command, or leaves the page. -> live, panel"""
        page = page.for_request(self._identity, request)
        if (player := self._players.get(page.player)) is None:
            yield gr.skip(), gr.skip()
            return
        turn, drawn, growing, played = player.turn, None, LiveReply(), page.player
        while True:
            live, panel, drawn = _frame(player, drawn, growing)
            yield live, panel
            if not panel["replay"]["playing"]:
                return
            await asyncio.sleep(_FRAME_S)
            if page.closed or page.player != played or player.turn != turn:
                # Gradio sends the last values again, but the page already shows others
                yield gr.skip(), gr.skip()
                return


def render_replay(player: Player) -> tuple[Any, Any]:
    """Renders the current moment of a replay. -> live, panel"""
    return _frame(player, None, LiveReply())[:2]


def _frame(player: Player, before: AgentState | None, growing: LiveReply) -> tuple[Any, Any, AgentState]:
    """Renders a frame, and returns its state too: the next frame omits the context that `before` already showed."""
    moment, length = player.position_s, player.replay.length_s
    state, text = player.replay.state_at(moment)
    whole = before is None or state.context is not before.context
    panel = render_panel(state, whole=whole, now=player.replay.started + moment)
    panel["approvals"] = []  # they were answered during the run
    if whole:
        panel.setdefault("context", None)
    playing = player.playing and moment < length
    replay = {"at_s": round(moment, 2), "length_s": round(length, 2), "speed": player.speed, "playing": playing}
    live = growing.messages(text, part_offsets(state), cited_passages(reply_parts(state)))
    return live, panel | {"replay": replay}, state


def _number(value: Any, default: float) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else default
