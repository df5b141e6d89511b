"""The tool `search`, made for each visitor: it searches only their own documents and the guide."""

from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count

from langchain_core.tools import StructuredTool

from agent.tools.streaming import streaming_tool
from documents.library import Library
from documents.quotes import numbered

_numbers: ContextVar[Iterator[int] | None] = ContextVar("passage numbers", default=None)


@contextmanager
def numbered_passages() -> Iterator[None]:
    """Lets the passages of several searches within this block have different numbers."""
    token = _numbers.set(count(1))
    try:
        yield
    finally:
        _numbers.reset(token)


def search_tool(library: Library, owner: str | None) -> StructuredTool:
    """Makes the tool `search` over the owner's documents and the guide; without an owner, over the guide alone."""

    @streaming_tool
    async def search(query: str) -> AsyncGenerator[str, None]:
        """Searches the visitor's uploaded documents and this project's own guide."""
        found, numbers = await library.search(owner, query), _numbers.get() or count(1)
        own = [next(numbers) for _ in found]
        for passage, number in zip(found, own, strict=True):
            yield f"{numbered(passage, number)}\n\n"
        if not found:
            documents = await library.documents(None)
            if owner is not None:
                documents += await library.documents(owner)
            plural = "" if len(documents) == 1 else "s"
            yield f"Nothing found: {len(documents)} document{plural} searched, none has any of these words."

    return search
