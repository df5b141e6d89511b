"""The kind `local`: a model in a llama.cpp process on this machine, with continuous batching for concurrent replies."""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
from langchain_core.messages import BaseMessage

from backends.base import Backend, BackendError, CountedText, Health, ModelOptions, PromptToken
from backends.free_memory import memory_of_model
from backends.keys import Key
from backends.llama_connection import LlamaConnection, connect
from backends.llama_process import LlamaProcess, LoadError
from backends.llama_stream import LlamaError
from backends.openai_request import logprob_fields, with_thinking
from backends.reading_speed import Reading, default_reading, keep_reading, known_reading
from backends.reading_trial import ReadingTrial
from backends.slot_cache import SlotCache
from backends.weights import BUNDLED, WeightsError, cached_weights, download_size, is_weights_name
from backends.weights_download import WeightsDownload
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
_LOOK_S = 0.1
"""Seconds between two checks whether a reply waits while a conversation is read ahead."""
_BUNDLED_TEMPERATURE = 0.2
"""The recommendation of SmolLM2-135M-Instruct's model card; at llama.cpp's 0.8 its replies are often noise."""
BUNDLED_REPEAT = 1.1
"""llama.cpp's `repeat_penalty`: without one (1.0) 10 of 30 replies to plain questions repeated themselves without end,
with 1.05 still 3, with this none.
"""
_BUNDLED_ABOUT = "A very small model: fast and keyless, but often wrong. Its mistakes are its own."
_BUNDLED_RESULT = 200
"""The limit of a tool result in tokens: with longer ones this model repeats itself."""


_NOT_LOADED = Health("not_loaded", "it is loaded with the first message")


class LocalBackend(Backend):
    """An entry of the kind `local`. It loads in the background; turns wait for it. A dead process is restarted."""

    kind = "local"
    reports_logprobs = True
    tells_prompt = continues_replies = reads_ahead = True
    uses = frozenset({"model", "slots", "threads", "thinking", "preload"})
    timeout_s = 300.0
    is_local = True
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
            self.about = settings.about or _BUNDLED_ABOUT
        self.slots = Slots(settings.slots)
        self._health = Health("loading", "it has not started to load")
        self._process: LlamaProcess | None = None
        self._loading: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._chat: LocalChat | None = None
        self._cache: SlotCache | None = None
        self._tokenizer: Tokenizer | None = None
        self._template: ChatTemplate | None = None
        self._blocking = Threads(f"local model {self.name}", 1)
        """The thread for blocking requests to the process, which may hang."""
        self._erasing = Threads(f"erase slots of {self.name}", 1)
        """The thread that waits until a slot is free and erased."""
        self._reading: Reading = {}
        self._trial: ReadingTrial | None = None
        self._ahead: asyncio.Task[None] | None = None
        """The task that reads a conversation ahead."""
        self._spare: LlamaProcess | None = None
        """The process that is loaded to replace the running one."""
        self._closing = False
        self._download: WeightsDownload | None = None
        self._opened_at = 0.0

    def health(self) -> Health:
        """Returns the health of the process and the progress of loading."""
        if self._health.ready and not (self._process and self._process.alive):
            return Health("unavailable", "its process has ended; the next message restarts it")
        if self._health.ready and self._process and not self._process.responds:
            return Health("unreachable", "its process does not respond; it is restarted if that lasts")
        return self._health

    async def open(self) -> None:
        """Starts to load, or, without `preload`, to look whether the weights are here."""
        self._closing = False
        preload = self.settings.preload
        if preload is None:
            preload = self.is_default or not self._model.startswith("hf:")
        if preload:
            self._begin_loading()
        else:
            self._health = Health("loading", "looking for its file")
            self._looking = asyncio.create_task(self._look(), name=f"look for {self.name}")

    def download(self) -> None:
        """Begins to download and load the model. Raises ChatError if it is here."""
        if self._health.state != "not_downloaded":
            return super().download()
        self._begin_loading()

    def unload(self) -> None:
        """Ends the process if it is idle."""
        if self._health.ready and self.slots.idle:
            self._end_trial()
            self._end_process()
            self._health = _NOT_LOADED

    def _begin_loading(self) -> None:
        self._opened_at = time.monotonic()
        self._health = Health("loading", "loading", 0.0)
        self._loading = asyncio.create_task(self._load(), name=f"load {self.name}")

    async def _look(self) -> None:
        """Finds out whether the weights are here, and how large the download is."""
        try:
            found = await self._blocking.run(cached_weights, self._model)
        except WeightsError as e:
            self._health = Health("unavailable", str(e))
            return
        if found:
            self._health = _NOT_LOADED
            return
        self._health = Health("not_downloaded", "it is not on this machine yet")
        self.download_bytes = await self._blocking.run(download_size, self._model)

    async def close(self) -> None:
        """Cancels a load or download, and ends the process."""
        self._closing = True
        await self._end_ahead()
        if self._trial:
            await self._trial.close()
        for task in filter(None, (self._looking, self._loading)):
            task.cancel()
            await asyncio.wait({task})
        if self._download:
            await self._download.close()
        self._end_process()

    async def wait_ready(self) -> None:
        """Waits until the model is loaded; restarts a dead process and retries a failed load."""
        if self._trial:
            self._trial.interrupt()
        if self._spare:
            self._spare.end()
        await self._end_ahead()
        if self._looking:
            await asyncio.shield(self._looking)
        if self._health.state == "not_downloaded":
            message = f"{self.name} is not on this machine yet. Choose it on the page, and download it there."
            raise ChatError("backend_unavailable", message)
        if self._health.ready and not (self._process and self._process.alive):
            logger.warning("the process of %r has ended: restarting it", self.name)
            self._begin_loading()
        elif self._health.state == "unavailable" and time.monotonic() - self._opened_at > _RETRY_S:
            self._begin_loading()  # the network or the file may be back
        elif self._health.state == "not_loaded":
            self._begin_loading()
        if self._loading:
            await asyncio.shield(self._loading)
        await super().wait_ready()

    def chat_model(self, options: ModelOptions) -> "LocalChat":
        """Returns a copy of the LocalChat with the options."""
        assert self._chat is not None and self._template is not None
        update: JSON = {
            "max_tokens": options.max_tokens,
            "temperature": options.temperature,
            "conversation": options.conversation,
            "opens_thinking": self._template.opens_thinking(options.thinking),
            "continues": options.continues,
        }
        extra = with_thinking(self._chat.extra_body, options.thinking)
        if self._model == BUNDLED:
            extra["repeat_penalty"] = BUNDLED_REPEAT
            if options.temperature is None:
                update["temperature"] = _BUNDLED_TEMPERATURE
        if options.continues:
            extra |= {"continue_final_message": True, "add_generation_prompt": False}
        if update["opens_thinking"] or options.continues:
            extra["reasoning_format"] = "none"  # the tags stay in the text, and are parsed as those of other backends
        update["extra_body"] = extra
        if options.logprobs is not None:
            update |= logprob_fields(options.logprobs)
        return self._chat.model_copy(update=update)

    async def read_ahead(self, messages: Sequence[BaseMessage], options: ModelOptions, visitor: str) -> None:
        """Reads messages into the slot of their conversation. It ends at once when a message comes or a reply runs."""
        if not self._idle() or self._ahead or options.conversation is None:
            return
        if self._trial:
            self._trial.interrupt()
        work = self._read_ahead(self.chat_model(options), list(messages), options.conversation, visitor)
        reading = self._ahead = asyncio.create_task(work, name="read ahead")
        try:
            while not reading.done():
                await asyncio.wait({reading}, timeout=_LOOK_S)
                if not self.machine_idle():
                    reading.cancel()
        finally:
            await self._end_ahead()

    async def _read_ahead(
        self, model: "LocalChat", messages: list[BaseMessage], conversation: str, visitor: str
    ) -> None:
        assert self._cache is not None
        try:
            async with self._cache.lend_ahead(conversation, visitor) as slot:
                if slot is not None:
                    await model.read(messages, slot)
        except (httpx.TransportError, LlamaError) as e:  # the next message reports it
            logger.debug("local model %r: %s", self.name, type(e).__name__)

    async def _end_ahead(self) -> None:
        """Ends reading ahead; its slot is free then."""
        if reading := self._ahead:
            reading.cancel()
            await asyncio.wait({reading})
            if self._ahead is reading:
                self._ahead = None

    async def forget_conversation(self, conversation_id: str) -> None:
        """Erases what the model has read of a conversation."""
        await self._end_ahead()
        if self._cache:
            await self._cache.forget(conversation_id)

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

    async def count_prompt_tokens(
        self, messages: Sequence[tuple[str, str]], thinking: bool | None = None
    ) -> list[int] | None:
        """Counts the prompt as formatted by the model's chat template."""
        assert self._template is not None
        try:
            return await self._blocking.run(self._template.count_tokens, messages, thinking)
        except OSError:
            return None  # the model call will report the error

    async def prompt_tokens(
        self, messages: Sequence[tuple[str, str]], thinking: bool | None = None
    ) -> list[PromptToken]:
        """Returns the prompt as formatted by the model's chat template. Raises ChatError `backend_unavailable`."""
        if not self.health().ready or self._template is None:
            raise ChatError("backend_unavailable", f"{self.name} is not ready: try again.", retryable=True)
        try:
            return await self._blocking.run(self._template.prompt_tokens, messages, thinking)
        except OSError:
            raise ChatError("backend_unavailable", f"{self.name} does not answer: try again.", retryable=True) from None

    async def _load(self) -> None:
        try:
            self._download = WeightsDownload(self._model, self._report_download)
            path = await self._download.run()
            self._end_process()
            self._check_memory(path)
            process = self._process = LlamaProcess(self.name)
            threads = _threads(self.settings.threads)
            most_threads = threads if self.settings.threads else os.cpu_count() or threads
            known = known_reading(path, threads)
            self._reading = known or default_reading(path, most_threads)
            connection = await self._start(process, path, self._report_load)
        except (WeightsError, LoadError) as e:
            self._end_process()
            advice = "the next message tries again" if self._model.startswith("hf:") else _ADVICE
            self._health = Health("unavailable", f"{e}; {advice}")
            return
        self._use(process, connection)
        self._health = Health("ready")
        self._end_trial()
        if known is None and not self._closing:
            use = partial(self._use_reading, path, threads)
            self._trial = ReadingTrial(path, threads, most_threads, is_idle=self._idle, use=use)
            self._trial.schedule()

    async def _start(
        self, process: LlamaProcess, path: Path, report: Callable[[float | None], None]
    ) -> LlamaConnection:
        """Loads the model into a process, and connects to it. Raises LoadError."""
        threads, slots = _threads(self.settings.threads), self.settings.slots
        reading = self._reading
        await process.load(
            path, self._blocking, report, context=self.context, slots=slots, threads=threads, reading=reading
        )
        try:
            return await self._blocking.run(connect, process, slots, self._erasing)
        except OSError as e:
            logger.warning("local model %r: %s", self.name, e)
            raise LoadError(f"{path.name} has no working chat template") from None

    def _check_memory(self, path: Path) -> None:
        """Unloads other models if this one needs their memory. Raises LoadError if there is not enough."""
        needed = memory_of_model(path)
        free = self.make_room(needed)
        if free is not None and free < needed:
            sizes = f"{needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free"
            raise LoadError(f"{path.name} needs about {sizes}")

    def _report_load(self, share: float | None) -> None:
        self._health = Health("loading", "loading", share)

    def _report_download(self, progress: str, share: float | None) -> None:
        self._health = Health("loading", progress, share)

    def _use(self, process: LlamaProcess, connection: LlamaConnection) -> None:
        """Makes a process the one that answers from now on."""
        process.watch()
        self._process = process
        self._tokenizer, self._template = connection.tokenizer, connection.template
        self._cache, self._chat = connection.cache, connection.chat
        self.template = self._template.tokens
        if self._template.switches_thinking:
            self.supported_options = type(self).supported_options | {"thinking"}

    def _idle(self) -> bool:
        """True if no model on this machine is in use."""
        return self._health.ready and self.machine_idle() and self._cache is not None and self._cache.idle

    async def _use_reading(self, path: Path, threads: int, reading: Reading) -> None:
        """Keeps a measurement. A model that has read nothing yet is loaded once more with it, beside itself.

        The others use it from the next start on: what they have read would have to be read again.
        """
        keep_reading(path, threads, reading)
        if reading == self._reading or not self._fresh:
            return
        self._reading = reading
        spare = self._spare = LlamaProcess(self.name)

        def watch(share: float | None) -> None:
            if not self._idle():
                spare.end()

        try:
            connection = await self._start(spare, path, watch)
            if self._fresh:
                used = self._process
                self._use(spare, connection)
                if used:
                    await self._blocking.run(used.end)  # after the requests to it that wait in this thread
        except LoadError as e:
            logger.info("local model %r was not loaded again: %s", self.name, e)
        finally:
            self._spare = None
            if self._process is not spare:
                spare.end()

    @property
    def _fresh(self) -> bool:
        """True if the model is idle, and has read nothing that is kept."""
        return self._idle() and self._cache is not None and self._cache.empty

    def _end_trial(self) -> None:
        if self._trial:
            self._trial.cancel()
        self._trial = None

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
