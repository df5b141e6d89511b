"""The tool `search`, made for each visitor: it searches only their own documents and the guide."""

from collections.abc import AsyncGenerator

from langchain_core.tools import StructuredTool

from agent.tools.streaming import streaming_tool
from documents.library import Library


def search_tool(library: Library, owner: str | None) -> StructuredTool:
    """Makes the tool `search` over the owner's documents and the guide; without an owner, over the guide alone."""

    @streaming_tool
    async def search(query: str) -> AsyncGenerator[str, None]:
        """Searches the visitor's uploaded documents and this project's own guide."""
        found = await library.search(owner, query)
        for number, passage in enumerate(found, 1):
            yield f"[{number}] {passage.document}, {passage.place}\n{passage.text}\n\n"
        if not found:
            documents = await library.documents(None)
            if owner is not None:
                documents += await library.documents(owner)
            plural = "" if len(documents) == 1 else "s"
            yield f"Nothing found: {len(documents)} document{plural} searched, none has any of these words."

    return search
