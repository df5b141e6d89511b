"""Local models that are downloaded on request, and that share the machine's memory."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

import backends
from backends import Backends
from backends.free_memory import free_memory
from backends.local import LocalBackend
from backends.weights import bundled_weights
from runs.errors import ChatError
from settings import BackendSettings
from tests.app_process import RunningApp
from tests.conftest import until
from tests.hub import HubServer
from tests.test_backends_weights import MODEL, NAME, environment, fetch

CONFIG = f"""
[limits]
reply_tokens = 16

[[backends]]
name = "Script"
kind = "scripted"

[[backends]]
name = "Better / larger"
kind = "local"
model = "{MODEL}"
about = "Knows more."
context = 512
slots = 1
"""


def hub_environment(folder: Path, hub: HubServer) -> dict[str, str]:
    """The variables of an app that downloads from a hub into a folder."""
    return {name: value for name, value in environment(folder / "home", hub.url).items() if name.startswith("HF_")}


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    path = bundled_weights()
    assert path
    with HubServer({NAME: path.read_bytes()}, piece=4_000_000) as hub:
        hub.pause = 0.01
        yield hub


@pytest.fixture(scope="module")
def app(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningApp]:
    folder = tmp_path_factory.mktemp("app")
    with RunningApp(folder, CONFIG, fresh=True, **hub_environment(folder, hub)) as app:
        yield app


def wait(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_model_is_downloaded_on_request_and_then_answers(app: RunningApp, hub: HubServer) -> None:
    with httpx.Client(base_url=app.url, timeout=30) as client:

        def described() -> dict[str, object]:
            found: dict[str, object] = client.get("/backends").json()[1]
            return found

        def ask() -> httpx.Response:
            return client.post("/stream", json={"message": "Hi", "backend": "Better / larger"})

        wait(lambda: described()["download_bytes"])
        found = described()
        assert (found["state"], found["ready"], found["can_download"]) == ("not_downloaded", False, True)
        assert found["download_bytes"] == len(hub.files[NAME])
        assert found["about"] == "Knows more."
        assert "not on this machine yet" in ask().text
        assert [request for request in hub.requests if request.method == "GET"] == []

        assert client.post("/backends/nothing/download").status_code == 404
        assert client.post("/backends/Script/download").json()["code"] == "invalid_request"
        answer = client.post("/backends/Better%20%2F%20larger/download")
        assert (answer.status_code, answer.json()["state"]) == (202, "loading")
        assert client.post("/backends/Better%20%2F%20larger/download").status_code == 400, "it has begun already"
        seen = [described()]
        while not seen[-1]["ready"]:
            assert len(seen) < 2000, seen[-1]
            time.sleep(0.02)
            seen.append(described())
        assert any(re.fullmatch(r"downloading, \d+ of 98 MB", str(one["reason"])) for one in seen)
        assert (seen[-1]["download_bytes"], seen[-1]["can_download"]) == (None, False)
        assert "event: done" in ask().text


def test_a_model_that_is_here_is_loaded_with_the_first_message(app: RunningApp) -> None:
    app.end()
    app.start()
    with httpx.Client(base_url=app.url, timeout=60) as client:
        found = client.get("/backends").json()[1]
        assert (found["state"], found["reason"]) == ("not_loaded", "it is loaded with the first message")
        assert "event: done" in client.post("/stream", json={"message": "Hi", "backend": "Better / larger"}).text
        assert client.get("/backends").json()[1]["ready"]


def local(name: str, **fields: object) -> BackendSettings:
    return BackendSettings(**{"name": name, "kind": "local", "context": 256, "slots": 1, **fields})


async def test_strangers_cannot_download(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.local.cached_weights", lambda model: None)
    monkeypatch.setattr("backends.local.download_size", lambda model: 1_000_000_000)
    found = Backends([BackendSettings(name="S", kind="scripted"), local("L", model=MODEL)], downloads=False)
    await found.open()
    try:
        await until(lambda: found.get("L").download_bytes)
        with pytest.raises(ChatError, match="only the operator"):
            found.download("L")
        assert found.describe(None)[1]["can_download"] is False
    finally:
        await found.close()


@pytest.mark.parametrize("preload", [False, True])
async def test_an_impossible_name_is_reported(preload: bool) -> None:
    found = Backends([BackendSettings(name="S", kind="scripted"), local("L", model="hf:a b/c/d.gguf", preload=preload)])
    await found.open()
    try:
        await until(lambda: found.get("L").health().state == "unavailable")
        assert "'a b/c' cannot be the name of a repository" in found.get("L").health().reason
    finally:
        await found.close()


@pytest.fixture
def scarce(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes that are free, once for each time that this is looked at."""
    free: list[int] = []
    monkeypatch.setattr(backends, "free_memory", lambda: free.pop(0))
    return free


async def test_an_idle_model_is_unloaded_where_another_needs_its_memory(scarce: list[int]) -> None:
    scarce += [10**10, 0, 10**10, 10**10]
    found = Backends([local("first"), local("second", preload=False)])
    await found.open()
    try:
        first, second = found
        await first.wait_ready()
        await second.wait_ready()
        assert (first.health().state, second.health().state) == ("not_loaded", "ready")
        await first.wait_ready()
        assert first.health().ready, "it is loaded again when it is wanted"
    finally:
        await found.close()


async def test_a_model_in_use_stays_and_the_other_one_says_what_is_missing(scarce: list[int]) -> None:
    scarce += [10**10, 10**8, 10**8]
    found = Backends([local("first"), local("second", preload=False)])
    await found.open()
    try:
        first, second = found
        await first.wait_ready()
        async with first.slots.acquire(lambda position: None):
            with pytest.raises(ChatError, match=r"needs about 0\.3 GB of memory, and 0\.1 GB are free"):
                await second.wait_ready()
        assert first.health().ready
    finally:
        await found.close()


async def test_the_first_entry_is_loaded_at_the_start_whatever_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[str] = []
    monkeypatch.setattr(LocalBackend, "_begin_loading", lambda self: begun.append(self.name))
    found = Backends(
        [local("a", model=MODEL), local("b", model=MODEL), local("c", model=MODEL, preload=True), local("d")]
    )
    await found.open()
    await found.close()
    assert begun == ["a", "c", "d"]


class VastServer(HubServer):
    """Its files are larger than any disk."""

    async def _file(self, data: bytes, request: object, wire: object) -> None:
        await wire.head(302, {"X-Linked-Size": 10**18, "Location": "/elsewhere", "Content-Length": 0})  # type: ignore[attr-defined]


def test_a_file_that_the_disk_cannot_hold_is_refused_with_the_figures(tmp_path: Path) -> None:
    with VastServer({NAME: b"GGUF"}) as server:
        (found,) = fetch(tmp_path, server.url, MODEL)
    assert re.fullmatch(r"model\.gguf needs 1000000000\.0 GB, and [\d.]+ GB of the disk are free", found["error"])


class DamagingServer(HubServer):
    """It sends other bytes than it has promised by their hash."""

    damaged = True

    async def _file(self, data: bytes, request: object, wire: object) -> None:
        send = wire.send  # type: ignore[attr-defined]

        async def damage(sent: bytes, *more: object) -> None:
            await send(sent[:-1] + b"?" if self.damaged else sent, *more)

        wire.send = damage  # type: ignore[attr-defined]
        await super()._file(data, request, wire)  # type: ignore[arg-type]


def test_a_damaged_download_is_refused_and_removed(tmp_path: Path) -> None:
    data = b"GGUF" + bytes(1000)
    with DamagingServer({NAME: data}) as server:
        (found,) = fetch(tmp_path, server.url, MODEL)
        assert found["error"] == "model.gguf was damaged on its way: download it again"
        server.damaged = False
        (found,) = fetch(tmp_path, server.url, MODEL)
    assert Path(found["path"]).read_bytes() == data


def test_free_memory_is_what_this_machine_has_left() -> None:
    found = free_memory()
    assert found is not None and 0 < found <= 1.1 * psutil.virtual_memory().available
