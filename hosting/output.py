"""Standard output and error that never block: an unread pipe does not stop the app.

Lines go through a bounded queue to a thread that writes them. Lines that do not fit are dropped and counted; a line in
their place gives their number once the pipe is read again.
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
_MAX_PARTIAL = 8192
"""The most characters that wait for the end of their line."""
_DRAIN_S = 0.5


def _dropped(lines: int) -> str:
    return f"WARNING output: {lines} lines are missing here: nobody read this output\n"


class NonBlockingWriter(io.TextIOBase):
    """A text stream on a file descriptor whose `write` never blocks; it queues at most `lines` and `size` bytes.

    `dropped_notice` makes the line that tells how many lines were dropped.
    """

    encoding = "utf-8"

    def __init__(self, descriptor: int, lines: int = _LINES, size: int = _BYTES) -> None:
        self._descriptor, self._lines, self._size = descriptor, lines, size
        self.dropped_notice: Callable[[int], str] = _dropped
        self._queue: deque[bytes | int] = deque()
        """Encoded lines, and in place of dropped ones their number."""
        self._queued = self._dropped = 0
        self._partial = ""
        self._changed = threading.Condition()
        # a daemon thread: the process can end while a write blocks
        threading.Thread(target=self._write_queue, name=f"output {descriptor}", daemon=True).start()

    def write(self, text: str) -> int:
        """Queues complete lines. A partial line waits for its end, for `flush`, or until it is long."""
        with self._changed:
            lines, end, self._partial = (self._partial + text).rpartition("\n")
            self._put(lines + end)
            if len(self._partial) > _MAX_PARTIAL:
                self._put(self._partial)
                self._partial = ""
        return len(text)

    def flush(self) -> None:
        """Queues the partial line. It does not block."""
        with self._changed:
            partial, self._partial = self._partial, ""
            self._put(partial)

    def drain(self, seconds: float) -> None:
        """Waits until everything is written, at most `seconds`."""
        self.flush()
        deadline = time.monotonic() + seconds
        with self._changed:
            self._changed.wait_for(lambda: not self._queue, max(0.0, deadline - time.monotonic()))

    def fileno(self) -> int:
        """The file descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Returns whether the file descriptor is a terminal."""
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        """True: the stream is for writing."""
        return True

    def _put(self, text: str) -> None:
        if not text:
            return
        data = text.encode("utf-8", "backslashreplace")
        if len(self._queue) >= self._lines or self._queued + len(data) > self._size:
            self._dropped += max(1, text.count("\n"))
            return
        self._queue_notice()
        self._queue.append(data)
        self._queued += len(data)
        self._changed.notify_all()

    def _queue_notice(self) -> None:
        if self._dropped:
            self._queue.append(self._dropped)
            self._dropped = 0

    def _write_queue(self) -> None:
        while True:
            with self._changed:
                if not self._queue:
                    self._queue_notice()
                self._changed.wait_for(lambda: self._queue)
                first = self._queue[0]  # it is removed only after it is written: `drain` waits for that
            data = first if isinstance(first, bytes) else self.dropped_notice(first).encode("utf-8", "backslashreplace")
            _write(self._descriptor, data)
            with self._changed:
                self._queue.popleft()
                self._queued -= len(first) if isinstance(first, bytes) else 0
                self._changed.notify_all()


def _write(descriptor: int, data: bytes) -> None:
    """Writes without Python's own buffers: the end of the process would wait for their locks."""
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:
            select.select([], [descriptor], [])
        except OSError:  # the pipe is closed
            return


@contextmanager
def nonblocking_output() -> Iterator[None]:
    """Replaces `sys.stdout` and `sys.stderr` by streams that never block, until the block ends."""
    originals = sys.stdout, sys.stderr
    for stream in originals:
        stream.flush()
    writers = NonBlockingWriter(1), NonBlockingWriter(2)
    sys.stdout, sys.stderr = writers
    try:
        yield
    finally:
        for writer in writers:
            writer.drain(_DRAIN_S)
        sys.stdout, sys.stderr = originals
