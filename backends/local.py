"""The embedded model: llama.cpp beside the page, with continuous batching, so that several visitors stream at once."""

import asyncio
import contextlib
import json
import logging
import os
import re
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from langchain_core.language_models import BaseChatModel

from backends.base import Backend, BackendError, CountedText, Health, ModelOptions
from backends.keys import Key
from backends.watchdog import Watchdog
from backends.weights import BUNDLED, WeightsError, find_weights, is_weights_name
from runs.errors import ChatError
from runs.events import JSON
from runs.slots import Slots
from runs.threads import Threads
from settings import BackendSettings

if TYPE_CHECKING:
    from backends.local_chat import LocalChat
    from backends.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

_WAY_OUT = "run `make setup`, or name another .gguf file in GLASSBOX_LOCAL_MODEL"
_LOAD_S = 300.0
_AGAIN_S = 5.0
"""After which a message tries again what could not be loaded."""
_SECRET = re.compile("KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL|AUTH|DATABASE", re.IGNORECASE)
"""In the names of variables that the model's process has no use for."""
_PARTING_S = 2.0
"""For a download to end in: it may hang, and then it is left."""
_BUNDLED_TEMPERATURE = 0.2
"""What SmolLM2-135M-Instruct's model card recommends; at llama.cpp's own 0.8 it often answers a greeting with noise."""
BUNDLED_REPEAT = 1.1
"""llama.cpp's `repeat_penalty`. Without one (1.0) 10 of 30 replies to plain questions went round in circles to their
longest, with 1.05 still 3, with this none.
"""
_BUNDLED_RESULT = 200
"""Tokens of a tool's result; given more, so small a model goes round in circles."""


class LocalBackend(Backend):
    """Loads in the background from `open` on; a turn that comes earlier waits. A dead process is started again."""

    kind = "local"
    uses = frozenset({"model", "slots", "threads", "thinking"})
    timeout_s = 300.0
    in_process = True
    supports_tools = False  # most small models call them at random

    def __init__(self, settings: BackendSettings, key: Key | None = None) -> None:
        super().__init__(settings)
        self._model = settings.model or BUNDLED
        if not is_weights_name(self._model):
            allowed = "'bundled', the path of a .gguf file, or 'hf:OWNER/REPO/FILE.gguf'"
            raise BackendError(f"model: found {self._model!r}, allowed: {allowed}")
        self.context = settings.context or 4096
        if self._model == BUNDLED:
            self.max_result_tokens = _BUNDLED_RESULT
            self.about = "A very small model: fast and keyless, but often wrong. Its mistakes are its own."
        self.slots = Slots(settings.slots)
        self._health = Health("loading", "it has not started to load")
        self._process: subprocess.Popen[str] | None = None
        self._loading: asyncio.Task[None] | None = None
        self._chat: LocalChat | None = None
        self._tokenizer: Tokenizer | None = None
        self._watchdog: Watchdog | None = None
        self._blocking = Threads(f"local model {self.name}", 1)
        """A thread for what blocks on the process: where that does not answer, nothing else waits behind it."""
        self._closing = threading.Event()
        self._fetching: threading.Thread | None = None
        self._begun = 0.0

    def health(self, key: Key | None = None) -> Health:
        if self._health.ready and not self._alive():
            return Health("unavailable", "its process has ended; it starts again with the next message")
        if self._health.ready and self._watchdog and not self._watchdog.answers:
            return Health("unreachable", "its process does not answer; if that lasts, it is started again")
        return self._health

    async def open(self) -> None:
        self._closing.clear()
        self._begun = time.monotonic()
        self._health = Health("loading", "loading", 0.0)
        self._loading = asyncio.create_task(self._load(), name=f"load {self.name}")

    async def close(self) -> None:
        self._closing.set()  # ends a download
        if self._loading:
            self._loading.cancel()
            await asyncio.wait({self._loading})
        if self._fetching:
            await Threads("parting", 1).run(self._fetching.join, _PARTING_S)  # so that it can remove what it has
        self._end_process()

    async def wait_ready(self, key: Key | None = None) -> None:
        if self._health.ready and not self._alive():
            logger.warning("the process of %r has ended: starting it again", self.name)
            await self.open()
        elif self._health.state == "unavailable" and time.monotonic() - self._begun > _AGAIN_S:
            await self.open()  # the network may be back, or the file
        if self._loading:
            await asyncio.shield(self._loading)
        await super().wait_ready(key)

    def chat_model(self, options: ModelOptions, key: Key | None = None) -> BaseChatModel:
        assert self._chat is not None
        chosen: JSON = {"max_tokens": options.max_tokens, "temperature": options.temperature}
        if self._model == BUNDLED:
            chosen["extra_body"] = {**(self._chat.extra_body or {}), "repeat_penalty": BUNDLED_REPEAT}
            if options.temperature is None:
                chosen["temperature"] = _BUNDLED_TEMPERATURE
        return self._chat.model_copy(update=chosen)

    async def count_tokens(self, texts: Sequence[str], key: Key | None = None) -> list[CountedText]:
        """As `Backend.count_tokens`, a long conversation in small steps with as long a rest after each.

        Texts of other visitors are counted between the steps, and replies keep half of the processor.
        """
        assert self._tokenizer is not None
        counted: dict[str, CountedText] = {}
        unique = list(dict.fromkeys(texts))
        try:
            for batch in self._tokenizer.batches(unique):
                begun = time.monotonic()
                counted |= zip(batch, await self._blocking.run(self._tokenizer.count_tokens, batch), strict=True)
                if len(counted) < len(unique):
                    await asyncio.sleep(time.monotonic() - begun)
        except OSError:
            raise ChatError(
                "backend_unavailable", f"{self.name} has stopped working: try again.", retryable=True
            ) from None
        return [counted[text] for text in texts]

    async def count_prompt_tokens(self, messages: Sequence[tuple[str, str]]) -> list[int] | None:
        assert self._tokenizer is not None
        try:
            count = partial(self._tokenizer.count_prompt_tokens, messages, self.template)
            return await asyncio.get_running_loop().run_in_executor(self._blocking, count)
        except OSError:
            return None  # the call itself says what is wrong

    def _alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    async def _load(self) -> None:
        try:
            path = await self._fetched()
        except WeightsError as e:
            self._health = Health("unavailable", f"{e}: {_WAY_OUT}")
            return
        key, process = secrets.token_hex(16), self._start()
        wanted = {
            "path": str(path),
            "key": key,
            "context": self.context,
            "slots": self.settings.slots,
            "threads": _threads(self.settings.threads),
        }
        try:
            answer = await self._answer(process, path, wanted)
        except TimeoutError:
            self._end_process()
            self._health = Health("unavailable", f"it did not load within {_LOAD_S:.0f} s: {_WAY_OUT}")
            return
        if "address" not in answer:
            self._end_process()
            reason = f"{path.name} cannot be loaded: it may be damaged or too big for this machine"
            if answer.get("missing"):
                reason = f"the Python package {answer['missing']} is not installed"
            self._health = Health("unavailable", f"{reason}; {_WAY_OUT}")
            return
        try:
            await self._blocking.run(self._connect, answer["address"], key)
        except OSError as e:
            logger.warning("local model %r: %s", self.name, e)
            self._end_process()
            self._health = Health("unavailable", f"{path.name} has no chat template that works: {_WAY_OUT}")
            return
        self._watchdog = Watchdog(self.name, answer["address"], process)
        self._watchdog.start()
        self._health = Health("ready")

    async def _fetched(self) -> Path:
        """The weights, fetched in a thread that the process's end does not wait for: a download may hang."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Path] = loop.create_future()

        def tell(result: Path | Exception) -> None:
            if done.done():
                return
            if isinstance(result, Exception):
                done.set_exception(result)
            else:
                done.set_result(result)

        def fetch() -> None:
            try:
                result: Path | Exception = find_weights(self._model, self._downloaded)
            except Exception as e:
                result = e
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(tell, result)

        self._fetching = threading.Thread(target=fetch, name="weights", daemon=True)
        self._fetching.start()
        return await done

    def _downloaded(self, done: int, total: int) -> None:
        """Called in the download's thread with each piece."""
        if self._closing.is_set():
            raise WeightsError("the download was ended")
        share = round(done / total, 3) if total else None
        size = f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB" if total else f"{done / 1e6:,.0f} MB"
        self._health = Health("loading", f"downloading, {size}", share)

    def _start(self) -> "subprocess.Popen[str]":
        self._end_process()
        # -P: the script's own folder is no place to import from (backends/langchain.py would hide a package)
        command = [sys.executable, "-P", str(Path(__file__).with_name("llama_child.py"))]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        # each conversation it remembers is a large block: with glibc left to itself, a freed one is not given back
        environment = {name: value for name, value in os.environ.items() if not _SECRET.search(name)}
        environment = {"MALLOC_MMAP_THRESHOLD_": "262144", **environment}
        self._process = subprocess.Popen(command, text=True, env=environment, **pipes)  # type: ignore[call-overload]  # nosec B603 # ours
        return self._process

    async def _answer(self, process: "subprocess.Popen[str]", path: Path, wanted: JSON) -> dict[str, str]:
        assert process.stdin is not None and process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended already: its missing answer says so
            process.stdin.write(json.dumps(wanted) + "\n")
            process.stdin.flush()
        reading = asyncio.ensure_future(self._blocking.run(process.stdout.readline))
        async with asyncio.timeout(_LOAD_S):
            while not reading.done():
                self._health = Health("loading", "loading", _progress(process.pid, path))
                await asyncio.wait({reading}, timeout=0.2)
        try:
            answer: dict[str, str] = json.loads(reading.result() or "{}")
            return answer
        except ValueError:
            return {}

    def _connect(self, address: str, key: str) -> None:
        from backends.local_chat import local_chat
        from backends.tokenizer import Tokenizer

        self._tokenizer = Tokenizer(address, key)
        self.template = self._tokenizer.template()
        self._chat = local_chat(address, key, thinks=self._tokenizer.opens_thinking())

    def _end_process(self) -> None:
        if self._watchdog:
            self._watchdog.stop()
        if self._process is None:
            return
        self._process.kill()
        self._process.wait(timeout=10)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()
        self._process = None


def _threads(wanted: int | None) -> int:
    """By default half the logical processors: llama.cpp's threads wait for each other busily, and the page needs some
    too.

    On two shared cores one thread wrote 87 to 114 tokens a second, two wrote 16 to 86, and 64 not one in a minute.
    """
    there = os.cpu_count() or 2
    if wanted and wanted > there:
        logger.warning("threads: found %d, but this machine has %d processors: so many are used", wanted, there)
    return min(wanted, there) if wanted else max(1, there // 2)


def _progress(pid: int, path: Path) -> float | None:
    """The loaded share, from how much of the process is in memory; None where /proc does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
        return round(min(0.99, resident / max(1, path.stat().st_size)), 2)
    return None
