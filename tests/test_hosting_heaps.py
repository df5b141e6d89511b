"""Freed memory goes back to the system, also that of threads."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
_CHILD = """
import ctypes, threading
import psutil
from hosting.heaps import limit_heaps, return_freed_memory

LIMITED = {limited}
if LIMITED:
    assert limit_heaps()
malloc, free = (ctypes.CDLL(None)[name] for name in ("malloc", "free"))
malloc.restype, free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
together, kept = threading.Barrier(20), []

def work():
    together.wait()
    blocks = [malloc(50_000) for _ in range(100)]
    for block in blocks:
        ctypes.memset(block, 1, 50_000)
    kept.append(malloc(100))  # at the end of the heap, so that nothing before it is given back by itself
    for block in blocks:
        free(block)

before = psutil.Process().memory_info().rss
threads = [threading.Thread(target=work) for _ in range(20)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
if LIMITED:
    return_freed_memory()
print(psutil.Process().memory_info().rss - before)
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
libc.malloc_info(0, file := ctypes.c_void_p(libc.fdopen(1, b"w")))
libc.fflush(file)
"""

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only glibc has such heaps"
)


def _grown_and_heaps(limited: bool) -> tuple[int, int]:
    """What 20 threads leave of 100 MB that they have freed, in bytes, and the number of heaps."""
    command = [sys.executable, "-c", _CHILD.format(limited=limited)]
    output = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    first, _, described = output.partition("\n")
    return int(first), described.count("<heap ")


def test_freed_memory_of_threads_goes_back_to_the_system() -> None:
    grown, heaps = _grown_and_heaps(limited=True)
    assert heaps <= 2
    assert grown < 10_000_000


def test_without_bounds_it_stays() -> None:
    """The test above would not fail by itself if the C library changed."""
    grown, heaps = _grown_and_heaps(limited=False)
    assert heaps > 2
    assert grown > 20_000_000
