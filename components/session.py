"""What one open page knows: which conversation it shows, which of its messages are drawn, which run it follows.

It is a convenience, never a right: a state that is not the asking visitor's own is replaced by an empty one.
"""

from dataclasses import dataclass, field

from memory.messages import Message
from runs.replay import Player

DRAWN = 30
"""Messages that are drawn at first; each update of a page costs more the more there are."""


@dataclass
class PageState:
    visitor: str | None = None
    """Whose page this is: Gradio keeps this state under an id that a client chooses."""
    conversation_id: str | None = None
    run_id: str | None = None
    drawn: list[Message] = field(default_factory=list)
    earlier: int = 0
    """Messages of the conversation above the drawn ones."""
    versions: dict[str, list[str]] = field(default_factory=dict)
    """For each drawn message that is not the only one after the same: the ids of all of these, the oldest first."""

    player: Player | None = None
    """Plays the run that this page replays: then it is in no conversation, and follows no run."""
    left: bool = False
    """Whether the page shows another conversation by now: whoever still follows for it says nothing more."""

    def of(self, visitor: str | None) -> "PageState":
        """This state for the visitor it belongs to, an empty one for all others."""
        return self if self.visitor == visitor else PageState(visitor)

    def user_message(self, index: int) -> Message | None:
        """The user's message at a place in the drawn list, or the nearest above it."""
        found = [m for m in self.drawn[: index + 1] if m.role == "user"]
        return found[-1] if found else None
