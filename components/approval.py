"""What a visitor does to single tool calls: approves, edits or refuses one that waits, ends one that runs."""

import gradio as gr

from agent.turns import Turns
from components.assets import warn
from components.page_state import PageState
from hosting.identity import Identity
from runs.errors import ChatError
from runs.tool_calls import ApprovalAnswer


class ApprovalHandlers:
    """What the page does with an answer. One for all pages."""

    def __init__(self, turns: Turns, identity: Identity) -> None:
        self._runs, self._identity = turns.runs, identity

    async def on_answer(self, page: PageState, request: gr.Request, event: gr.EventData) -> PageState:
        """-> page; its run is followed again after that"""
        page = page.of(self._identity.visitor(request.cookies or {}))
        try:
            given = event._data if isinstance(event._data, dict) else {}
            edited = given.get("input")
            if edited is not None and not isinstance(edited, dict):
                raise ChatError("invalid_request", "The input must be a JSON object.")
            run = self._runs.get(page.run_id or "", page.visitor)
            run.tool_calls.answer(str(given.get("call")), ApprovalAnswer(given.get("approved") is True, edited))
        except ChatError as e:
            warn(e.message)
        return page

    async def on_cancel(self, page: PageState, request: gr.Request, event: gr.EventData) -> None:
        """Ends one tool call alone."""
        page = page.of(self._identity.visitor(request.cookies or {}))
        try:
            given = event._data if isinstance(event._data, dict) else {}
            self._runs.get(page.run_id or "", page.visitor).tool_calls.cancel(str(given.get("call")))
        except ChatError as e:
            warn(e.message)

    async def on_wake(self, page: PageState) -> PageState:
        """A page that waits looks whether somebody else has answered. -> page"""
        return page
