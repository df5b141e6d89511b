"""What the page does: module-level rules, no components. Each handler takes plain values and gives plain values back.

A handler never owns a run: it starts one, and `tail.py` follows it.
"""

from dataclasses import replace
from typing import Any

import gradio as gr

from agent.turns import TurnRequest, Turns
from components.approval import ApprovalHandlers
from components.assets import warn
from components.conversation_view import draw, last_state, refresh_view
from components.endpoint import Endpoint
from components.follower import RunFollower
from components.header import PARAMETERS
from components.header_handlers import HeaderHandlers
from components.load import ConversationLoader
from components.page_state import INITIAL_MESSAGES, PageState, View
from components.panel import render_panel
from components.render import (
    render_buttons,
    render_draft,
    render_frame,
    render_messages,
)
from components.replay import PlayerCache, ReplayHandlers
from hosting.identity import Identity
from memory.message_tree import NO_MESSAGE
from memory.messages import TurnOptions
from runs.errors import ChatError

Updates = tuple[Any, ...]


class Handlers:
    """The page's callbacks over the app's pieces. One for all pages; what a page knows is its `PageState`."""

    def __init__(self, turns: Turns, identity: Identity) -> None:
        self.turns, self.identity = turns, identity
        self.header = HeaderHandlers(turns, identity)
        self.approval = ApprovalHandlers(turns, identity)
        players = PlayerCache()
        self.loader = ConversationLoader(turns, identity, self.header, players)
        self.replay = ReplayHandlers(identity, players)
        self.endpoint = Endpoint(turns, identity)
        self.follower = RunFollower(turns.store, turns.runs, identity)
        self.store, self.runs, self.backends = turns.store, turns.runs, turns.backends
        self._memory = turns.settings.memory

    def _visitor(self, request: gr.Request) -> str | None:
        return self.identity.visitor(request.cookies or {})

    async def on_send(self, prompt: str, page: PageState, request: gr.Request, *chosen: Any) -> Updates:
        """`chosen` is what `_wanted` reads. -> page, draft, chat, live, panel, send, stop, intro, earlier, turns"""
        page = page.of(self._visitor(request))
        if not (prompt or "").strip():
            return await self._unchanged(page)
        ask = replace(self._wanted(*chosen), message=prompt, conversation_id=page.conversation_id)
        return await self._begin(ask, page, request)

    async def on_retry(self, page: PageState, request: gr.Request, data: gr.RetryData, *chosen: Any) -> Updates:
        """Asks a message again: another reply, as a branch of its own. -> as on_send"""
        page = page.of(self._visitor(request))
        message = page.user_message(_index(data.index))
        ask = replace(self._wanted(*chosen), regenerate=message.id if message else None)
        return await self._beside(ask, page, request)

    async def on_regenerate(self, page: PageState, request: gr.Request, data: gr.EventData, *chosen: Any) -> Updates:
        """As on_retry, for any of the drawn replies."""
        page = page.of(self._visitor(request))
        return await self._beside(replace(self._wanted(*chosen), regenerate=_id_of(data)), page, request)

    async def on_edit(self, page: PageState, request: gr.Request, data: gr.EditData, *chosen: Any) -> Updates:
        """Asks an earlier message in other words, as a branch of its own. -> as on_send"""
        page = page.of(self._visitor(request))
        text = data.value if isinstance(data.value, str) else _text_of(data.value)
        message = page.user_message(_index(data.index))
        beside = message.id if message else None
        return await self._beside(replace(self._wanted(*chosen), message=text, edit_of=beside), page, request)

    async def on_switch_branch(self, page: PageState, request: gr.Request, data: gr.EventData) -> Updates:
        """Shows the branch that a message belongs to. -> as on_send"""
        page = page.of(self._visitor(request))
        try:
            if page.conversation_id is None:
                raise ChatError("not_found", NO_MESSAGE)
            await self.store.conversation(page.conversation_id, page.visitor)
            with self.runs.hold(page.conversation_id):
                await self.store.switch_branch(page.conversation_id, _id_of(data) or "")
            view = await self._drawn(page, page.conversation_id, max(INITIAL_MESSAGES, len(page.drawn)))
        except ChatError as e:
            warn(e.message)
            return await self._unchanged(page)
        panel = render_panel(await last_state(self.store, view.page), whole=True)
        return self._shown(view, gr.skip(), [], panel)

    async def on_undo(self, page: PageState, request: gr.Request, data: gr.UndoData) -> Updates:
        """Takes the last message back into the prompt: the next one begins a branch beside it. -> as on_send"""
        page = page.of(self._visitor(request))
        message = page.user_message(_index(data.index))
        try:
            if message is None or page.conversation_id is None:
                raise ChatError("not_found", "There is nothing to take back.")
            await self.store.conversation(page.conversation_id, page.visitor)
            text = (await self.store.message(page.conversation_id, message.id)).text
            with self.runs.hold(page.conversation_id):
                await self.store.rewind(page.conversation_id, message.id)
            view = await self._drawn(page, page.conversation_id, max(INITIAL_MESSAGES, len(page.drawn)))
        except ChatError as e:
            warn(e.message)
            return await self._unchanged(page)
        return self._shown(view, render_draft(back=text), [], None)

    async def on_clear(self, page: PageState, request: gr.Request) -> Updates:
        """Deletes the conversation, and its live run with it. -> as on_send"""
        page = page.of(self._visitor(request))
        try:
            if page.conversation_id:
                await self.store.conversation(page.conversation_id, page.visitor)
                await self.turns.delete(page.conversation_id)
        except ChatError as e:
            if e.code != "not_found":
                warn(e.message)
                return await self._unchanged(page)
        return self._emptied(page)

    async def on_stop(self, page: PageState, request: gr.Request) -> None:
        """Ends the run that the page follows; its tail then says so."""
        page = page.of(self._visitor(request))
        if page.run_id:
            try:
                await self.runs.get(page.run_id, page.visitor).stop("user")
            except ChatError as e:
                warn(e.message)

    async def on_show_earlier(self, page: PageState, request: gr.Request) -> Updates:
        """Draws more of the conversation's beginning. -> page, chat, intro, earlier, turns"""
        page = page.of(self._visitor(request))
        if page.conversation_id is None:
            return page, *(gr.skip(),) * 4
        try:
            await self.store.conversation(page.conversation_id, page.visitor)
            more = await self._drawn(
                page, page.conversation_id, len(page.drawn) + INITIAL_MESSAGES, len(page.drawn) + 1
            )
        except ChatError as e:
            warn(e.message)
            return page, *(gr.skip(),) * 4
        # the same state still: whoever follows the page's run holds it, and is told by it when the page leaves
        page.drawn, page.earlier = more.page.drawn, more.page.earlier
        return page, render_messages(more.messages), *render_frame(more)

    def _wanted(
        self,
        backend: str,
        memory: str,
        system_prompt: str | None,
        temperature: float | None,
        max_tokens: int | None,
        tools: list[str] | None,
        *parameters: Any,
    ) -> TurnRequest:
        """What is chosen on the page, in the order in which `wire_page` gives it.

        All tools, and the parameters of the settings, are the same as no choice: what the settings say later counts.
        The last of the `parameters` is the model, where there is one to choose.
        """
        every = tools is None or set(tools) == set(self.turns.toolbox.names)
        values, model = parameters[: len(PARAMETERS)], (*parameters[len(PARAMETERS) :], None)[0]
        own: dict[str, Any] = {
            name: None if value == getattr(self._memory, name) else value
            for name, value in zip(PARAMETERS, values, strict=True)
        }
        chosen = None if every else tuple(tools or ())
        # between the choice of a backend and the drawing of its models, the page may still name another one's
        one_model = any(one.name == backend and one.settings.models is None for one in self.backends)
        model = None if one_model else model or None
        options = TurnOptions(system_prompt, temperature, max_tokens, chosen, **own, model=model)
        return TurnRequest("", backend=backend, memory=memory, options=options)

    async def _beside(self, ask: TurnRequest, page: PageState, request: gr.Request) -> Updates:
        if not (ask.regenerate or ask.edit_of) or page.conversation_id is None:
            warn("There is no message to ask again.")
            return await self._unchanged(page, ask.message)
        return await self._begin(replace(ask, conversation_id=page.conversation_id), page, request, keep_prompt=True)

    async def _begin(
        self, ask: TurnRequest, page: PageState, request: gr.Request, *, keep_prompt: bool = False
    ) -> Updates:
        requester = self.identity.requester(request)
        try:
            run = await self.turns.start(replace(ask, visitor=requester.visitor, address=requester.address))
        except ChatError as e:
            warn(f"Not sent. {e.message}")
            edited = ask.message if ask.edit_of else ""
            return await (self._unchanged(page, edited) if e.code != "not_found" else self._if_gone(page, edited))
        page.player = None  # the page shows something else from now on
        draft = gr.skip() if keep_prompt else render_draft(accepted=ask.message)
        panel = render_panel(run.state, whole=False, now=run.now())
        try:
            view = await self._drawn(page, run.conversation_id, INITIAL_MESSAGES)
        except ChatError as e:  # it runs all the same, and is followed
            warn(e.message)
            page = replace(page, conversation_id=run.conversation_id, run_id=run.id)
            return page, draft, gr.skip(), [], panel, *render_buttons(page), *(gr.skip(),) * 3
        view.page.run_id = run.id
        return self._shown(view, draft, [], panel)

    async def _if_gone(self, page: PageState, edited: str) -> Updates:
        """After a `not_found`: an emptied page if it is the conversation that has gone, deleted from another page."""
        try:
            if page.conversation_id:
                await self.store.conversation(page.conversation_id, page.visitor)
        except ChatError:
            return self._emptied(page, edited)
        return await self._unchanged(page, edited)

    def _emptied(self, page: PageState, edited: str = "") -> Updates:
        """A new conversation; the prompt keeps its text, and gets that of an edit that failed. -> as on_send"""
        page, draft = PageState(page.visitor), render_draft(back=edited) if edited else gr.skip()
        return self._shown(View(page), draft, [], {"cleared": True})

    async def _unchanged(self, page: PageState, edited: str = "") -> Updates:
        """Nothing happened; the prompt keeps its text, and gets that of an edit that failed. The Chatbot is redrawn,
        since an edit has changed it. -> as on_send
        """
        draft = render_draft(back=edited) if edited else gr.skip()
        try:
            if page.player is None:
                view = await refresh_view(self.store, self.runs, page)
                return self._shown(view, draft, gr.skip(), gr.skip())
        except ChatError as e:
            warn(e.message)
        return page, draft, gr.skip(), gr.skip(), gr.skip(), *render_buttons(page), *(gr.skip(),) * 3

    def _shown(self, view: View, draft: Any, live: Any, panel: Any) -> Updates:
        """-> as on_send"""
        chat = render_messages(view.messages)
        return view.page, draft, chat, live, panel, *render_buttons(view.page), *render_frame(view)

    async def _drawn(self, page: PageState, conversation_id: str, latest: int, least: int = 1) -> View:
        return await draw(self.store, self.runs, page.visitor, conversation_id, latest, least)


def _id_of(data: gr.EventData) -> str | None:
    """The message that `web/turns.js` names."""
    named = data._data.get("id") if isinstance(data._data, dict) else None
    return named if isinstance(named, str) else None


def _index(index: Any) -> int:
    return int(index[0] if isinstance(index, list | tuple) else index)


def _text_of(value: Any) -> str:
    parts = value if isinstance(value, list) else [value]
    return "".join(p if isinstance(p, str) else str(p.get("text", "")) for p in parts)
