"""Turns: everything between a message that arrives and a reply that is stored, the same for the page and every
transport.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile

import structlog

from agent.attempt import report_position, run_attempt
from agent.autosave import Autosave, ReplySaver, current_version
from agent.commands import read_command
from agent.loop import ToolSet
from agent.model_input import LoadHistory, LoadSummary, TurnInput
from agent.quota import Quota
from agent.retries import run_with_fallbacks
from agent.summaries import Summarizer, SummaryJob
from agent.tool_middleware import Rules
from agent.tools import Toolbox
from agent.validation import validate_message, validate_options
from backends import Backend, Backends
from backends.keys import redact_keys
from memory.conversations import Conversation
from memory.history_cache import History, HistoryCache
from memory.langchain_history import Mirror
from memory.messages import Message, Role, Summary, TurnOptions
from memory.modes import Mode, get_mode
from memory.record_cache import RecordCache
from memory.store import Store
from runs import events
from runs.errors import ChatError
from runs.live import Lifetime, LiveRun, new_id
from runs.registry import RunRegistry
from runs.requester import Requester
from runs.slots import Slots
from settings import Settings, ToolSettings

logger = logging.getLogger(__name__)
log = structlog.get_logger(__name__)

_MIRROR_S = 2.0
_MIRRORED = 100
"""Turns that wait to be written into the mirror; further ones are left out of it."""


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """A message and how it is to be answered; None takes what is configured. `visitor` is who asks, None without
    cookie, and `address` where they are.

    Without `conversation_id` it begins a conversation: with the id `new_id`, if that is given, and the messages
    `earlier`. `options` None takes the conversation's own. With `edit_of`, the id of an earlier message of the
    user's, this one comes beside it, as another branch. With `regenerate`, that message gets another reply, and
    `message` is not read.
    """

    message: str
    visitor: str | None = None
    conversation_id: str | None = None
    backend: str | None = None
    memory: str | None = None
    options: TurnOptions | None = None
    edit_of: str | None = None
    regenerate: str | None = None
    address: str | None = None
    new_id: str | None = None
    earlier: Sequence[tuple[Role, str]] = ()


@dataclass(frozen=True, slots=True)
class Turn:
    """A message that has been checked. `chain` is the backends that may answer it, the chosen one first."""

    text: str
    requester: Requester
    chain: Sequence[Backend]
    mode: Mode
    options: TurnOptions
    tool_set: ToolSet

    @property
    def visitor(self) -> str | None:
        return self.requester.visitor


class Turns:
    """Starts runs. One for the whole app."""

    def __init__(
        self, settings: Settings, backends: Backends, store: Store, runs: RunRegistry, toolbox: Toolbox | None = None
    ) -> None:
        """Without a toolbox there are no tools but the backends' own. Raises ValueError for a mirror that is none."""
        self.settings, self.backends, self.store, self.runs = settings, backends, store, runs
        self.toolbox = toolbox or Toolbox(ToolSettings(enabled=[]))
        self.histories, self.records = HistoryCache(store, partial(current_version, runs)), RecordCache(store)
        memory = settings.memory
        self._mirror = Mirror(memory.mirror, memory.mirror_options) if memory.mirror else None
        self._mirroring: set[asyncio.Task[None]] = set()
        limits = settings.limits
        self.quota = Quota(limits, runs)
        self.summarizer = Summarizer(settings, store, self.histories, runs, self.quota)
        self.slots = Slots(limits.runs)
        self.autosave = Autosave(store)
        self.watchers: list[Callable[[LiveRun], None]] = []
        """Callbacks that run after each run has ended."""
        self.closing = False
        self._lifetime = Lifetime(limits.run_seconds, limits.abandoned_seconds, limits.stall_seconds)

    def prepare(self, ask: TurnRequest, kept: TurnOptions | None = None) -> Turn:
        """Checks all that can be checked of a message before anything happens; `kept` is its conversation's tuning.

        Raises ChatError.
        """
        text = validate_message(ask.message, self.settings.limits)
        backend = self.backends.get(ask.backend or self.backends.default.name)
        mode = get_mode(ask.memory or self.settings.memory.default)
        options = validate_options(ask.options or kept or TurnOptions(), self.settings.limits)
        tool_set = self._tool_set(text, ask.visitor, options)
        chain = self.backends.chain(backend, options.model, ask.visitor)
        return Turn(text, Requester(ask.visitor, ask.address), chain, mode, options, tool_set)

    async def start(self, ask: TurnRequest) -> LiveRun:
        """Checks and stores the message, and starts its run. Raises ChatError, and then nothing has happened."""
        owner, kept = ask.visitor, None
        if ask.conversation_id:
            found = await self.store.conversation(ask.conversation_id, ask.visitor)
            owner, kept = (
                found.owner,
                self.stored_options(found, ask.backend or self.backends.default.name, ask.visitor),
            )
            if earlier_id := ask.regenerate or ask.edit_of:
                earlier = await self.store.message(found.id, earlier_id)
                if earlier.role != "user":
                    raise ChatError("invalid_request", "Only a message of the user's can be asked again.")
                ask = replace(ask, message=earlier.text) if ask.regenerate else ask
        turn = self.prepare(ask, kept)
        self._check_key(turn)
        if ask.conversation_id is None:
            await self.check_conversation_limit(ask.visitor)
        turn, own_key = self._paid(turn)
        self.quota.check(turn.requester, own_key=own_key)
        run = self._run(ask.conversation_id or ask.new_id or new_id(), turn, owner)
        self.runs.add(run)
        self.quota.count(turn.requester, own_key=own_key)
        try:
            self.summarizer.yield_to_turn(run.conversation_id, turn.chain[0])
            begins_with = ask.earlier if ask.conversation_id is None else None
            beside = {"edit_of": ask.edit_of, "regenerate": ask.regenerate}
            asked, reply = await self.store.begin_turn(
                run, turn.text, earlier=begins_with, options=turn.options, **beside
            )
        except BaseException:
            self.runs.discard(run)
            raise

        saver = ReplySaver(self.store, reply)
        history = partial(self.histories.before, run.conversation_id, asked)
        summary = partial(self.summarizer.summary, run.conversation_id)

        async def work(run: LiveRun) -> None:
            with self.autosave.track(run, reply):
                await self._answer(run, turn, asked, history, summary)

        run.start(work, saver.end)
        self._watch(run)
        if self.settings.log_messages:
            log.info("message", run_id=run.id, text=redact_keys(turn.text, self.backends.keys.all_of(turn.visitor)))
        if run.task and turn.mode.summarizes:
            run.task.add_done_callback(lambda _: self._summarize(run, turn, reply))
        if run.task and self._mirror:
            said = [] if ask.regenerate else [asked]
            run.task.add_done_callback(lambda _: self._reflect(run, [*said, replace(reply, text=run.text)]))
        return run

    def _reflect(self, run: LiveRun, said: Sequence[Message]) -> None:
        """Writes a turn into the mirror, in the background."""
        if len(self._mirroring) >= _MIRRORED:
            logger.warning("the mirror of a conversation: it is too slow, so a turn is left out")
        elif self._mirror and not run.conversation_deleted:
            writing = asyncio.create_task(self._mirror.write(run.conversation_id, said), name=f"mirror {run.id}")
            self._mirroring.add(writing)
            writing.add_done_callback(self._mirroring.discard)

    async def close(self) -> None:
        """Ends the live runs, and what goes on between turns."""
        self.closing = True
        await self.runs.stop_all()
        self.autosave.close()
        await self.summarizer.close()
        if self._mirroring:
            await asyncio.wait(self._mirroring, timeout=_MIRROR_S)

    async def forget_idle(self) -> None:
        """Deletes what the settings keep only for a time, and what is not counted any more."""
        self.quota.forget_idle()
        days = self.settings.memory.retention_days
        if not days:
            return
        before = time.time() - days * 86400
        spared = [run.conversation_id for run in self.runs.live()]
        if gone := await self.store.delete_idle(before, spared):
            logger.warning("%d conversations were deleted: nobody has gone on with them for %g days", gone, days)
        if library := self.toolbox.library:
            await library.forget_idle(before)

    def _summarize(self, run: LiveRun, turn: Turn, reply: Message) -> None:
        """Between this turn and the next, its conversation's summary is brought up to date."""
        last = run.log.entries[-1].event
        if run.conversation_deleted or (isinstance(last, events.Stopped) and last.reason == "shutdown"):
            return
        key = self.backends.key(turn.chain[0], turn.visitor)
        backend = turn.chain[0].with_model(None, key)
        self.summarizer.begin(SummaryJob(run.conversation_id, reply.id, backend, key, turn.options, turn.requester))

    def start_ephemeral(self, turn: Turn) -> LiveRun:
        """Starts a run of which nothing is stored; what stands in its way becomes its `error` event."""
        run = self._run(new_id(), turn, turn.visitor)
        run.stored = False
        asked = Message(new_id(), "user", turn.text, run_id=run.id)

        async def history() -> History:
            return History()

        async def summary(_: Sequence[Message]) -> tuple[Summary | None, str | None]:
            return None, None

        async def work(run: LiveRun) -> None:
            self._check_key(turn)
            self.quota.check_runs(turn.requester)
            self.runs.add(run)
            await self._answer(run, turn, asked, history, summary)

        run.start(work)
        self._watch(run)
        return run

    def _watch(self, run: LiveRun) -> None:
        def tell(_: object) -> None:
            for watcher in self.watchers:
                watcher(run)

        if run.task:
            run.task.add_done_callback(tell)

    def _run(self, conversation_id: str, turn: Turn, owner: str | None) -> LiveRun:
        return LiveRun(
            conversation_id=conversation_id,
            backend=turn.chain[0].name,
            memory=turn.mode.name,
            owner=owner,
            lifetime=self._lifetime,
            requester=turn.requester,
            model=turn.chain[0].chosen_model,
        )

    async def delete(self, conversation_id: str) -> None:
        """Deletes a conversation, and ends its live run first. The caller has checked whose it is."""
        if run := self.runs.live_run(conversation_id):
            run.conversation_deleted = True
            await run.stop("user")
        self.summarizer.yield_to_turn(conversation_id)
        with self.runs.hold(conversation_id):
            await self.store.delete(conversation_id)
        self.histories.forget(conversation_id)

    def stored_options(self, conversation: Conversation, backend: str | None, visitor: str | None) -> TurnOptions:
        """A conversation's tuning for this backend, without tools and a model that are not offered any more."""
        options = conversation.options
        if options.tools is not None:
            options = replace(options, tools=tuple(self.toolbox.known(options.tools)))
        if options.model is not None:
            options = replace(options, model=self._kept_model(conversation, backend, visitor))
        return options

    def _kept_model(self, conversation: Conversation, backend: str | None, visitor: str | None) -> str | None:
        if backend is None or backend != conversation.backend:
            return None
        try:
            self.backends.chosen(self.backends.get(backend), conversation.options.model, visitor)
        except ChatError:
            return None
        return conversation.options.model

    def _check_key(self, turn: Turn) -> None:
        """Refuses at once what could not be answered."""
        if len(turn.chain) > 1:
            return
        backend = turn.chain[0]
        health = backend.health(self.backends.key(backend, turn.visitor))
        if health.state == "key_missing":
            raise ChatError("missing_key", f"{backend.name} is not ready: {health.reason}.")
        if health.state == "key_refused" and self._brings_key(backend, turn.visitor):
            self.quota.check_key(turn.requester)

    def _paid(self, turn: Turn) -> tuple[Turn, bool]:
        """The turn, and whether all of it is at the cost of the visitor's own keys.

        Where their messages for the day are used up, what would come instead of a key of theirs is left out: they could
        bring one that is none, and be answered at the operator's cost.
        """
        own = list(takewhile(lambda backend: self._brings_key(backend, turn.visitor), turn.chain))
        if own and self.quota.left(turn.requester).day == 0:
            turn = replace(turn, chain=own)
        return turn, len(own) == len(turn.chain)

    def _brings_key(self, backend: Backend, visitor: str | None) -> bool:
        key = self.backends.key(backend, visitor)
        return key is not None and key.from_visitor

    async def check_conversation_limit(self, visitor: str | None) -> None:
        """Raises ChatError `rate_limited` where no more conversations are kept for a visitor."""
        if await self.conversations_left(visitor) == 0:
            most = self.settings.limits.conversations_per_visitor or 0
            kept = "1 conversation" if most == 1 else f"{most:,} conversations"
            message = f"You have {kept}, the most that are kept here: delete some in the list first."
            raise ChatError("rate_limited", message)

    async def conversations_left(self, visitor: str | None) -> int | None:
        """How many more conversations are kept for a visitor; None where there is no limit."""
        most = self.settings.limits.conversations_per_visitor
        return max(0, most - await self.store.count(visitor)) if most and visitor else None

    def _tool_set(self, text: str, visitor: str | None, options: TurnOptions) -> ToolSet:
        """The tools that are on for this turn, and the command in its message; a command may use any tool."""
        chosen, rules = self.toolbox.tools(visitor, options.tools), self.settings.tools
        command = read_command(text, every := self.toolbox.tools(visitor))
        hidden = frozenset({command.tool} if command else ()) - {tool.name for tool in chosen}
        chosen += [tool for tool in every if tool.name in hidden]
        bounds = Rules(frozenset(rules.approval), rules.seconds, rules.result_characters)
        return ToolSet(chosen, command, hidden, bounds, rules.rounds)

    async def _answer(
        self, run: LiveRun, prepared: Turn, asked: Message, history: LoadHistory, summary: LoadSummary
    ) -> None:
        turn = TurnInput(prepared.mode, asked, prepared.options, prepared.visitor, history, summary)

        async def by(backend: Backend) -> None:
            key = self.backends.key(backend, turn.visitor)
            own = key is not None and key.from_visitor
            refused = own and backend.health(key).state == "key_refused"
            try:
                with self.quota.trying_key(run.requester) if refused else nullcontext():
                    await run_attempt(self.settings, run, backend, key, turn, prepared.tool_set)
            except asyncio.CancelledError:
                if refused:  # the provider may have been asked all the same
                    self.quota.count_refused_key(run.requester)
                raise
            except ChatError as e:
                if own and e.code == "authentication":
                    self.quota.count_refused_key(run.requester)
                raise

        async with self.slots.acquire(partial(report_position, run, "to begin")):
            await run_with_fallbacks(run, prepared.chain, by)
