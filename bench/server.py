"""The measured pages, each served by a process in a group of its own, and how every process is ended."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench.model import earlier_messages
from bench.ports import free_port
from components.page_state import INITIAL_MESSAGES

_ROOT = Path(__file__).parent.parent
_START_S = 90.0
_END_S = 10.0
_CONFIG = """
[[backends]]
name = "Bench"
kind = "langchain"
class = "bench.model:ScriptedModel"
options = {{ log = {log} }}

[tools]
enabled = ["bench.tools:marks"]

[limits]
runs = {runs}
"""


@dataclass(frozen=True)
class Site:
    """A kind of page: how its server is started, and CSS selectors of what the benchmark uses on it."""

    name: str
    command: Callable[["Server"], list[str]]
    prompt: str
    replies: str
    stop: str
    most_drawn: int
    """Earlier messages that the page draws when it opens."""
    parts: str = ""
    """What holds the tools' calls; none where there are no tools."""
    runs: int = 64
    """As many as may be live at once."""
    imports: bool = False
    """Whether earlier messages are given with `POST /conversations`; else the server itself shows them to everyone."""


class Server:
    """`with Server(site, history) as server:` serves until the block is left."""

    def __init__(self, site: Site, history: int) -> None:
        self.site, self.history = site, history
        self.folder = Path(tempfile.mkdtemp(prefix="server-"))
        self.log = self.folder / "model.jsonl"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/"

    def __enter__(self) -> "Server":
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GLASSBOX_", "GRADIO_")) and k != "SPACE_ID"}
        ours = {"GLASSBOX_DATA": str(self.folder), "GRADIO_ANALYTICS_ENABLED": "False", "PYTHONPATH": str(_ROOT)}
        said = self.folder / "said.txt"
        with said.open("w") as output:
            self._process = subprocess.Popen(
                [sys.executable, *self.site.command(self)],
                cwd=self.folder,
                env=kept | ours,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_until_served(said)
        except BaseException:
            self.__exit__()
            raise
        return self

    def _wait_until_served(self, said: Path) -> None:
        until = time.monotonic() + _START_S
        while True:
            with suppress(OSError, urllib.error.URLError), urllib.request.urlopen(self.url, timeout=5):
                return
            if self._process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(
                    f"the server of {self.site.name} does not serve; it said:\n{said.read_text()[-3000:]}"
                )
            time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):  # the second also for what it may have left behind
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_S)

    def address(self) -> str:
        """Where to open a page with the earlier messages; each call makes a new conversation of them."""
        if not (self.site.imports and self.history):
            return self.url
        body = json.dumps({"messages": earlier_messages(self.history)}).encode()
        request = urllib.request.Request(self.url + "conversations", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            made: dict[str, Any] = json.load(answer)
        return f"{self.url}?conversation={made['conversation_id']}"

    def cpu_s(self) -> float:
        """Seconds of CPU, user and system, that the process and its children have used."""
        process = psutil.Process(self._process.pid)
        return cpu_s([process, *process.children(recursive=True)])


def cpu_s(processes: Iterable[psutil.Process]) -> float:
    """Seconds of CPU, user and system, that processes have used so far."""
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def others_cpu_s(process: psutil.Process) -> float:
    """Seconds of CPU that everything but a process and its children has used so far."""
    all_times = psutil.cpu_times()
    busy: float = sum(all_times) - all_times.idle - getattr(all_times, "iowait", 0.0)
    return busy - cpu_s([process, *process.children(recursive=True)])


def end_children() -> None:
    """Ends whatever this process has started and what that has started, servers and browsers alike."""
    mine = psutil.Process().children(recursive=True)
    for process in mine:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    for process in psutil.wait_procs(mine, timeout=3)[1]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def _ours(server: Server) -> list[str]:
    config = server.folder / "glassbox.toml"
    log = json.dumps(str(server.log), ensure_ascii=False)
    config.write_text(_CONFIG.format(log=log, runs=server.site.runs), encoding="utf-8")
    return [str(_ROOT / "app.py"), "--host", "127.0.0.1", "--port", str(server.port), "--config", str(config)]


def _vanilla(server: Server) -> list[str]:
    given = {"--port": server.port, "--log": server.log, "--history": server.history}
    return ["-m", "bench.vanilla", *(str(word) for pair in given.items() for word in pair)]


def _minimal(server: Server) -> list[str]:
    return ["-m", "bench.minimal", "--port", str(server.port), "--log", str(server.log)]


OURS = Site(
    name="ours",
    command=_ours,
    prompt="#prompt textarea",
    replies="#chat [data-testid=bot], #live-reply",
    stop="#stop",
    most_drawn=INITIAL_MESSAGES,
    parts=".parts",
    imports=True,
)
VANILLA = Site(
    name="vanilla",
    command=_vanilla,
    prompt="textarea[data-testid=textbox]",
    replies="[data-testid=bot]",
    stop="[data-testid=stop-button]",
    most_drawn=10_000,
)
MINIMAL = Site(name="minimal", command=_minimal, prompt="", replies="", stop="", most_drawn=0)
"""Has no page: it is followed over HTTP alone."""
