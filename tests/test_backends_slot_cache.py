"""The slots of a local model: each conversation uses the cache of its own text only."""

import asyncio
from collections.abc import AsyncIterator
from functools import reduce
from operator import add
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from backends.base import ModelOptions
from backends.local import LocalBackend
from backends.model_events import TIMINGS
from backends.slot_cache import SlotCache
from tests.local_model import BUNDLED

CONVERSATIONS = st.sampled_from(["a", "b", "c", None])
LONG = "The lighthouse stands on a rock in the north. Its keeper counts the ships that pass by in each night. " * 4


class Process:
    """What the slots of a process have read last, and how often they were erased."""

    def __init__(self, slots: int) -> None:
        self.read: dict[int, str | None] = {}
        self.erased = 0
        self.cache = SlotCache(slots, self._erase)

    async def _erase(self, number: int) -> None:
        await asyncio.sleep(0)
        self.read.pop(number, None)
        self.erased += 1

    async def use(self, conversation: str | None, rounds: int = 0) -> int:
        """Reads a text of a conversation, and checks what it could find there. Returns the slot's number."""
        async with self.cache.lend(conversation) as slot:
            assert slot not in self.read or (conversation and self.read[slot] == conversation), "of somebody else"
            self.read[slot] = conversation
            for _ in range(rounds):
                await asyncio.sleep(0)
                assert self.read[slot] == conversation, "two requests have the same slot"
            return slot


@given(st.integers(1, 4), st.lists(st.tuples(CONVERSATIONS, st.integers(0, 6)), max_size=30), st.booleans())
def test_no_conversation_uses_the_text_of_another(
    slots: int, requests: list[tuple[str | None, int]], together: bool
) -> None:
    async def use_all() -> None:
        process = Process(slots)
        if together:
            await asyncio.gather(*(process.use(*request) for request in requests))
        else:
            for request in requests:
                await process.use(*request)
        await process.cache.forget("a")
        assert "a" not in process.read.values()

    asyncio.run(use_all())


@given(st.lists(st.tuples(CONVERSATIONS, st.booleans(), st.integers(0, 5)), max_size=20))
def test_conversations_may_be_deleted_meanwhile(steps: list[tuple[str | None, bool, int]]) -> None:
    async def step(process: Process, conversation: str | None, deleted: bool, rounds: int) -> None:
        if deleted and conversation:
            await process.cache.forget(conversation)
        else:
            await process.use(conversation, rounds)

    async def take_all() -> None:
        process = Process(2)
        await asyncio.gather(*(step(process, *one) for one in steps))
        await process.use("new")

    asyncio.run(take_all())


async def test_a_conversation_keeps_its_slot_and_the_oldest_gives_way() -> None:
    process = Process(2)
    first, second = await process.use("a"), await process.use("b")
    assert first != second
    assert [await process.use("a"), await process.use("b"), await process.use("a")] == [first, second, first]
    assert process.erased == 0
    assert await process.use("new") == second, "it was used longest ago"
    assert process.erased == 1
    async with process.cache.lend("a"):
        assert await process.use("a") == second, "its own slot is busy, and another is free"


async def test_reading_ahead_removes_nobody_elses_text() -> None:
    process = Process(3)

    async def ahead(conversation: str, visitor: str) -> int | None:
        async with process.cache.lend_ahead(conversation, visitor) as slot:
            if slot is not None:
                assert slot not in process.read or process.read[slot] == conversation
                process.read[slot] = conversation
            return slot

    own = await process.use("a")
    assert await ahead("a", "anna") == own and process.erased == 0
    first = await ahead("b", "anna")
    assert await ahead("c", "anna") == first, "a visitor has one slot for it"
    other = await ahead("d", "ben")
    assert len({own, first, other, None}) == 4
    assert await ahead("e", "carl") is None, "there is no slot without a text"
    assert await process.use("c") == first, "its reply uses what was read"
    assert await ahead("f", "anna") is None, "what replies use is kept"
    assert await process.use("g") == other, "what was only read ahead gives way first, though it was used later"
    assert process.read == {own: "a", first: "c", other: "g"}


async def test_reading_ahead_waits_for_no_slot() -> None:
    cache = Process(1).cache
    async with cache.lend("a"), cache.lend_ahead("a", "anna") as again, cache.lend_ahead("b", "anna") as other:
        assert again is None and other is None
    await cache.forget("a")
    async with cache.lend_ahead("b", "anna") as slot:
        assert slot == 0


async def test_a_deleted_conversation_that_was_read_ahead_is_erased() -> None:
    process = Process(1)
    async with process.cache.lend_ahead("a", "anna") as slot:
        assert slot == 0
    await process.cache.forget("a")
    assert process.erased == 1 and process.cache.empty


async def test_a_cache_knows_whether_it_is_used_and_whether_it_has_a_text() -> None:
    cache = Process(2).cache
    assert cache.idle and cache.empty
    async with cache.lend("a"):
        assert not cache.idle and not cache.empty
    assert cache.idle and not cache.empty
    await cache.forget("a")
    assert cache.empty


async def test_a_failed_or_cancelled_request_frees_its_slot() -> None:
    process = Process(1)
    with pytest.raises(RuntimeError):
        async with process.cache.lend("a"):
            raise RuntimeError
    async with process.cache.lend("a"):
        waiting = asyncio.create_task(process.use("b"))
        await asyncio.sleep(0)
        waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.wait_for(process.use("b"), 5)


async def test_a_slot_that_cannot_be_erased_serves_nobody_else() -> None:
    async def fail(number: int) -> None:
        raise ConnectionError

    cache = SlotCache(1, fail)
    async with cache.lend("a"):
        pass
    for _ in range(2):
        with pytest.raises(ConnectionError):
            async with cache.lend("b"):
                pytest.fail("anna's text is still there")
    async with cache.lend("a") as slot:
        assert slot == 0, "its own text may be there"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def backend() -> AsyncIterator[LocalBackend]:
    """The real model, with one slot: all requests meet in it."""
    backend = LocalBackend(BUNDLED.model_copy(update={"slots": 1}))
    await backend.open()
    await backend.wait_ready()
    yield backend
    await backend.close()


async def figures(backend: LocalBackend, conversation: str | None, *texts: str) -> tuple[dict[str, Any], Any]:
    """What the engine says about reading messages in turn: its timings, and the details of the usage."""
    model = backend.chat_model(ModelOptions(max_tokens=2, conversation=conversation))
    messages: list[BaseMessage] = [SystemMessage("Be brief.")]
    messages += [AIMessage(text) if n % 2 else HumanMessage(text) for n, text in enumerate(texts or [LONG])]
    reply: Any = reduce(add, [chunk async for chunk in model.astream(messages)])
    return reply.response_metadata[TIMINGS], reply.usage_metadata.get("input_token_details")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_guess_of_another_conversations_text_reads_all_of_it(backend: LocalBackend) -> None:
    first, _ = await figures(backend, "a")
    assert first["prompt_n"] > 80
    again, _ = await figures(backend, "a")
    assert again["cache_n"] > 0.8 * first["prompt_n"], "its own text is in the cache"
    for guesser in ("b", None, None, "a"):
        guess, details = await figures(backend, guesser)
        assert (guess["cache_n"], guess["prompt_n"]) == (0, first["prompt_n"])
        assert not (details or {}).get("cache_read")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_deleted_conversation_is_erased(backend: LocalBackend) -> None:
    await figures(backend, "a")
    await backend.forget_conversation("a")
    timings, _ = await figures(backend, "a")
    assert timings["cache_n"] == 0


@pytest.mark.asyncio(loop_scope="module")
async def test_turns_that_moved_are_not_read_again(backend: LocalBackend) -> None:
    dropped = ("Tell me something about the sea.", "The sea is large, and most of it is deep.")
    whole, _ = await figures(backend, "b", *dropped, LONG, "What a story!", "Who counts the ships?")
    moved, _ = await figures(backend, "b", LONG, "What a story!", "Who counts the ships?")
    assert moved["prompt_n"] < 0.3 * whole["prompt_n"]
