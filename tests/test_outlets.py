"""Standard output and error: written in order, and in nobody's way."""

import fcntl
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx

from bench.ports import free_port
from outlets import Outlet
from tests.test_app import END_S, ROOT, SCRIPT

_PIPE = 4096
_TOLD = b"lines are missing here: nobody read"


def small_pipe() -> tuple[int, int]:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE)
    return reading, writing


def test_lines_come_whole_and_in_order_from_many_threads() -> None:
    reading, writing = os.pipe()
    outlet = Outlet(writing)

    def write(name: str) -> None:
        for number in range(100):
            outlet.write(f"{name} {number} Añ€𝄞 \ud800\n")

    threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    outlet.write("no end")
    outlet.drain(10)
    os.close(writing)
    with open(reading, encoding="utf-8") as told:
        *lines, last = told.read().splitlines()
    assert last == "no end" and len(lines) == 200
    for name in "ab":
        assert [line for line in lines if line[0] == name] == [f"{name} {n} Añ€𝄞 \\ud800" for n in range(100)]


def test_what_nobody_reads_is_bounded_and_told_once_it_is_read_again() -> None:
    for bounds in ({"lines": 50}, {"size": 50 * 101}):
        reading, writing = small_pipe()
        outlet = Outlet(writing, **bounds)
        for _ in range(1000):
            outlet.write("x" * 100 + "\n")
        outlet.write("y" * 10_000_000 + "\n")
        assert len(outlet._queue) <= 51 and outlet._queued <= 51 * 101
        told = b""
        while _TOLD not in told:
            told += os.read(reading, 65536)
        outlet.write("read again\n")
        outlet.drain(10)
        told += os.read(reading, 65536)
        *lines, missing, last = told.decode().splitlines()
        assert lines == ["x" * 100] * len(lines) and last == "read again"
        assert f" {1001 - len(lines)} lines are missing here" in missing
        os.close(writing)
        os.close(reading)


def test_text_without_a_line_end_is_bounded_and_written() -> None:
    reading, writing = small_pipe()
    outlet = Outlet(writing, size=50_000)
    for _ in range(1000):
        outlet.write("\r" + "x" * 1000)
        assert len(outlet._part) <= 2 * _PIPE and outlet._queued <= 50_000
    assert os.read(reading, 5) == b"\rxxxx", "it comes before its line ends"
    os.close(reading)
    outlet.drain(10)
    os.close(writing)


def test_a_reader_that_has_gone_does_no_harm() -> None:
    reading, writing = os.pipe()
    outlet = Outlet(writing)
    os.close(reading)
    for _ in range(10):
        outlet.write("nobody\n")
        outlet.drain(10)
    assert not outlet._queue
    os.close(writing)


def test_an_app_whose_output_nobody_reads_serves_and_ends(tmp_path: Path) -> None:
    """The pipe is full after some ten replies: each has two lines in the log."""
    config, port, (reading, writing) = tmp_path / "glassbox.toml", free_port(), small_pipe()
    config.write_text(SCRIPT.replace("speed = 2", "speed = 10_000"))
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(port), "--config", str(config)]
    environment = {**os.environ, "GLASSBOX_DATA": str(tmp_path), "GLASSBOX_LOG": "json"}
    process = subprocess.Popen(command, env=environment, stdout=writing, stderr=writing)
    os.close(writing)
    try:
        told = b""
        while b"Glassbox is at" not in told:
            told += os.read(reading, 65536)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            for _ in range(25):
                answer = client.post("/stream", json={"message": "tour"})
                assert "event: done" in answer.text
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(END_S + 10) == 0
    finally:
        process.kill()
        process.wait()
        os.close(reading)
