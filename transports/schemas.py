"""What a client may ask for over any transport: a message, how it is to be answered, and an answer to an approval."""

from collections.abc import Sized
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agent.turn import TurnRequest
from agent.turns import Turns
from memory.modes import MODES
from memory.options import TurnOptions
from runs.errors import ChatError
from runs.requester import Requester
from runs.tool_calls import ApprovalAnswer

_MOST_FIELDS = 100
"""The most fields that a request may have."""
Id = Annotated[str, Field(max_length=100)]


def check_field_count(given: Sized) -> None:
    """Raises ValueError, with a sentence for people, where a request has too many fields."""
    if len(given) > _MOST_FIELDS:
        raise ValueError(f"found {len(given):,} fields, allowed: at most {_MOST_FIELDS}")


class RequestFields(TurnOptions):
    """The options of a turn; those that are left out are the conversation's own, or the configured ones."""

    model_config = ConfigDict(allow_inf_nan=False)
    backend: Annotated[str | None, Field(description="A name of GET /backends.")] = None
    memory: Annotated[str | None, Field(description="A name of GET /memory-modes.")] = None
    conversation_id: Annotated[Id | None, Field(description="The conversation to go on with; a new one without.")] = (
        None
    )

    @model_validator(mode="before")
    @classmethod
    def _few(cls, given: Any) -> Any:
        """Each unknown field would become an error of its own, however many there are."""
        if isinstance(given, dict):
            check_field_count(given)
        return given

    async def turn_request(self, turns: Turns, message: str, requester: Requester) -> TurnRequest:
        """The message as a turn takes it. Raises ChatError `not_found` for a conversation that is not the visitor's."""
        visitor = requester.visitor
        backend, memory, kept = self.backend, self.memory, TurnOptions()
        if self.conversation_id:
            found = await turns.store.conversation(self.conversation_id, visitor)
            backend = backend or next((b.name for b in turns.backends if b.name == found.backend), None)
            kept = turns.conversations.options(found, backend, visitor)
            memory = memory or (found.memory if found.memory in MODES else None)
        options, here = self.over(kept), self.conversation_id or None
        return TurnRequest(message, visitor, here, backend, memory, options, address=requester.address)


class Query(RequestFields):
    """The options of `GET /stream`; those of a list may be given more than once."""

    query: Annotated[str, Field(description="The message.")]


class Message(RequestFields):
    """A message and how to answer it."""

    model_config = ConfigDict(strict=True)
    message: str


class Approved(BaseModel):
    """An answer to a call that waits for one; `input` takes the place of what the model wanted."""

    model_config = ConfigDict(extra="forbid", strict=True)
    tool_call_id: Annotated[str, Field(max_length=1000)]
    approved: bool
    input: dict[str, Any] | None = None

    def answer(self) -> ApprovalAnswer:
        return ApprovalAnswer(self.approved, self.input)


def validation_error(error: ValidationError | Any) -> ChatError:
    """What a client has to mend, of pydantic's or FastAPI's list of it."""
    first = error.errors()[0]
    if tuple(first["loc"]) == ("body",):
        return ChatError("invalid_request", "Send a JSON object as the body, with Content-Type: application/json.")
    where = ".".join(str(step) for step in first["loc"])[:200]
    told = str(first["msg"]).removeprefix("Value error, ")
    return ChatError("invalid_request", f"{where}: {told}" if where else told)
