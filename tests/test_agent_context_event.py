"""The sums of a context: the parts, the messages, the tools and the template's tokens."""

import asyncio
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from agent.context_event import PARTS, build_context
from agent.model_input import ModelInput
from backends.scripted import ScriptedBackend
from tests.conftest import scripted

TEXT = st.text(st.characters(codec="utf-8"), max_size=60)
EARLIER = st.lists(st.tuples(st.sampled_from(["recent", "recalled"]), TEXT), max_size=6)
CALLS = st.lists(TEXT, max_size=3)
TOOLS = st.lists(st.integers(1, 300), max_size=4)


def messages_of(
    prompt: str | None, earlier: list[tuple[str, str]], calls: list[str]
) -> tuple[list[BaseMessage], dict[str, str]]:
    """Messages of a turn, and the parts of those that the turn begins with."""
    found: list[BaseMessage] = [] if prompt is None else [SystemMessage(prompt, id="system")]
    parts = {}
    for n, (part, text) in enumerate(earlier):
        kind: Any = AIMessage if n % 2 else HumanMessage
        found.append(kind(text, id=f"m{n}"))
        parts[f"m{n}"] = part
    found.append(HumanMessage("And now?", id="asked"))
    for n, output in enumerate(calls):
        call = {"name": "clock", "args": {"zone": output}, "id": f"c{n}", "type": "tool_call"}
        found += [AIMessage("", tool_calls=[call]), ToolMessage(output, tool_call_id=f"c{n}")]
    return found, parts | {"asked": "message"}


@given(st.none() | TEXT, EARLIER, CALLS, TOOLS, st.none() | st.integers(0, 200))
def test_every_token_belongs_to_one_part_and_to_one_row(
    prompt: str | None, earlier: list[tuple[str, str]], calls: list[str], tools: list[int], summary: int | None
) -> None:
    messages, parts = messages_of(prompt, earlier, calls)
    summarised = summary is not None and prompt is not None
    parts["system"] = "summary" if summarised else "system"
    offered = [{"name": f"t{n}", "content": "{}", "tokens": tokens} for n, tokens in enumerate(tools)]
    input_ = ModelInput(messages, [], 5000, "full", parts, summary_tokens=summary or 0, tools=offered)
    backend = ScriptedBackend(scripted())
    context = asyncio.run(build_context(backend, input_, messages))
    sums: dict[str, int] = context.parts or {}
    assert set(sums) <= set(PARTS) and all(tokens > 0 for tokens in sums.values())
    assert sum(sums.values()) == context.tokens
    for part in ("recalled", "recent", "message", "calls"):
        assert sums.get(part, 0) == sum(row["tokens"] for row in context.messages if row["part"] == part)
    first = sum(row["tokens"] for row in context.messages if row["part"] in ("system", "summary"))
    assert sums.get("system", 0) + sums.get("summary", 0) == first
    assert sums.get("tools", 0) == sum(tools)
    listed = sum(row["tokens"] for row in context.messages) + sum(tools)
    assert context.tokens == listed + sums["format"]
    if summarised and sums.get("system") and sums.get("summary"):
        assert f"system prompt {sums['system']:,} tokens" in context.messages[0]["why"]
