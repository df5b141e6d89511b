"""Summaries for the memory mode `summary`, written in the background between turns by the conversation's own backend.

A summary covers a branch up to a message. The next one is made of it and of what came since, so that each message is
read once. A turn is never made to wait: its conversation's summary gives way to it, and so does every summary that
is being written by a model in this process, which would take its processor.

After each turn a bounded number of model calls reads a bounded number of tokens; what is older than that is read after
later turns. Each call counts as a message of the visitor's day.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from agent.chunks import CallState, flush_call, read_chunk
from agent.model_input import mode_limits
from agent.quota import Quota
from agent.thinking_tags import Tags
from backends import Backend, Key, ModelOptions
from memory.history_cache import HistoryCache
from memory.messages import Message, Summary, TurnOptions
from memory.modes import recent_start
from memory.store import Store
from memory.summaries import newest_summary, save_summary
from runs.errors import INTERNAL, ChatError
from runs.registry import RunRegistry
from runs.requester import Requester
from runs.text import valid_text
from runs.threads import use_threads
from runs.tokens import estimate_tokens
from settings import Settings

logger = logging.getLogger(__name__)

_TASK = (
    "You keep the notes of a conversation. Write down in short what was said: names, facts, numbers, wishes, decisions "
    "and open questions. Add nothing. Answer with the notes alone."
)
_BUSY_S = 0.3
_LONGEST_S = 120.0
_REMEMBERED = 2000
"""Conversations whose latest failure or cost is kept."""
_SHARE = 0.8
"""Of the room that is left: tokens are counted text by text, and read together."""
_LEAST = 64
"""Tokens of the messages that are read at least, however little room the notes leave."""
_NAMES = {"user": "User", "assistant": "Assistant", "system": "Instruction", "tool": "Result of a tool"}


@dataclass(slots=True)
class Cost:
    """Model calls and tokens that the work after one turn has taken."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = False

    def sentence(self, backend: Backend) -> str:
        """The cost in words, in US dollars too where the settings name a price."""
        calls = "1 model call" if self.calls == 1 else f"{self.calls} model calls"
        about, price = "≈ " if self.estimated else "", backend.settings.price
        tokens = f"{about}{self.input_tokens:,} tokens read, {about}{self.output_tokens:,} written"
        dollars = (price[0] * self.input_tokens + price[1] * self.output_tokens) / 1e6 if price else 0
        return f"The summary took {calls} after the last turn: {tokens}{f', ${dollars:.4f}' if price else ''}."


@dataclass(frozen=True, slots=True)
class SummaryJob:
    """What is to be condensed: the branch of a conversation that ends with the message `last`."""

    conversation_id: str
    last: str
    backend: Backend
    key: Key | None
    options: TurnOptions
    requester: Requester
    cost: Cost = field(default_factory=Cost)


class Summarizer:
    """One for the whole app. At most one summary of a conversation is being written."""

    def __init__(
        self, settings: Settings, store: Store, histories: HistoryCache, runs: RunRegistry, quota: Quota
    ) -> None:
        self._memory, self._limits, self._quota = settings.memory, settings.limits, quota
        self._store, self._histories, self._runs = store, histories, runs
        self._costs: OrderedDict[str, str] = OrderedDict()
        self.watchers: list[Callable[[Backend, int, int], None]] = []
        """Callbacks that run after each model call, with its tokens of input and output."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._writing: dict[str, tuple[Backend, asyncio.Task[bool]]] = {}
        self._failed: OrderedDict[str, str] = OrderedDict()

    async def summary(self, conversation_id: str, history: Sequence[Message]) -> tuple[Summary | None, str | None]:
        """What there is of a summary; and why there is no newer one, or what it has cost."""
        made = await newest_summary(self._store, conversation_id, history)
        return made, self._failed.get(conversation_id) or (self._costs.get(conversation_id) if made else None)

    def begin(self, job: SummaryJob) -> None:
        """Brings a conversation's summary up to date, in the background."""
        self.yield_to_turn(job.conversation_id)
        task = asyncio.create_task(self._follow(job), name=f"summary {job.conversation_id}")
        self._tasks[job.conversation_id] = task
        task.add_done_callback(lambda done: self._forget(job.conversation_id, done))

    def yield_to_turn(self, conversation_id: str, backend: Backend | None = None) -> None:
        """Ends the work on a conversation's summary; and on all others that a turn on this backend would wait for."""
        if task := self._tasks.pop(conversation_id, None):
            task.cancel()
        for other, writing in list(self._writing.values()):
            if backend and backend.in_process and other is backend:
                writing.cancel()  # it is begun again when the backend is quiet

    async def close(self) -> None:
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _forget(self, conversation_id: str, task: "asyncio.Task[None]") -> None:
        if self._tasks.get(conversation_id) is task:
            del self._tasks[conversation_id]

    async def _follow(self, job: SummaryJob) -> None:
        try:
            while self._affords(job) and not await self._condensed(job):
                pass
            self._failed.pop(job.conversation_id, None)
        except ChatError as e:
            self._fail(job, e.message)
        except TimeoutError:
            self._fail(job, f"{job.backend.name} took too long.")
        except Exception as e:
            told = job.backend.to_chat_error(e)
            if told is None:
                logger.exception("the summary of a conversation")
            self._fail(job, told.message if told else INTERNAL)
        finally:
            self._costs.pop(job.conversation_id, None)
            if job.cost.calls:
                _remember(self._costs, job.conversation_id, job.cost.sentence(job.backend))

    def _affords(self, job: SummaryJob) -> bool:
        """Whether another call is within the limits of one turn."""
        limits, cost = self._limits, job.cost
        return cost.calls < limits.summary_calls and cost.input_tokens < limits.summary_input_tokens

    def _fail(self, job: SummaryJob, message: str) -> None:
        logger.warning("a summary failed: %s", message)
        _remember(self._failed, job.conversation_id, f"The summary could not be written: {message}")

    async def _condensed(self, job: SummaryJob) -> bool:
        """Condenses the next piece of what no summary covers; True if nothing is left to do."""
        if not job.backend.is_model:
            raise ChatError("backend_unavailable", f"{job.backend.name} is no model.")
        history = (await self._histories.up_to(job.conversation_id, job.last)).messages
        made = await newest_summary(self._store, job.conversation_id, history)
        first = 0 if made is None else [m.id for m in history].index(made.message_id) + 1
        recent = recent_start(history, mode_limits(self._memory, job.options, 0, 0))
        if first >= recent:
            return True
        await self._quiet(job.backend)
        writing = asyncio.create_task(self._write(job, history[first:recent], made))
        self._writing[job.conversation_id] = job.backend, writing
        try:
            await asyncio.wait({writing})
            return not (writing.cancelled() or await writing)  # awaited for its exception, too
        finally:
            writing.cancel()
            self._writing.pop(job.conversation_id, None)

    async def _quiet(self, backend: Backend) -> None:
        """Waits while a model of this process writes replies."""
        while backend.in_process and any(run.state.backend == backend.name for run in self._runs.live()):  # noqa: ASYNC110
            await asyncio.sleep(_BUSY_S)

    async def _write(self, job: SummaryJob, messages: Sequence[Message], made: Summary | None) -> bool:
        """Writes and keeps one summary. False if the tokens that are left after this turn are not enough for one."""
        most = mode_limits(self._memory, job.options, 0, 0).summary_tokens
        async with asyncio.timeout(_LONGEST_S):
            await job.backend.wait_ready(job.key)
            limit = self._limits.summary_input_tokens
            request = await _request(job.backend, messages, made, most, limit - job.cost.input_tokens, limit)
            if request is None:
                return False
            asked, covered, tokens = request
            self._quota.take_call(job.requester, own_key=job.key is not None and job.key.from_visitor)
            text, usage = "", None
            try:
                text, usage = await _answer(job, asked, most)
            finally:  # a call that fails or is cancelled has been read all the same
                self._count(job, usage or (tokens, estimate_tokens(text)), estimated=usage is None)
        if not text:
            raise ChatError("backend_unavailable", f"{job.backend.name} wrote nothing.")
        await save_summary(self._store, job.conversation_id, Summary(covered, text, job.backend.name))
        return True

    def _count(self, job: SummaryJob, usage: tuple[int, int], *, estimated: bool) -> None:
        job.cost.calls += 1
        job.cost.input_tokens += usage[0]
        job.cost.output_tokens += usage[1]
        job.cost.estimated |= estimated
        for watcher in self.watchers:
            watcher(job.backend, *usage)


def _remember(sentences: OrderedDict[str, str], conversation_id: str, sentence: str) -> None:
    sentences[conversation_id] = sentence
    sentences.move_to_end(conversation_id)
    if len(sentences) > _REMEMBERED:
        sentences.popitem(last=False)


async def _request(
    backend: Backend, messages: Sequence[Message], made: Summary | None, most: int, budget: int, limit: int
) -> tuple[list[BaseMessage], str, int] | None:
    """The request, with as many of the messages as the model can read and `budget` tokens allow; the id of the last
    of these, and about how many tokens the request has. None where not even the first message fits.

    A message is cut where it would not fit with the whole `limit` of one turn either.
    """
    task = f"{_TASK} Use at most {most * 3 // 5} words."
    so_far = f"The notes so far:\n{made.text}\n\n" if made else ""
    lines = [f"{_NAMES[message.role]}: {message.text}\n" for message in messages]
    readings = await backend.count_tokens([task, so_far, *lines])
    fixed = readings[0].tokens + readings[1].tokens
    readable = int((backend.context - most) * _SHARE)
    later = budget < min(limit, readable)  # with the whole limit of another turn there is more room
    room = min(readable, budget) - fixed
    if not later:
        room = max(room, _LEAST)
    taken, covered, tokens = "", messages[0].id, fixed
    for message, reading in zip(messages, readings[2:], strict=True):
        text, size = reading.text, reading.tokens
        if size > room and (taken or later):
            break
        if size > room:  # the first one alone is too long
            text, size = f"{text[: len(text) * room // size]} [cut]\n", room
        taken, covered, room, tokens = taken + text, message.id, room - size, tokens + size
    if not taken:
        return None
    asked = f"{readings[1].text}What was said since:\n{taken}\nWrite the notes of all of it."
    return [SystemMessage(readings[0].text), HumanMessage(asked)], covered, tokens


async def _answer(job: SummaryJob, asked: Sequence[BaseMessage], most: int) -> tuple[str, tuple[int, int] | None]:
    """The model's text without its thinking, and the provider's count of tokens read and written, if it gives one."""
    cool = 0.0 if "temperature" in job.backend.supported_options else None
    model = job.backend.chat_model(ModelOptions(most, cool), job.key)
    use_threads(job.backend.threads)
    text, call = "", CallState(tags=Tags(opened=job.backend.opens_thinking))
    stream = model.astream(list(asked))
    async with aclosing(stream):  # type: ignore[type-var]
        async for chunk in stream:
            if isinstance(chunk, AIMessage):
                retracted = call.tags.retracted
                _, piece, call = read_chunk(chunk, call)
                text = piece if call.tags.retracted and not retracted else text + piece
    counted = call.usage is not None and all(call.usage)  # some providers tell zeros
    return valid_text(text + flush_call(call, whole=True)[1]).strip(), call.usage if counted else None
