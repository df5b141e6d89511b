"""The states of the earlier turns after a memory mode has selected: kept, recalled, summarised or left out."""

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, Literal

from memory.messages import Message
from memory.modes import IN_SUMMARY, Selection

TurnState = Literal["kept", "recalled", "summarised", "left_out"]


def turn_states(history: Sequence[Message], selection: Selection) -> list[dict[str, Any]]:
    """The turns of a history, oldest first, as {state, count}: neighbouring turns of one state are one entry.

    A turn has the state of its first message that the model gets, else of its first message.
    """
    states: dict[str, TurnState] = {
        item.message.id: "summarised" if item.reason == IN_SUMMARY else "left_out" for item in selection.left_out
    }
    states |= {message.id: "recalled" if message.id in selection.why else "kept" for message in selection.kept}
    turns = [_state(states.get(message.id, "left_out") for message in turn) for turn in _turns(history)]
    return [{"state": state, "count": sum(1 for _ in same)} for state, same in groupby(turns)]


def _state(states: Iterable[TurnState]) -> TurnState:
    every = list(states)
    return next((state for state in every if state in ("kept", "recalled")), every[0])


def _turns(history: Sequence[Message]) -> list[list[Message]]:
    """The messages by turn. Messages before the first user message are a turn, too."""
    turns: list[list[Message]] = []
    for message in history:
        if message.role == "user" or not turns:
            turns.append([])
        turns[-1].append(message)
    return turns
