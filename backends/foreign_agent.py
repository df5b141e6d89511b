"""The interface of backends that answer by an agent of their own, in this process or at an address."""

from langchain_core.language_models import BaseChatModel

from backends.base import Backend, ModelOptions
from runs.errors import ChatError


class ForeignAgent(Backend):
    """A backend without a chat model: Glassbox offers it no tools, and shows what it does."""

    runs_agent = True
    supports_tools = False
    has_bind_tools = False
    supported_options = frozenset()

    @property
    def keeps_memory(self) -> bool:
        """True if the agent has a memory of its own: then it is given only the visitor's message."""
        return self.settings.memory == "own"

    @property
    def context_note(self) -> str | None:
        """Says that the memory mode has no effect, where the agent has a memory of its own."""
        return "This agent has a memory of its own: the memory mode has no effect." if self.keeps_memory else None

    def chat_model(self, options: ModelOptions) -> BaseChatModel:
        """Raises ChatError: an agent is no chat model, which only summaries ask for."""
        message = f"{self.name} is an agent, which writes no summaries. Choose another memory mode."
        raise ChatError("invalid_request", message)
