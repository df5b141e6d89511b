"""The real bundled model for tests, and what only its process can tell."""

import asyncio
import time

import httpx
import psutil

from backends.local import LocalBackend
from settings import BackendSettings

BUNDLED = BackendSettings(name="Local", kind="local", model="bundled", slots=2)


async def busy_slots(backend: LocalBackend) -> int:
    """How many replies the model itself is at work on."""
    async with _client(backend) as client:
        return await _busy(client)


async def free_within(backend: LocalBackend, most: float) -> None:
    """Fails if the model works on for more than `most` seconds, not counting what other programs took of the CPU."""
    assert backend._process
    ours = psutil.Process(), psutil.Process(backend._process.pid)
    begun, taken = time.monotonic(), _taken_by_others(ours)
    async with _client(backend) as client:
        while await _busy(client):
            await asyncio.sleep(0.01)
            assert time.monotonic() - begun < most + _taken_by_others(ours) - taken, "the model works on"


def _taken_by_others(ours: tuple[psutil.Process, ...]) -> float:
    spent = psutil.cpu_times()
    return sum(spent) - spent.idle - spent.iowait - sum(sum(process.cpu_times()[:2]) for process in ours)


def _client(backend: LocalBackend) -> httpx.AsyncClient:
    assert backend._tokenizer
    client = backend._tokenizer._client
    # no certificates are needed, and loading them would block the event loop that is watched
    return httpx.AsyncClient(base_url=client.address, headers=client.headers, timeout=10, verify=False)


async def _busy(client: httpx.AsyncClient) -> int:
    slots = (await client.get("/slots")).raise_for_status().json()
    return sum(slot["is_processing"] for slot in slots)
