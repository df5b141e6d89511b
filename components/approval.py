"""Handlers for parts of a run: a visitor answers a waiting tool call, cancels a running one, or ends the thinking."""

import gradio as gr

from agent.turns import Turns
from components.assets import warn
from components.page_state import PageState
from hosting.identity import Identity
from runs.errors import ChatError
from runs.tool_calls import ApprovalAnswer


class ApprovalHandlers:
    """The handlers of approvals, cancellations and ended thinking. One instance serves all pages."""

    def __init__(self, turns: Turns, identity: Identity) -> None:
        self._runs, self._identity = turns.runs, identity

    async def on_answer(self, page: PageState, request: gr.Request, event: gr.EventData) -> PageState:
        """Answers a waiting tool call, from the event's {call, approved, input}. -> page"""
        page = page.for_request(self._identity, request)
        try:
            sent = event._data if isinstance(event._data, dict) else {}
            edited = sent.get("input")
            if edited is not None and not isinstance(edited, dict):
                raise ChatError("invalid_request", "The input must be a JSON object.")
            run = self._runs.get(page.run_id or "", page.visitor)
            run.tool_calls.answer(str(sent.get("call")), ApprovalAnswer(sent.get("approved") is True, edited))
        except ChatError as e:
            warn(e.message)
        return page

    async def on_cancel(self, page: PageState, request: gr.Request, event: gr.EventData) -> None:
        """Cancels one running tool call."""
        page = page.for_request(self._identity, request)
        try:
            sent = event._data if isinstance(event._data, dict) else {}
            self._runs.get(page.run_id or "", page.visitor).tool_calls.cancel(str(sent.get("call")))
        except ChatError as e:
            warn(e.message)

    async def on_end_thinking(self, page: PageState, request: gr.Request) -> None:
        """Ends the thinking of the page's run."""
        page = page.for_request(self._identity, request)
        try:
            self._runs.get(page.run_id or "", page.visitor).end_thinking()
        except ChatError as e:
            warn(e.message)

    async def on_wake(self, page: PageState) -> PageState:
        """Does nothing itself: its listener makes the page follow its run again. -> page"""
        return page
