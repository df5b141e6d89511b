"""The real bundled model for tests, and what only its process can tell."""

import asyncio
import struct
from pathlib import Path

import httpx
import psutil

from backends.local import LocalBackend
from backends.weights import bundled_weights
from settings import BackendSettings

BUNDLED = BackendSettings(name="Local", kind="local", model="bundled", slots=2)

_MESSAGES = "{% for m in messages %}{{'<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n'}}{% endfor %}"
_CLOSED = "{% if enable_thinking is defined and not enable_thinking %}{{ '\n</think>\n\n' }}{% endif %}"
THINKING_TEMPLATE = (
    f"{_MESSAGES}{{% if add_generation_prompt %}}{{{{ '<|im_start|>assistant\n<think>\n' }}}}{_CLOSED}{{% endif %}}"
)
"""A chat template that opens the thinking, and knows Qwen's switch. The bundled model then thinks without an end."""


def with_template(template: str, path: Path) -> BackendSettings:
    """Writes the bundled model with another chat template to the path; it may be as long as the model's own."""
    data = bundled_weights().read_bytes()
    name = b"tokenizer.chat_template"
    at = data.index(name) + len(name)
    kind, size = struct.unpack_from("<IQ", data, at)
    assert kind == 8, "a string"
    text = template.encode() + b"{#" + b" " * (size - len(template.encode()) - 4) + b"#}"
    assert len(text) == size, "the template is too long"
    begin = at + struct.calcsize("<IQ")
    path.write_bytes(data[:begin] + text + data[begin + size :])
    return BackendSettings(name="Thinker", kind="local", model=str(path), slots=2)


async def busy_slots(backend: LocalBackend) -> int:
    """How many replies the model itself is at work on."""
    async with _client(backend) as client:
        return await _busy(client)


async def free_within(backend: LocalBackend, most: float) -> None:
    """Fails if the model works on for more than `most` seconds of its own processor time."""
    assert backend._process
    process = psutil.Process(backend._process.pid)
    begun = _worked(process)
    async with asyncio.timeout(60), _client(backend) as client:
        while await _busy(client):
            await asyncio.sleep(0.01)
            assert _worked(process) - begun < most, "the model works on"


def _worked(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _client(backend: LocalBackend) -> httpx.AsyncClient:
    assert backend._tokenizer
    client = backend._tokenizer._client
    # no certificates are needed, and loading them would block the event loop that is watched
    return httpx.AsyncClient(base_url=client.address, headers=client.headers, timeout=10, verify=False)


async def _busy(client: httpx.AsyncClient) -> int:
    slots = (await client.get("/slots")).raise_for_status().json()
    return sum(slot["is_processing"] for slot in slots)
