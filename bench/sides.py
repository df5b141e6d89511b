"""The two sides whose rates are compared, each a process of its own: `python -m bench.sides bare` or `ours`.

Both have the same model, slots and threads. A side reads lines of prompts from standard input, has replies to all
prompts of a line written at once, and prints a line of `Moments`. It ends with its input.
"""

import asyncio
import json
import os
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from pathlib import Path
from typing import Any

from agent.loop import warm_up
from agent.turn import TurnRequest
from agent.turns import Turns
from backends import KINDS, Backends, ModelOptions
from backends.local import BUNDLED_REPEAT, LocalBackend
from backends.reading_speed import default_reading
from backends.weights import BUNDLED, find_weights
from logs import configure_logging
from memory.options import TurnOptions
from memory.store import Store
from runs.events import Token
from runs.registry import RunRegistry
from settings import BackendSettings, LimitSettings, Settings

SLOTS = 8
"""Concurrent replies."""
TOKENS = 128
"""The length of each reply: no reply may end earlier, so that both sides write equally much."""
_CONTEXT = 1024
_THREADS = max(1, (os.cpu_count() or 2) // 2)

Moments = list[list[float]]
"""The moments of each chunk of each reply, in epoch seconds."""


class Steady(LocalBackend):
    """The local backend with replies of the greatest length."""

    def chat_model(self, options: ModelOptions) -> Any:
        """Creates a model that ignores the end of a reply."""
        model: Any = super().chat_model(options)
        return model.model_copy(update={"extra_body": {**model.extra_body, "ignore_eos": True}})


def _bare() -> None:
    """Serves with the binding's own streaming call, a thread for each reply; chunks are parsed afterwards."""
    import xllamacpp

    params = xllamacpp.CommonParams()  # as in backends/llama_child.py
    weights = find_weights(BUNDLED)
    params.model.path = str(weights)
    params.n_ctx, params.n_parallel = _CONTEXT * SLOTS, SLOTS
    params.n_batch = params.n_ubatch = default_reading(weights, _THREADS)["batch"]
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = _THREADS
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.verbosity, params.ui = 0, False
    server = xllamacpp.Server(params)
    system = {"role": "system", "content": Settings().system_prompt}

    def reply(prompt: str, chunks: list[tuple[float, str]]) -> None:
        messages = [system, {"role": "user", "content": prompt}]
        request = {"messages": messages, "max_tokens": TOKENS, "temperature": 0, "ignore_eos": True, "stream": True}
        request["repeat_penalty"] = BUNDLED_REPEAT
        server.handle_chat_completions(json.dumps(request), lambda chunk: chunks.append((time.time(), chunk)))

    def replies(prompts: list[str]) -> Moments:
        received: list[list[tuple[float, str]]] = [[] for _ in prompts]
        with ThreadPoolExecutor(SLOTS) as pool:
            list(pool.map(reply, prompts, received))
        return [[at for at, chunk in chunks if _has_text(json.loads(chunk))] for chunks in received]

    for line in sys.stdin:
        print(json.dumps(replies(json.loads(line))), flush=True)


def _has_text(chunk: dict[str, Any]) -> bool:
    return any(choice["delta"].get("content") for choice in chunk["choices"])


async def _ours() -> None:
    """Serves with turns as the page starts them, and follows each run's log to its end."""
    configure_logging("text")  # to standard error: the answers go to standard output
    KINDS["local"] = "bench.sides:Steady"
    folder = Path(tempfile.mkdtemp(prefix="rate-"))
    settings = Settings(
        backends=[BackendSettings(name="Local", kind="local", context=_CONTEXT, slots=SLOTS, threads=_THREADS)],
        limits=LimitSettings(reply_tokens=TOKENS),
        database_url=f"sqlite:///{folder / 'glassbox.db'}",
    )
    backends, store = Backends(settings.backends), Store(settings.database_url)
    turns = Turns(settings, backends, store, RunRegistry())
    await store.open()
    await backends.open()
    await asyncio.to_thread(warm_up)

    async def reply(prompt: str) -> list[float]:
        run, moments = await turns.start(TurnRequest(prompt, options=TurnOptions(temperature=0))), list[float]()
        async with aclosing(run.log.follow()) as batches:
            async for batch in batches:
                moments += [entry.at for entry in batch if isinstance(entry.event, Token)]
        return moments

    try:
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(await asyncio.gather(*map(reply, json.loads(line)))), flush=True)
    finally:
        await backends.close()
        await store.close()


if __name__ == "__main__":
    if sys.argv[1] == "bare":
        _bare()
    else:
        asyncio.run(_ours())
