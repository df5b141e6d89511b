"""The state of one open page: the conversation it shows, the messages it shows, and the run it follows.

The state grants no rights: a state that does not belong to the visitor of a request is replaced by an empty one. Gradio
keeps it while the page is open, so it holds ids only; texts are read from the store for each drawing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from hosting.identity import Identity
from memory.messages import Message, Role

Updates = dict[str, Any]
"""New values of the page's components, by the names that `page.py` gives them. Other components are unchanged."""

INITIAL_MESSAGES = 30
"""Messages that a page shows at first. The cost of each update grows with their number."""


@dataclass(frozen=True, slots=True)
class ShownMessage:
    """The ids and the role of a message that a page shows."""

    id: str
    role: Role
    run_id: str | None


def shown_messages(messages: Sequence[Message]) -> list[ShownMessage]:
    """Returns what a page keeps of its messages."""
    return [ShownMessage(message.id, message.role, message.run_id) for message in messages]


@dataclass
class PageState:
    """The state of one open page, kept by Gradio in a `gr.State`."""

    visitor: str | None = None
    """The owner of the page. Gradio stores the state under an id that the client chooses, so the owner is checked."""
    conversation_id: str | None = None
    run_id: str | None = None
    """The run that the page follows."""
    shown: list[ShownMessage] = field(default_factory=list)
    earlier: int = 0
    """The number of messages of the conversation above the shown ones."""
    player: str | None = None
    """The id of the replay's player. A page that replays a run has no conversation and follows no run."""
    closed: bool = False
    """True once the page shows another conversation. Followers that still hold this state then stop."""

    def for_request(self, identity: Identity, request: gr.Request) -> "PageState":
        """Returns this state if it belongs to the visitor of a request, else an empty one."""
        visitor = identity.visitor(request.cookies or {})
        return self if self.visitor == visitor else PageState(visitor)

    def user_message(self, index: int) -> ShownMessage | None:
        """Returns the user's message at an index of the shown ones, or the nearest one above it."""
        found = [m for m in self.shown[: index + 1] if m.role == "user"]
        return found[-1] if found else None


@dataclass(frozen=True, slots=True)
class ConversationView:
    """The messages that a page draws once. They are not kept."""

    page: PageState
    messages: Sequence[Message] = ()
    versions: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """The ids of all versions of a message, the oldest first, for each message that has more than one."""
