"""What a backend has learned of the requests that its server accepts."""

import time

from backends.openai_request import LONGEST_REPLY, RequestShape

_KEPT_S = 3600.0


class LearnedShape:
    """The shape of the requests to one server; what was learned from its refusals is forgotten after an hour."""

    def __init__(self, name: str, shape: RequestShape) -> None:
        self.name, self._set, self._learned = name, shape, shape
        self._until = 0.0

    @property
    def shape(self) -> RequestShape:
        return self._learned if time.monotonic() < self._until else self._set

    @property
    def unused(self) -> frozenset[str]:
        """The visitors' options that the server is not sent."""
        left_out = {name for name in ("temperature", *LONGEST_REPLY) if self.shape.name(name) is None}
        return frozenset(left_out - {LONGEST_REPLY[1]})

    def keep(self, shape: RequestShape) -> None:
        """Uses a shape that has helped from now on."""
        self._learned, self._until = shape, time.monotonic() + _KEPT_S
