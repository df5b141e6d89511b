"""The memory modes: pure functions that select what the model gets of a conversation, with reasons for the rest.

A mode leaves out whole messages, keeps their order, and never changes the stored conversation. Every message comes with
its tokens counted. To add a mode, write one function and add one line to `MODES`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, trim_messages

from memory.message_index import Match
from memory.messages import Message, Summary
from runs.errors import ChatError


@dataclass(frozen=True, slots=True)
class ModeLimits:
    """`input_budget` is the most tokens of the whole input, `spent` those of everything but the history.

    The others are the modes' parameters: see `MemorySettings`.
    """

    input_budget: int
    spent: int
    window_turns: int = 4
    token_limit: int = 2000
    summary_tokens: int = 200
    recall_turns: int = 3

    @property
    def history(self) -> int:
        """The most tokens of the history."""
        return max(0, self.input_budget - self.spent)


@dataclass(frozen=True, slots=True)
class Candidates:
    """The input of a mode: the history, and its summary and matches for the modes that request them."""

    messages: Sequence[Message]
    summary: Summary | None = None
    """A summary of the beginning of the history."""
    failed: str | None = None
    """Why there is no newer summary, for people."""
    matches: Sequence[Match] = ()
    """The messages that match the new one, the best first."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A message that the model does not get, and the reason."""

    message: Message
    reason: str


@dataclass(frozen=True, slots=True)
class Selection:
    """The result of a mode: the messages that the model gets, in order, and those that it does not."""

    kept: tuple[Message, ...]
    left_out: tuple[LeftOut, ...]
    why: Mapping[str, str] = field(default_factory=dict)
    """Why an older message is included, by its id."""
    summary: Summary | None = None
    note: str | None = None
    """A remark for people."""


Select = Callable[[Candidates, ModeLimits], Selection]


@dataclass(frozen=True, slots=True)
class Mode:
    """A memory mode as the page and the API list it."""

    name: str
    about: str
    select: Select
    parameters: tuple[str, ...] = ()
    """The settings of `[memory]` that it reads."""
    first: Callable[[Candidates, ModeLimits], int] = lambda candidates, limits: 0
    """The position of the earliest message that it may keep, except matches; earlier ones need no exact count."""
    bounded: bool = True
    """Whether its selection always fits the model's context."""
    summarizes: bool = False
    """Whether it reads `Candidates.summary`."""
    searches: bool = False
    """Whether it reads `Candidates.matches`."""

    def budget(self, limits: ModeLimits) -> float:
        """The most tokens of the selection."""
        if not self.bounded:
            return math.inf
        return _token_budget(limits) if "token_limit" in self.parameters else limits.history


def none(past: Candidates, limits: ModeLimits) -> Selection:
    """Nothing."""
    return _split(past.messages, len(past.messages), "the mode none gives no history")


def full(past: Candidates, limits: ModeLimits) -> Selection:
    """Everything; input that does not fit is rejected before the model is called."""
    return Selection(tuple(past.messages), ())


def window(past: Candidates, limits: ModeLimits) -> Selection:
    """The last turns, as far as they fit."""
    older = _split(
        past.messages, recent_start(past.messages, limits), f"older than the last {limits.window_turns} turns"
    )
    fitting = _fitting(older.kept, limits.history, _no_room(limits))
    return Selection(fitting.kept, older.left_out + fitting.left_out)


def tokens(past: Candidates, limits: ModeLimits) -> Selection:
    """The latest messages that fit, from a user's message on."""
    budget = _token_budget(limits)
    if limits.token_limit < limits.input_budget:
        return _fitting(past.messages, budget, f"beyond the limit of {limits.token_limit:,} tokens")
    return _fitting(past.messages, budget, _no_room(limits))


def _token_budget(limits: ModeLimits) -> int:
    return max(0, min(limits.input_budget, limits.token_limit) - limits.spent)


def summary(past: Candidates, limits: ModeLimits) -> Selection:
    """A summary of the older turns, and the last turns and those that it does not cover yet, as far as they fit.

    Without a summary, the same as `tokens`.
    """
    history, made = past.messages, past.summary
    first = recent_start(history, limits)
    if first == 0:
        return window(past, limits)
    if made is None or made.tokens > limits.history:
        instead = tokens(past, limits)
        why = past.failed or ("There is no summary yet." if made is None else "The summary does not fit.")
        return Selection(instead.kept, instead.left_out, note=f"{why} The latest messages that fit are given instead.")
    older = _split(history, _uncovered(past, limits), "in the summary")
    fitting = _fitting(older.kept, limits.history - made.tokens, f"not in the summary yet, and {_no_room(limits)}")
    return Selection(fitting.kept, older.left_out + fitting.left_out, summary=made, note=past.failed)


def _uncovered(past: Candidates, limits: ModeLimits) -> int:
    """The position of the first message that is recent or not in the summary."""
    covered, last = 0, past.summary and past.summary.message_id
    if last:
        covered = 1 + next(i for i, message in enumerate(past.messages) if message.id == last)
    return min(covered, recent_start(past.messages, limits))


def _nothing(past: Candidates, limits: ModeLimits) -> int:
    return len(past.messages)


def _latest(past: Candidates, limits: ModeLimits) -> int:
    return recent_start(past.messages, limits)


def recall(past: Candidates, limits: ModeLimits) -> Selection:
    """The last turns, and of the older ones those that best match the message, as far as they fit."""
    history = past.messages
    first = recent_start(history, limits)
    recent = _fitting(history[first:], limits.history, _no_room(limits))
    older, budget = history[:first], limits.history - sum(m.tokens for m in recent.kept)
    starts = _turns(older)
    turn_of = {m.id: turn for turn, m in _with_turns(older, starts)}
    recalled: dict[int, str] = {}
    rejected: dict[int, str] = {}
    for match in past.matches:
        turn = turn_of.get(match.message_id)
        if turn is None or turn in recalled or turn in rejected:
            continue
        size, why_matched = sum(m.tokens for m in _turn(older, starts, turn)), f"matches {', '.join(match.words)}"
        if len(recalled) < limits.recall_turns and size <= budget:
            recalled[turn], budget = why_matched, budget - size
        else:
            rejected[turn] = why_matched
    why = {m.id: recalled[turn] for m in older if (turn := turn_of.get(m.id)) in recalled and turn is not None}
    left = [LeftOut(m, _not_recalled(rejected.get(turn_of.get(m.id, -1)), limits)) for m in older if m.id not in why]
    kept = (*(m for m in older if m.id in why), *recent.kept)
    return Selection(kept, (*left, *recent.left_out), why)


def matching_positions(past: Candidates, limits: ModeLimits) -> list[int]:
    """The positions of all messages of the older turns that match."""
    older = past.messages[: recent_start(past.messages, limits)]
    matches, starts = {match.message_id for match in past.matches}, _turns(older)
    ends = [*starts[1:], len(older)]
    turns = [range(start, end) for start, end in zip(starts, ends, strict=False)]
    return [position for turn in turns if any(older[i].id in matches for i in turn) for position in turn]


def _not_recalled(match: str | None, limits: ModeLimits) -> str:
    if match is None:
        return "neither recent nor a match"
    return f"{match}, but not among the best {limits.recall_turns} turns that fit"


def _split(history: Sequence[Message], first_kept: int, reason: str) -> Selection:
    left = tuple(LeftOut(message, reason) for message in history[:first_kept])
    return Selection(tuple(history[first_kept:]), left)


def _no_room(limits: ModeLimits) -> str:
    return f"the model has no more room than {limits.input_budget:,} tokens"


def _turns(history: Sequence[Message]) -> list[int]:
    """The positions where turns begin: each user's message."""
    return [i for i, message in enumerate(history) if message.role == "user"]


def _turn(history: Sequence[Message], starts: Sequence[int], turn: int) -> Sequence[Message]:
    end = starts[turn + 1] if turn + 1 < len(starts) else len(history)
    return history[starts[turn] : end]


def _with_turns(history: Sequence[Message], starts: Sequence[int]) -> list[tuple[int, Message]]:
    """Each message with the number of its turn, without those before the first turn."""
    return [(turn, m) for turn in range(len(starts)) for m in _turn(history, starts, turn)]


def recent_start(history: Sequence[Message], limits: ModeLimits) -> int:
    """The position where the last `window_turns` turns begin; 0 if there are no older ones."""
    turns = _turns(history)
    return turns[-limits.window_turns] if len(turns) >= limits.window_turns else 0


def _fitting(history: Sequence[Message], budget: int, reason: str) -> Selection:
    """The longest end of the history that begins with a user's message and fits the budget."""
    first, size = len(history), 0
    while first and size + history[first - 1].tokens <= budget:
        first, size = first - 1, size + history[first - 1].tokens
    latest = history[first:]  # all that can fit: trimming takes time in proportion
    sizes = {message.id: message.tokens for message in latest}

    def count(messages: list[BaseMessage]) -> int:
        return sum(sizes[str(m.id)] for m in messages)

    stand_ins: list[BaseMessage] = [
        HumanMessage("", id=m.id) if m.role == "user" else AIMessage("", id=m.id) for m in latest
    ]
    kept = trim_messages(
        stand_ins, max_tokens=budget, token_counter=count, strategy="last", start_on="human", allow_partial=False
    )
    return _split(history, len(history) - len(kept), reason)


_MODES = (
    Mode("none", "only your message", none, first=_nothing),
    Mode("full", "the whole conversation", full, bounded=False),
    Mode("window", "the last few turns", window, ("window_turns",), _latest),
    Mode("tokens", "the latest messages that fit", tokens, ("token_limit",)),
    Mode(
        "summary",
        "the last few turns, and a summary of the rest",
        summary,
        ("window_turns", "summary_tokens"),
        _uncovered,
        summarizes=True,
    ),
    Mode(
        "recall",
        "the last few turns, and older ones that match",
        recall,
        ("window_turns", "recall_turns"),
        _latest,
        searches=True,
    ),
)
MODES = {mode.name: mode for mode in _MODES}
"""The modes in the order of the page's dropdown."""


def get_mode(name: str) -> Mode:
    """A mode by its name. Raises ChatError `not_found`, which lists the modes."""
    try:
        return MODES[name]
    except KeyError:
        raise ChatError("not_found", f"There is no memory mode {name[:60]!r}; there are {', '.join(MODES)}.") from None
