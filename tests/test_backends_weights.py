"""Weights: their names, invalid files, and downloads from the Hub."""

import asyncio
import contextlib
import json
import math
import os
import pty
import random
import re
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from backends.weights import WeightsError, bundled_weights, find_weights, is_weights_name
from bench.ports import free_port
from tests.hub import HubServer
from tests.server import Request, Wire

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("bundled", True),
        ("model.gguf", True),
        ("/models/my model.gguf", True),
        ("hf:owner/repo/file.gguf", True),
        ("hf:owner/repo/folder/file.gguf", True),
        ("hf:owner/repo", False),
        ("hf:file.gguf", False),
        ("hf:owner/repo/file.bin", False),
        ("model.bin", False),
        ("", False),
        ("gpt-5", False),
    ],
)
def test_names_of_weights_are_recognized(name: str, expected: bool) -> None:
    assert is_weights_name(name) is expected


def test_the_bundled_weights_are_found_without_importing_their_package() -> None:
    path = bundled_weights()
    assert path
    assert path.suffix == ".gguf"
    assert find_weights("bundled") == path


@pytest.mark.parametrize(
    ("content", "received"),
    [(None, "no file x.gguf"), (b"", "not a GGUF"), (b"GGU", "not a GGUF"), (b"<html>", "not a GGUF")],
)
def test_an_invalid_file_is_reported_without_its_folder(tmp_path: Path, content: bytes | None, received: str) -> None:
    path = tmp_path / "x.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(WeightsError) as refused:
        find_weights(str(path))
    assert received in str(refused.value)
    assert str(tmp_path) not in str(refused.value)


FETCH = """if True:
    import importlib.util, json, sys, time
    import httpx, huggingface_hub  # the time of a download does not include that of the imports
    spec = importlib.util.spec_from_file_location("weights", sys.argv[1])
    weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(weights)
    weights._CONNECT_S = 0.5
    enough = float(sys.argv[2])
    for model in sys.argv[3:]:
        reported, begun = [], time.monotonic()
        def progress(done, total):
            reported.append((done, total))
            if done >= enough:
                raise weights.WeightsError("the download was cancelled")
        try:
            found = {"path": str(weights.find_weights(model, progress))}
        except weights.WeightsError as e:
            found = {"error": str(e)}
        print(json.dumps({**found, "received": reported, "took_s": time.monotonic() - begun}))"""
"""The Hub's library reads its address when it is imported, hence a process of its own: of the module alone."""


def environment(home: Path, address: str) -> dict[str, str]:
    known = {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1"}
    return {**{name: value for name, value in os.environ.items() if not name.startswith("HF_")}, **known}


def fetch(
    home: Path, address: str, *models: str, enough: float = math.inf, within_s: float = 30
) -> list[dict[str, Any]]:
    """Returns each model's file or error, and the reported progress; cancels a download at `enough`."""
    command = [sys.executable, "-c", FETCH, str(ROOT / "backends" / "weights.py"), str(enough), *models]
    done = subprocess.run(
        command, env=environment(home, address), capture_output=True, text=True, timeout=30, check=True
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(one.pop("took_s") < within_s for one in found)
    return found


def downloads(server: HubServer) -> list[str | None]:
    """Returns the start of each requested range."""
    return [request.headers.get("range") for request in server.requests if request.method == "GET"]


NAME, MODEL = "owner/repo/model.gguf", "hf:owner/repo/model.gguf"
SIZE, CHUNK = 24_000_000, 10 * 1024 * 1024  # the Hub's client takes such steps by itself
DATA = b"GGUF" + random.Random(7).randbytes(SIZE - 4)


def test_weights_of_the_hub_are_downloaded_once(tmp_path: Path) -> None:
    with HubServer({NAME: DATA}, piece=1_000_000) as server:
        first, second = fetch(tmp_path, server.url, MODEL, MODEL)
        asked = len(server.requests)
    (third,) = fetch(tmp_path, server.url, MODEL)
    assert Path(first["path"]).read_bytes() == DATA
    received = [done for done, _ in first["received"]]
    assert received == sorted(received)
    assert len(received) > 2
    assert received[-1] == SIZE
    assert {total for _, total in first["received"]} == {SIZE}
    assert second == third == {"path": first["path"], "received": []}
    assert downloads(server) == [None]
    assert asked == len(server.requests)


def test_a_cut_download_is_continued(tmp_path: Path) -> None:
    with HubServer({NAME: DATA}, piece=1_000_000) as server:
        server.cut_at = 15_000_000
        (found,) = fetch(tmp_path, server.url, MODEL)
    assert Path(found["path"]).read_bytes() == DATA
    received = [done for done, _ in found["received"]]
    assert (received, received[-1]) == (sorted(received), SIZE)
    first, second = downloads(server)
    assert first is None
    assert second
    assert CHUNK <= int(second.removeprefix("bytes=").removesuffix("-")) <= 15_000_000


def test_a_cancelled_download_leaves_no_partial_file(tmp_path: Path) -> None:
    with HubServer({NAME: DATA}, piece=1_000_000) as server:
        (ended,) = fetch(tmp_path, server.url, MODEL, enough=CHUNK)
        assert ended["error"] == "the download was cancelled"
        assert ended["received"][-1] == [CHUNK, SIZE]
        assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) < CHUNK
        (found,) = fetch(tmp_path, server.url, MODEL)
    assert Path(found["path"]).read_bytes() == DATA


def test_each_error_of_the_hub_has_its_own_message(tmp_path: Path) -> None:
    files = {NAME: b"<html>", "owner/gated/model.gguf": b"GGUF"}
    names = ["owner/none/model.gguf", "owner/repo/none.gguf", "owner/gated/model.gguf", NAME]
    with HubServer(files, gated={"owner/gated"}) as server:
        received = [found["error"] for found in fetch(tmp_path, server.url, *(f"hf:{name}" for name in names))]
    assert received == [
        "the Hub has no owner/none, or it is private and HF_TOKEN is not set",
        "owner/repo has no file none.gguf",
        "owner/gated is gated: accept its terms on the Hub, then set HF_TOKEN",
        "model.gguf is not a GGUF file",
    ]


class SilentServer(HubServer):
    async def respond(self, request: Request, wire: Wire) -> None:
        await asyncio.Event().wait()


def test_without_a_network_it_fails_quickly(tmp_path: Path) -> None:
    with SilentServer({}) as silent:
        for address in (f"http://127.0.0.1:{free_port()}", silent.url):
            (found,) = fetch(tmp_path, address, MODEL, within_s=5)
            assert found == {"error": "owner/repo cannot be downloaded: the Hub cannot be reached", "received": []}


CONFIG = """
[[backends]]
name = "Local"
kind = "local"
context = 512
slots = 1
"""


class App:
    """The app in a terminal, with a local model from the Hub."""

    def __init__(self, folder: Path, server: HubServer) -> None:
        port, self.folder, self._drawn = free_port(), folder, b""
        (folder / "config.toml").write_text(CONFIG)
        known = {"GLASSBOX_LOCAL_MODEL": MODEL, "GLASSBOX_DATA": str(folder / "data")}
        command = [sys.executable, "app.py", "--port", str(port), "--config", str(folder / "config.toml")]
        environ = environment(folder / "home", server.url) | known
        self._terminal, stderr = pty.openpty()
        termios.tcsetwinsize(stderr, (24, 100))
        self.process = subprocess.Popen(command, cwd=ROOT, env=environ, stdout=subprocess.DEVNULL, stderr=stderr)
        os.close(stderr)
        self._reading = threading.Thread(target=self._read)
        self._reading.start()
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=5)

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # how a terminal ends
            while text := os.read(self._terminal, 4096):
                self._drawn += text

    @property
    def drawn(self) -> str:
        return self._drawn.decode()

    def until(self, condition: Callable[[dict[str, Any]], Any]) -> list[dict[str, Any]]:
        """Polls GET /backends until the model is as expected."""
        said: list[dict[str, Any]] = []
        end = time.monotonic() + 40
        while not (said and condition(said[-1])):
            assert time.monotonic() < end, said[-1:]
            assert self.process.poll() is None, self.drawn
            with contextlib.suppress(httpx.TransportError):  # it does not listen yet
                said += self.http.get("/backends").json()
            time.sleep(0.02)
        return said

    def end(self) -> int:
        """Terminates it, and waits for at most three seconds."""
        self.process.terminate()
        return self.process.wait(3)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reading.join()
        os.close(self._terminal)
        self.http.close()


@pytest.fixture(scope="module")
def apps(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[App, App]]:
    """Starts two apps at once: one downloads the bundled model, the other one's download takes minutes."""
    path = bundled_weights()
    assert path
    with (
        HubServer({NAME: path.read_bytes()}, piece=1_000_000) as quick,
        HubServer({NAME: DATA}, piece=50_000) as slow,
    ):
        quick.pause, slow.pause = 0.01, 0.2
        folders = tmp_path_factory.mktemp("quick"), tmp_path_factory.mktemp("slow")
        with closing(App(folders[0], quick)) as first, closing(App(folders[1], slow)) as second:
            yield first, second


def test_the_app_reports_the_progress_of_its_download(apps: tuple[App, App]) -> None:
    app, _ = apps
    said = app.until(lambda one: one["ready"])
    assert app.end() == 0
    downloading = [one for one in said if str(one["reason"]).startswith("downloading")]
    shares = [one["progress"] for one in downloading]
    assert shares == sorted(shares)
    assert len(set(shares)) > 3
    assert all(re.fullmatch(r"downloading, \d+ of 98 MB", one["reason"]) for one in downloading)
    assert {(one["state"], one["ready"]) for one in downloading} == {("loading", False)}
    assert [one["state"] for one in said] == ["loading"] * (len(said) - 1) + ["ready"]
    assert (said[-1]["reason"], said[-1]["progress"]) == (None, None)
    assert re.search(r"model\.gguf: +\d+%", app.drawn), "the Hub's own progress is drawn in the terminal"
    assert "Traceback" not in app.drawn


def test_the_app_ends_quickly_during_a_slow_download(apps: tuple[App, App]) -> None:
    _, app = apps
    app.until(lambda one: list(app.folder.rglob("*.incomplete")))
    assert app.end() == 0
    assert "Traceback" not in app.drawn
    assert not list(app.folder.rglob("*.incomplete")), "nothing half is left behind"
