"""The section `[memory]`."""

from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from memory.modes import MODES
from memory.options import ModeParameters
from settings.validation import STRICT


class OwnMode(BaseModel):
    """An entry of `[[memory.modes]]`."""

    model_config = STRICT

    path: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")]
    """`package.module:name` of a mode, or of a function that returns one."""
    options: dict[str, Any] = {}
    """Arguments of the function."""


class MemorySettings(ModeParameters, BaseModel):
    """The section `[memory]`, with the parameters of the memory modes."""

    model_config = STRICT

    modes: Annotated[list[OwnMode], Field(max_length=50)] = []
    """Further memory modes, each by its import path."""
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
    def _is_mode(cls, name: str, info: ValidationInfo) -> str:
        if name not in MODES and not info.data.get("modes"):  # those are imported later, and the name is checked then
            *others, last = map(repr, MODES)
            raise PydanticCustomError("literal_error", "{expected}", {"expected": f"{', '.join(others)} or {last}"})
        return name
