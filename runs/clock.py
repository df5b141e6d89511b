"""Time in epoch seconds that a change of the system's clock does not move."""

import time
from collections.abc import Callable

Clock = Callable[[], float]


def steady_clock(wall: Clock = time.time, monotonic: Clock = time.monotonic) -> Clock:
    """A clock that reads the wall clock once, and goes on from there with the monotonic clock.

    Differences of its times are true durations, even where the wall clock jumps meanwhile.
    """
    offset = wall() - monotonic()
    return lambda: offset + monotonic()
