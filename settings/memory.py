"""The section `[memory]`."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from settings.validation import STRICT

MemoryMode = Literal["none", "full", "window", "tokens", "summary", "recall"]


class MemorySettings(BaseModel):
    """The section `[memory]`."""

    model_config = STRICT

    default: MemoryMode = "tokens"
    window_turns: Annotated[int, Field(ge=1, le=1000)] = 4
    """window, summary, recall: the latest turns that are kept whole."""
    token_limit: Annotated[int, Field(ge=64, le=10_000_000)] = 2000
    """tokens: the most tokens of the model input, unless the model's context allows less."""
    summary_tokens: Annotated[int, Field(ge=32, le=4000)] = 200
    """summary: the most tokens of the summary."""
    recall_turns: Annotated[int, Field(ge=1, le=100)] = 3
    """recall: the most older turns in the model input."""
    retention_days: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0
    """Conversations that were not continued for so many days are deleted, and documents of visitors who did not use
    them; 0 keeps all.
    """
    mirror: str | None = None
    """`package.module:ClassName` of a LangChain message history to which each finished turn is written as well."""
    mirror_options: dict[str, Any] = {}
    """Keyword arguments of the mirror; `{conversation_id}` in them is replaced."""


def parameter_range(name: str) -> tuple[int, int]:
    """Returns the minimum and maximum of a memory mode's parameter."""
    bounds = MemorySettings.model_fields[name].metadata
    least, most = (next(getattr(one, end) for one in bounds if hasattr(one, end)) for end in ("ge", "le"))
    return least, most
