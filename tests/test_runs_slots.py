"""Slots and their queue."""

import asyncio
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runs.slots import Slots
from tests.conftest import until


class Visit:
    """A task that acquires a slot and holds it until `leave`."""

    def __init__(self, slots: Slots) -> None:
        self.positions: list[int] = []
        self.inside, self._leave = False, asyncio.Event()
        self.task = asyncio.create_task(self._visit(slots))

    async def _visit(self, slots: Slots) -> None:
        async with slots.acquire(self.positions.append):
            self.inside = True
            await self._leave.wait()
        self.inside = False

    async def leave(self) -> None:
        self._leave.set()
        await self.task


async def test_queue_is_fair_and_reports_positions() -> None:
    slots = Slots(2)
    visits = []
    for _ in range(5):
        visits.append(Visit(slots))
        await asyncio.sleep(0)
    assert [v.inside for v in visits] == [True, True, False, False, False]
    assert [v.positions for v in visits] == [[], [], [1], [2], [3]] and len(slots) == 3
    await visits[1].leave()
    await until(lambda: visits[2].inside)
    assert [v.positions for v in visits[3:]] == [[2, 1], [3, 2]]
    visits[3].task.cancel()
    await asyncio.wait({visits[3].task})
    assert visits[4].positions == [3, 2, 1]
    for visit in (visits[0], visits[2], visits[4]):
        await visit.leave()
    assert len(slots) == 0


async def test_unbounded_slots_never_wait() -> None:
    slots = Slots()
    visits = [Visit(slots) for _ in range(50)]
    await asyncio.sleep(0)
    assert all(v.inside and not v.positions for v in visits)
    for visit in visits:
        await visit.leave()


async def test_slot_of_a_cancelled_waiter_passes_to_the_next() -> None:
    slots = Slots(1)
    first, second, third = Visit(slots), Visit(slots), Visit(slots)
    await asyncio.sleep(0)
    first._leave.set()
    while not first.task.done():  # noqa: ASYNC110 - no turn of the loop more than it takes
        await asyncio.sleep(0)
    second.task.cancel()  # it has the slot, and has not run since
    await asyncio.wait({second.task})
    await until(lambda: third.inside)
    await third.leave()


@given(st.integers(1, 3), st.lists(st.sampled_from(["come", "leave", "cancel"]), max_size=40), st.randoms())
def test_slots_are_never_lost_or_shared(count: int, acts: list[str], luck: object) -> None:
    pick: Callable[[list[Visit]], Visit] = luck.choice  # type: ignore[attr-defined]

    async def live() -> None:
        slots, there = Slots(count), []
        for act in acts:
            if act == "come":
                there.append(Visit(slots))
            elif there:
                one = pick(there)
                one.task.cancel() if act == "cancel" else one._leave.set()
                await asyncio.wait({one.task}, timeout=0.001)
                if one.task.done():
                    there.remove(one)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            there = [v for v in there if not v.task.done()]
            assert sum(v.inside for v in there) <= count
        for one in there:
            one._leave.set()
        await asyncio.wait_for(asyncio.gather(*(v.task for v in there), return_exceptions=True), 5)
        async with asyncio.timeout(1), asyncio.TaskGroup() as group:  # all slots are free again
            together = asyncio.Barrier(count)

            async def meet() -> None:
                async with slots.acquire(pytest.fail):
                    await together.wait()

            for _ in range(count):
                group.create_task(meet())

    asyncio.run(live())
