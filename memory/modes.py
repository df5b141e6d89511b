"""The memory modes: pure functions that select what the model gets of a conversation, with reasons for the rest.

A mode leaves out whole messages and never changes the stored conversation. Every message comes with its tokens counted.
To add a mode, write one function and add one line to `MODES`.

Reading is expensive, and a model does not read again the beginning of its input that equals that of the turn before.
So a mode does not drop the oldest turn in each turn, but many at once: half of what it may keep, or all but
`window_turns`. The following turns then begin with the same messages. Where it drops follows from the conversation and
the limits alone.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, pairwise

from memory.message_index import Match
from memory.messages import Message, Summary
from memory.mode_options import ModeOption, OptionValue
from memory.options import ModeParameters
from runs.errors import ChatError


class ModeLimits(ModeParameters):
    """The parameters of the modes, and the tokens that may be used.

    `input_budget` is the most tokens of the whole input, `spent` those of everything but the history, and `message`
    those of the new message among them. `options` are values for `Mode.options`; missing ones are the defaults.
    """

    input_budget: int
    spent: int
    message: int = 0
    options: Mapping[str, OptionValue] = {}

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
    cost: str | None = None
    """What the summary cost, for people."""
    matches: Sequence[Match] = ()
    """The messages that match the new one, the best first."""
    token_offsets: Sequence[int] = ()
    """The position of each message in the conversation, in estimated tokens; empty: by the messages' own counts.

    The estimates depend only on the texts, so that a mode drops at the same messages in each turn.
    """


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


_EXTRA_TURNS = 10
"""The most turns that are kept beyond `window_turns` before a mode drops back to them."""
_STEPS = 4
"""Steps that are tried, each half as large as the one before, until enough is kept."""
_LEAST_SHARE = 0.25
"""The least share of the capacity that is kept at a step, the new message included."""

Select = Callable[[Candidates, ModeLimits], Selection]
IN_SUMMARY = "in the summary"
"""The reason of messages that the summary covers."""


@dataclass(frozen=True, slots=True)
class Mode:
    """A memory mode as the page and the API list it."""

    name: str
    about: str
    """What it does in short, a colon, and more about it."""
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
    options: tuple[ModeOption, ...] = ()
    """What visitors can set besides the parameters, in a mode that is not part of this project."""

    def own_limit(self, limits: ModeLimits) -> int | None:
        """The mode's own limit of the whole input; None where only the model's applies."""
        own = limits.token_limit if "token_limit" in self.parameters else limits.input_budget
        return own if own < limits.input_budget else None

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
    """The last turns, at least `window_turns` of them, as far as they fit."""
    history, first = candidates.messages, recent_start(candidates.messages, limits)
    turns = sum(message.role == "user" for message in history[first:])
    older = _split(history, first, f"older than the last {turns} turns")
    fitting = _fitting(candidates, first, limits.history, _capacity(limits), no_room(limits), limits)
    return Selection(fitting.kept, older.left_out + fitting.left_out)


def tokens(candidates: Candidates, limits: ModeLimits) -> Selection:
    """The latest messages that fit, from a user's message on; beyond the limit, about half of them are dropped."""
    budget = _token_budget(limits)
    reason = no_room(limits)
    if limits.token_limit < limits.input_budget:
        reason = f"beyond the limit of {limits.token_limit:,} tokens"
    return _fitting(candidates, 0, budget, budget + limits.message, reason)


def _token_budget(limits: ModeLimits) -> int:
    return max(0, min(limits.input_budget, limits.token_limit) - limits.spent)


def summary(candidates: Candidates, limits: ModeLimits) -> Selection:
    """A summary of the older turns, and the last turns and those that it does not cover yet, as far as they fit.

    Where a summary is due and there is none, the same as `tokens`.
    """
    history, made = candidates.messages, candidates.summary
    if least_start(history, limits) == 0:
        return window(candidates, limits)
    if made is None and recent_start(history, limits) == 0:
        whole = window(candidates, limits)
        return replace(whole, note=candidates.failed if whole.left_out else None)
    if made is None or made.tokens > limits.history:
        instead = tokens(candidates, limits)
        why = candidates.failed or ("There is no summary yet." if made is None else "The summary does not fit.")
        return Selection(instead.kept, instead.left_out, note=f"{why} The latest messages that fit are given instead.")
    first = _uncovered(candidates, limits)
    older = _split(history, first, IN_SUMMARY)
    budget, reason = limits.history - made.tokens, f"not in the summary yet, and {no_room(limits)}"
    fitting = _fitting(candidates, first, budget, budget + limits.message, reason, limits)
    return Selection(
        fitting.kept, older.left_out + fitting.left_out, summary=made, note=candidates.failed or candidates.cost
    )


def summarized_start(history: Sequence[Message], limits: ModeLimits) -> int:
    """The position up to which a summary is due. It grows in steps, so that the summary stays the same for many turns.

    The turns after it take at most half of the input. The counts may be estimates.
    """
    first, budget = recent_start(history, limits), limits.history // 2
    fitting = _fitting(Candidates(history), first, budget, budget, "", limits)
    if not any(item.message.role == "user" for item in fitting.left_out):
        return first
    return min(len(history) - len(fitting.kept), least_start(history, limits))


def _uncovered(candidates: Candidates, limits: ModeLimits) -> int:
    """The position of the first message that is not in the summary or in the last `window_turns` turns."""
    covered, last = 0, candidates.summary and candidates.summary.message_id
    if last:
        covered = 1 + next(i for i, message in enumerate(candidates.messages) if message.id == last)
    return min(covered, least_start(candidates.messages, limits))


def _nothing(candidates: Candidates, limits: ModeLimits) -> int:
    return len(candidates.messages)


def _latest(candidates: Candidates, limits: ModeLimits) -> int:
    return recent_start(candidates.messages, limits)


def recall(candidates: Candidates, limits: ModeLimits) -> Selection:
    """The last turns, and of the older ones those that best match the message, as far as they fit.

    The recalled turns are placed before the last one: what precedes them stays the same.
    """
    history, first = candidates.messages, recent_start(candidates.messages, limits)
    least = least_start(history, limits)
    half = _capacity(limits) // 2  # the other half is for the recalled turns
    budget = min(limits.history, max(half - limits.message, sum(message.tokens for message in history[least:])))
    recent = _fitting(candidates, first, budget, half, "", limits)
    start = len(history) - len(recent.kept)
    older, budget = history[:start], limits.history - sum(message.tokens for message in recent.kept)
    turns = _turns(older)
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
    left = [
        LeftOut(m, no_room(limits) if i >= least else _not_recalled(rejected.get(turn_of.get(m.id, -1)), limits))
        for i, m in enumerate(older)
        if m.id not in why
    ]
    last = max((i for i, message in enumerate(recent.kept) if message.role == "user"), default=0)
    kept = (*recent.kept[:last], *(m for m in older if m.id in why), *recent.kept[last:])
    return Selection(kept, tuple(left), why)


def matching_indexes(candidates: Candidates, limits: ModeLimits) -> list[int]:
    """The indexes of all messages of the older turns that match."""
    older = candidates.messages[: least_start(candidates.messages, limits)]
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


def no_room(limits: ModeLimits) -> str:
    """The reason of messages that do not fit."""
    return f"the model has no more room than {limits.input_budget:,} tokens"


def _turns(history: Sequence[Message]) -> list[range]:
    """The indexes of each turn's messages: from a user's message up to the next one."""
    starts = [i for i, message in enumerate(history) if message.role == "user"]
    return [range(start, end) for start, end in pairwise([*starts, len(history)])]


def least_start(history: Sequence[Message], limits: ModeLimits) -> int:
    """The position where the last `window_turns` turns begin; 0 if there are no older ones."""
    starts = _starts(history)
    return starts[-limits.window_turns] if len(starts) > limits.window_turns else 0


def recent_start(history: Sequence[Message], limits: ModeLimits) -> int:
    """The position where the recent turns begin: `window_turns` and up to ten more. 0 if there are no older ones."""
    starts, step = _starts(history), _EXTRA_TURNS + 1
    older = max(0, len(starts) - limits.window_turns) // step * step
    return starts[older] if older else 0


def token_offsets(history: Sequence[Message]) -> list[int]:
    """The tokens before each message of a history."""
    return list(accumulate((message.tokens for message in history), initial=0))[:-1]


def _starts(history: Sequence[Message]) -> list[int]:
    return [i for i, message in enumerate(history) if message.role == "user"]


def _capacity(limits: ModeLimits) -> int:
    """The most tokens of the history and the new message, which are the same for each turn of a conversation."""
    return limits.history + limits.message


def _fitting(
    candidates: Candidates, first: int, budget: int, capacity: int, reason: str, limits: ModeLimits | None = None
) -> Selection:
    """An end of the history from a position on that begins with a user's message and fits the budget.

    If not all fits, it begins with the first user's message after a mark: marks are half of the capacity apart, in
    tokens of the conversation, then a quarter and so on. So it begins there in the following turns, too. With
    `limits`, the last `window_turns` turns are kept if they fit.
    """
    history, starts = candidates.messages[first:], _starts(candidates.messages)
    sizes = list(accumulate((message.tokens for message in reversed(history)), initial=0))[::-1]
    own = [start - first for start in starts[bisect_left(starts, first) :]]
    fitting = [start for start in own if sizes[start] <= budget]
    if not fitting or fitting[0] == own[0]:
        return _split(history, fitting[0] if fitting else len(history), reason)
    offsets = candidates.token_offsets or token_offsets(candidates.messages)
    latest = max(fitting[0], least_start(candidates.messages, limits) - first) if limits else len(history)
    for halves in range(1, _STEPS + 1):
        step = max(1, capacity >> halves)
        for before, start in pairwise(starts[starts.index(first + fitting[0]) - 1 :]):
            if offsets[start] // step > offsets[before] // step:
                if sizes[start - first] >= capacity * _LEAST_SHARE:
                    return _split(history, min(start - first, latest), reason)
                break
    return _split(history, fitting[0], reason)


MODES = {
    mode.name: mode
    for mode in (
        Mode("none", "Only your message: no earlier ones", none, first=_nothing),
        Mode("full", "Whole conversation: refused if it does not fit", full, bounded=False),
        Mode(
            "window",
            "Last turns: at least a fixed number of them, at most ten more",
            window,
            ("window_turns",),
            _latest,
        ),
        Mode("tokens", "Fit to limit: newest messages first", tokens, ("token_limit",)),
        Mode(
            "summary",
            "Last turns and a summary: the model shortens older turns",
            summary,
            ("window_turns", "summary_tokens"),
            _uncovered,
            summarizes=True,
        ),
        Mode(
            "recall",
            "Last turns and matches: older turns with the words of your message",
            recall,
            ("window_turns", "recall_turns"),
            _latest,
            searches=True,
        ),
    )
}
"""The modes in the order of the page's menu."""


def get_mode(name: str) -> Mode:
    """A mode by its name. Raises ChatError `not_found`, which lists the modes."""
    try:
        return MODES[name]
    except KeyError:
        raise ChatError("not_found", f"There is no memory mode {name[:60]!r}; there are {', '.join(MODES)}.") from None
