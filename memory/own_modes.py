"""Memory modes that are not part of this project: `own_mode` makes one of a function that chooses messages.

Such a function is written elsewhere, so its result is made to fit, and where it fails, a known mode chooses.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from traceback import extract_tb

from memory.messages import Message
from memory.mode_options import declared_options, known_options
from memory.modes import MODES, Candidates, LeftOut, Mode, ModeLimits, Selection, no_room, tokens
from memory.options import PARAMETERS

logger = logging.getLogger(__name__)
Choose = Callable[..., Iterable[Message]]
"""Chooses some of `Candidates.messages`, with `ModeLimits`; the order does not matter.

It runs before each turn, and for comparisons. Its keyword-only parameters are options for visitors.
"""
_LONGEST_NAME = 40
"""Characters of a name."""


def own_mode(name: str, about: str, choose: Choose, parameters: Sequence[str] = (), *, searches: bool = False) -> Mode:
    """Returns a mode that gives the model the messages that `choose` returns, in the conversation's order.

    `about` is what it does in short, a colon, and more about it. `parameters` are names of `ModeParameters` that
    visitors can set in it; they can also set the keyword-only parameters of `choose` (`memory/mode_options.py`). With
    `searches`, `Candidates.matches` has the messages with words of the new one. If the chosen messages do not fit, the
    oldest are left out. Raises ValueError.
    """
    if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable() or name != name.strip():
        raise ValueError(f"name: found {name!r}, allowed: 1 to {_LONGEST_NAME} characters")
    if unknown := next((one for one in parameters if one not in PARAMETERS), None):
        raise ValueError(f"parameters: found {unknown!r}, allowed: {', '.join(PARAMETERS)}")

    options = declared_options(choose)
    defaults = {option.name: option.default for option in options}

    def select(candidates: Candidates, limits: ModeLimits) -> Selection:
        try:
            values = defaults | known_options(options, limits.options)
            chosen = {message.id for message in choose(candidates, limits, **values)}
        except Exception as e:  # its text may have a visitor's words, so only its class and its place are logged
            place = extract_tb(e.__traceback__)[-1]
            logger.error("the memory mode %r failed: %s at %s:%s", name, type(e).__name__, place.filename, place.lineno)
            instead = tokens(candidates, limits)
            note = f"The memory mode {name} failed. The latest messages that fit are given instead."
            return Selection(instead.kept, instead.left_out, note=note)
        return _fitting(candidates.messages, chosen, mode.budget(limits), name, limits)

    mode = Mode(name, about, select, tuple(parameters), searches=searches, options=options)
    return mode


def add_mode(mode: Mode) -> None:
    """Adds a mode to those that the page and the API offer. Raises ValueError if there is another of this name."""
    if MODES.setdefault(mode.name, mode) is not mode:
        raise ValueError(f"name: found {mode.name!r}, which is the name of another mode")


def _fitting(history: Sequence[Message], chosen: set[str], budget: float, name: str, limits: ModeLimits) -> Selection:
    """The chosen messages, from a user's message on, without the oldest ones if not all fit."""
    sizes = list(accumulate(message.tokens * (message.id in chosen) for message in reversed(history)))[::-1]
    kept, left = list[Message](), list[LeftOut]()
    for message, size in zip(history, sizes, strict=True):
        if message.id not in chosen:
            left.append(LeftOut(message, f"not chosen by the mode {name}"))
        elif size > budget:
            left.append(LeftOut(message, no_room(limits)))
        elif not kept and message.role != "user":
            left.append(LeftOut(message, "the input begins with a user's message"))
        else:
            kept.append(message)
    return Selection(tuple(kept), tuple(left))
