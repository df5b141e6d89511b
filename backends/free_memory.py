"""The memory that is left for another model."""

from pathlib import Path

_SHARE, _PROCESS = 1.2, 150_000_000
"""The memory of a local model: its file's size by a share, for the cache of its context, and the process."""
_CGROUP = Path("/sys/fs/cgroup")


def free_memory() -> int | None:
    """Returns the free bytes of this machine, or of its container if that has less; None where this is not known.

    Sources: proc(5), `MemAvailable`; the kernel's cgroup-v2.rst: `memory.current` counts
    cached files, whose memory is reused.
    """
    found = [bytes_ for bytes_ in (_available(), _left_of_container()) if bytes_ is not None]
    return min(found, default=None)


def memory_of_model(path: Path) -> int:
    """Returns an estimate of the bytes that a model of this file needs."""
    return int(_SHARE * path.stat().st_size) + _PROCESS


def _available() -> int | None:
    try:
        available = _fields(Path("/proc/meminfo").read_text(), ":")["MemAvailable"]
        return int(available.split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        return None


def _left_of_container() -> int | None:
    try:
        most, used = (int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        cache = _fields((_CGROUP / "memory.stat").read_text(), " ")["inactive_file"]
        return max(0, most - used + int(cache))
    except (OSError, ValueError, KeyError):  # "max": without a limit
        return None


def _fields(text: str, separator: str) -> dict[str, str]:
    return {name: value for name, _, value in (line.partition(separator) for line in text.splitlines())}
