import asyncio
import random
from contextlib import aclosing

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from runs import events
from runs.fold import apply
from runs.log import RunLog
from runs.record import fold_record
from runs.state import AgentState


def token(n: int) -> events.Token:
    return events.Token(str(n), n)


async def followed(log: RunLog, after: int = 0, pause: float | None = None) -> list[int]:
    """The sequence numbers that a follower gets; `pause` makes it slow."""
    seqs: list[int] = []
    async with aclosing(log.follow(after)) as batches:
        async for batch in batches:
            seqs += [entry.seq for entry in batch]
            if pause is not None:
                await asyncio.sleep(pause)
    return seqs


async def written(log: RunLog, count: int) -> None:
    for n in range(1, count + 1):
        log.append(token(n))
        if n % 7 == 0:
            await asyncio.sleep(0)
    log.close()


async def test_any_number_of_followers_get_every_entry_once_in_order() -> None:
    log = RunLog("r")
    pauses = [None, 0, 0.001, 0.003] * 10
    followers = [asyncio.create_task(followed(log, pause=pause)) for pause in pauses]
    await asyncio.sleep(0)
    await written(log, 500)
    for seqs in await asyncio.gather(*followers):
        assert seqs == list(range(1, 501))
    assert log.followers == 0


@pytest.mark.parametrize("after", [0, 1, 37, 99, 100, 5000, -3])
async def test_follower_may_begin_at_any_event(after: int) -> None:
    log = RunLog("r")
    live = asyncio.create_task(followed(log, after))
    await asyncio.sleep(0)
    await written(log, 100)
    expected = list(range(max(0, after) + 1, 101))
    assert await live == expected
    assert await followed(log, after) == expected


async def test_late_follower_gets_all_entries_in_one_batch() -> None:
    log = RunLog("r")
    log.append(*(token(n) for n in range(50)))
    async with aclosing(log.follow()) as batches:
        assert len(await anext(batches)) == 50
        log.append(token(50), token(51))
        assert [entry.seq for entry in await anext(batches)] == [51, 52]


async def test_cancelled_followers_do_not_affect_others() -> None:
    log, choice = RunLog("r"), random.Random(3)
    doomed = [asyncio.create_task(followed(log)) for _ in range(20)]
    staying = [asyncio.create_task(followed(log)) for _ in range(20)]
    await asyncio.sleep(0)
    assert log.followers == 40
    for n in range(1, 101):
        log.append(token(n))
        if n % 5 == 0:
            choice.choice(doomed).cancel()
            await asyncio.sleep(0)
    for task in doomed:
        task.cancel()
    await asyncio.wait(doomed)
    assert log.followers == 20
    log.close()
    for seqs in await asyncio.gather(*staying):
        assert seqs == list(range(1, 101))


async def test_closed_generator_no_longer_follows() -> None:
    now = [100.0]
    log = RunLog("r", clock=lambda: now[0])
    log.append(token(1))
    async with aclosing(log.follow()) as batches:
        await anext(batches)
        assert log.followers == 1
        now[0] = 107.0
    assert (log.followers, log.left_at) == (0, 107.0)


async def test_wake_gives_empty_batches_without_events() -> None:
    log = RunLog("r")
    async with aclosing(log.follow(wake_s=lambda: 0.01)) as batches:
        assert list(await anext(batches)) == []
        assert list(await anext(batches)) == []
        log.append(token(1))
        assert [entry.seq for entry in await anext(batches)] == [1]


async def test_close_ends_a_waiting_follower() -> None:
    log = RunLog("r")
    waiting = asyncio.create_task(followed(log))
    await asyncio.sleep(0)
    log.close()
    assert await asyncio.wait_for(waiting, 1) == []


async def test_closed_log_rejects_events() -> None:
    log = RunLog("r")
    log.close()
    with pytest.raises(RuntimeError):
        log.append(token(1))


async def test_prepared_entries_must_still_fit() -> None:
    log = RunLog("r")
    prepared = log.prepare([token(1)])
    log.append(token(2))
    with pytest.raises(RuntimeError):
        log.publish(prepared)
    assert len(log.entries) == 1


@given(st.floats(0.0, 2e9), st.lists(st.floats(0.0, 0.05), min_size=1, max_size=5))
@example(start=1_764_390_000.0004, gaps=[0.0, 0.0196])
@example(start=1_764_390_000.0002, gaps=[0.0001, 0.02])
def test_record_gives_the_same_figures_as_the_live_run(start: float, gaps: list[float]) -> None:
    moments = iter([start, start, start, *(start + sum(gaps[:n]) for n in range(1, len(gaps) + 1))])
    log, state = RunLog("r", lambda: next(moments)), AgentState()
    for event in (events.Run("c", "b", "m"), events.ModelStart("m", None, "model"), *map(token, range(len(gaps)))):
        for entry in log.append(event):
            state = apply(state, entry)
    assert fold_record("\n".join(entry.json for entry in log.entries)) == state
