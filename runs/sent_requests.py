"""The bodies of a run's requests to its model, as they were sent, in memory only."""

import zlib

_MOST_BYTES = 500_000
"""Compressed bytes of a run's bodies together; further ones are not kept."""
_LONGEST = 1_000_000
"""Bytes of the longest body that is kept: compressing it takes 10 ms."""


class SentRequests:
    """The bodies by the run's model calls, compressed. Of a call that was tried again, the last one is kept."""

    def __init__(self) -> None:
        self._bodies: list[bytes] = []

    @property
    def memory_bytes(self) -> int:
        """The memory of all bodies."""
        return sum(map(len, self._bodies))

    def begin_call(self) -> None:
        """Makes the following requests those of the next model call."""
        self._bodies.append(b"")

    def add(self, body: bytes) -> None:
        """Keeps a request's body."""
        self._bodies[-1] = b""
        if len(body) <= _LONGEST:
            packed = zlib.compress(body, 1)
            self._bodies[-1] = packed if self.memory_bytes + len(packed) <= _MOST_BYTES else b""

    def body(self, call: int) -> str | None:
        """The body that was sent in a model call, counted from 0; None where it was not kept, or none was sent."""
        packed = self._bodies[call] if call < len(self._bodies) else b""
        return zlib.decompress(packed).decode("utf-8", "replace") if packed else None
