"""The tool `search`: hits with their places, and searches without results."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.tools import _SEARCHES, Toolbox
from agent.tools.documents import search_tool
from agent.tools.streaming import output_listener
from documents.library import Library
from settings import ToolSettings


@pytest.fixture
async def library(tmp_path: Path) -> AsyncIterator[Library]:
    guide = tmp_path / "GUIDE.md"
    guide.write_text("## Parrots\nThey talk.\n", encoding="utf-8")
    library = Library(tmp_path / "library.db", [guide])
    await library.add("anna", "birds.txt", b"The parrots of Anna. " + b"They are green. " * 45)
    yield library
    await library.close()


async def test_each_hit_has_its_place(library: Library) -> None:
    tool = search_tool(library, "anna")
    received: list[str] = []

    async def tell(text: str) -> None:
        received.append(text)

    with output_listener(tell):
        result = await tool.ainvoke({"query": "parrots talk"})
    assert result == "".join(received)
    first, second, end = result.split("\n\n")
    assert (first, end) == ("[1] GUIDE.md, Parrots\nThey talk.", "")
    place, _, text = second.partition("\n")
    assert place == "[2] birds.txt, section 1"
    assert text == ("The parrots of Anna. " + "They are green. " * 45).strip()


async def test_other_visitors_find_only_the_guide(library: Library) -> None:
    for owner in ("ben", None):
        result = await search_tool(library, owner).ainvoke({"query": "parrots"})
        assert result == "[1] GUIDE.md, Parrots\nThey talk.\n\n"


async def test_no_results_reports_how_much_was_searched(library: Library) -> None:
    for owner, searched in (("anna", "2 documents searched"), ("ben", "1 document searched"), (None, "1 document ")):
        result = await search_tool(library, owner).ainvoke({"query": "submarine"})
        assert result.startswith(f"Nothing found: {searched}")


def test_search_has_a_description(library: Library) -> None:
    tool = search_tool(library, None)
    assert (tool.name, list(tool.args)) == ("search", ["query"])
    assert tool.description == "Searches the visitor's uploaded documents and this project's own guide."


async def test_tool_of_a_visitor_is_kept_and_never_shared(library: Library) -> None:
    toolbox = Toolbox(ToolSettings(enabled=["search"]), library)
    [first], [ben] = toolbox.tools("anna"), toolbox.tools("ben")
    assert toolbox.tools("anna") == [first] and first is not ben
    for number in range(_SEARCHES):
        toolbox.tools(f"visitor {number}")
    [later] = toolbox.tools("anna")
    assert later is not first
    for tool in (first, later):
        assert "parrots of Anna" in await tool.ainvoke({"query": "parrots"})
    assert "Anna" not in await ben.ainvoke({"query": "parrots"})
