"""What stands in a reply beside its text: the model's thinking and its tools' calls, oldest first."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from runs.events import JSON
from runs.state import AgentState


@dataclass(frozen=True, slots=True)
class Part:
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

    def wire(self) -> JSON:
        """As JSON can hold it; `Part(**wire)` is the way back."""
        return asdict(self)


def parts_of(state: AgentState) -> tuple[Part, ...]:
    """The parts of a run's reply so far."""
    found = [Part("thinking", one.text, one.start, one.end) for one in state.thoughts]
    found += [
        Part("tool", one.output, one.start, one.end, one.name, one.input, one.error)
        for one in state.steps
        if one.kind == "tool"
    ]
    return tuple(sorted(found, key=lambda part: part.start))
