"""Tools with `return_direct=True`: their result is the reply."""

from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.tools import tool

from agent.tools import Toolbox
from settings import ToolSettings
from tests.calls import Make, asked, make, of, options, seen

__all__ = ["make", "seen"]


@tool(return_direct=True)
def fortune(sign: str) -> str:
    """Tells a fortune."""
    return f"{sign}: all will be well"


@tool(return_direct=True)
def blocks(text: str) -> list[dict[str, Any]]:
    """Returns content blocks."""
    return [{"type": "text", "text": text}, {"type": "image", "base64": "AAAA", "mime_type": "image/png"}]


@tool(return_direct=True)
def unlucky(text: str) -> str:
    """Fails."""
    raise RuntimeError("no luck today")


@tool(return_direct=True)
def nothing() -> str:
    """Returns nothing."""
    return ""


@tool(return_direct=True)
def long(characters: int) -> str:
    """Returns that many characters."""
    return "z" * characters


DIRECT = [f"tests.test_agent_direct:{name}" for name in ("fortune", "blocks", "unlucky", "nothing", "long")]


def with_direct(make: Make, *args: Any, **more: Any) -> Any:
    return make(*args, enabled=[*DIRECT, "tests.calls:plain", "calculator"], **more)


async def test_direct_result_is_the_reply_and_in_the_next_input(make: Make, seen: list[Any]) -> None:
    turns = with_direct(make, options(seen, ("fortune", {"sign": "leo"})))
    received = await asked(turns, "What will be?")
    assert (received[-1]["type"], received[-1]["content"]) == ("complete", "leo: all will be well")
    assert "".join(e["content"] for e in of(received, "token")) == "leo: all will be well"
    assert [e["output"] for e in of(received, "tool_end")] == ["leo: all will be well"]
    assert len(of(received, "model_start")) == 1
    conversation = received[0]["conversation_id"]
    stored = await turns.store.history(conversation)
    assert [(m.role, m.text, m.standing, m.note) for m in stored] == [
        ("user", "What will be?", "whole", None),
        ("assistant", "leo: all will be well", "whole", None),
    ]
    await asked(turns, "Why?", conversation_id=conversation)
    given = seen[-1][0]
    assert [(type(m), m.text) for m in given[1:4]] == [
        (HumanMessage, "What will be?"),
        (AIMessage, "leo: all will be well"),
        (HumanMessage, "Why?"),
    ]


async def test_the_results_of_several_direct_tools_are_one_reply(make: Make, seen: list[Any]) -> None:
    calls = ("fortune", {"sign": "leo"}), ("fortune", {"sign": "virgo"})
    received = await asked(with_direct(make, options(seen, *calls)))
    assert received[-1]["content"] == "leo: all will be well\n\nvirgo: all will be well"


@pytest.mark.parametrize("first", [True, False])
async def test_a_direct_result_among_others_is_the_reply(make: Make, seen: list[Any], first: bool) -> None:
    calls = [("fortune", {"sign": "leo"}), ("plain", {"text": "a"})]
    received = await asked(with_direct(make, options(seen, *(calls if first else calls[::-1]))))
    assert (received[-1]["type"], received[-1]["content"]) == ("complete", "leo: all will be well")
    assert sorted(e["output"] for e in of(received, "tool_end")) == ["got a", "leo: all will be well"]


async def test_after_other_tools_a_direct_result_is_the_reply(make: Make, seen: list[Any]) -> None:
    rounds = [[("plain", {"text": "a"}, "c0")], [("fortune", {"sign": "leo"}, "c1")]]
    received = await asked(with_direct(make, {**options(seen), "rounds": rounds}))
    assert received[-1]["content"] == "leo: all will be well"


async def test_an_error_of_a_direct_tool_is_left_to_the_model(make: Make, seen: list[Any]) -> None:
    received = await asked(with_direct(make, options(seen, ("unlucky", {"text": "a"}))))
    assert of(received, "tool_end")[0]["error"] == "no luck today"
    assert (received[-1]["type"], received[-1]["content"].strip()) == ("complete", "that was it")


@pytest.mark.parametrize("kind", ["Scripted", "Talker"])
async def test_a_command_with_a_direct_tool_needs_no_model(make: Make, seen: list[Any], kind: str) -> None:
    given = options(seen) if kind == "Scripted" else {"seen": seen}
    turns = with_direct(make, given)
    if kind == "Talker":
        turns.toolbox = Toolbox(ToolSettings(enabled=DIRECT))
    received = await asked(turns, "/fortune leo")
    assert (received[-1]["type"], received[-1]["content"]) == ("complete", "leo: all will be well")
    assert seen == []
    stored = await turns.store.history(received[0]["conversation_id"])
    assert [m.text for m in stored] == ["/fortune leo", "leo: all will be well"]


async def test_direct_result_is_text_and_never_empty(make: Make, seen: list[Any]) -> None:
    received = await asked(with_direct(make, options(seen, ("blocks", {"text": "a picture"}))))
    assert received[-1]["content"] == "a picture\n[image: not shown here]"
    received = await asked(with_direct(make, options(seen, ("nothing", {}))))
    assert (received[-1]["type"], received[-1]["content"]) == ("complete", "[no output]")


async def test_a_long_direct_result_is_not_cut_for_a_model(make: Make, seen: list[Any]) -> None:
    received = await asked(with_direct(make, options(seen, ("long", {"characters": 20_000}))))
    assert received[-1]["content"] == "z" * 20_000
