"""The bodies of a run's requests to its model, as they were sent.

The bodies themselves are in memory only; the run's record has them with references to the contexts.
"""

import zlib

from runs.events import JSON, Context
from runs.json_text import text_bytes
from runs.recorded_requests import abbreviate_request

_MOST_BYTES = 500_000
"""Compressed bytes of a run's bodies together; further ones are not kept."""
_LONGEST_BODY = 1_000_000
"""Bytes of the longest body that is kept: compressing it takes 10 ms."""


_MOST_RECORDED = 256_000
"""Memory of a run's recorded requests; further ones are not recorded."""


class SentRequests:
    """The bodies by the run's model calls, compressed. Of a call that was tried again, the last one is kept."""

    def __init__(self) -> None:
        self._bodies: list[bytes] = []
        self._next = self._recorded = 0

    @property
    def memory_bytes(self) -> int:
        """The memory of all bodies."""
        return sum(map(len, self._bodies))

    def begin_call(self) -> None:
        """Makes the following requests those of the next model call."""
        self._bodies.append(b"")

    def add(self, body: bytes) -> None:
        """Keeps a request's body; an empty one is not kept."""
        self._bodies[-1] = b""
        if 0 < len(body) <= _LONGEST_BODY:
            packed = zlib.compress(body, 1)
            self._bodies[-1] = packed if self.memory_bytes + len(packed) <= _MOST_BYTES else b""

    def body(self, call: int) -> str | None:
        """The body that was sent in a model call, counted from 0; None where it was not kept, or none was sent."""
        packed = self._bodies[call] if call < len(self._bodies) else b""
        return zlib.decompress(packed).decode("utf-8", "replace") if packed else None

    def record(self, call: int, context: Context | None) -> JSON | None:
        """The body of a call for the run's record, once; None where there is none, or none that can be recorded."""
        if context is None or call < self._next:
            return None
        self._next = call + 1
        body = self.body(call)
        request = abbreviate_request(body, context) if body else None
        size = text_bytes(request)
        if request is None or self._recorded + size > _MOST_RECORDED:
            return None
        self._recorded += size
        return request
