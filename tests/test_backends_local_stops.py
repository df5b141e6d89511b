"""Stop with the real model: how soon it is free again, in its own processor time. A busy machine makes that longer."""

import asyncio
import random

from backends.local import LocalBackend
from tests.conftest import until
from tests.grammar import check_run
from tests.local_model import event_with, free_within, on_session_loop, started


@on_session_loop
async def test_each_of_fifty_stops_at_random_moments_frees_the_model(local: LocalBackend) -> None:
    choice, stops = random.Random(11), 0
    while stops < 50:
        run = started(local, "Write a long story about a lighthouse")
        await event_with(run, '"type":"token"')
        await asyncio.sleep(choice.uniform(0, 0.2))
        if run.ended:  # a short reply
            continue
        stopping = asyncio.create_task(run.stop("user"))
        await free_within(local, 3)  # a lost cancel takes 6 s and more
        await asyncio.wait_for(stopping, 5)
        stops += 1
        assert check_run(run)[-1]["reason"] == "user"
        # what LangChain does in threads may take a moment more
        await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})


@on_session_loop
async def test_a_stop_frees_the_model_while_it_reads_a_long_prompt(local: LocalBackend) -> None:
    run = started(local, "word number " * 1250)
    await event_with(run, "Reading your prompt")
    stopping = asyncio.create_task(run.stop("user"))
    await free_within(local, 3)
    await stopping
    events = check_run(run)
    assert events[-1]["reason"] == "user"
    assert not [e for e in events if e["type"] == "token"]
    context = next(e for e in events if e["type"] == "context")
    assert context["tokens"] > 2400
