"""The real bundled model for tests, and what only its process can tell."""

import asyncio
import struct
from contextlib import aclosing
from pathlib import Path

import httpx
import psutil
import pytest
from langchain_core.messages import HumanMessage, SystemMessage

from agent.loop import agent_events
from agent.model_input import ModelInput
from agent.tool_set import ToolSet
from backends.base import ModelOptions
from backends.local import LocalBackend
from backends.weights import bundled_weights
from runs.live import Lifetime, LiveRun
from settings import BackendSettings

on_session_loop = pytest.mark.asyncio(loop_scope="session")
SYSTEM = SystemMessage("You are a helpful assistant.", id="system")
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


def started(backend: LocalBackend, text: str, max_tokens: int = 800) -> LiveRun:
    """Starts a run of the agent on a message."""
    model = backend.chat_model(ModelOptions(max_tokens=max_tokens))
    messages = [SYSTEM, HumanMessage(text, id="asked")]

    async def work(run: LiveRun) -> None:
        async with aclosing(
            agent_events(model, backend, ModelInput(messages, [], 4000, "none"), ToolSet(), run.tool_calls)
        ) as found:
            async for event in found:
                run.emit(event)

    run = LiveRun(conversation_id="c", backend="b", memory="none", owner="anna", lifetime=Lifetime())
    run.start(work)
    return run


async def event_with(run: LiveRun, sign: str) -> None:
    """Returns when an event of the run contains `sign`."""
    async with aclosing(run.log.follow()) as batches:
        async for batch in batches:
            if any(sign in entry.json for entry in batch):
                return
    raise AssertionError(f"the run ended without {sign}")
