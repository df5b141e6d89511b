"""Standard output and error that never block."""

import fcntl
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx

from bench.ports import free_port
from hosting.output import NonBlockingWriter
from tests.test_app import END_S, ROOT, SCRIPT

_PIPE = 4096
_NOTICE = b"lines are missing here: nobody read"


def small_pipe() -> tuple[int, int]:
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE)
    return reading, writing


def test_lines_of_many_threads_stay_whole_and_in_order() -> None:
    reading, writing = os.pipe()
    writer = NonBlockingWriter(writing)

    def write(name: str) -> None:
        for number in range(100):
            writer.write(f"{name} {number} Añ€𝄞 \ud800\n")

    threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.write("no end")
    writer.drain(10)
    os.close(writing)
    with open(reading, encoding="utf-8") as output:
        *lines, last = output.read().splitlines()
    assert last == "no end" and len(lines) == 200
    for name in "ab":
        assert [line for line in lines if line[0] == name] == [f"{name} {n} Añ€𝄞 \\ud800" for n in range(100)]


def test_unread_lines_are_bounded_and_reported_when_reading_resumes() -> None:
    for bounds in ({"lines": 50}, {"size": 50 * 101}):
        reading, writing = small_pipe()
        writer = NonBlockingWriter(writing, **bounds)
        for _ in range(1000):
            writer.write("x" * 100 + "\n")
        writer.write("y" * 10_000_000 + "\n")
        assert len(writer._queue) <= 51 and writer._queued <= 51 * 101
        output = b""
        while _NOTICE not in output:
            output += os.read(reading, 65536)
        writer.write("read again\n")
        writer.drain(10)
        output += os.read(reading, 65536)
        *lines, last = output.decode().splitlines()
        whole = [line for line in lines if line == "x" * 100]
        # more than one notice where some lines were written in between
        missing = [int(found[1]) for line in lines if (found := re.search(r" (\d+) lines are missing here", line))]
        assert len(whole) + len(missing) == len(lines) and last == "read again"
        assert len(whole) + sum(missing) == 1001 and missing[-1] > 1
        os.close(writing)
        os.close(reading)


def test_partial_line_is_bounded_and_written() -> None:
    reading, writing = small_pipe()
    writer = NonBlockingWriter(writing, size=50_000)
    for _ in range(1000):
        writer.write("\r" + "x" * 1000)
        assert len(writer._partial) <= 2 * _PIPE and writer._queued <= 50_000
    assert os.read(reading, 5) == b"\rxxxx", "it is written before its line ends"
    os.close(reading)
    writer.drain(10)
    os.close(writing)


def test_closed_reader_raises_nothing() -> None:
    reading, writing = os.pipe()
    writer = NonBlockingWriter(writing)
    os.close(reading)
    for _ in range(10):
        writer.write("nobody\n")
        writer.drain(10)
    assert not writer._queue
    os.close(writing)


def test_app_with_unread_output_serves_and_ends(tmp_path: Path) -> None:
    """The pipe is full after about ten replies, which write two log lines each."""
    config, port, (reading, writing) = tmp_path / "glassbox.toml", free_port(), small_pipe()
    config.write_text(SCRIPT.replace("speed = 2", "speed = 10_000"))
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(port), "--config", str(config)]
    environment = {**os.environ, "GLASSBOX_DATA": str(tmp_path), "GLASSBOX_LOG": "json"}
    process = subprocess.Popen(command, env=environment, stdout=writing, stderr=writing)
    os.close(writing)
    try:
        output = b""
        while b"Glassbox is at" not in output:
            output += os.read(reading, 65536)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            for _ in range(25):
                answer = client.post("/stream", json={"message": "hello"})
                assert "event: done" in answer.text
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(END_S + 10) == 0
    finally:
        process.kill()
        process.wait()
        os.close(reading)
