"""The input of a model after a person has ended its thinking: the thought so far begins the reply."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage

from agent.context_event import build_context
from agent.model_input import ModelInput
from agent.thinking_tags import CLOSE, OPEN
from backends import Backend
from runs.thinking_control import ThinkingControl

_THOUGHT = "thought"
"""The id of the message that has the thought."""
_SLACK = 64
"""Tokens that are kept free beside the thought, for its tags and for texts that are counted alone."""
_SAFE = 0.9
"""Share of a thought's characters that is kept of those that would fit on average."""


@dataclass(frozen=True, slots=True)
class EndableThinking:
    """The means to end the thinking of a run's model calls, for backends that continue replies."""

    control: ThinkingControl
    model: BaseChatModel
    """The turn's model, as it continues a reply that has begun."""


async def answer_input(
    backend: Backend, model_input: ModelInput, messages: Sequence[BaseMessage], thought: str
) -> tuple[ModelInput, list[BaseMessage]]:
    """Returns the turn's input and the messages of the call that answers after a thought.

    A thought that is too long loses its beginning.
    """
    (counted,) = await backend.count_tokens([thought])
    room = model_input.input_budget - (await build_context(backend, model_input, messages)).tokens - _SLACK
    text = counted.text
    if counted.tokens > room:
        text = text[len(text) - int(len(text) * max(0, room) / counted.tokens * _SAFE) :]
    begun = AIMessage(f"{OPEN}\n{text.strip()}\n{CLOSE}\n\n", id=_THOUGHT)
    parts = {**model_input.parts, _THOUGHT: "message"}
    why = {**model_input.why, _THOUGHT: "the thinking, which was ended: the model answers after it"}
    return replace(model_input, parts=parts, why=why), [*messages, begun]
