"""Standard output and error of this process, written so that a pipe that nobody reads holds nothing up.

Texts go through a bounded queue to a thread that writes them. Text that does not fit is dropped, counted, and reported
in its place as soon as the pipe is read again.
"""

import io
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_LINES, _BYTES = 2000, 1_000_000
_LONGEST_PART = 8192
"""Characters without a line end that wait for it."""
_DRAIN_S = 0.5


def _lost(lines: int) -> str:
    return f"WARNING outlets: {lines} lines are missing here: nobody read this output\n"


class Outlet(io.TextIOBase):
    """A text stream onto a file descriptor whose `write` never waits. At most so many lines and bytes are queued.

    `lost` makes the line that tells how many lines are missing.
    """

    encoding = "utf-8"

    def __init__(self, descriptor: int, lines: int = _LINES, size: int = _BYTES) -> None:
        self._descriptor, self._lines, self._size = descriptor, lines, size
        self.lost: Callable[[int], str] = _lost
        self._queue: deque[bytes | int] = deque()
        """Texts, and where some are missing, the number of their lines."""
        self._queued = self._missing = 0
        self._part = ""
        self._changed = threading.Condition()
        # a daemon: the process ends although a write waits for ever
        threading.Thread(target=self._pass_on, name=f"output {descriptor}", daemon=True).start()

    def write(self, text: str) -> int:
        """Queues the whole lines of what was written; the rest waits for its end, for `flush`, or until it is long."""
        with self._changed:
            whole, end, self._part = (self._part + text).rpartition("\n")
            self._put(whole + end)
            if len(self._part) > _LONGEST_PART:
                self._put(self._part)
                self._part = ""
        return len(text)

    def flush(self) -> None:
        """Queues a line that has no end yet. Waits for nothing."""
        with self._changed:
            part, self._part = self._part, ""
            self._put(part)

    def drain(self, seconds: float) -> None:
        """Waits until all is written, at most so many seconds."""
        self.flush()
        until = time.monotonic() + seconds
        with self._changed:
            self._changed.wait_for(lambda: not self._queue, max(0.0, until - time.monotonic()))

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True

    def _put(self, text: str) -> None:
        if not text:
            return
        data = text.encode("utf-8", "backslashreplace")
        if len(self._queue) >= self._lines or self._queued + len(data) > self._size:
            self._missing += max(1, text.count("\n"))
            return
        self._tell_missing()
        self._queue.append(data)
        self._queued += len(data)
        self._changed.notify_all()

    def _tell_missing(self) -> None:
        if self._missing:
            self._queue.append(self._missing)
            self._missing = 0

    def _pass_on(self) -> None:
        while True:
            with self._changed:
                if not self._queue:
                    self._tell_missing()
                self._changed.wait_for(lambda: self._queue)
                first = self._queue[0]  # it leaves the queue when it is written: `drain` waits for that
            data = first if isinstance(first, bytes) else self.lost(first).encode("utf-8", "backslashreplace")
            _write(self._descriptor, data)
            with self._changed:
                self._queue.popleft()
                self._queued -= len(first) if isinstance(first, bytes) else 0
                self._changed.notify_all()


def _write(descriptor: int, data: bytes) -> None:
    """Past Python's own buffers, whose locks the end of the process would wait for."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            select.select([], [descriptor], [])
        except OSError:  # the reader has closed the pipe
            return


@contextmanager
def outlets() -> Iterator[None]:
    """Within the block `sys.stdout` and `sys.stderr` never wait for their readers."""
    kept = sys.stdout, sys.stderr
    for stream in kept:
        stream.flush()
    made = Outlet(1), Outlet(2)
    sys.stdout, sys.stderr = made
    try:
        yield
    finally:
        for one in made:
            one.drain(_DRAIN_S)
        sys.stdout, sys.stderr = kept
