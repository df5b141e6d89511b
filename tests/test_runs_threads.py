"""Threads for blocking work: limited, separate, and never awaited at exit."""

import asyncio
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from runs.threads import Threads, separate_threads, use_threads
from tests.conftest import until


async def test_number_of_threads_is_limited_and_order_kept() -> None:
    threads, go, done = Threads("few", 2), threading.Event(), list[int]()

    def work(n: int) -> int:
        go.wait(20)
        done.append(n)
        return n

    running = [asyncio.create_task(threads.run(work, n)) for n in range(6)]
    await until(lambda: threads._busy == 2)
    assert sum(thread.name == "few" for thread in threading.enumerate()) == 2
    running[3].cancel()
    await asyncio.wait({running[3]})
    go.set()
    results = await asyncio.gather(*running, return_exceptions=True)
    assert [n for n in results if isinstance(n, int)] == [0, 1, 2, 4, 5] and sorted(done) == [0, 1, 2, 4, 5]
    await until(lambda: threads._busy == 0)


async def test_an_exception_reaches_the_caller_and_frees_its_thread() -> None:
    threads = Threads("one", 1)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await threads.run(lambda: 1 / 0)
    assert await threads.run(lambda: 7) == 7


async def test_busy_threads_with_a_refusal_reject_work() -> None:
    threads, go = Threads("held", 1, refusal="all are held"), threading.Event()
    held = asyncio.create_task(threads.run(go.wait, 20))
    await until(lambda: threads._busy == 1)
    with pytest.raises(RuntimeError, match="all are held"):
        await threads.run(int)
    go.set()
    assert await held
    await until(lambda: threads._busy == 0)
    assert await threads.run(int) == 0


async def test_name_lookups_have_their_own_threads() -> None:
    loop, go = asyncio.get_running_loop(), threading.Event()
    separate_threads()
    stuck = [asyncio.ensure_future(loop.run_in_executor(None, go.wait, 20)) for _ in range(40)]
    chosen = Threads("chosen", 4)

    async def blocking() -> str:
        use_threads(chosen)
        return await asyncio.to_thread(lambda: threading.current_thread().name)

    async with asyncio.timeout(10):
        assert await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
        assert await asyncio.create_task(blocking()) == "chosen"
    go.set()
    assert all(await asyncio.gather(*stuck))


def test_process_exit_waits_for_no_thread(tmp_path: Path) -> None:
    code = """
import asyncio, sys, time
from pathlib import Path
from documents.database import Database
from documents.library import Library
from runs.threads import Threads, separate_threads

def stuck(*_):
    time.sleep(600)

async def main():
    separate_threads()
    asyncio.get_running_loop().run_in_executor(None, stuck)
    Threads("stuck", 1).submit(stuck)
    Library(Path(sys.argv[1])/"a.db")._files.submit(stuck)
    writing, reading = Database(Path(sys.argv[1])/"b.db", stuck), Database(Path(sys.argv[1])/"c.db", lambda db: None)
    tasks = [asyncio.create_task(writing.write(stuck)), asyncio.create_task(reading.read(stuck))]
    await asyncio.wait(tasks, timeout=0.5)

asyncio.run(main())
"""
    root, command = Path(__file__).parent.parent, [sys.executable, "-c", code, str(tmp_path)]
    assert subprocess.run(command, timeout=60, cwd=root, check=False).returncode == 0
