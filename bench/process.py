"""Servers as processes: how they start, what they use, and how they end."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import psutil

from bench.ports import free_port

ROOT = Path(__file__).parent.parent
_START_S, _END_S = 90.0, 15.0
_CHILDREN_S = 5.0
"""How long a child may outlive its parent."""


class ServerProcess:
    """A server on a port of its own. As a context manager it runs until the block is left."""

    health = ""

    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self._output = folder / "output.txt"
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GLASSBOX_", "GRADIO_")) and k != "SPACE_ID"}
        if kept.pop("PYTHONDONTWRITEBYTECODE", None):  # each start would compile everything again
            kept.setdefault("PYTHONPYCACHEPREFIX", str(folder.parent / "bytecode"))
        ours = {"GRADIO_ANALYTICS_ENABLED": "False", "PYTHONPATH": str(ROOT)}
        self.environment = {**kept, **ours, **(environment or {})}
        self.process: Any = None

    def command(self) -> Sequence[str]:
        """The arguments of the Python interpreter."""
        raise NotImplementedError

    def spawn(self, command: Sequence[str], **options: Any) -> Any:
        """Starts the process; the options are those of a Popen, and so are the methods of what it returns."""
        return subprocess.Popen(command, **options)

    def start(self) -> float:
        """Starts the server and waits until it answers; returns the seconds. Raises RuntimeError."""
        begun = time.monotonic()
        with self._output.open("w") as output:
            self.process = self.spawn(
                [sys.executable, *self.command()],
                env=self.environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        while True:
            with suppress(OSError), urllib.request.urlopen(self.url + self.health, timeout=5):
                return time.monotonic() - begun
            if self.process.poll() is not None or time.monotonic() - begun > _START_S:
                raise RuntimeError(f"{type(self).__name__} does not start; its output:\n{self.output()[-3000:]}")
            time.sleep(0.02)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            self.end()
        self.close()

    @property
    def pid(self) -> int:
        """The id of the process."""
        return int(self.process.pid)

    def processes(self) -> list[psutil.Process]:
        """The process and its children."""
        process = psutil.Process(self.pid)
        return [process, *process.children(recursive=True)]

    def cpu_s(self) -> float:
        """The CPU time of the process and its children."""
        return cpu_s(self.processes())

    def memory(self) -> int:
        """The resident memory of the process and its children, in bytes."""
        found = 0
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                found += int(process.memory_info().rss)
        return found

    def output(self) -> str:
        """The output so far."""
        return self._output.read_text()

    def kill(self) -> float:
        """Kills the process, not its children; returns the moment in epoch seconds."""
        os.kill(self.pid, signal.SIGKILL)
        return time.time()

    def end(self) -> None:
        """Ends the process as a person would."""
        self.process.terminate()
        self.process.wait(_END_S)

    def children_ended(self) -> bool:
        """Waits until the children of an ended process have ended; kills those that have not."""
        self.process.wait(_END_S)
        until = time.monotonic() + _CHILDREN_S
        with suppress(ProcessLookupError):
            while time.monotonic() < until:
                os.killpg(self.pid, 0)
                time.sleep(0.02)
            os.killpg(self.pid, signal.SIGKILL)
            return False
        return True

    def close(self) -> None:
        """Kills everything that is still running."""
        if self.process:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self.process.wait(_END_S)


class AppProcess(ServerProcess):
    """`python app.py` with a settings file; `database_url` is a SQLite file in its folder by default."""

    health = "healthz"

    def __init__(
        self, folder: Path, config: str, environment: Mapping[str, str] | None = None, database_url: str | None = None
    ) -> None:
        self.data = folder / "data"
        ours = {"GLASSBOX_DATA": str(self.data), "GLASSBOX_LOG": "json"}
        ours |= {"GLASSBOX_DATABASE_URL": database_url} if database_url else {}
        super().__init__(folder, {**ours, **(environment or {})})
        self._config = folder / "glassbox.toml"
        self.configure(config)

    def command(self) -> Sequence[str]:
        """The command line of the app."""
        return [str(ROOT / "app.py"), "--port", str(self.port), "--config", str(self._config)]

    def configure(self, config: str) -> None:
        """Writes the settings file, which the next start reads."""
        self._config.write_text(config, encoding="utf-8")

    def wait_until_open(self) -> None:
        """Waits until the app has printed its address: on a busy machine that is seconds after it answers."""
        until = time.monotonic() + _START_S
        while "Glassbox is at" not in self.output() and time.monotonic() < until:
            time.sleep(0.1)

    def wait_until_ready(self, backend: str) -> None:
        """Waits until a backend is ready. Raises RuntimeError."""
        until = time.monotonic() + _START_S
        while time.monotonic() < until:
            with suppress(OSError), urllib.request.urlopen(f"{self.url}backends", timeout=5) as answer:
                if any(one["name"] == backend and one["ready"] for one in json.load(answer)):
                    return
            time.sleep(0.2)
        raise RuntimeError(f"the backend {backend} is not ready after {_START_S:.0f} s")

    def errors(self) -> list[str]:
        """The errors in the app's log."""
        lines = [json.loads(line) for line in self.output().splitlines() if line.startswith("{")]
        failed = [one for one in lines if one["level"] in ("error", "critical")]
        return [f"logged: {one['event'].strip()[:200]} {one.get('exception', '').strip()[-200:]}" for one in failed]


def cpu_s(processes: Iterable[psutil.Process], name: str = "") -> float:
    """Returns the CPU time so far, user and system, in seconds, of processes whose names contain `name`."""
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system if name in process.name() else 0.0
    return total


def end_children() -> None:
    """Ends all processes that this one has started, servers and browsers alike."""
    children = psutil.Process().children(recursive=True)
    for process in children:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    for process in psutil.wait_procs(children, timeout=3)[1]:
        with suppress(psutil.NoSuchProcess):
            process.kill()
