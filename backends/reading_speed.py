"""The number of threads and the size of a batch with which a local model reads best on this machine.

They are measured after a model's first start here, when it is idle (`reading_trial.py`). They are kept in the user's
folder for caches.
"""

import json
import os
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

Reading = dict[str, int]
"""The numbers `threads` and `batch`, the tokens of a prompt that are processed at once."""

_DEFAULT_BATCH, _LEAST_BATCH = 128, 32
_RATE = 1e10
"""Bytes of a model that a thread goes through in a second, once for each token: a cautious guess."""
_MOST_MODELS = 100
"""Models whose measurements are kept."""


def known_reading(model: Path, threads: int) -> Reading | None:
    """Returns the measured numbers of a model that writes with `threads`; None where it was not measured."""
    found = _read().get(_key(model, threads))
    if not isinstance(found, dict) or set(found) != {"threads", "batch"}:
        return None
    most = {"threads": os.cpu_count() or 1, "batch": 512}
    fits = all(type(found[name]) is int and 1 <= found[name] <= most[name] for name in most)
    return found if fits else None


def default_reading(model: Path, most_threads: int) -> Reading:
    """Returns the numbers of a model that was not measured: all threads, and a batch that takes about a second."""
    batch = _DEFAULT_BATCH
    while batch > _LEAST_BATCH and batch * model.stat().st_size > _RATE * most_threads:
        batch //= 2
    return {"threads": most_threads, "batch": batch}


def keep_reading(model: Path, threads: int, reading: Reading) -> None:
    """Keeps the measurement of a model. Where the folder cannot be written, the model is measured again."""
    known = {name: one for name, one in _read().items() if name != _key(model, threads)}
    latest = dict(list(known.items())[1 - _MOST_MODELS :]) | {_key(model, threads): reading}
    with suppress(OSError):
        file = _file()
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(latest, indent=1), encoding="utf-8")
        temporary.replace(file)


def _file() -> Path:
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder) / "glassbox" / "reading_speed.json"


def _read() -> dict[str, Any]:
    try:
        found = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):  # RuntimeError: a user without a home
        return {}
    return found if isinstance(found, dict) else {}


def _key(model: Path, threads: int) -> str:
    """What a measurement is valid for: the model's file, the processors, the engine's version."""
    try:
        engine = version("xllamacpp")
    except PackageNotFoundError:
        engine = "none"
    return f"{model.name}, {model.stat().st_size} bytes, {threads} of {os.cpu_count()} threads, {engine}"
