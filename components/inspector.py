"""Points the panel at an earlier reply: its recorded run is folded again."""

from typing import Any

import gradio as gr

from agent.turns import Turns
from components.assets import warn
from components.page_state import PageState, Updates
from components.panel import render_panel
from hosting.identity import Identity
from runs.errors import ChatError
from runs.fold import apply
from runs.state import AgentState
from runs.threads import in_thread
from transports.run_lookup import RunEvents, load_run

_MANY_EVENTS = 500
"""Events of a run from which on it is folded in a thread."""
_QUESTION = 200
"""Characters of the answered message that the page gets."""


class Inspector:
    """The handler of *Inspect* below a reply. One instance serves all pages."""

    def __init__(self, turns: Turns, identity: Identity) -> None:
        self._turns, self._identity = turns, identity

    async def on_inspect(self, page: PageState, request: gr.Request, event: gr.EventData) -> Updates:
        """Shows the run that the event names by {run}, with the message that it answered. -> panel

        A live run is shown as by its follower.
        """
        sent: Any = event._data if isinstance(event._data, dict) else {}
        try:
            found = await load_run(self._turns, str(sent.get("run")), self._identity.requester(request))
            if found.live and not found.ended:
                return {"panel": render_panel(found.live.state, whole=True, now=found.live.now())}
            state = await in_thread(len(found.lines) > _MANY_EVENTS, _folded, found)
            question = await self._turns.store.answered_message(found.run_id)
        except ChatError as e:
            warn(e.message)
            return {}
        except ValueError:
            warn("This run's record cannot be read.")
            return {}
        asked = " ".join(question.text[:_QUESTION].split()) if question else ""
        return {"panel": render_panel(state, whole=True) | {"inspected": {"question": asked}}}


def _folded(run: RunEvents) -> AgentState:
    """The last state of a run. Raises ValueError for a damaged record."""
    state = AgentState()
    for entry in run.entries:
        state = apply(state, entry)
    return state
