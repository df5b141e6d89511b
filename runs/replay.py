"""A recorded run, played again: the state at any moment, by the same fold as when it was live."""

import time
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

from runs import events
from runs.events import Entry, memory_bytes
from runs.fold import apply
from runs.state import AgentState

_INTERVAL = 200
"""Entries between two cached states: the most that are folded to reach any moment."""


class Replay:
    """The entries of an ended run, by seconds since its start."""

    def __init__(self, entries: Sequence[Entry]) -> None:
        """Raises ValueError for a record without events."""
        if not entries:
            raise ValueError("a run's record has at least one event")
        self._entries, self.started = entries, entries[0].at
        self._moments = [entry.at - self.started for entry in entries]
        self.length_s = self._moments[-1]
        texts = [entry.event.content if isinstance(entry.event, events.Token) else "" for entry in entries]
        self._text, self._ends = "".join(texts), list(accumulate(map(len, texts)))
        self._retracted = _retracted(entries, self._ends)
        self._cache = [AgentState()]
        self.memory_bytes = sum(memory_bytes(entry.event) for entry in entries)
        """An estimate of the memory that the entries take."""

    def state_at(self, position_s: float) -> tuple[AgentState, str]:
        """The state at a moment, and the reply so far. Before the first event it is as with that one."""
        count = max(1, bisect_right(self._moments, position_s))
        cached = min(count // _INTERVAL, len(self._cache) - 1)
        state = self._cache[cached]
        for number, entry in enumerate(self._entries[cached * _INTERVAL : count], cached * _INTERVAL + 1):
            state = apply(state, entry)
            if number == len(self._cache) * _INTERVAL:
                self._cache.append(state)
        text = self._text[: self._ends[count - 1]]
        for index, start, end in reversed(self._retracted):
            if index < count:
                text = text[:start] + text[end:]
        return state, text


def _retracted(entries: Sequence[Entry], ends: Sequence[int]) -> list[tuple[int, int, int]]:
    """The index of each retraction, with the start and end of the text that it removes from all token contents."""
    found, call_start = [], 0
    for index, entry in enumerate(entries):
        match entry.event:
            case events.ModelStart():
                call_start = ends[index]
            case events.Reasoning(retracts=True):
                found.append((index, call_start, ends[index]))
    return found


class Player:
    """The position of a replay: paused at a moment, or moving on from it at a speed, up to the end."""

    def __init__(self, replay: Replay) -> None:
        self.replay, self.speed, self.playing = replay, 1.0, False
        self._from_s, self._since, self.turn = 0.0, 0.0, 0
        """`turn` changes with each `seek`: a task that plays for an earlier one has to end."""

    def seek(self, position_s: float, speed: float, *, playing: bool) -> None:
        """Moves to a position, in seconds since the run's start; `speed` is a multiple of the recorded speed."""
        self._from_s = min(max(0.0, position_s), self.replay.length_s)
        self._since, self.speed, self.playing = time.monotonic(), speed, playing
        self.turn += 1

    @property
    def position_s(self) -> float:
        """Seconds since the run's start."""
        elapsed = (time.monotonic() - self._since) * self.speed if self.playing else 0.0
        return min(self._from_s + elapsed, self.replay.length_s)
