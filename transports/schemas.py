"""The bodies and queries of requests: a message with its options, and the answer to an approval."""

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

_MAX_FIELDS = 100
Id = Annotated[str, Field(max_length=100)]


def check_field_count(body: Sized) -> None:
    """Raises ValueError, with a sentence for people, if a request has too many fields."""
    if len(body) > _MAX_FIELDS:
        raise ValueError(f"found {len(body):,} fields, allowed: at most {_MAX_FIELDS}")


class RequestFields(TurnOptions):
    """The options of a message. A missing one is the conversation's own, or the configured default."""

    model_config = ConfigDict(allow_inf_nan=False)
    backend: Annotated[str | None, Field(description="A name of GET /backends.")] = None
    memory: Annotated[str | None, Field(description="A name of GET /memory-modes.")] = None
    conversation_id: Annotated[Id | None, Field(description="The conversation to continue; a new one without.")] = None

    @model_validator(mode="before")
    @classmethod
    def _check_field_count(cls, data: Any) -> Any:
        """Refuses many fields at once: pydantic would make an error of each unknown one."""
        if isinstance(data, dict):
            check_field_count(data)
        return data

    async def turn_request(self, turns: Turns, message: str, requester: Requester) -> TurnRequest:
        """A request for a turn. Raises ChatError `not_found` for a conversation that is not the visitor's."""
        visitor = requester.visitor
        backend, memory, kept = self.backend, self.memory, TurnOptions()
        if self.conversation_id:
            conversation = await turns.store.conversation(self.conversation_id, visitor)
            backend = backend or next((b.name for b in turns.backends if b.name == conversation.backend), None)
            kept = turns.conversations.options(conversation, backend, visitor)
            memory = memory or (conversation.memory if conversation.memory in MODES else None)
        options, here = self.over(kept), self.conversation_id or None
        return TurnRequest(message, visitor, here, backend, memory, options, address=requester.address)


class Query(RequestFields):
    """The query of `GET /stream`; options that are lists may be repeated."""

    query: Annotated[str, Field(description="The message.")]


class Message(RequestFields):
    """A message with its options."""

    model_config = ConfigDict(strict=True)
    message: str


class Approval(BaseModel):
    """An answer to a tool call that waits for approval; `input` replaces the call's own."""

    model_config = ConfigDict(extra="forbid", strict=True)
    tool_call_id: Annotated[str, Field(max_length=1000)]
    approved: bool
    input: dict[str, Any] | None = None

    def answer(self) -> ApprovalAnswer:
        """The answer as the run takes it."""
        return ApprovalAnswer(self.approved, self.input)


def validation_error(error: ValidationError | Any) -> ChatError:
    """Turns the first of pydantic's or FastAPI's errors into a ChatError that says what to change."""
    first = error.errors()[0]
    if tuple(first["loc"]) == ("body",):
        return ChatError("invalid_request", "Send a JSON object as the body, with Content-Type: application/json.")
    where = ".".join(str(step) for step in first["loc"])[:200]
    message = str(first["msg"]).removeprefix("Value error, ")
    return ChatError("invalid_request", f"{where}: {message}" if where else message)
