"""Objects named in the settings by import path: `package.module:name`."""

import importlib
from typing import Any

from backends.base import BackendError


class ImportPathError(Exception):
    """An error while an object is imported; the message is for the page."""


def split_path(path: str | None, example: str) -> tuple[str, str]:
    """Splits a path into module and name. Raises BackendError, which shows the example."""
    module, colon, name = (path or "").partition(":")
    if not (module and colon and name):
        raise BackendError(f"class: found {path!r}, allowed: {example!r}")
    return module, name


def import_object(module: str, name: str) -> Any:
    """Imports an object. Raises ImportPathError."""
    try:
        return getattr(importlib.import_module(module), name)
    except ImportError as e:
        raise ImportPathError(f"{e.name or module} cannot be imported: is it installed?") from None
    except SystemExit:  # it would end the server
        raise ImportPathError(f"{module} ends the process when it is imported") from None
    except AttributeError:
        raise ImportPathError(f"there is no {name!r} in {module}") from None
    except Exception as e:  # a module may raise anything; its text may hold a key, so only the class is shown
        raise ImportPathError(f"{module} fails when it is imported ({type(e).__name__})") from e
