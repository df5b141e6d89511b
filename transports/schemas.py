"""The bodies and queries of requests: a message with its options, and the answer to an approval."""

from collections.abc import Sized
from dataclasses import replace
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agent.continuation import Continuation
from agent.turn import TurnRequest
from agent.turns import Turns
from documents.images import LONGEST_URL
from memory.modes import MODES
from memory.options import TurnOptions
from runs.errors import ChatError
from runs.requester import Requester
from runs.tool_calls import ApprovalAnswer

_MAX_FIELDS = 100
_MAX_IMAGES = 100
"""The most images that are counted; fewer are accepted."""
Id = Annotated[str, Field(max_length=100)]
Logprobs = Annotated[
    int | None,
    Field(ge=0, le=10, description="Adds the probability of each token, with so many alternatives, to `token` events."),
]


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
    logprobs: Logprobs = None

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
            kept = turns.conversations.options(conversation, backend, visitor, memory)
            memory = memory or (conversation.memory if conversation.memory in MODES else None)
        options, here = self.over(kept), self.conversation_id or None
        return TurnRequest(
            message, visitor, here, backend, memory, options, address=requester.address, logprobs=self.logprobs
        )


_Images = Annotated[
    tuple[Annotated[str, Field(max_length=LONGEST_URL)], ...],
    Field(
        max_length=_MAX_IMAGES, strict=False, description="Ids of POST /images, or small `data:` addresses of images."
    ),
]


class ContinueFrom(BaseModel):
    """Where a reply is continued differently: before the event `seq` of its run, with `token` in its place."""

    model_config = ConfigDict(extra="forbid", strict=True)
    run_id: Id
    seq: Annotated[int, Field(ge=1)]
    token: Annotated[str, Field(min_length=1, max_length=200)]

    def continuation(self) -> Continuation:
        """The place as a request for a turn has it."""
        return Continuation(self.run_id, self.seq, self.token)


class Query(RequestFields):
    """The query of `GET /stream`; options that are lists may be repeated."""

    query: Annotated[str, Field(description="The message.")]
    images: Annotated[
        tuple[Id, ...], Field(max_length=_MAX_IMAGES, strict=False, description="Ids of POST /images.")
    ] = ()
    """Only ids: an address has at most some ten thousand characters."""

    async def turn_request(self, turns: Turns, message: str, requester: Requester) -> TurnRequest:
        """A request for a turn. Raises ChatError `not_found` for a conversation that is not the visitor's."""
        return replace(await super().turn_request(turns, message, requester), images=self.images)


class Message(RequestFields):
    """A message with its options."""

    model_config = ConfigDict(strict=True)
    message: str
    images: _Images = ()
    continue_from: Annotated[
        ContinueFrom | None,
        Field(description="Begins a branch with the reply so far of a run, for the model to continue; no new message."),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _omit_message(cls, data: Any) -> Any:
        """A continued reply needs no message."""
        return {"message": "", **data} if isinstance(data, dict) and data.get("continue_from") else data

    async def turn_request(self, turns: Turns, message: str, requester: Requester) -> TurnRequest:
        """A request for a turn. Raises ChatError `not_found` for a conversation or run that is not the visitor's."""
        wanted = self.continue_from.continuation() if self.continue_from else None
        here = self
        if wanted and not self.conversation_id:
            found = await turns.continuations.conversation_of(wanted.run_id, requester.visitor)
            here = self.model_copy(update={"conversation_id": found})
        ask = await super(Message, here).turn_request(turns, message, requester)
        return replace(ask, continue_from=wanted, images=self.images)


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
