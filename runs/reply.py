"""A reply: its text, and its parts, which are the model's thinking and the tool calls, oldest first."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import Any, Literal

from runs import events
from runs.events import JSON, Event
from runs.state import MAX_THOUGHT, AgentState, shorten_output

_MOST_PARTS, _MOST_CHARACTERS = 1000, 2_000_000
"""Parts of one imported message, and their characters together: a run streams no more than that."""
_PART = 200
"""Characters that a part takes besides its texts."""


class ReplyText:
    """The text of the `token` events so far, without text that turned out to be thinking."""

    def __init__(self) -> None:
        self._chunks: list[str] = []
        self._before_call = 0
        """The number of chunks before the latest call of the model."""

    def add(self, event: Event) -> None:
        """Applies one event of the run."""
        match event:
            case events.Token():
                self._chunks.append(event.content)
            case events.ModelStart():
                self._before_call = len(self._chunks)
            case events.Reasoning(retracts=True):
                del self._chunks[self._before_call :]

    def __str__(self) -> str:
        return "".join(self._chunks)


@dataclass(frozen=True, slots=True)
class ReplyPart:
    """A thought, or a tool call whose output is `text`. Times are epoch seconds; `end` is None while it is open."""

    kind: Literal["thinking", "tool"]
    text: str
    start: float
    end: float | None = None
    name: str = ""
    input: Any = None
    error: str | None = None
    offset: int = 0
    """Characters of the reply's text when it began. Replies that older versions stored have 0: parts, then the text."""
    attachments: Sequence[JSON] = ()
    """What a tool's result has for people besides its text: see `events.ToolEnd`."""

    @property
    def seconds(self) -> float | None:
        """The duration; None while it is open."""
        return None if self.end is None else max(0.0, self.end - self.start)

    @property
    def size(self) -> int:
        """The size in characters."""
        arguments = 0 if self.input is None else len(json.dumps(self.input, ensure_ascii=False, default=str))
        return _PART + len(self.name) + len(self.text) + len(self.error or "") + arguments + self.attached

    @property
    def attached(self) -> int:
        """The size of its attachments in characters."""
        return sum(len(str(value)) for one in self.attachments for value in one.values())

    def wire(self) -> JSON:
        """The part as JSON; `ReplyPart(**wire)` is the way back."""
        # `asdict` would also copy `input`, and takes several times as long
        return {name: getattr(self, name) for name in self.__slots__ if name != "attachments" or self.attachments}


def reply_parts(state: AgentState) -> tuple[ReplyPart, ...]:
    """The parts of a run's reply so far."""
    found = [
        ReplyPart("thinking", thought.text, thought.start, thought.end, offset=thought.offset)
        for thought in state.thoughts
    ]
    found += [
        ReplyPart("tool", s.output, s.start, s.end, s.name, s.input, s.error, s.offset, s.attachments)
        for s in state.steps
        if s.kind == "tool"
    ]
    return tuple(sorted(found, key=lambda part: (part.offset, part.start)))


def part_offsets(state: AgentState) -> list[int]:
    """The different offsets of the parts of a run's reply, in ascending order."""
    offsets = {step.offset for step in state.steps if step.kind == "tool"}
    return sorted(offsets.union(thought.offset for thought in state.thoughts))


def split_text(text: str, offsets: Sequence[int]) -> list[str]:
    """The pieces of a reply's text before, between and after offsets that ascend: one more than there are offsets.

    A piece of white space alone is empty.
    """
    cuts = [0, *(min(offset, len(text)) for offset in offsets), len(text)]
    pieces = [text[start:end] for start, end in pairwise(cuts)]
    return [piece if piece.strip() else "" for piece in pieces]


def grouped_parts(parts: Sequence[ReplyPart]) -> list[tuple[int, list[ReplyPart]]]:
    """The parts with the same offset, by their offset, in ascending order."""
    ordered = sorted(parts, key=lambda part: part.offset)
    return [(offset, list(group)) for offset, group in groupby(ordered, key=lambda part: part.offset)]


def reply_sequence(text: str, parts: Sequence[ReplyPart]) -> list[str | list[ReplyPart]]:
    """The texts of a reply and the groups of its parts, in the order in which they came, without empty texts."""
    groups = grouped_parts(parts)
    first, *others = split_text(text, [offset for offset, _ in groups])
    found: list[str | list[ReplyPart]] = [first] if first else []
    for (_, group), piece in zip(groups, others, strict=True):
        found += [group, piece] if piece else [group]
    return found


def bounded_parts(parts: Sequence[ReplyPart], most: int) -> tuple[ReplyPart, ...]:
    """The first parts of a message, at most `most`, shortened and together no longer than those of a run."""
    kept: list[ReplyPart] = []
    characters = _MOST_CHARACTERS
    for part in parts[: min(most, _MOST_PARTS)]:
        text = part.text[:MAX_THOUGHT] if part.kind == "thinking" else shorten_output(part.text)
        part = part if text == part.text else replace(part, text=text)
        characters -= part.size
        if characters < 0:
            break
        kept.append(part)
    return tuple(kept)
