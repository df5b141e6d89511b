"""`TurnRequest`, and the validated `Turn` that is built from it."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from agent.continuation import Continuation
from agent.tool_set import ToolSet
from agent.visitor_documents import VisitorDocuments
from backends import Backend
from memory.history_cache import History
from memory.messages import Message, Role, Summary
from memory.modes import Mode
from memory.options import TurnOptions
from runs.images import Image
from runs.requester import Requester

LoadHistory = Callable[[], Awaitable[History]]
"""Loads the messages before the one that is answered."""


class LoadedSummary(NamedTuple):
    """The newest summary of a history, and sentences about it for people."""

    made: Summary | None = None
    failure: str | None = None
    """Why there is no newer one."""
    cost: str | None = None


LoadSummary = Callable[[Sequence[Message]], Awaitable[LoadedSummary]]
"""Loads the summary of a history."""
LoadImages = Callable[[Sequence[Image]], Awaitable[Mapping[str, str]]]
"""Loads images of the conversation as base64, by their ids; those that are no longer there are omitted."""


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """A message and how to answer it. None stands for the configured value.

    `visitor` is the sender's id, None without a cookie; `address` is the sender's IP address. Without
    `conversation_id` the turn begins a conversation that has the id `new_id` and begins with the messages `earlier`.
    """

    message: str
    visitor: str | None = None
    conversation_id: str | None = None
    backend: str | None = None
    memory: str | None = None
    options: TurnOptions | None = None
    """None stands for the conversation's stored options."""
    edit_of: str | None = None
    """Id of an earlier user message; this one begins a branch beside it."""
    regenerate: str | None = None
    """Id of an earlier user message that gets another reply; `message` is ignored."""
    continue_from: Continuation | None = None
    """A reply of the conversation that is continued differently, as a branch; `message` is ignored."""
    address: str | None = None
    new_id: str | None = None
    logprobs: int | None = None
    """Number of alternatives in the probabilities of each token; None for no probabilities."""
    earlier: Sequence[tuple[Role, str]] = ()
    images: Sequence[str] = ()
    """Ids of the visitor's images, and `data:` addresses. An edited message keeps its images."""


async def _no_history() -> History:
    return History()


async def _no_summary(_: Sequence[Message]) -> LoadedSummary:
    return LoadedSummary()


async def _no_images(_: Sequence[Image]) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class Turn:
    """A validated request. It stays the same however many attempts the reply takes."""

    message: Message
    """The user's message."""
    mode: Mode
    backends: Sequence[Backend] = ()
    """The chosen backend, then its fallbacks."""
    options: TurnOptions = field(default_factory=TurnOptions)
    tool_set: ToolSet = field(default_factory=ToolSet)
    requester: Requester = field(default_factory=Requester)
    logprobs: int | None = None
    reply_start: str = ""
    """The text with which the reply begins, which the model continues."""
    documents: VisitorDocuments | None = None
    """The visitor's documents; None without a cookie, or where documents cannot be added."""
    load_history: LoadHistory = _no_history
    load_summary: LoadSummary = _no_summary
    load_images: LoadImages = _no_images

    @property
    def backend(self) -> Backend:
        """The chosen backend."""
        return self.backends[0]

    @property
    def visitor(self) -> str | None:
        """The visitor's id, None without a cookie."""
        return self.requester.visitor
