"""The section `[limits]`."""

from typing import Annotated

from pydantic import BaseModel, Field

from settings.validation import STRICT

_Limit = Annotated[int | None, Field(ge=0)]
PUBLIC_LIMITS = {
    "runs_per_visitor": 3,
    "messages_per_minute": 10,
    "messages_per_day": 200,
    "previews_per_minute": 60,
    "conversations_per_visitor": 200,
    "connections_per_address": 200,
    "document_bytes_per_day": 20_000_000,
    "document_characters_per_visitor": 5_000_000,
}
"""Defaults of a public page, with `--share` or on a Space, for limits that are otherwise off."""


class LimitSettings(BaseModel):
    """The section `[limits]`.

    A limit whose default is None is off, except on a public page; 0 turns it off everywhere.
    """

    model_config = STRICT

    message_characters: Annotated[int, Field(ge=1)] = 32_000
    reply_tokens: Annotated[int, Field(ge=1)] = 1024
    summary_calls: Annotated[int, Field(ge=1, le=100)] = 4
    """Memory mode `summary`: model calls after one turn."""
    summary_input_tokens: Annotated[int, Field(ge=500)] = 20_000
    """Memory mode `summary`: input tokens of these calls together."""
    run_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 600.0
    """Timeout of a run, in seconds."""
    stall_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 5.0
    """Seconds without output after which a run is shown as stalled."""
    abandoned_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 30.0
    """Seconds after which a run without a cookie and without followers is stopped."""
    runs: Annotated[int, Field(ge=1)] = 64
    """Concurrent replies of all visitors together."""
    waiting: Annotated[int, Field(ge=0)] = 100
    """Replies that can wait in the queue."""
    runs_per_visitor: _Limit = None
    """Concurrent replies of one visitor."""
    messages_per_minute: _Limit = None
    """Messages of one visitor in a minute."""
    messages_per_day: _Limit = None
    """Messages of one visitor in a day. Messages with a visitor's own key are not counted."""
    previews_per_minute: _Limit = None
    """Previews of the model input by one visitor in a minute; no model is called for them."""
    refused_keys_per_minute: Annotated[int, Field(ge=1)] = 10
    """Keys that a provider refuses, of one visitor or address, before no more are tried."""
    visitors_per_address: Annotated[int, Field(ge=1)] = 4
    """All visitors of one address together have the limits of this many visitors."""
    conversations_per_visitor: _Limit = None
    """Stored conversations of one visitor."""
    connections_per_address: _Limit = None
    """Open requests, event streams and WebSockets of one address. A page has two."""
    mcp_processes: Annotated[int, Field(ge=1)] = 8
    """Open connections of replies to servers of `[[mcp]]`; each one to a `command` is a process."""
    body_bytes: Annotated[int, Field(ge=1024)] = 4_000_000
    """Largest body of a request, in bytes."""
    import_bytes: Annotated[int, Field(ge=1024)] = 32_000_000
    """Largest file of conversations that can be imported, in bytes, packed and unpacked."""
    document_bytes: Annotated[int, Field(ge=1024)] = 5_000_000
    """Largest document that a visitor can add for the tool `search`, in bytes."""
    document_bytes_per_day: _Limit = None
    """Bytes of all documents that one visitor can add in a day."""
    document_characters_per_visitor: _Limit = None
    """Characters of all stored documents of a visitor. With this limit, an address has `visitors_per_address` times as
    many characters, and as many times the documents of a visitor.
    """
    image_bytes: Annotated[int, Field(ge=1024)] = 10_000_000
    """Largest image that a visitor can add to a message, in bytes. It is kept smaller."""
    images_per_visitor: Annotated[int, Field(ge=1)] = 200
    """Images of one visitor that are kept."""

    def with_public_limits(self) -> "LimitSettings":
        """Returns a copy with the defaults of a public page for limits that are not set."""
        unset = {name: most for name, most in PUBLIC_LIMITS.items() if getattr(self, name) is None}
        return self.model_copy(update=unset)
