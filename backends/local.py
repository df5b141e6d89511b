"""The kind `local`: a model in a llama.cpp process on this machine, with continuous batching for concurrent replies."""

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from langchain_core.language_models import BaseChatModel

from backends.base import Backend, BackendError, CountedText, Health, ModelOptions
from backends.keys import Key
from backends.llama_client import LlamaClient
from backends.llama_process import LlamaProcess, LoadError
from backends.weights import BUNDLED, WeightsError, find_weights, is_weights_name
from runs.errors import ChatError
from runs.events import JSON
from runs.slots import Slots
from runs.threads import Threads
from settings import BackendSettings

if TYPE_CHECKING:
    from backends.chat_template import ChatTemplate
    from backends.local_chat import LocalChat
    from backends.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

_ADVICE = "run `make setup`, or name another .gguf file in GLASSBOX_LOCAL_MODEL"
_RETRY_S = 5.0
"""Seconds after which a message retries a failed load."""
_CANCEL_S = 2.0
"""Seconds to wait for a cancelled download to end."""
_BUNDLED_TEMPERATURE = 0.2
"""The recommendation of SmolLM2-135M-Instruct's model card; at llama.cpp's 0.8 its replies are often noise."""
BUNDLED_REPEAT = 1.1
"""llama.cpp's `repeat_penalty`: without one (1.0) 10 of 30 replies to plain questions repeated themselves without end,
with 1.05 still 3, with this none.
"""
_BUNDLED_RESULT = 200
"""The limit of a tool result in tokens: with longer ones this model repeats itself."""


class LocalBackend(Backend):
    """An entry of the kind `local`. It loads in the background; turns wait for it. A dead process is restarted."""

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
        self._process: LlamaProcess | None = None
        self._loading: asyncio.Task[None] | None = None
        self._chat: LocalChat | None = None
        self._tokenizer: Tokenizer | None = None
        self._template: ChatTemplate | None = None
        self._blocking = Threads(f"local model {self.name}", 1)
        """The thread for blocking requests to the process, which may hang."""
        self._closing = threading.Event()
        self._download: threading.Thread | None = None
        self._opened_at = 0.0

    def health(self) -> Health:
        """Returns the health of the process and the progress of loading."""
        if self._health.ready and not (self._process and self._process.alive):
            return Health("unavailable", "its process has ended; the next message restarts it")
        if self._health.ready and self._process and not self._process.responds:
            return Health("unreachable", "its process does not respond; it is restarted if that lasts")
        return self._health

    async def open(self) -> None:
        """Starts to load."""
        self._closing.clear()
        self._opened_at = time.monotonic()
        self._health = Health("loading", "loading", 0.0)
        self._loading = asyncio.create_task(self._load(), name=f"load {self.name}")

    async def close(self) -> None:
        """Cancels a load or download, and ends the process."""
        self._closing.set()  # ends a download
        if self._loading:
            self._loading.cancel()
            await asyncio.wait({self._loading})
        if self._download:
            await Threads("cancel download", 1).run(self._download.join, _CANCEL_S)  # it removes its temporary file
        self._end_process()

    async def wait_ready(self) -> None:
        """Waits until the model is loaded; restarts a dead process and retries a failed load."""
        if self._health.ready and not (self._process and self._process.alive):
            logger.warning("the process of %r has ended: restarting it", self.name)
            await self.open()
        elif self._health.state == "unavailable" and time.monotonic() - self._opened_at > _RETRY_S:
            await self.open()  # the network or the file may be back
        if self._loading:
            await asyncio.shield(self._loading)
        await super().wait_ready()

    def chat_model(self, options: ModelOptions) -> BaseChatModel:
        """Returns a copy of the LocalChat with the options."""
        assert self._chat is not None
        update: JSON = {"max_tokens": options.max_tokens, "temperature": options.temperature}
        if self._model == BUNDLED:
            update["extra_body"] = {**(self._chat.extra_body or {}), "repeat_penalty": BUNDLED_REPEAT}
            if options.temperature is None:
                update["temperature"] = _BUNDLED_TEMPERATURE
        return self._chat.model_copy(update=update)

    async def count_tokens(self, texts: Sequence[str]) -> list[CountedText]:
        """Counts with the model's tokenizer, and makes control words inert.

        Many texts are counted in batches, with a pause as long after each: other visitors' texts are counted in
        between, and replies keep half of the processor.
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
        """Counts the prompt as formatted by the model's chat template."""
        assert self._template is not None
        try:
            return await self._blocking.run(self._template.count_tokens, messages)
        except OSError:
            return None  # the model call will report the error

    async def _load(self) -> None:
        try:
            path = await self._find_weights()
            self._end_process()
            process = self._process = LlamaProcess(self.name)
            slots, threads = self.settings.slots, _threads(self.settings.threads)
            await process.load(
                path, self._blocking, self._report_load, context=self.context, slots=slots, threads=threads
            )
            try:
                await self._blocking.run(self._connect, process)
            except OSError as e:
                logger.warning("local model %r: %s", self.name, e)
                raise LoadError(f"{path.name} has no working chat template") from None
        except (WeightsError, LoadError) as e:
            self._end_process()
            self._health = Health("unavailable", f"{e}; {_ADVICE}")
            return
        process.watch()
        self._health = Health("ready")

    def _report_load(self, share: float | None) -> None:
        self._health = Health("loading", "loading", share)

    async def _find_weights(self) -> Path:
        """The weights, found or downloaded in a daemon thread, since a download may hang."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Path] = loop.create_future()

        def finish(result: Path | Exception) -> None:
            if done.done():
                return
            if isinstance(result, Exception):
                done.set_exception(result)
            else:
                done.set_result(result)

        def find() -> None:
            try:
                result: Path | Exception = find_weights(self._model, self._report_download)
            except Exception as e:
                result = e
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(finish, result)

        self._download = threading.Thread(target=find, name="weights", daemon=True)
        self._download.start()
        return await done

    def _report_download(self, done: int, total: int) -> None:
        """Updates the health; runs in the download's thread."""
        if self._closing.is_set():
            raise WeightsError("the download was cancelled")
        share = round(done / total, 3) if total else None
        size = f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB" if total else f"{done / 1e6:,.0f} MB"
        self._health = Health("loading", f"downloading, {size}", share)

    def _connect(self, process: LlamaProcess) -> None:
        from backends.chat_template import ChatTemplate
        from backends.local_chat import local_chat
        from backends.tokenizer import Tokenizer

        client = LlamaClient(process.address, process.key)
        self._tokenizer = Tokenizer(client)
        self._template = ChatTemplate(client, self._tokenizer)
        self.template = self._template.tokens
        self._chat = local_chat(process.address, process.key, thinks=self._template.opens_thinking)

    def _end_process(self) -> None:
        if self._process:
            self._process.end()
        self._process = None


def _threads(setting: int | None) -> int:
    """The number of threads, by default half the logical processors: llama.cpp's threads busy-wait for each other.

    On two shared cores, one thread wrote 87 to 114 tokens a second, two wrote 16 to 86, and 64 none in a minute.
    """
    processors = os.cpu_count() or 2
    if setting and setting > processors:
        logger.warning("threads: found %d, but this machine has %d processors: using these", setting, processors)
    return min(setting, processors) if setting else max(1, processors // 2)
