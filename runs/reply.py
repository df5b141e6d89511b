"""What stands in a reply beside its text: the model's thinking and its tools' calls, oldest first."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from runs.events import JSON
from runs.state import MAX_THOUGHT, AgentState, shorten_output

_MOST, _CHARACTERS = 1000, 2_000_000
"""Parts of one message that are imported, and how much they take together: a run streams no more than that."""
_PART = 200
"""What a part takes besides its texts, in characters."""


@dataclass(frozen=True, slots=True)
class ReplyPart:
    """A thought (`text` is what was thought), or a tool's call (`text` is its output). Times are epoch seconds, `end`
    None while it goes on.
    """

    kind: Literal["thinking", "tool"]
    text: str
    start: float
    end: float | None = None
    name: str = ""
    input: Any = None
    error: str | None = None

    @property
    def seconds(self) -> float | None:
        return None if self.end is None else max(0.0, self.end - self.start)

    @property
    def size(self) -> int:
        """About how many characters it takes."""
        given = 0 if self.input is None else len(json.dumps(self.input, ensure_ascii=False, default=str))
        return _PART + len(self.name) + len(self.text) + len(self.error or "") + given

    def wire(self) -> JSON:
        """As JSON can hold it; `ReplyPart(**wire)` is the way back."""
        return asdict(self)


def reply_parts(state: AgentState) -> tuple[ReplyPart, ...]:
    """The parts of a run's reply so far."""
    found = [ReplyPart("thinking", one.text, one.start, one.end) for one in state.thoughts]
    found += [
        ReplyPart("tool", one.output, one.start, one.end, one.name, one.input, one.error)
        for one in state.steps
        if one.kind == "tool"
    ]
    return tuple(sorted(found, key=lambda part: part.start))


def bounded_parts(parts: Sequence[ReplyPart], most: int) -> tuple[ReplyPart, ...]:
    """The first of a message's parts, at most `most` of them, each as long as in a run's state and not more together
    than a run may have.
    """
    kept: list[ReplyPart] = []
    room = _CHARACTERS
    for part in parts[: min(most, _MOST)]:
        text = part.text[:MAX_THOUGHT] if part.kind == "thinking" else shorten_output(part.text)
        part = part if text == part.text else replace(part, text=text)
        if part.size > room:
            break
        kept.append(part)
        room -= part.size
    return tuple(kept)
