"""Keeps Gradio from generating stub files (`.pyi`) when it is imported: the app starts in two thirds of the time.

Gradio 6 parses the source of each of its components and compares it with the stub file beside it, at every start
(`gradio/component_meta.py`, `create_or_modify_pyi`). Stubs serve code editors only, and no setting turns this off.
"""

import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

_MODULE, _FUNCTION = "gradio.component_meta", "create_or_modify_pyi"


class _WithoutStubs(importlib.abc.Loader):
    def __init__(self, loader: importlib.abc.Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        if hasattr(module, _FUNCTION):
            setattr(module, _FUNCTION, lambda *_: None)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec and spec.loader:
            spec.loader = _WithoutStubs(spec.loader)
        return spec


def skip_stub_generation() -> None:
    """Turns the generation off. Call it before anything imports gradio; later it has no effect."""
    if _MODULE not in sys.modules:
        sys.meta_path.insert(0, _Finder())
