"""The options of a conversation's turns, and the parameters of the memory modes among them.

A parameter is declared here alone: the settings, the requests of every transport, the validation and the page take it
from `ModeParameters`. It is stored in a column of `conversations` that has its name.
"""

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

from memory.mode_options import OptionValues


class ModeParameters(BaseModel):
    """The parameters of the memory modes; the defaults are those of `[memory]` in the settings.

    `title` is the label on the page, `description` the subject of the sentence about a value out of range.
    """

    model_config = ConfigDict(frozen=True)
    window_turns: Annotated[
        int, Field(ge=1, le=1000, title="Least turns kept", description="The turns that are kept whole")
    ] = 4
    """window, summary, recall: the least number of latest turns that are kept whole; up to ten more are."""
    token_limit: Annotated[int, Field(ge=64, le=10_000_000, title="Token limit", description="The limit of tokens")] = (
        2000
    )
    """tokens: most tokens of the model input: earlier turns are left out until it has no more, the rest never."""
    summary_tokens: Annotated[int, Field(ge=32, le=4000, title="Summary tokens", description="The longest summary")] = (
        200
    )
    """summary: longest summary, in tokens."""
    recall_turns: Annotated[
        int, Field(ge=1, le=100, title="Turns recalled", description="The turns that are recalled")
    ] = 3
    """recall: most older turns that are recalled."""


PARAMETERS = {name: str(field.title) for name, field in ModeParameters.model_fields.items()}
"""The labels of the parameters, by name."""

if TYPE_CHECKING:

    class _OptionalParameters(BaseModel):
        pass

else:
    _OptionalParameters = create_model(
        "_OptionalParameters", **{name: (int | None, Field(None, title=label)) for name, label in PARAMETERS.items()}
    )


def _parsed(value: Any) -> Any:
    """Reads JSON from a text: a query has no objects."""
    with suppress(ValueError, RecursionError):
        return json.loads(value) if isinstance(value, str) else value
    return value


class ReplyOptions(BaseModel):
    """The options of a reply; None stands for the configured value."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    system_prompt: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    """Max reply length, in tokens."""
    thinking: Annotated[
        bool | None, Field(description="Whether the model thinks first, where that can be switched.")
    ] = None
    """Whether the model thinks before it answers, for models whose thinking can be switched."""
    tools: Annotated[
        tuple[str, ...] | None, Field(max_length=100, strict=False, description="Names of GET /tools.")
    ] = None
    """Names of the enabled tools."""
    documents: Annotated[
        bool | None,
        Field(description="Whether your documents are searched first, where the model cannot search them itself."),
    ] = None
    """Whether the visitor's documents are searched before a reply, where the model cannot search them itself."""
    model: Annotated[str | None, Field(max_length=200, description="One of the backend's `models`.")] = None
    """One of the models that the backend offers."""
    mode_options: Annotated[
        OptionValues | None,
        BeforeValidator(_parsed),
        Field(description="The options of the memory mode, of GET /memory-modes; in a query as JSON."),
    ] = None
    """Values for the options of a memory mode that is not part of this project."""


class TurnOptions(_OptionalParameters, ReplyOptions):
    """The options of a conversation's turns, the parameters of the memory modes included."""

    def over(self, stored: "TurnOptions") -> "TurnOptions":
        """Returns the stored options with these in their place where they are set; those of a mode one by one."""
        values = self.set_values()
        if self.mode_options and stored.mode_options:
            values["mode_options"] = stored.mode_options | self.mode_options
        return stored.model_copy(update=values)

    def set_values(self) -> dict[str, Any]:
        """Returns the options that are not None, by name."""
        values = {name: getattr(self, name) for name in TurnOptions.model_fields}
        return {name: value for name, value in values.items() if value is not None}


def parameter_range(name: str) -> tuple[int, int]:
    """Returns the least and the largest value of a parameter."""
    bounds = ModeParameters.model_fields[name].metadata
    least, most = (next(getattr(one, end) for one in bounds if hasattr(one, end)) for end in ("ge", "le"))
    return least, most
