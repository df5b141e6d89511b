"""The sections `[tools]` and `[tracing]`."""

from typing import Annotated

from pydantic import BaseModel, Field

from settings.validation import STRICT


class ToolSettings(BaseModel):
    """The section `[tools]`."""

    model_config = STRICT

    enabled: list[str] = ["calculator", "clock", "search", "count"]
    """Names in `agent.tools.TOOLS`, or `package.module:name` of any LangChain tool; checked there."""
    approval: list[str] = []
    """The tools that wait for the visitor's approval."""
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0
    """Timeout of one tool call in seconds, without the time that it waits for approval."""
    result_characters: Annotated[int, Field(ge=100)] = 6000
    """The most characters of a tool result in the model input."""
    rounds: Annotated[int, Field(ge=1, le=50)] = 8
    """How often a model can call tools in one reply."""
    documents: bool = True
    """Whether a visitor's documents are searched before a reply, where the model cannot search them itself."""
    passages: Annotated[int, Field(ge=1, le=20)] = 4
    """The most passages that such a search gives to the model."""


class TracingSettings(BaseModel):
    """The section `[tracing]`."""

    model_config = STRICT

    langsmith: bool = False
    """Whether all messages and replies are sent to LangSmith; the page then says so. The environment variables of
    LangSmith have no effect on their own.
    """
