"""The section `[memory]`."""

from typing import Annotated, Any

from pydantic import BaseModel, Field, field_validator
from pydantic_core import PydanticCustomError

from memory.modes import MODES
from memory.options import ModeParameters
from settings.validation import STRICT


class MemorySettings(ModeParameters, BaseModel):
    """The section `[memory]`, with the parameters of the memory modes."""

    model_config = STRICT

    default: str = "tokens"
    """The memory mode that is selected at first."""
    retention_days: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0
    """Days after which unused conversations, and documents of visitors who do not use them, are deleted; 0: never."""
    mirror: str | None = None
    """`package.module:ClassName` of a LangChain message history to which each finished turn is written as well."""
    mirror_options: dict[str, Any] = {}
    """Keyword arguments of the mirror; `{conversation_id}` in them is replaced."""

    @field_validator("default")
    @classmethod
    def _is_mode(cls, name: str) -> str:
        if name not in MODES:
            *others, last = map(repr, MODES)
            raise PydanticCustomError("literal_error", "{expected}", {"expected": f"{', '.join(others)} or {last}"})
        return name
