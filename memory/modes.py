"""The memory modes: pure views of a conversation. Each says what the model is given, and what not and why.

A mode only ever leaves out whole messages of the history, keeps their order, and never changes what is stored. Every
message comes with its tokens already counted. Add a mode: one function here and one line in `MODES`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, trim_messages

from memory.messages import Message
from runs.errors import ChatError


@dataclass(frozen=True, slots=True)
class Limits:
    """`room` is the most tokens that may be given in all; `spent` of it go to the system prompt and the new message."""

    room: int
    spent: int
    window_turns: int = 4
    token_limit: int = 2000

    @property
    def history(self) -> int:
        """Tokens that the history may take."""
        return max(0, self.room - self.spent)


@dataclass(frozen=True, slots=True)
class LeftOut:
    message: Message
    reason: str


@dataclass(frozen=True, slots=True)
class View:
    """What of the history goes to the model, in order, and what does not."""

    kept: tuple[Message, ...]
    left_out: tuple[LeftOut, ...]


Select = Callable[[Sequence[Message], Limits], View]


@dataclass(frozen=True, slots=True)
class Mode:
    """A memory mode as the page and the API list it."""

    name: str
    about: str
    select: Select
    parameters: tuple[str, ...] = ()
    """The settings of `[memory]` that it reads."""


def _split(history: Sequence[Message], first_kept: int, reason: str) -> View:
    left = tuple(LeftOut(message, reason) for message in history[:first_kept])
    return View(tuple(history[first_kept:]), left)


def _turns(history: Sequence[Message]) -> list[int]:
    """The places where turns begin: each user's message."""
    return [i for i, message in enumerate(history) if message.role == "user"]


def none(history: Sequence[Message], limits: Limits) -> View:
    """Every message stands alone."""
    return _split(history, len(history), "the mode none gives no history")


def full(history: Sequence[Message], limits: Limits) -> View:
    """Everything, whether it fits or not; what does not fit is refused before the model is called."""
    return View(tuple(history), ())


def window(history: Sequence[Message], limits: Limits) -> View:
    """The last k turns, and of these only what fits."""
    turns = _turns(history)
    first = turns[-limits.window_turns] if len(turns) >= limits.window_turns else 0
    reason = f"older than the last {limits.window_turns} turns"
    older = _split(history, first, reason)
    fitting = _fitting(older.kept, limits.history, f"the model has no more room than {limits.room:,} tokens")
    return View(fitting.kept, older.left_out + fitting.left_out)


def tokens(history: Sequence[Message], limits: Limits) -> View:
    """As many of the latest messages as fit, from a user's message on."""
    budget = max(0, min(limits.room, limits.token_limit) - limits.spent)
    if limits.token_limit < limits.room:
        return _fitting(history, budget, f"beyond the limit of {limits.token_limit:,} tokens")
    return _fitting(history, budget, f"the model has no more room than {limits.room:,} tokens")


def _fitting(history: Sequence[Message], budget: int, reason: str) -> View:
    """The longest end of the history that begins with a user's message and has at most `budget` tokens."""
    sizes = {message.id: message.tokens for message in history}

    def count(messages: list[BaseMessage]) -> int:
        return sum(sizes[str(m.id)] for m in messages)

    stand_ins: list[BaseMessage] = [
        HumanMessage("", id=m.id) if m.role == "user" else AIMessage("", id=m.id) for m in history
    ]
    kept = trim_messages(
        stand_ins, max_tokens=budget, token_counter=count, strategy="last", start_on="human", allow_partial=False
    )
    return _split(history, len(history) - len(kept), reason)


MODES: dict[str, Mode] = {
    "none": Mode("none", "only your message", none),
    "full": Mode("full", "the whole conversation", full),
    "window": Mode("window", "the last few turns", window, ("window_turns",)),
    "tokens": Mode("tokens", "the latest messages that fit", tokens, ("token_limit",)),
}
"""What the dropdown offers, in its order."""


def get_mode(name: str) -> Mode:
    """Raises ChatError `not_found`, naming what there is."""
    try:
        return MODES[name]
    except KeyError:
        raise ChatError("not_found", f"There is no memory mode {name[:60]!r}; there are {', '.join(MODES)}.") from None
