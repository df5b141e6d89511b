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

from agent.answering import answer, tell_place
from agent.attempts import first_that_answers
from agent.calls import Rules
from agent.checks import checked_message, checked_tuning
from agent.commands import read_command
from agent.given import LoadHistory, LoadSummary, Turn
from agent.loop import Kit
from agent.quota import Quota
from agent.saving import Growing, ReplySaver, as_known
from agent.summaries import Job, Summarizer
from agent.tools import Toolbox
from backends import Backend, Backends
from backends.keys import cleared
from memory.histories import Histories, History
from memory.linear import Mirror
from memory.messages import Message, Role, Summary, Tuning
from memory.modes import Mode, get_mode
from memory.records import Records
from memory.store import Conversation, Store
from runs import events
from runs.asker import Asker
from runs.errors import ChatError
from runs.line import Line
from runs.live import Lifetime, LiveRun, new_id
from runs.registry import Runs
from settings import Settings, ToolSettings

logger = logging.getLogger(__name__)
log = structlog.get_logger(__name__)

_MIRROR_S = 2.0
_MIRRORED = 100
"""Turns that wait to be written into the mirror; further ones are left out of it."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A message and how it is to be answered; None takes what is configured. `visitor` is who asks, None without
    cookie, and `address` where they are.

    Without `conversation_id` it begins a conversation: with the id `new_id`, if that is given, and the messages
    `earlier`. `tuning` None takes the conversation's own. With `instead_of`, the id of an earlier message of the
    user's, this one comes beside it, as another branch. With `again`, such an id, that message gets another reply, and
    `message` is not read.
    """

    message: str
    visitor: str | None = None
    conversation_id: str | None = None
    backend: str | None = None
    memory: str | None = None
    tuning: Tuning | None = None
    instead_of: str | None = None
    again: str | None = None
    address: str | None = None
    new_id: str | None = None
    earlier: Sequence[tuple[Role, str]] = ()


@dataclass(frozen=True, slots=True)
class Prepared:
    """A message that has been checked. `chain` is the backends that may answer it, the chosen one first."""

    text: str
    asker: Asker
    chain: Sequence[Backend]
    mode: Mode
    tuning: Tuning
    kit: Kit

    @property
    def visitor(self) -> str | None:
        return self.asker.visitor


class Turns:
    """Starts runs. One for the whole app."""

    def __init__(
        self, settings: Settings, backends: Backends, store: Store, runs: Runs, toolbox: Toolbox | None = None
    ) -> None:
        """Without a toolbox there are no tools but the backends' own. Raises ValueError for a mirror that is none."""
        self.settings, self.backends, self.store, self.runs = settings, backends, store, runs
        self.toolbox = toolbox or Toolbox(ToolSettings(enabled=[]))
        self.histories, self.records = Histories(store, partial(as_known, runs)), Records(store)
        memory = settings.memory
        self._mirror = Mirror(memory.mirror, memory.mirror_options) if memory.mirror else None
        self._mirroring: set[asyncio.Task[None]] = set()
        limits = settings.limits
        self.quota = Quota(limits, runs)
        self.summarizer = Summarizer(settings, store, self.histories, runs, self.quota)
        self.line = Line(limits.runs)
        self.growing = Growing(store)
        self.watchers: list[Callable[[LiveRun], None]] = []
        """Callbacks that run after each run has ended."""
        self.closing = False
        self._lifetime = Lifetime(limits.run_seconds, limits.abandoned_seconds, limits.stall_seconds)

    def prepare(self, ask: Ask, kept: Tuning | None = None) -> Prepared:
        """Checks all that can be checked of a message before anything happens; `kept` is its conversation's tuning.

        Raises ChatError.
        """
        text = checked_message(ask.message, self.settings.limits)
        backend = self.backends.get(ask.backend or self.backends.first.name)
        mode = get_mode(ask.memory or self.settings.memory.default)
        tuning = checked_tuning(ask.tuning or kept or Tuning(), self.settings.limits)
        kit = self._kit(text, ask.visitor, tuning)
        chain = self.backends.chain(backend, tuning.model, ask.visitor)
        return Prepared(text, Asker(ask.visitor, ask.address), chain, mode, tuning, kit)

    async def start(self, ask: Ask) -> LiveRun:
        """Checks and stores the message, and starts its run. Raises ChatError, and then nothing has happened."""
        owner, kept = ask.visitor, None
        if ask.conversation_id:
            found = await self.store.conversation(ask.conversation_id, ask.visitor)
            owner, kept = found.owner, self.kept(found, ask.backend or self.backends.first.name, ask.visitor)
            if earlier_id := ask.again or ask.instead_of:
                earlier = await self.store.message(found.id, earlier_id)
                if earlier.role != "user":
                    raise ChatError("invalid_request", "Only a message of the user's can be asked again.")
                ask = replace(ask, message=earlier.text) if ask.again else ask
        turn = self.prepare(ask, kept)
        self._check_key(turn)
        if ask.conversation_id is None:
            await self.check_room(ask.visitor)
        turn, own_key = self._paid(turn)
        self.quota.check(turn.asker, own_key=own_key)
        run = self._run(ask.conversation_id or ask.new_id or new_id(), turn, owner)
        self.runs.add(run)
        self.quota.count(turn.asker, own_key=own_key)
        try:
            self.summarizer.give_way(run.conversation_id, turn.chain[0])
            begins_with = ask.earlier if ask.conversation_id is None else None
            beside = {"instead_of": ask.instead_of, "again": ask.again}
            asked, reply = await self.store.begin_turn(
                run, turn.text, earlier=begins_with, tuning=turn.tuning, **beside
            )
        except BaseException:
            self.runs.discard(run)
            raise

        saver = ReplySaver(self.store, reply)
        history = partial(self.histories.before, run.conversation_id, asked)
        summary = partial(self.summarizer.summary, run.conversation_id)

        async def work(run: LiveRun) -> None:
            with self.growing.kept(run, reply):
                await self._answer(run, turn, asked, history, summary)

        run.start(work, saver.end)
        self._watch(run)
        if self.settings.log_messages:
            log.info("message", run_id=run.id, text=cleared(turn.text, self.backends.keys.of(turn.visitor)))
        if run.task and turn.mode.summarizes:
            run.task.add_done_callback(lambda _: self._summarize(run, turn, reply))
        if run.task and self._mirror:
            said = [] if ask.again else [asked]
            run.task.add_done_callback(lambda _: self._reflect(run, [*said, replace(reply, text=run.text)]))
        return run

    def _reflect(self, run: LiveRun, said: Sequence[Message]) -> None:
        """Writes a turn into the mirror, in the background."""
        if len(self._mirroring) >= _MIRRORED:
            logger.warning("the mirror of a conversation: it is too slow, so a turn is left out")
        elif self._mirror and not run.discarded:
            writing = asyncio.create_task(self._mirror.write(run.conversation_id, said), name=f"mirror {run.id}")
            self._mirroring.add(writing)
            writing.add_done_callback(self._mirroring.discard)

    async def close(self) -> None:
        """Ends the live runs, and what goes on between turns."""
        self.closing = True
        await self.runs.stop_all()
        self.growing.close()
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
        if gone := await self.store.forget_idle(before, spared):
            logger.warning("%d conversations were deleted: nobody has gone on with them for %g days", gone, days)
        if library := self.toolbox.library:
            await library.forget_idle(before)

    def _summarize(self, run: LiveRun, turn: Prepared, reply: Message) -> None:
        """Between this turn and the next, its conversation's summary is brought up to date."""
        last = run.log.entries[-1].event
        if run.discarded or (isinstance(last, events.Stopped) and last.reason == "shutdown"):
            return
        key = self.backends.key(turn.chain[0], turn.visitor)
        backend = turn.chain[0].with_model(None, key)
        self.summarizer.begin(Job(run.conversation_id, reply.id, backend, key, turn.tuning, turn.asker))

    def try_out(self, turn: Prepared) -> LiveRun:
        """Starts a run of which nothing is stored; what stands in its way becomes its `error` event."""
        run = self._run(new_id(), turn, turn.visitor)
        run.kept = False
        asked = Message(new_id(), "user", turn.text, run_id=run.id)

        async def history() -> History:
            return History()

        async def summary(_: Sequence[Message]) -> tuple[Summary | None, str | None]:
            return None, None

        async def work(run: LiveRun) -> None:
            self._check_key(turn)
            self.quota.check_runs(turn.asker)
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

    def _run(self, conversation_id: str, turn: Prepared, owner: str | None) -> LiveRun:
        return LiveRun(
            conversation_id=conversation_id,
            backend=turn.chain[0].name,
            memory=turn.mode.name,
            owner=owner,
            lifetime=self._lifetime,
            asker=turn.asker,
            model=turn.chain[0].choice,
        )

    async def delete(self, conversation_id: str) -> None:
        """Deletes a conversation, and ends its live run first. The caller has checked whose it is."""
        if run := self.runs.of(conversation_id):
            run.discarded = True
            await run.stop("user")
        self.summarizer.give_way(conversation_id)
        with self.runs.hold(conversation_id):
            await self.store.delete(conversation_id)
        self.histories.forget(conversation_id)

    def kept(self, conversation: Conversation, backend: str | None, visitor: str | None) -> Tuning:
        """A conversation's tuning for this backend, without tools and a model that are not offered any more."""
        tuning = conversation.tuning
        if tuning.tools is not None:
            tuning = replace(tuning, tools=tuple(self.toolbox.known(tuning.tools)))
        if tuning.model is not None:
            tuning = replace(tuning, model=self._kept_model(conversation, backend, visitor))
        return tuning

    def _kept_model(self, conversation: Conversation, backend: str | None, visitor: str | None) -> str | None:
        if backend is None or backend != conversation.backend:
            return None
        try:
            self.backends.chosen(self.backends.get(backend), conversation.tuning.model, visitor)
        except ChatError:
            return None
        return conversation.tuning.model

    def _check_key(self, turn: Prepared) -> None:
        """Refuses at once what could not be answered."""
        if len(turn.chain) > 1:
            return
        backend = turn.chain[0]
        health = backend.health(self.backends.key(backend, turn.visitor))
        if health.state == "key_missing":
            raise ChatError("missing_key", f"{backend.name} is not ready: {health.reason}.")
        if health.state == "key_refused" and self._brings_key(backend, turn.visitor):
            self.quota.check_key(turn.asker)

    def _paid(self, turn: Prepared) -> tuple[Prepared, bool]:
        """The turn, and whether all of it is at the cost of the visitor's own keys.

        Where their messages for the day are used up, what would come instead of a key of theirs is left out: they could
        bring one that is none, and be answered at the operator's cost.
        """
        own = list(takewhile(lambda backend: self._brings_key(backend, turn.visitor), turn.chain))
        if own and self.quota.left(turn.asker).day == 0:
            turn = replace(turn, chain=own)
        return turn, len(own) == len(turn.chain)

    def _brings_key(self, backend: Backend, visitor: str | None) -> bool:
        key = self.backends.key(backend, visitor)
        return key is not None and key.own

    async def check_room(self, visitor: str | None) -> None:
        """Raises ChatError `rate_limited` where no more conversations are kept for a visitor."""
        if await self.room(visitor) == 0:
            most = self.settings.limits.conversations_per_visitor or 0
            kept = "1 conversation" if most == 1 else f"{most:,} conversations"
            message = f"You have {kept}, the most that are kept here: delete some in the list first."
            raise ChatError("rate_limited", message)

    async def room(self, visitor: str | None) -> int | None:
        """How many more conversations are kept for a visitor; None where there is no limit."""
        most = self.settings.limits.conversations_per_visitor
        return max(0, most - await self.store.count(visitor)) if most and visitor else None

    def _kit(self, text: str, visitor: str | None, tuning: Tuning) -> Kit:
        """The tools that are on for this turn, and the command in its message; a command may use any tool."""
        chosen, rules = self.toolbox.tools(visitor, tuning.tools), self.settings.tools
        command = read_command(text, every := self.toolbox.tools(visitor))
        hidden = frozenset({command.tool} if command else ()) - {tool.name for tool in chosen}
        chosen += [tool for tool in every if tool.name in hidden]
        bounds = Rules(frozenset(rules.approval), rules.seconds, rules.result_characters)
        return Kit(chosen, command, hidden, bounds, rules.rounds)

    async def _answer(
        self, run: LiveRun, prepared: Prepared, asked: Message, history: LoadHistory, summary: LoadSummary
    ) -> None:
        turn = Turn(prepared.mode, asked, prepared.tuning, prepared.visitor, history, summary)

        async def by(backend: Backend) -> None:
            key = self.backends.key(backend, turn.visitor)
            own = key is not None and key.own
            refused = own and backend.health(key).state == "key_refused"
            try:
                with self.quota.trying_key(run.asker) if refused else nullcontext():
                    await answer(self.settings, run, backend, key, turn, prepared.kit)
            except asyncio.CancelledError:
                if refused:  # the provider may have been asked all the same
                    self.quota.count_refused_key(run.asker)
                raise
            except ChatError as e:
                if own and e.code == "authentication":
                    self.quota.count_refused_key(run.asker)
                raise

        async with self.line.place(partial(tell_place, run, "to begin")):
            await first_that_answers(run, prepared.chain, by)
