"""The memory modes: pure functions that select what the model gets of a conversation, with reasons for the rest.

A mode leaves out whole messages, keeps their order, and never changes the stored conversation. Every message comes with
its tokens counted. To add a mode, write one function and add one line to `MODES`.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from memory.message_index import Match
from memory.messages import Message, Summary
from memory.options import ModeParameters
from runs.errors import ChatError


class ModeLimits(ModeParameters):
    """The parameters of the modes, and the tokens that may be used.

    `input_budget` is the most tokens of the whole input, `spent` those of everything but the history.
    """

    input_budget: int
    spent: int

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


def none(candidates: Candidates, limits: ModeLimits) -> Selection:
    """Nothing."""
    return _split(candidates.messages, len(candidates.messages), "the mode none gives no history")


def full(candidates: Candidates, limits: ModeLimits) -> Selection:
    """Everything; input that does not fit is rejected before the model is called."""
    return Selection(tuple(candidates.messages), ())


def window(candidates: Candidates, limits: ModeLimits) -> Selection:
    """The last turns, as far as they fit."""
    history, reason = candidates.messages, f"older than the last {limits.window_turns} turns"
    older = _split(history, recent_start(history, limits), reason)
    fitting = _fitting(older.kept, limits.history, _no_room(limits))
    return Selection(fitting.kept, older.left_out + fitting.left_out)


def tokens(candidates: Candidates, limits: ModeLimits) -> Selection:
    """The latest messages that fit, from a user's message on."""
    budget = _token_budget(limits)
    if limits.token_limit < limits.input_budget:
        return _fitting(candidates.messages, budget, f"beyond the limit of {limits.token_limit:,} tokens")
    return _fitting(candidates.messages, budget, _no_room(limits))


def _token_budget(limits: ModeLimits) -> int:
    return max(0, min(limits.input_budget, limits.token_limit) - limits.spent)


def summary(candidates: Candidates, limits: ModeLimits) -> Selection:
    """A summary of the older turns, and the last turns and those that it does not cover yet, as far as they fit.

    Without a summary, the same as `tokens`.
    """
    history, made = candidates.messages, candidates.summary
    first = recent_start(history, limits)
    if first == 0:
        return window(candidates, limits)
    if made is None or made.tokens > limits.history:
        instead = tokens(candidates, limits)
        why = candidates.failed or ("There is no summary yet." if made is None else "The summary does not fit.")
        return Selection(instead.kept, instead.left_out, note=f"{why} The latest messages that fit are given instead.")
    older = _split(history, _uncovered(candidates, limits), "in the summary")
    fitting = _fitting(older.kept, limits.history - made.tokens, f"not in the summary yet, and {_no_room(limits)}")
    return Selection(fitting.kept, older.left_out + fitting.left_out, summary=made, note=candidates.failed)


def _uncovered(candidates: Candidates, limits: ModeLimits) -> int:
    """The position of the first message that is recent or not in the summary."""
    covered, last = 0, candidates.summary and candidates.summary.message_id
    if last:
        covered = 1 + next(i for i, message in enumerate(candidates.messages) if message.id == last)
    return min(covered, recent_start(candidates.messages, limits))


def _nothing(candidates: Candidates, limits: ModeLimits) -> int:
    return len(candidates.messages)


def _latest(candidates: Candidates, limits: ModeLimits) -> int:
    return recent_start(candidates.messages, limits)


def recall(candidates: Candidates, limits: ModeLimits) -> Selection:
    """The last turns, and of the older ones those that best match the message, as far as they fit."""
    history, first = candidates.messages, recent_start(candidates.messages, limits)
    older, recent = history[:first], _fitting(history[first:], limits.history, _no_room(limits))
    turns, budget = _turns(older), limits.history - sum(m.tokens for m in recent.kept)
    turn_of = {older[i].id: number for number, turn in enumerate(turns) for i in turn}
    recalled: dict[int, str] = {}
    rejected: dict[int, str] = {}
    for match in candidates.matches:
        number = turn_of.get(match.message_id)
        if number is None or number in recalled or number in rejected:
            continue
        size, reason = sum(older[i].tokens for i in turns[number]), f"matches {', '.join(match.words)}"
        if len(recalled) < limits.recall_turns and size <= budget:
            recalled[number], budget = reason, budget - size
        else:
            rejected[number] = reason
    why = {older[i].id: reason for number, reason in recalled.items() for i in turns[number]}
    left = [LeftOut(m, _not_recalled(rejected.get(turn_of.get(m.id, -1)), limits)) for m in older if m.id not in why]
    kept = (*(m for m in older if m.id in why), *recent.kept)
    return Selection(kept, (*left, *recent.left_out), why)


def matching_positions(candidates: Candidates, limits: ModeLimits) -> list[int]:
    """The positions of all messages of the older turns that match."""
    older = candidates.messages[: recent_start(candidates.messages, limits)]
    matches = {match.message_id for match in candidates.matches}
    return [i for turn in _turns(older) if any(older[i].id in matches for i in turn) for i in turn]


def _not_recalled(match: str | None, limits: ModeLimits) -> str:
    if match is None:
        return "neither recent nor a match"
    return f"{match}, but not among the best {limits.recall_turns} turns that fit"


def _split(history: Sequence[Message], first_kept: int, reason: str) -> Selection:
    """The history from a position on; the earlier messages are left out."""
    left = tuple(LeftOut(message, reason) for message in history[:first_kept])
    return Selection(tuple(history[first_kept:]), left)


def _no_room(limits: ModeLimits) -> str:
    return f"the model has no more room than {limits.input_budget:,} tokens"


def _turns(history: Sequence[Message]) -> list[range]:
    """The positions of each turn: from a user's message up to the next one."""
    starts = [i for i, message in enumerate(history) if message.role == "user"]
    return [range(start, end) for start, end in pairwise([*starts, len(history)])]


def recent_start(history: Sequence[Message], limits: ModeLimits) -> int:
    """The position where the last `window_turns` turns begin; 0 if there are no older ones."""
    turns = _turns(history)
    return turns[-limits.window_turns].start if len(turns) >= limits.window_turns else 0


def _fitting(history: Sequence[Message], budget: int, reason: str) -> Selection:
    """The longest end of the history that begins with a user's message and fits the budget."""
    first, size = len(history), 0
    while first and size + history[first - 1].tokens <= budget:
        first, size = first - 1, size + history[first - 1].tokens
    while first < len(history) and history[first].role != "user":
        first += 1
    return _split(history, first, reason)


MODES = {
    mode.name: mode
    for mode in (
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
}
"""The modes in the order of the page's dropdown."""


def get_mode(name: str) -> Mode:
    """A mode by its name. Raises ChatError `not_found`, which lists the modes."""
    try:
        return MODES[name]
    except KeyError:
        raise ChatError("not_found", f"There is no memory mode {name[:60]!r}; there are {', '.join(MODES)}.") from None
