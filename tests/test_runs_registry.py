import asyncio

import pytest

from runs import events
from runs.errors import ChatError
from runs.live import Lifetime, LiveRun
from runs.registry import RunRegistry
from tests.grammar import check_run


def a_run(conversation: str = "c", owner: str | None = None) -> LiveRun:
    return LiveRun(conversation_id=conversation, backend="b", memory="m", owner=owner, lifetime=Lifetime())


async def nothing(run: LiveRun) -> None:
    pass


async def endless(run: LiveRun) -> None:
    await asyncio.Event().wait()


async def ended_run(conversation: str) -> LiveRun:
    run = a_run(conversation)
    run.start(nothing)
    assert run.task
    await run.task
    return run


async def test_one_live_run_per_conversation() -> None:
    runs, first = RunRegistry(), a_run("c")
    runs.add(first)
    with pytest.raises(ChatError) as refused:
        runs.add(a_run("c"))
    assert refused.value.code == "busy"
    runs.add(a_run("another"))
    first.start(endless)
    await first.stop("user")
    runs.add(a_run("c"))


async def test_unsaved_run_is_kept() -> None:
    runs, unsaved = RunRegistry(kept=0), await ended_run("c")
    unsaved.unsaved = "The database is locked."
    runs.add(unsaved)
    runs.add(a_run("another"))
    assert runs.find(unsaved.id) is unsaved
    unsaved.unsaved = None
    runs.add(a_run("third"))
    assert runs.find(unsaved.id) is None


async def test_number_of_live_runs_is_limited() -> None:
    runs = RunRegistry(most=2)
    runs.add(a_run("1"))
    runs.add(a_run("2"))
    with pytest.raises(ChatError) as refused:
        runs.add(a_run("3"))
    assert (refused.value.code, refused.value.retryable) == ("busy", True)


async def test_only_the_newest_ended_runs_are_kept() -> None:
    runs = RunRegistry(kept=3)
    ended = [await ended_run(str(n)) for n in range(6)]
    live = a_run("live")
    for run in [live, *ended]:
        runs.add(run)
    runs.add(a_run("last"))
    assert runs.get(live.id, None) is live
    for gone in ended[:3]:
        with pytest.raises(ChatError):
            runs.get(gone.id, None)
    for kept in ended[3:]:
        assert runs.get(kept.id, None) is kept


async def test_memory_of_ended_runs_is_limited_oldest_end_first() -> None:
    runs = RunRegistry(kept_bytes=1_000_000)

    async def long(run: LiveRun) -> None:
        run.emit(events.Context([{"role": "user", "content": "x" * 300_000, "tokens": 1}], [], 1, 10))
        await released.wait()

    released = asyncio.Event()
    slow = a_run("slow")
    runs.add(slow)
    slow.start(long)
    quick = []
    for n in range(5):
        quick.append(run := await ended_run(str(n)))
        run.log.memory_bytes = 300_000
        runs.add(run)
    released.set()
    assert slow.task
    await slow.task
    runs.add(a_run("last"))
    assert runs.get(slow.id, None) is slow, "it began first and ended last"
    assert [run.id for run in quick if runs.find(run.id)] == [run.id for run in quick[3:]]


async def test_only_the_owner_sees_a_run_unless_it_has_none() -> None:
    runs, owned, free = RunRegistry(), a_run("1", owner="anna"), a_run("2")
    runs.add(owned)
    runs.add(free)
    assert runs.get(owned.id, "anna") is owned
    assert runs.get(free.id, "ben") is runs.get(free.id, None) is free
    for other in ("ben", None):
        with pytest.raises(ChatError) as refused:
            runs.get(owned.id, other)
        assert refused.value.code == "not_found"


async def test_a_discarded_run_frees_its_conversation() -> None:
    runs, run = RunRegistry(), a_run("c")
    runs.add(run)
    assert runs.live_run("c") is run
    runs.discard(run)
    assert runs.live_run("c") is None
    runs.add(a_run("c"))


async def test_shutdown_ends_every_live_run() -> None:
    runs = RunRegistry()
    started = [a_run(str(n)) for n in range(5)]
    for run in started:
        runs.add(run)
        run.start(endless)
    await runs.stop_all()
    assert not list(runs.live())
    for run in started:
        assert check_run(run)[-1]["reason"] == "shutdown"
