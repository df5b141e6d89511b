"""Gives freed memory back to the system, which the C library of Linux keeps by default.

glibc makes up to eight heaps for each processor, for threads that ask at once, and gives back only what is free at the
end of a heap. The app's threads are many and short: after minutes of a load test two thirds of the heaps were free and
still taken. See mallopt(3) and malloc_trim(3).
"""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
"""The names of the parameters in malloc.h."""
_HEAPS = 2
"""Threads seldom wait for one another's heap, since Python runs one of them at a time."""
_LARGE_BYTES = 1_000_000
"""Blocks from this size on have memory of their own, which goes back as soon as they are freed."""
_FREE_BYTES = 8_000_000
"""The most free memory at the end of a heap: less would be asked for again at once."""


def _library() -> ctypes.CDLL | None:
    """The C library, if it is glibc."""
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if hasattr(library, "malloc_trim") else None


def limit_heaps() -> bool:
    """Sets the bounds; call it before there are threads. False with another C library: nothing changes then."""
    if not (library := _library()):
        return False
    bounds = {_ARENA_MAX: _HEAPS, _MMAP_THRESHOLD: _LARGE_BYTES, _TRIM_THRESHOLD: _FREE_BYTES}
    return all([library.mallopt(name, value) for name, value in bounds.items()])


def return_freed_memory() -> None:
    """Gives whole free pages within the heaps back. It takes milliseconds, in which other threads may have to wait."""
    if library := _library():
        library.malloc_trim(0)
