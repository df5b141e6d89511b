"""The page's callbacks. They take and return plain values, not components.

A handler starts a run but does not own it; `follower.py` follows it.
"""

from dataclasses import replace
from typing import Any

import gradio as gr
from pydantic import ValidationError

from agent.turn import TurnRequest
from agent.turns import Turns
from components.approval import ApprovalHandlers
from components.assets import warn
from components.conversation_view import last_state, load_view, refresh_view
from components.endpoint import Endpoint
from components.fields import FIELDS
from components.follower import RunFollower
from components.header_handlers import HeaderHandlers
from components.inspector import Inspector
from components.load import ConversationLoader
from components.page_state import INITIAL_MESSAGES, ConversationView, PageState, Updates
from components.panel import render_panel
from components.render import render_conversation, render_draft, render_page, render_view
from components.replay import PlayerCache, ReplayHandlers
from hosting.identity import Identity
from memory.message_tree import NO_MESSAGE
from memory.mode_options import chosen_options
from memory.modes import MODES
from memory.options import PARAMETERS, TurnOptions
from runs.errors import ChatError
from transports.schemas import ContinueFrom

ALTERNATIVES = 5
"""Number of alternatives for each token that the page asks for."""


class Handlers:
    """The handlers of turns, and all other handlers of the page. One instance serves all pages.

    The handlers that start, change or delete messages update page, draft, chat, live, panel, send, stop, intro, earlier
    and turns. Their inputs after `page` are the values of `FIELDS`.
    """

    def __init__(self, turns: Turns, identity: Identity) -> None:
        self.turns, self.identity = turns, identity
        self.header = HeaderHandlers(turns, identity)
        self.approval = ApprovalHandlers(turns, identity)
        players = PlayerCache()
        self.loader = ConversationLoader(turns, identity, self.header, players)
        self.replay = ReplayHandlers(identity, players)
        self.endpoint = Endpoint(turns, identity)
        self.inspector = Inspector(turns, identity)
        self.follower = RunFollower(turns.store, turns.runs, identity)
        self.store, self.runs, self.backends = turns.store, turns.runs, turns.backends
        self._memory, self._tools = turns.settings.memory, turns.settings.tools

    async def on_send(self, prompt: str, page: PageState, request: gr.Request, *fields: Any) -> Updates:
        """Sends a message. The ids of its images come after the values of `FIELDS`."""
        page = page.for_request(self.identity, request)
        fields, images = fields[: len(FIELDS)], [str(one) for each in fields[len(FIELDS) :] for one in each or ()]
        if not (prompt or "").strip():
            return await self._unchanged(page)
        turn = replace(self._request(fields), message=prompt, conversation_id=page.conversation_id, images=images)
        return await self._begin(turn, page, request)

    async def on_regenerate(self, page: PageState, request: gr.Request, data: gr.EventData, *fields: Any) -> Updates:
        """Generates another reply to any shown message, as a branch."""
        page = page.for_request(self.identity, request)
        return await self._branch(replace(self._request(fields), regenerate=_id_of(data)), page, request)

    async def on_continue_reply(
        self, page: PageState, request: gr.Request, data: gr.EventData, *fields: Any
    ) -> Updates:
        """Continues a reply from a token on with another one, as a branch. The event is a `ContinueFrom`."""
        page = page.for_request(self.identity, request)
        try:
            wanted = ContinueFrom.model_validate(data._data)
        except ValidationError:
            warn("The reply cannot be continued from there.")
            return await self._unchanged(page)
        turn = replace(self._request(fields), continue_from=wanted.continuation())
        return await self._begin(replace(turn, conversation_id=page.conversation_id), page, request, keep_prompt=True)

    async def on_edit(self, page: PageState, request: gr.Request, data: gr.EditData, *fields: Any) -> Updates:
        """Sends an edited version of an earlier message, as a branch."""
        page = page.for_request(self.identity, request)
        text = data.value if isinstance(data.value, str) else _text_of(data.value)
        message = page.user_message(_index(data.index))
        edited = message.id if message else None
        return await self._branch(replace(self._request(fields), message=text, edit_of=edited), page, request)

    async def on_switch_branch(self, page: PageState, request: gr.Request, data: gr.EventData) -> Updates:
        """Shows the branch of a message."""
        page = page.for_request(self.identity, request)
        try:
            if page.conversation_id is None:
                raise ChatError("not_found", NO_MESSAGE)
            await self.store.conversation(page.conversation_id, page.visitor)
            with self.runs.hold(page.conversation_id):
                await self.store.switch_branch(page.conversation_id, _id_of(data) or "")
            view = await self._load(page, page.conversation_id, max(INITIAL_MESSAGES, len(page.shown)))
        except ChatError as e:
            warn(e.message)
            return await self._unchanged(page)
        panel = render_panel(await last_state(self.store, view.page), whole=True)
        return render_view(view) | {"live": [], "panel": panel}

    async def on_undo(self, page: PageState, request: gr.Request, data: gr.UndoData) -> Updates:
        """Moves the last message back into the prompt. The next message begins a branch beside it."""
        page = page.for_request(self.identity, request)
        message = page.user_message(_index(data.index))
        try:
            if message is None or page.conversation_id is None:
                raise ChatError("not_found", "There is no message to undo.")
            await self.store.conversation(page.conversation_id, page.visitor)
            stored = await self.store.message(page.conversation_id, message.id)
            with self.runs.hold(page.conversation_id):
                await self.store.rewind(page.conversation_id, message.id)
            view = await self._load(page, page.conversation_id, max(INITIAL_MESSAGES, len(page.shown)))
        except ChatError as e:
            warn(e.message)
            return await self._unchanged(page)
        return render_view(view) | {
            "draft": render_draft(back=stored.text, images=[image.wire() for image in stored.images]),
            "live": [],
            "panel": None,
        }

    async def on_clear(self, page: PageState, request: gr.Request) -> Updates:
        """Deletes the conversation together with its live run."""
        page = page.for_request(self.identity, request)
        try:
            if page.conversation_id:
                await self.store.conversation(page.conversation_id, page.visitor)
                await self.turns.conversations.delete(page.conversation_id)
        except ChatError as e:
            if e.code != "not_found":
                warn(e.message)
                return await self._unchanged(page)
        return self._emptied(page)

    async def on_stop(self, page: PageState, request: gr.Request) -> None:
        """Stops the run that the page follows. The follower then shows its end."""
        page = page.for_request(self.identity, request)
        if page.run_id:
            try:
                await self.runs.get(page.run_id, page.visitor).stop("user")
            except ChatError as e:
                warn(e.message)

    async def on_show_earlier(self, page: PageState, request: gr.Request) -> Updates:
        """Shows more messages of the conversation's beginning. Updates page, chat, intro, earlier and turns."""
        page = page.for_request(self.identity, request)
        if page.conversation_id is None:
            return {"page": page}
        try:
            await self.store.conversation(page.conversation_id, page.visitor)
            count = len(page.shown)
            view = await self._load(page, page.conversation_id, count + INITIAL_MESSAGES, count + 1)
        except ChatError as e:
            warn(e.message)
            return {"page": page}
        # the object must stay the same: the run's follower reads `page.closed` from it
        page.shown, page.earlier = view.page.shown, view.page.earlier
        return {"page": page, **render_conversation(view)}

    def _request(self, values: tuple[Any, ...]) -> TurnRequest:
        """Builds the request of a turn from the values of `FIELDS`.

        All tools, thinking, and the values of the settings count as no choice, so that later settings take effect.
        """
        chosen = dict(zip(FIELDS, values, strict=True))
        backend, memory, tools, model = (chosen.pop(name) for name in ("backend", "memory", "tools", "model"))
        logprobs = ALTERNATIVES if chosen.pop("probabilities") else None
        every = tools is None or self.turns.toolbox.is_all(tools)
        chosen["thinking"] = None if chosen["thinking"] else False
        if chosen["documents"] == self._tools.documents:
            chosen["documents"] = None
        for name in PARAMETERS:
            if chosen[name] == getattr(self._memory, name):
                chosen[name] = None
        # while the page loads the models of a newly chosen backend, it may still name a model of the previous one
        one_model = any(one.name == backend and one.settings.models is None for one in self.backends)
        mode = MODES.get(str(memory))
        own = chosen.pop("mode_options")
        options = TurnOptions(
            **chosen,
            mode_options=chosen_options(mode.name, mode.options, own) if mode else None,
            tools=None if every else tuple(self.turns.toolbox.known(tools)),
            model=None if one_model else model or None,
        )
        return TurnRequest("", backend=backend, memory=memory, options=options, logprobs=logprobs)

    async def _branch(self, turn: TurnRequest, page: PageState, request: gr.Request) -> Updates:
        if not (turn.regenerate or turn.edit_of) or page.conversation_id is None:
            warn("This message no longer exists. Reload the page.")
            return await self._unchanged(page, turn.message)
        return await self._begin(replace(turn, conversation_id=page.conversation_id), page, request, keep_prompt=True)

    async def _begin(
        self, turn: TurnRequest, page: PageState, request: gr.Request, *, keep_prompt: bool = False
    ) -> Updates:
        requester = self.identity.requester(request)
        try:
            run = await self.turns.start(replace(turn, visitor=requester.visitor, address=requester.address))
        except ChatError as e:
            warn(f"Not sent. {e.message}")
            edited = turn.message if turn.edit_of else ""
            return await (self._unchanged(page, edited) if e.code != "not_found" else self._if_deleted(page, edited))
        page.player = None  # the page shows a conversation from now on
        updates: Updates = {} if keep_prompt else {"draft": render_draft(accepted=turn.message, images=turn.images)}
        updates |= {"live": [], "panel": render_panel(run.state, whole=False, now=run.now())}
        try:
            view = await self._load(page, run.conversation_id, INITIAL_MESSAGES)
        except ChatError as e:  # the run continues, and the page follows it
            warn(e.message)
            return updates | render_page(replace(page, conversation_id=run.conversation_id, run_id=run.id))
        view.page.run_id = run.id
        return updates | render_view(view)

    async def _if_deleted(self, page: PageState, edited: str) -> Updates:
        """Handles a `not_found`: empties the page if its conversation was deleted from another page."""
        try:
            if page.conversation_id:
                await self.store.conversation(page.conversation_id, page.visitor)
        except ChatError:
            return self._emptied(page, edited)
        return await self._unchanged(page, edited)

    def _emptied(self, page: PageState, edited: str = "") -> Updates:
        """Shows an empty conversation. The prompt keeps its text and receives the text of a failed edit."""
        updates = render_view(ConversationView(PageState(page.visitor))) | {"live": [], "panel": {"cleared": True}}
        return updates | ({"draft": render_draft(back=edited)} if edited else {})

    async def _unchanged(self, page: PageState, edited: str = "") -> Updates:
        """Shows the page as it was; the Chatbot is drawn again, because an edit has changed it in the browser.

        The prompt keeps its text and receives the text of a failed edit.
        """
        updates = render_page(page) | ({"draft": render_draft(back=edited)} if edited else {})
        try:
            if page.player is None:
                return updates | render_conversation(await refresh_view(self.store, self.runs, page))
        except ChatError as e:
            warn(e.message)
        return updates

    async def _load(self, page: PageState, conversation_id: str, latest: int, least: int = 1) -> ConversationView:
        return await load_view(self.store, self.runs, page.visitor, conversation_id, latest, least)


def _id_of(data: gr.EventData) -> str | None:
    """Returns the id of the message that an event of `web/turns.js` names."""
    message_id = data._data.get("id") if isinstance(data._data, dict) else None
    return message_id if isinstance(message_id, str) else None


def _index(index: Any) -> int:
    return int(index[0] if isinstance(index, list | tuple) else index)


def _text_of(value: Any) -> str:
    parts = value if isinstance(value, list) else [value]
    return "".join(p if isinstance(p, str) else str(p.get("text", "")) for p in parts)
