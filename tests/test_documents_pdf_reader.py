"""PDFs in child processes: harmful ones as they occur in practice, the turns of visitors, and how each process ends."""

import asyncio
import importlib.util
import signal
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from documents import pdf_reader as module
from documents.pdf_reader import PdfReader
from runs.errors import ChatError
from tests.child_limits import limited
from tests.conftest import children_with, until
from tests.pdfs import SLOW, locked_pdf, packed, pdf, written

ENDLESS = """
import sys, time
from pathlib import Path
name = sys.stdin.buffer.read()[9:].decode()
Path(name).touch()
while not Path("all may end").exists():
    time.sleep(0.01)
print('{"pages": ["text"]}')
"""


async def read(data: bytes, pages: int = 500, characters: int = 2_000_000) -> list[str]:
    return await PdfReader().read("a.pdf", data, pages, characters, "127.0.0.1")


async def refused(data: bytes, **most: int) -> str:
    with pytest.raises(ChatError) as error:
        await read(data, **most)
    assert error.value.code == "invalid_request"
    return error.value.message


async def test_pages_are_read_in_order() -> None:
    assert await read(pdf(written("All about whales"), b"", written("Then some dolphins"))) == [
        "All about whales",
        "",
        "Then some dolphins",
    ]


async def test_pdf_with_an_owner_password_is_read() -> None:
    assert await read(locked_pdf("", "secret")) == ["behind a lock"]


async def test_long_pdf_is_rejected() -> None:
    assert "more than 2 pages" in await refused(pdf(*[b""] * 3), pages=2)
    assert "more than 500 characters" in await refused(pdf(written("x" * 501)), characters=500)


@pytest.mark.parametrize("data", [b"just text", b""])
async def test_content_that_is_no_pdf_is_rejected(data: bytes) -> None:
    assert "its name says PDF, but it holds something else" in await refused(data)


WIDE = " ".join(["901 0 R"] * 40)
DEEP = "\n".join(
    f"{n} 0 obj <</Type /Pages /Parent 2 0 R /Kids [{' '.join([f'{n + 1} 0 R'] * 12)}] /Count 9>> endobj"
    for n in range(901, 920)
)
CHAIN = "\n".join(f"{n} 0 obj <</Type /Pages /Kids [{n + 1} 0 R] /Count 9>> endobj" for n in range(901, 9000))
HARMFUL = {
    "a password": (lambda: locked_pdf("secret", "secret"), "protected by a password"),
    "cut off": (lambda: pdf(written("text"))[:60], "damaged"),
    "garbage": (lambda: b"%PDF-1.7\n" + b"\xff\0<<>>[[((" * 5000, "damaged"),
    "circular pages": (lambda: pdf(kids="2 0 R"), "circular|damaged"),
    "deeply nested pages": (lambda: pdf(kids=WIDE, more=DEEP), "too large or circular"),
    "a chain of pages": (lambda: pdf(kids="901 0 R", more=CHAIN), "too large or circular|damaged"),
    "300 MB of zeros": (lambda: pdf(packed(bytes(1_000_000), 300), coded="/Filter /FlateDecode"), "too large"),
    "bombs in a bomb": (
        lambda: pdf(zlib.compress(packed(bytes(1_000_000), 300)), coded="/Filter [/FlateDecode /FlateDecode]"),
        "too large",
    ),
}


@pytest.mark.parametrize("harm", HARMFUL)
async def test_harmful_pdf_is_rejected_in_time(harm: str) -> None:
    make, why = HARMFUL[harm]
    begun = time.monotonic()
    message = await refused(make())
    assert time.monotonic() - begun < 30
    assert message.startswith("'a.pdf' cannot be read: ")
    assert any(reason in message for reason in why.split("|")), message


async def test_slow_pdf_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_READ_S", 1.5)
    assert "takes too much time" in await refused(SLOW)


@pytest.mark.skipif(importlib.util.find_spec("resource") is None, reason="this system has no such limits")
def test_time_and_memory_of_the_child_are_limited() -> None:
    assert limited(module._CHILD, "while True: pass").returncode == -signal.SIGKILL
    assert b"MemoryError" in limited(module._CHILD, "bytearray(2_000_000_000)").stderr
    assert limited(module._CHILD, "bytearray(100_000_000)").returncode == 0
    done = limited(
        module._CHILD, "import os; print(os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0) == os.SCHED_IDLE)"
    )
    assert done.stdout.split() == [b"19", b"True"]


async def test_failure_of_the_child_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    child = tmp_path / "child.py"
    monkeypatch.setattr(module, "_CHILD", child)
    assert "takes too much time or memory" in await refused(pdf(written("text")))  # no such script
    child.write_text("print('no answer')")
    assert "cannot read PDFs at the moment" in await refused(pdf(written("text")))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    assert "cannot read PDFs at the moment" in await refused(pdf(written("text")))


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Children that end when they may. Returns a function that gives the names of the files that are being read."""
    (tmp_path / "child.py").write_text(ENDLESS)
    monkeypatch.setattr(module, "_CHILD", tmp_path / "child.py")
    monkeypatch.chdir(tmp_path)
    return lambda: sorted(path.name for path in tmp_path.glob("*.pdf"))


def reading(reader: PdfReader, name: str, address: str) -> "asyncio.Task[list[str]]":
    return asyncio.create_task(reader.read(name, b"%PDF-1.4\n" + name.encode(), 1, 1, address))


def end_all() -> None:
    Path("all may end").touch()


def children() -> list[psutil.Process]:
    """The processes that are reading a PDF."""
    return children_with(str(module._CHILD))


async def test_addresses_take_turns_and_few_pdfs_are_read_at_once(begun: Callable[[], list[str]]) -> None:
    reader = PdfReader()
    greedy = [reading(reader, f"1.{n}.pdf", "1") for n in range(3)]
    await until(lambda: begun() == ["1.0.pdf"])
    others = [reading(reader, f"{n}.0.pdf", str(n)) for n in (2, 3)]
    await until(lambda: begun() == ["1.0.pdf", "2.0.pdf"])
    await asyncio.sleep(0.2)
    assert len(begun()) == len(children()) == 2
    end_all()
    assert await asyncio.gather(*greedy, *others) == [["text"]] * 5


async def test_cancelled_readers_leave_no_process_and_let_others_begin(begun: Callable[[], list[str]]) -> None:
    reader = PdfReader()
    tasks = [reading(reader, f"{address}.{n}.pdf", str(address)) for address in (1, 2) for n in range(4)]
    await until(lambda: len(begun()) == 2)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert len(begun()) == 2 and not children()
    later = reading(reader, "later.pdf", "1")
    await until(lambda: "later.pdf" in begun())
    end_all()
    assert await later == ["text"]


async def test_long_wait_for_other_pdfs_is_refused(
    begun: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = PdfReader()
    first = reading(reader, "1.pdf", "1")
    await until(lambda: begun() == ["1.pdf"])
    monkeypatch.setattr(module, "_WAIT_S", 0.1)
    with pytest.raises(ChatError, match="Add it again in a minute") as error:
        await reading(reader, "2.pdf", "1")
    assert error.value.code == "busy" and begun() == ["1.pdf"]
    end_all()
    assert await first == ["text"]


async def test_close_ends_the_processes(begun: Callable[[], list[str]]) -> None:
    reader = PdfReader()
    task = reading(reader, "1.pdf", "1")
    await until(lambda: begun() == ["1.pdf"])
    reader.close()
    with pytest.raises(ChatError, match="cannot be read"):
        await task
    assert not children()
