"""Summaries for the memory mode `summary`, written in the background between turns by the conversation's own backend.

A summary covers a branch up to a message. The next summary is made from it and the messages since, so that each message
is read once. It is due after many turns, since a new summary changes the beginning of the model's input. A turn never
waits: it cancels its conversation's summary, and every summary that the same local model is writing, which would take
its processor.

After each turn a limited number of model calls reads a limited number of tokens; the rest follows after later turns.
Each call counts as one of the visitor's messages of the day.
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
from agent.turn import LoadedSummary
from backends import Backend, ModelOptions
from backends.prices import cost_usd
from memory.history_cache import HistoryCache
from memory.messages import Message, Summary
from memory.modes import ModeLimits, summarized_start
from memory.options import TurnOptions
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
"""Conversations whose latest failure or cost is remembered."""
_SHARE = 0.8
"""Share of the remaining context that is used: counts of single texts are not exact for the whole prompt."""
_LEAST_INPUT_TOKENS = 64
"""Least tokens of messages that are read, however long the notes are."""
_NAMES = {"user": "User", "assistant": "Assistant", "system": "Instruction", "tool": "Result of a tool"}


@dataclass(slots=True)
class Cost:
    """Model calls and tokens of the summary after one turn."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    estimated: bool = False

    def sentence(self, backend: Backend) -> str:
        """Returns the cost as a sentence, with US dollars where the settings have a price."""
        calls = "1 model call" if self.calls == 1 else f"{self.calls} model calls"
        about, price = "≈ " if self.estimated else "", backend.settings.price
        tokens = f"{about}{self.input_tokens:,} tokens read, {about}{self.output_tokens:,} written"
        dollars = f", ${self.dollars(backend):.4f}" if price else ""
        return f"The summary took {calls} after the last turn: {tokens}{dollars}."

    def dollars(self, backend: Backend) -> float:
        """Returns the cost in US dollars, 0 where the settings have no price."""
        price = backend.settings.price
        return cost_usd(price, self.input_tokens, self.output_tokens) if price else 0.0


@dataclass(frozen=True, slots=True)
class SummaryJob:
    """The branch of a conversation to summarize, which ends with the message `last`."""

    conversation_id: str
    last: str
    backend: Backend
    options: TurnOptions
    requester: Requester
    cost: Cost = field(default_factory=Cost)


class Summarizer:
    """Writes the summaries of the app, at most one of a conversation at a time."""

    def __init__(
        self, settings: Settings, store: Store, histories: HistoryCache, runs: RunRegistry, quota: Quota
    ) -> None:
        self._memory, self._limits, self._quota = settings.memory, settings.limits, quota
        self._system_prompt = settings.system_prompt
        self._store, self._histories, self._runs = store, histories, runs
        self._costs: OrderedDict[str, str] = OrderedDict()
        self.watchers: list[Callable[[Backend, int, int], None]] = []
        """Callbacks that run after each model call, with its tokens of input and output."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._writing: dict[str, tuple[Backend, asyncio.Task[bool]]] = {}
        self._failed: OrderedDict[str, str] = OrderedDict()

    async def summary(self, conversation_id: str, history: Sequence[Message]) -> LoadedSummary:
        """Returns the newest summary, with what is known of it."""
        made = await newest_summary(self._store, conversation_id, history)
        cost = self._costs.get(conversation_id) if made else None
        return LoadedSummary(made, self._failed.get(conversation_id), cost)

    def begin(self, job: SummaryJob) -> None:
        """Updates a conversation's summary in the background."""
        self.yield_to_turn(job.conversation_id)
        task = asyncio.create_task(self._follow(job), name=f"summary {job.conversation_id}")
        self._tasks[job.conversation_id] = task
        task.add_done_callback(lambda done: self._forget(job.conversation_id, done))

    def yield_to_turn(self, conversation_id: str, backend: Backend | None = None) -> None:
        """Cancels a conversation's summary, and all summaries for which a turn on this backend would wait."""
        if task := self._tasks.pop(conversation_id, None):
            task.cancel()
        for other, writing in list(self._writing.values()):
            if backend and backend.is_local and other.name == backend.name:
                writing.cancel()  # it starts again when the backend is idle

    async def wait(self, conversation_id: str) -> None:
        """Waits until a conversation's summary is written, if one is."""
        if task := self._tasks.get(conversation_id):
            await asyncio.wait({task})

    async def close(self) -> None:
        """Cancels all summaries."""
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
            error = job.backend.to_chat_error(e)
            if error is None:
                logger.exception("the summary of a conversation")
            self._fail(job, error.message if error else INTERNAL)
        finally:
            self._costs.pop(job.conversation_id, None)
            if job.cost.calls:
                _remember(self._costs, job.conversation_id, job.cost.sentence(job.backend))
                await self._save_cost(job)

    async def _save_cost(self, job: SummaryJob) -> None:
        if dollars := job.cost.dollars(job.backend):
            try:
                await self._store.add_cost(job.conversation_id, job.requester.visitor, dollars)
            except ChatError as e:
                logger.warning("the cost of a summary could not be saved: %s", e.message)

    def _affords(self, job: SummaryJob) -> bool:
        """Whether the limits of one turn allow another call."""
        limits, cost = self._limits, job.cost
        return cost.calls < limits.summary_calls and cost.input_tokens < limits.summary_input_tokens

    def _fail(self, job: SummaryJob, message: str) -> None:
        logger.warning("a summary failed: %s", message)
        _remember(self._failed, job.conversation_id, f"The summary could not be written: {message}")

    async def _condensed(self, job: SummaryJob) -> bool:
        """Summarizes the next messages that no summary covers. Returns whether all are covered."""
        if not job.backend.is_model:
            raise ChatError("backend_unavailable", f"{job.backend.name} is no model.")
        history = (await self._histories.up_to(job.conversation_id, job.last)).messages
        made = await newest_summary(self._store, job.conversation_id, history)
        first = 0 if made is None else [m.id for m in history].index(made.message_id) + 1
        due = summarized_start(history, self._mode_limits(job))
        if first >= due:
            return True
        await self._idle(job.backend)
        writing = asyncio.create_task(self._write(job, history[first:due], made))
        self._writing[job.conversation_id] = job.backend, writing
        try:
            await asyncio.wait({writing})
            return not (writing.cancelled() or await writing)  # awaited to raise its exception
        finally:
            writing.cancel()
            self._writing.pop(job.conversation_id, None)

    def _mode_limits(self, job: SummaryJob) -> ModeLimits:
        """The limits of the following turns, roughly: a reply may take half of the context."""
        prompt = self._system_prompt if job.options.system_prompt is None else job.options.system_prompt
        limits = mode_limits(self._memory, job.options, job.backend.context, estimate_tokens(prompt))
        return limits.model_copy(update={"spent": limits.spent + limits.summary_tokens})

    async def _idle(self, backend: Backend) -> None:
        """Waits while a model in this process writes replies."""
        while backend.is_local and any(run.state.backend == backend.name for run in self._runs.live()):  # noqa: ASYNC110
            await asyncio.sleep(_BUSY_S)

    async def _write(self, job: SummaryJob, messages: Sequence[Message], made: Summary | None) -> bool:
        """Writes and stores one summary. Returns False if too few tokens are left after this turn."""
        most = mode_limits(self._memory, job.options, 0, 0).summary_tokens
        async with asyncio.timeout(_LONGEST_S):
            await job.backend.wait_ready()
            limit = self._limits.summary_input_tokens
            request = await _request(job.backend, messages, made, most, limit - job.cost.input_tokens, limit)
            if request is None:
                return False
            prompt, covered, tokens = request
            self._quota.take_call(job.requester, own_key=job.backend.has_visitors_key)
            text, usage = "", None
            try:
                text, usage = await _answer(job, prompt, most)
            finally:  # a failed or cancelled call costs the same
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
    """Returns the request with as many messages as fit, the id of the last of them, and the request's tokens.

    The request has at most `budget` tokens. None means that not even the first message fits. A message that would not
    fit into the whole `limit` of one turn is cut.
    """
    task = f"{_TASK} Use at most {most * 3 // 5} words."
    so_far = f"The notes so far:\n{made.text}\n\n" if made else ""
    lines = [f"{_NAMES[message.role]}: {message.text}\n" for message in messages]
    readings = await backend.bind(None).count_tokens([task, so_far, *lines])
    fixed = readings[0].tokens + readings[1].tokens
    readable = int((backend.context - most) * _SHARE)
    later = budget < min(limit, readable)  # after another turn the whole limit is free
    left = min(readable, budget) - fixed
    if not later:
        left = max(left, _LEAST_INPUT_TOKENS)
    taken, covered, tokens = "", messages[0].id, fixed
    for message, reading in zip(messages, readings[2:], strict=True):
        text, size = reading.text, reading.tokens
        if size > left and (taken or later):
            break
        if size > left:  # the first one alone is too long
            text, size = f"{text[: len(text) * left // size]} [cut]\n", left
        taken, covered, left, tokens = taken + text, message.id, left - size, tokens + size
    if not taken:
        return None
    question = f"{readings[1].text}What was said since:\n{taken}\nWrite the notes of all of it."
    return [SystemMessage(readings[0].text), HumanMessage(question)], covered, tokens


async def _answer(job: SummaryJob, prompt: Sequence[BaseMessage], most: int) -> tuple[str, tuple[int, int] | None]:
    """Returns the model's text without thinking, and the provider's token counts, None if it has none."""
    cool = 0.0 if "temperature" in job.backend.supported_options else None
    model = job.backend.chat_model(ModelOptions(most, cool, conversation=job.conversation_id))
    use_threads(job.backend.threads)
    text, call = "", CallState(tags=Tags(opened=job.backend.opens_thinking))
    stream = model.astream(list(prompt))
    async with aclosing(stream):  # type: ignore[type-var]
        async for chunk in stream:
            if isinstance(chunk, AIMessage):
                retracted = call.tags.retracted
                _, piece, call = read_chunk(chunk, call)
                text = piece if call.tags.retracted and not retracted else text + piece
    counted = call.usage is not None and all(call.usage)  # some providers send zeros
    return valid_text(text + flush_call(call, whole=True)[1]).strip(), call.usage if counted else None
