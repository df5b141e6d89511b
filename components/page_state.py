"""What one open page knows: which conversation it shows, which of its messages are drawn, which run it follows.

It is a convenience, never a right: a state that is not the asking visitor's own is replaced by an empty one. It is kept
for as long as the page is open, so it has ids alone: texts are read from the store for each drawing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from memory.messages import Message, Role

INITIAL_MESSAGES = 30
"""Messages that are drawn at first; each update of a page costs more the more there are."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """What a page keeps of a message that it shows."""

    id: str
    role: Role
    run_id: str | None


def drawn_of(messages: Sequence[Message]) -> list[Drawn]:
    return [Drawn(message.id, message.role, message.run_id) for message in messages]


@dataclass
class PageState:
    visitor: str | None = None
    """Whose page this is: Gradio keeps this state under an id that a client chooses."""
    conversation_id: str | None = None
    run_id: str | None = None
    drawn: list[Drawn] = field(default_factory=list)
    earlier: int = 0
    """Messages of the conversation above the drawn ones."""
    player: str | None = None
    """The id of what plays the run that this page replays: then it is in no conversation, and follows no run."""
    left: bool = False
    """Whether the page shows another conversation by now: whoever still follows for it says nothing more."""

    def of(self, visitor: str | None) -> "PageState":
        """This state for the visitor it belongs to, an empty one for all others."""
        return self if self.visitor == visitor else PageState(visitor)

    def user_message(self, index: int) -> Drawn | None:
        """The user's message at a place in the drawn list, or the nearest above it."""
        found = [m for m in self.drawn[: index + 1] if m.role == "user"]
        return found[-1] if found else None


@dataclass(frozen=True, slots=True)
class View:
    """What a page is given to draw once, and does not keep."""

    page: PageState
    messages: Sequence[Message] = ()
    versions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """For each message that is not the only one after the same: the ids of all of these, the oldest first."""
