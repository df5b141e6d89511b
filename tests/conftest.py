"""What many tests need: settings, a store on a temporary folder, the scripted backend at full speed."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from tempfile import gettempdir
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # before gradio is imported: no network at the start
os.environ["XDG_CACHE_HOME"] = str(Path(gettempdir()) / "glassbox-tests")  # what tests measure of this machine

import hypothesis
import psutil
import pytest
import pytest_asyncio

from agent.turns import Turns
from backends import Backends
from backends.local import LocalBackend
from backends.scripted import ScriptedBackend
from bench.process import AppProcess
from memory.store import Store
from runs.registry import RunRegistry
from settings import BackendSettings, LimitSettings, Settings
from tests.databases import postgres_server
from tests.fork_server import start_app
from tests.local_model import BUNDLED

# In CI the same inputs each time: a change is not refused for an old fault that chance finds on that day.
hypothesis.settings.register_profile("glassbox", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("glassbox")

FAST = 10_000
"""The scripted backend's pauses are divided by this."""


@pytest.fixture(autouse=True, scope="session")
def _no_keys() -> None:
    for name in list(os.environ):
        ours = name.startswith("GLASSBOX_") and not name.startswith("GLASSBOX_TEST_")
        if name.endswith("_API_KEY") or ours or name == "SPACE_ID":
            del os.environ[name]


@pytest.fixture(autouse=True, scope="session")
def _shared_tls() -> Iterator[None]:
    """Makes each TLS context once: reading the certificates takes 20 ms, and every HTTP client would read them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", cache(ssl.create_default_context))
        yield


async def until(condition: Callable[[], Any], most: float = 20) -> None:
    """Waits for what nothing announces."""
    async with asyncio.timeout(most):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def children_with(argument: str) -> list[psutil.Process]:
    """The children of this process that have the text in an argument of their command."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            if any(argument in word for word in child.cmdline()):
                found.append(child)
    return found


def scripted(name: str = "Script", speed: float = FAST, context: int = 8192) -> BackendSettings:
    return BackendSettings(name=name, kind="scripted", options={"speed": speed}, context=context)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Callable[[], str]]:
    """Makes empty databases on a server that is started with the first; returns their URLs."""
    with postgres_server() as make:
        yield make


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of SQLite, but for tests that are `ON_BOTH`."""
    if getattr(request, "param", "sqlite") == "sqlite":
        return f"sqlite:///{tmp_path / 'glassbox.db'}"
    make: Callable[[], str] = request.getfixturevalue("postgres")
    return make()


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return Settings(
        backends=[scripted(), scripted("Slow script", speed=2), scripted("Small script", context=1024)],
        limits=LimitSettings(reply_tokens=256),
        data=tmp_path,
        database_url=database_url,
        secret="of the tests",
    )


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    store = Store(settings.database_url)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
async def reopened(settings: Settings) -> AsyncIterator[Callable[[], Awaitable[Store]]]:
    """Opens the settings' database again, as a later process would."""
    opened: list[Store] = []

    async def reopen() -> Store:
        opened.append(Store(settings.database_url))
        await opened[-1].open()
        return opened[-1]

    yield reopen
    for store in opened:
        await store.close()


@pytest.fixture
def scripted_backend() -> ScriptedBackend:
    return ScriptedBackend(scripted())


@pytest.fixture
async def turns(settings: Settings, store: Store) -> AsyncIterator[Turns]:
    turns = Turns(settings, Backends(settings.backends), store, RunRegistry())
    yield turns
    await turns.runs.stop_all()


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starts of the app in a benchmark take no time for its imports."""
    monkeypatch.setattr(AppProcess, "spawn", lambda self, *args, **options: start_app(*args, **options))


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def local() -> AsyncIterator[LocalBackend]:
    """The real model; its users run on the session's loop, as its connections belong to one."""
    backend = LocalBackend(BUNDLED)
    await backend.open()
    await backend.wait_ready()
    yield backend
    await backend.close()
