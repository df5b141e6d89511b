"""Turns: everything between a message and its stored reply, the same for the page and for every transport."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from itertools import takewhile

import structlog

from agent.attempt import report_position, run_attempt
from agent.autosave import Autosave, ReplySaver, current_version
from agent.continuation import Continuation, Continuations
from agent.conversations import Conversations
from agent.mcp.run_connections import run_connections
from agent.mirror import MirrorQueue
from agent.quota import Quota
from agent.read_ahead import ReadAhead
from agent.retries import run_with_fallbacks
from agent.summaries import Summarizer, SummaryJob
from agent.tool_set import ToolSet, build_tool_set
from agent.tools import Toolbox
from agent.turn import Turn, TurnRequest
from agent.validation import validate_message, validate_options
from agent.visitor_documents import VisitorDocuments
from agent.visitor_images import VisitorImages
from backends import Backend, Backends
from backends.keys import redact_keys
from documents.images import ImageLibrary, ImageLimits
from documents.quotes import SEARCH
from memory.history_cache import HistoryCache
from memory.messages import Message
from memory.modes import get_mode
from memory.options import TurnOptions
from memory.record_cache import RecordCache
from memory.store import Store
from memory.stored_conversations import Conversation
from runs import events
from runs.errors import ChatError
from runs.events import Entry
from runs.images import Image
from runs.live import Lifetime, LiveRun, new_id
from runs.registry import RunRegistry
from runs.requester import Requester
from runs.slots import Slots
from settings import Settings, ToolSettings

logger = logging.getLogger(__name__)
log = structlog.get_logger(__name__)

_SAVE_COST_S = 2.0
"""Seconds that the end of a run that is not stored waits until its cost is saved."""


class Turns:
    """Starts the runs of the app."""

    def __init__(
        self,
        settings: Settings,
        backends: Backends,
        store: Store,
        runs: RunRegistry,
        toolbox: Toolbox | None = None,
        salt: bytes = b"",
    ) -> None:
        """Without a toolbox only the backends' own tools exist; `salt` hides the owners of images.

        Raises ValueError for a mirror that cannot be used.
        """
        self.settings, self.backends, self.store, self.runs = settings, backends, store, runs
        self.toolbox = toolbox or Toolbox(ToolSettings(enabled=[]))
        self.images = ImageLibrary(settings.data / "images", ImageLimits.from_settings(settings.limits), salt)
        self.histories, self.records = HistoryCache(store, partial(current_version, runs)), RecordCache(store)
        self.continuations = Continuations(store, runs, self.records)
        self.mirror = MirrorQueue(settings.memory)
        self.ahead = ReadAhead()
        limits = settings.limits
        self.quota = Quota(limits, runs)
        self.visitor_images = VisitorImages(self.images, backends, self.quota)
        self.summarizer = Summarizer(settings, store, self.histories, runs, self.quota)
        self.conversations = Conversations(
            settings, store, runs, backends, self.toolbox, self.histories, self.summarizer, self.images
        )
        self.slots = Slots(limits.runs)
        self.autosave = Autosave(store)
        self.watchers: list[Callable[[LiveRun], None]] = []
        """Callbacks that run after each run has ended."""
        self.closing = False
        self._lifetime = Lifetime(limits.run_seconds, limits.abandoned_seconds, limits.stall_seconds)

    def prepare(self, request: TurnRequest, stored: TurnOptions | None = None) -> Turn:
        """Validates a request; `stored` is the conversation's options. Raises ChatError."""
        text = validate_message(request.message, self.settings.limits)
        mode = get_mode(request.memory or self.settings.memory.default)
        options = validate_options(request.options or stored or TurnOptions(), self.settings.limits, mode)
        tool_set = build_tool_set(self.toolbox, self.settings.tools, text, request.visitor, options.tools)
        name = request.backend or self.backends.default.name
        backends = self.backends.with_fallbacks(name, options.model, request.visitor)
        requester = Requester(request.visitor, request.address)
        message = Message(new_id(), "user", text)
        documents = self._documents(request.visitor, text, options)
        return Turn(message, mode, backends, options, tool_set, requester, request.logprobs, documents=documents)

    def _documents(self, visitor: str | None, text: str, options: TurnOptions) -> VisitorDocuments | None:
        """Returns the visitor's documents for a turn; None where there can be none."""
        library, tools = self.toolbox.library, self.settings.tools
        if library is None or visitor is None or SEARCH not in self.toolbox.names:
            return None
        wanted = tools.documents if options.documents is None else options.documents
        return VisitorDocuments(library, visitor, text, tools.passages, wanted)

    def _stored_options(self, found: Conversation, request: TurnRequest) -> TurnOptions:
        """Returns a conversation's options for the backend and the memory mode of a request."""
        backend, memory = request.backend or self.backends.default.name, request.memory or self.settings.memory.default
        return self.conversations.options(found, backend, request.visitor, memory)

    def with_history(self, turn: Turn, conversation_id: str, message: Message, owner: str | None) -> Turn:
        """Returns the turn with its stored message and the history before that, in the owner's conversation."""
        history = partial(self.histories.before, conversation_id, message)
        summary = partial(self.summarizer.summary, conversation_id)
        images = partial(self.images.encoded, owner, conversation_id)
        return replace(turn, message=message, load_history=history, load_summary=summary, load_images=images)

    async def start(self, request: TurnRequest) -> LiveRun:
        """Validates and stores the message, and starts its run. Raises ChatError; then nothing was stored."""
        owner, stored, reply_start, kept = request.visitor, None, "", tuple[Image, ...]()
        if request.continue_from:
            request, reply_start = await self._continued(request, request.continue_from)
        if request.conversation_id:
            found = await self.store.conversation(request.conversation_id, request.visitor)
            owner, stored = found.owner, self._stored_options(found, request)
            if earlier_id := request.regenerate or request.edit_of:
                earlier = await self.store.message(found.id, earlier_id)
                if earlier.role != "user":
                    raise ChatError("invalid_request", "Only a user message can be edited or answered again.")
                kept = earlier.images
                if request.regenerate and request.images:
                    raise ChatError("invalid_request", "images: a message that is answered again keeps its own.")
                request = replace(request, message=earlier.text) if request.regenerate else request
        turn = self.prepare(request, stored)
        if owner is None:  # passages would be read by everyone who has the conversation's id
            turn = replace(turn, documents=None)
        if reply_start:
            turn = _continuing(turn, reply_start)
        if kept or request.images:
            turn = self.visitor_images.check(turn, len(request.images))
        self._check_key(turn)
        if request.conversation_id is None:
            await self.conversations.check_limit(request.visitor)
        turn, own_key = self._limit_to_own_keys(turn)
        self.quota.check(turn.requester, own_key=own_key)
        ids = await self.visitor_images.ids(turn.requester, request.images)
        run = self._run(request.conversation_id or request.new_id or new_id(), turn, owner)
        self.runs.add(run)
        self.quota.count(turn.requester, own_key=own_key)
        try:
            self.summarizer.yield_to_turn(run.conversation_id, turn.backend)
            async with self.images.attached(turn.visitor, owner, run.conversation_id, ids) as images:
                message, reply = await self.store.begin_turn(
                    run,
                    turn.message.text,
                    earlier=request.earlier if request.conversation_id is None else None,
                    options=turn.options,
                    edit_of=request.edit_of,
                    regenerate=request.regenerate,
                    images=(*kept, *images),
                )
        except BaseException:
            self.runs.discard(run)
            raise
        turn = self.with_history(turn, run.conversation_id, message, owner)

        async def work(run: LiveRun) -> None:
            if any(backend.settings.price for backend in turn.backends):
                await self._load_costs(run)
            with self.autosave.track(run, reply):
                await self._answer(run, turn)

        def mirror(run: LiveRun) -> None:
            fresh = [] if request.regenerate else [message]
            self.mirror.add(run, [*fresh, replace(reply, text=run.text)])

        run.start(work, ReplySaver(self.store, reply).end)
        self._watch(run, partial(self._summarize, turn, reply), mirror)
        if self.settings.log_messages:
            log.info(
                "message", run_id=run.id, text=redact_keys(turn.message.text, self.backends.keys.all_of(turn.visitor))
            )
        return run

    def start_ephemeral(self, turn: Turn) -> LiveRun:
        """Starts a run of which only the cost is stored. A turn that cannot be answered becomes an `error` event."""
        run = self._run(new_id(), turn, turn.visitor)
        run.stored = False

        async def work(run: LiveRun) -> None:
            self._check_key(turn)
            self.quota.check_runs(turn.requester)
            self.runs.add(run)
            await self._answer(run, turn)

        run.start(work, self._save_cost)
        self._watch(run)
        return run

    async def close(self) -> None:
        """Stops the live runs and the work between turns."""
        self.closing = True
        await self.ahead.close()
        await self.runs.stop_all()
        await asyncio.sleep(0)  # a run that has just ended has yet to call what follows it, the mirror for one
        self.autosave.close()
        await self.summarizer.close()
        await self.mirror.close()
        self.images.close()

    async def forget_idle(self) -> None:
        """Deletes expired conversations, expired counters of the quota, and images that no conversation has."""
        self.quota.forget_idle()
        await self.conversations.delete_idle()
        await self.images.delete(await self.store.missing(await self.images.expire()))

    async def _continued(self, request: TurnRequest, wanted: Continuation) -> tuple[TurnRequest, str]:
        """Returns the request for another reply to the same message, and the text with which that begins."""
        conversation_id = await self.continuations.conversation_of(wanted.run_id, request.visitor)
        if request.conversation_id not in (None, conversation_id):
            raise ChatError("invalid_request", "continue_from: the run is not of this conversation.")
        network = Requester(request.visitor, request.address).network
        message, text = await self.continuations.begin(wanted, network)
        return replace(request, conversation_id=conversation_id, regenerate=message.id), text

    async def _load_costs(self, run: LiveRun) -> None:
        """Loads what was spent before a run. A reply does not fail because that is not known."""
        try:
            run.earlier_costs = await self.store.costs(run.conversation_id, run.requester.visitor)
        except ChatError as e:
            logger.warning("run %s: the total costs are not known: %s", run.id, e.message)

    async def _save_cost(self, run: LiveRun, closing: Sequence[Entry]) -> None:
        """Adds the cost of a run that is not stored to the visitor's day."""
        dollars, visitor = run.usage().get("cost_usd"), run.requester.visitor
        if not dollars or visitor is None:
            return
        try:
            async with asyncio.timeout(_SAVE_COST_S):
                await self.store.add_cost(run.conversation_id, visitor, dollars)
        except (ChatError, TimeoutError) as e:
            logger.warning("run %s: its cost could not be saved: %s", run.id, e or "the database is slow")

    def _run(self, conversation_id: str, turn: Turn, owner: str | None) -> LiveRun:
        self.ahead.stop()
        return LiveRun(
            conversation_id=conversation_id,
            backend=turn.backend.name,
            memory=turn.mode.name,
            owner=owner,
            lifetime=self._lifetime,
            requester=turn.requester,
            model=turn.backend.chosen_model,
        )

    def _watch(self, run: LiveRun, *callbacks: Callable[[LiveRun], None]) -> None:
        """Calls the watchers and the callbacks when the run has ended."""

        def call(callback: Callable[[LiveRun], None], _: object) -> None:
            callback(run)

        for callback in (self._notify, *callbacks):
            if run.task:
                run.task.add_done_callback(partial(call, callback))

    def _notify(self, run: LiveRun) -> None:
        for watcher in self.watchers:
            watcher(run)

    def _summarize(self, turn: Turn, reply: Message, run: LiveRun) -> None:
        """Updates the conversation's summary in the background, where the memory mode has one."""
        last = run.log.entries[-1].event
        if (
            not turn.mode.summarizes
            or run.conversation_deleted
            or (isinstance(last, events.Stopped) and last.reason == "shutdown")
        ):
            return
        key = self.backends.bind(turn.backend.name, turn.visitor).key  # the visitor may have changed theirs meanwhile
        backend = turn.backend.bind(key).with_model(None)
        self.summarizer.begin(SummaryJob(run.conversation_id, reply.id, backend, turn.options, turn.requester))

    async def _answer(self, run: LiveRun, turn: Turn) -> None:
        """Waits for a slot and lets the turn's backends answer."""

        async def by(backend: Backend) -> None:
            own = backend.has_visitors_key
            refused = own and backend.health().state == "key_refused"
            try:
                with self.quota.trying_key(run.requester) if refused else nullcontext():
                    await run_attempt(self.settings, run, backend, turn)
            except asyncio.CancelledError:
                if refused:  # the provider may have got the request
                    self.quota.count_refused_key(run.requester)
                raise
            except ChatError as e:
                if own and e.code == "authentication":
                    self.quota.count_refused_key(run.requester)
                raise

        async with self.slots.acquire(partial(report_position, run, "a free slot")):
            with run_connections(self.toolbox.servers):
                await run_with_fallbacks(run, turn.backends, by)

    def _check_key(self, turn: Turn) -> None:
        """Raises ChatError where the only backend has no key, or a refused one and too many were refused."""
        if len(turn.backends) > 1:
            return
        backend = turn.backend
        health = backend.health()
        if health.state == "key_missing":
            raise ChatError("missing_key", f"Needs a key. {backend.name} is not ready: {health.reason}.")
        if health.state == "key_refused" and backend.has_visitors_key:
            self.quota.check_key(turn.requester)

    def _limit_to_own_keys(self, turn: Turn) -> tuple[Turn, bool]:
        """Returns the turn, and whether the visitor's own keys pay for all of it.

        If the visitor's daily quota is used up, the turn keeps only backends with the visitor's own key. Otherwise an
        invalid key would fall back to a backend that the operator pays for.
        """
        own = list(takewhile(lambda backend: backend.has_visitors_key, turn.backends))
        if own and self.quota.left(turn.requester).day == 0:
            turn = replace(turn, backends=own)
        return turn, len(own) == len(turn.backends)


def _continuing(turn: Turn, text: str) -> Turn:
    """Returns a turn whose reply begins with a text, without tools and fallbacks. Raises ChatError."""
    backend = turn.backend
    if not backend.continues_replies:
        raise ChatError("invalid_request", f"{backend.name} cannot continue a reply. Choose a local model.")
    return replace(turn, backends=[backend], tool_set=ToolSet(), reply_start=text)
