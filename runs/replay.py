"""A recorded run, played again: what was known of it at any moment, by the same fold as when it was live."""

import time
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from runs import events
from runs.events import Entry, memory_bytes
from runs.state import AgentState, apply

_APART = 200
"""Entries between two states that are kept: a moment that is looked for is at most so many steps from one."""


class Replay:
    """The entries of an ended run, by the seconds since it began."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        """Raises ValueError for a record without events."""
        if not entries:
            raise ValueError("a run's record has at least one event")
        self._entries, self.started = entries, entries[0].at
        self._moments = [entry.at - self.started for entry in entries]
        self.length_s = self._moments[-1]
        pieces = [entry.event.content if isinstance(entry.event, events.Token) else "" for entry in entries]
        self._text, self._ends = "".join(pieces), list(accumulate(map(len, pieces)))
        self._retracted = _retracted(entries, self._ends)
        self._kept = [AgentState()]
        self.memory_bytes = sum(memory_bytes(entry.event) for entry in entries)
        """About how much memory the entries take."""

    def state_at(self, position_s: float) -> tuple[AgentState, str]:
        """The state at a moment, and the reply so far. Before the first event it is as with that one."""
        count = max(1, bisect_right(self._moments, position_s))
        place = min(count // _APART, len(self._kept) - 1)
        state = self._kept[place]
        for number, entry in enumerate(self._entries[place * _APART : count], place * _APART + 1):
            state = apply(state, entry)
            if number == len(self._kept) * _APART:
                self._kept.append(state)
        text = self._text[: self._ends[count - 1]]
        for place, start, end in reversed(self._retracted):
            if place < count:
                text = text[:start] + text[end:]
        return state, text


def _retracted(entries: Sequence[Entry], ends: Sequence[int]) -> list[tuple[int, int, int]]:
    """Each retraction's place, and from where to where it takes text out of all that the tokens say."""
    found, begun = [], 0
    for place, entry in enumerate(entries):
        match entry.event:
            case events.ModelStart():
                begun = ends[place]
            case events.Reasoning(retracts=True):
                found.append((place, begun, ends[place]))
    return found


class Player:
    """Where a replay is now: at a moment, standing still or going on from it at a speed, up to the end."""

    def __init__(self, replay: Replay) -> None:
        self.replay, self.speed, self.playing = replay, 1.0, False
        self._from_s, self._since, self.turn = 0.0, 0.0, 0
        """`turn` is another one after each `go`: who plays for an earlier one has to end."""

    def seek(self, position_s: float, speed: float, *, playing: bool) -> None:
        """From a moment (seconds since the run began) on, at so many times the speed at which it was recorded."""
        self._from_s = min(max(0.0, position_s), self.replay.length_s)
        self._since, self.speed, self.playing = time.monotonic(), speed, playing
        self.turn += 1

    @property
    def position_s(self) -> float:
        gone = (time.monotonic() - self._since) * self.speed if self.playing else 0.0
        return min(self._from_s + gone, self.replay.length_s)
