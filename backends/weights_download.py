"""A search for a model's weights that may download them, in a daemon thread: a download may hang."""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from pathlib import Path

from backends.weights import WeightsError, find_weights
from runs.threads import Threads

_CANCEL_S = 2.0
"""Seconds to wait for a cancelled download to end."""


class WeightsDownload:
    """Finds or downloads one model. `report` gets the progress in words and as a share, None if it is not known."""

    def __init__(self, model: str, report: Callable[[str, float | None], None]) -> None:
        self._model, self._report = model, report
        self._cancelled = threading.Event()
        self._thread: threading.Thread | None = None

    async def run(self) -> Path:
        """Returns the file of the weights. Raises WeightsError."""
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
                result: Path | Exception = find_weights(self._model, self._report_bytes)
            except Exception as e:
                result = e
            with contextlib.suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(finish, result)

        self._thread = threading.Thread(target=find, name="weights", daemon=True)
        self._thread.start()
        return await done

    async def close(self) -> None:
        """Cancels the download, and gives it some seconds to remove its temporary file."""
        self._cancelled.set()
        if self._thread:
            await Threads("cancel download", 1).run(self._thread.join, _CANCEL_S)

    def _report_bytes(self, done: int, total: int) -> None:
        """Reports the progress; runs in the thread of the download."""
        if self._cancelled.is_set():
            raise WeightsError("the download was cancelled")
        share = round(done / total, 3) if total else None
        size = f"{done / 1e6:,.0f} of {total / 1e6:,.0f} MB" if total else f"{done / 1e6:,.0f} MB"
        self._report(f"downloading, {size}", share)
