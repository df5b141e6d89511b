"""The memory modes: pure views of a conversation. Each says what the model is given, and what not and why.

A mode only ever leaves out whole messages of the history, keeps their order, and never changes what is stored. Every
message comes with its tokens already counted. Add a mode: one function here and one line in `MODES`.
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
    """`input_budget` is the most tokens that may be given in all; `spent` of it go to all that is no history.

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
        """Tokens that the history may take."""
        return max(0, self.input_budget - self.spent)


@dataclass(frozen=True, slots=True)
class Candidates:
    """What a mode selects from: the history, and what was made of it for the modes that ask for it."""

    messages: Sequence[Message]
    summary: Summary | None = None
    """Of a part of the history, from its beginning on."""
    failed: str | None = None
    """Why there is no newer summary, for people."""
    matches: Sequence[Match] = ()
    """Messages that match the new one, the best first."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    message: Message
    reason: str


@dataclass(frozen=True, slots=True)
class Selection:
    """What of the history goes to the model, in order, and what does not."""

    kept: tuple[Message, ...]
    left_out: tuple[LeftOut, ...]
    why: Mapping[str, str] = field(default_factory=dict)
    """Why an older message is there all the same, by its id."""
    summary: Summary | None = None
    note: str | None = None
    """What a person should know of this view."""


Select = Callable[[Candidates, ModeLimits], Selection]


@dataclass(frozen=True, slots=True)
class Mode:
    """A memory mode as the page and the API list it."""

    name: str
    about: str
    select: Select
    first: Callable[[Candidates, ModeLimits], int]
    """The place of the earliest message that it may keep, but for matches; what is before need not be counted."""
    parameters: tuple[str, ...] = ()
    """The settings of `[memory]` that it reads."""
    bounded: bool = True
    """Whether it keeps within the model's context."""
    summarizes: bool = False
    """Whether it wants the `summary` of a `Candidates`."""
    searches: bool = False
    """Whether it wants the `matches` of a `Candidates`."""

    def budget(self, limits: ModeLimits) -> float:
        """Tokens that it gives at most besides what is no history."""
        if not self.bounded:
            return math.inf
        return _token_budget(limits) if "token_limit" in self.parameters else limits.history


def none(past: Candidates, limits: ModeLimits) -> Selection:
    """Every message stands alone."""
    return _split(past.messages, len(past.messages), "the mode none gives no history")


def full(past: Candidates, limits: ModeLimits) -> Selection:
    """Everything, whether it fits or not; what does not fit is refused before the model is called."""
    return Selection(tuple(past.messages), ())


def window(past: Candidates, limits: ModeLimits) -> Selection:
    """The last k turns, and of these only what fits."""
    older = _split(
        past.messages, recent_start(past.messages, limits), f"older than the last {limits.window_turns} turns"
    )
    fitting = _fitting(older.kept, limits.history, _no_room(limits))
    return Selection(fitting.kept, older.left_out + fitting.left_out)


def tokens(past: Candidates, limits: ModeLimits) -> Selection:
    """As many of the latest messages as fit, from a user's message on."""
    budget = _token_budget(limits)
    if limits.token_limit < limits.input_budget:
        return _fitting(past.messages, budget, f"beyond the limit of {limits.token_limit:,} tokens")
    return _fitting(past.messages, budget, _no_room(limits))


def _token_budget(limits: ModeLimits) -> int:
    return max(0, min(limits.input_budget, limits.token_limit) - limits.spent)


def summary(past: Candidates, limits: ModeLimits) -> Selection:
    """The last k turns and whatever no summary covers yet, as far as they fit, after a summary of what is older.

    Without a summary, the same as `tokens`.
    """
    history, made = past.messages, past.summary
    first = recent_start(history, limits)
    if first == 0:
        return window(past, limits)
    if made is None or made.tokens > limits.history:
        instead = tokens(past, limits)
        why = past.failed or ("There is no summary yet." if made is None else "The summary has no room.")
        return Selection(instead.kept, instead.left_out, note=f"{why} The latest messages that fit are given instead.")
    older = _split(history, _uncovered(past, limits), "in the summary")
    fitting = _fitting(older.kept, limits.history - made.tokens, f"not in the summary yet, and {_no_room(limits)}")
    return Selection(fitting.kept, older.left_out + fitting.left_out, summary=made, note=past.failed)


def _uncovered(past: Candidates, limits: ModeLimits) -> int:
    """The place of the first message that is not in the summary, or recent all the same."""
    covered, last = 0, past.summary and past.summary.message_id
    if last:
        covered = 1 + next(i for i, message in enumerate(past.messages) if message.id == last)
    return min(covered, recent_start(past.messages, limits))


def _anything(past: Candidates, limits: ModeLimits) -> int:
    return 0


def _nothing(past: Candidates, limits: ModeLimits) -> int:
    return len(past.messages)


def _latest(past: Candidates, limits: ModeLimits) -> int:
    return recent_start(past.messages, limits)


def recall(past: Candidates, limits: ModeLimits) -> Selection:
    """The last k turns, and of the older ones those that best match the message, all as far as they fit."""
    history = past.messages
    first = recent_start(history, limits)
    recent = _fitting(history[first:], limits.history, _no_room(limits))
    older, room = history[:first], limits.history - sum(m.tokens for m in recent.kept)
    starts = _turns(older)
    turn_of = {m.id: turn for turn, m in _with_turns(older, starts)}
    taken: dict[int, str] = {}
    crowded: dict[int, str] = {}
    for match in past.matches:
        turn = turn_of.get(match.message_id)
        if turn is None or turn in taken or turn in crowded:
            continue
        size, told = sum(m.tokens for m in _turn(older, starts, turn)), f"matches {', '.join(match.words)}"
        if len(taken) < limits.recall_turns and size <= room:
            taken[turn], room = told, room - size
        else:
            crowded[turn] = told
    why = {m.id: taken[turn] for m in older if (turn := turn_of.get(m.id)) in taken and turn is not None}
    left = [LeftOut(m, _not_recalled(crowded.get(turn_of.get(m.id, -1)), limits)) for m in older if m.id not in why]
    kept = (*(m for m in older if m.id in why), *recent.kept)
    return Selection(kept, (*left, *recent.left_out), why)


def matching_positions(past: Candidates, limits: ModeLimits) -> list[int]:
    """The places of all messages of the older turns that match."""
    older = past.messages[: recent_start(past.messages, limits)]
    matches, starts = {match.message_id for match in past.matches}, _turns(older)
    ends = [*starts[1:], len(older)]
    turns = [range(start, end) for start, end in zip(starts, ends, strict=False)]
    return [place for turn in turns if any(older[i].id in matches for i in turn) for place in turn]


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
    """The places where turns begin: each user's message."""
    return [i for i, message in enumerate(history) if message.role == "user"]


def _turn(history: Sequence[Message], starts: Sequence[int], turn: int) -> Sequence[Message]:
    end = starts[turn + 1] if turn + 1 < len(starts) else len(history)
    return history[starts[turn] : end]


def _with_turns(history: Sequence[Message], starts: Sequence[int]) -> list[tuple[int, Message]]:
    """Each message with its turn's number; without those before the first turn."""
    return [(turn, m) for turn in range(len(starts)) for m in _turn(history, starts, turn)]


def recent_start(history: Sequence[Message], limits: ModeLimits) -> int:
    """The place where the last k turns begin; 0 where there are no more."""
    turns = _turns(history)
    return turns[-limits.window_turns] if len(turns) >= limits.window_turns else 0


def _fitting(history: Sequence[Message], budget: int, reason: str) -> Selection:
    """The longest end of the history that begins with a user's message and has at most `budget` tokens."""
    first, size = len(history), 0
    while first and size + history[first - 1].tokens <= budget:
        first, size = first - 1, size + history[first - 1].tokens
    latest = history[first:]  # all that can fit: trimming costs with what it is given
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


MODES: dict[str, Mode] = {
    "none": Mode("none", "only your message", none, _nothing),
    "full": Mode("full", "the whole conversation", full, _anything, bounded=False),
    "window": Mode("window", "the last few turns", window, _latest, ("window_turns",)),
    "tokens": Mode("tokens", "the latest messages that fit", tokens, _anything, ("token_limit",)),
    "summary": Mode(
        "summary",
        "the last few turns, and a summary of the rest",
        summary,
        _uncovered,
        ("window_turns", "summary_tokens"),
        summarizes=True,
    ),
    "recall": Mode(
        "recall",
        "the last few turns, and older ones that match",
        recall,
        _latest,
        ("window_turns", "recall_turns"),
        searches=True,
    ),
}
"""What the dropdown offers, in its order."""


def get_mode(name: str) -> Mode:
    """Raises ChatError `not_found`, naming what there is."""
    try:
        return MODES[name]
    except KeyError:
        raise ChatError("not_found", f"There is no memory mode {name[:60]!r}; there are {', '.join(MODES)}.") from None
