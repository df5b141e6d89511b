import asyncio
from itertools import islice

import pytest
from langchain_core.messages import HumanMessage

from backends.base import ModelOptions
from backends.script import FAULTS, TOUR, TOUR_THOUGHTS, script
from backends.scripted import ScriptedBackend
from runs.errors import ChatError


async def reply(backend: ScriptedBackend, message: str) -> str:
    model = backend.chat_model(ModelOptions(max_tokens=100))
    return "".join([chunk.text async for chunk in model.astream([HumanMessage(message)])])


async def test_the_tour_has_thinking_and_then_its_text(scripted_backend: ScriptedBackend) -> None:
    assert (await reply(scripted_backend, "Tour please")).strip() == TOUR.strip()
    thoughts = "".join(piece.text for piece in script("tour") if piece.thinking)
    assert thoughts.strip() == TOUR_THOUGHTS.strip()


async def test_the_same_message_gets_the_same_reply(scripted_backend: ScriptedBackend) -> None:
    replies = {await reply(scripted_backend, "What is 1 + 1?") for _ in range(3)}
    assert len(replies) == 1
    assert "not a model" in replies.pop()


async def test_the_menu_names_every_fault(scripted_backend: ScriptedBackend) -> None:
    menu = await reply(scripted_backend, "faults")
    assert all(f"`{name}`" in menu for name in FAULTS)


@pytest.mark.parametrize(
    ("fault", "code", "written"),
    [
        ("rate limit", "rate_limited", False),
        ("wrong key", "authentication", False),
        ("cut", "backend_unavailable", True),
    ],
)
async def test_faults_end_in_their_error(
    scripted_backend: ScriptedBackend, fault: str, code: str, written: bool
) -> None:
    model, found = scripted_backend.chat_model(ModelOptions(max_tokens=100)), ""
    with pytest.raises(ChatError) as raised:
        async for chunk in model.astream([HumanMessage(f" {fault.upper()} please")]):
            found += chunk.text
    assert raised.value.code == code
    assert bool(found) is written


def test_slow_and_stall_pause_as_described() -> None:
    slow, stall = list(script("slow")), list(script("stall"))
    assert slow[0].wait_s >= 5
    assert max(piece.wait_s for piece in slow[1:]) < 1
    assert stall[0].wait_s < 1 < max(piece.wait_s for piece in stall)


def test_endless_does_not_end() -> None:
    assert len(list(islice(script("endless"), 10_000))) == 10_000


@pytest.mark.parametrize("message", ["slower is better", "cutlery", "", "my wrong key", "endlessly"])
def test_other_messages_get_no_fault(message: str) -> None:
    pieces = list(islice(script(message), 1000))
    assert "not a model" in "".join(piece.text for piece in pieces)
    assert not any(piece.error for piece in pieces)


async def test_invoke_gives_the_same_reply_and_ends(scripted_backend: ScriptedBackend) -> None:
    model = scripted_backend.chat_model(ModelOptions(max_tokens=100))
    whole = await asyncio.wait_for(model.ainvoke([HumanMessage("endless")]), 10)
    assert whole.text.startswith("1 2 3")
    assert (await model.ainvoke([HumanMessage("tour")])).text == await reply(scripted_backend, "tour")
