"""Finds the scripts and style sheets that Gradio's page loads one after the other, to load them at once.

Gradio's build has written into each of its scripts which files belong to the scripts that it imports later. Where a new
version of Gradio writes that in another way, nothing is found, and the page loads as Gradio meant it to.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

_MAP = re.compile(r"m\.f=\[([^\]]*)\]")
"""The list of files in a script, to which the numbers in `_IMPORT` refer."""
_IMPORT = r"import\(`\./([\w.-]+\.js)`\)(?:(?!__vite__mapDeps).){0,60}?__vite__mapDeps\(\[([\d,]*)\]\)"
_COMPONENT = r"[,{]%s:\{[^{}]*?component:\(\)=>\w+\(\(\)=>" + _IMPORT
"""The import of a component in the table of all of them."""
_TABLE = "html:{"
"""A part of the script that has the table."""


@dataclass
class GradioFiles:
    """Names of files of Gradio's folder `assets`."""

    scripts: list[str] = field(default_factory=list)
    styles: list[str] = field(default_factory=list)

    def _add(self, names: Iterable[str]) -> None:
        for name in names:
            kept = self.scripts if name.endswith(".js") else self.styles
            if name not in kept:
                kept.append(name)


def find_files(folder: Path, entry: str, style: str, components: Iterable[str]) -> GradioFiles:
    """Returns the files that a page of these components needs: the script `entry`, its `style`, and what follows."""
    found = GradioFiles([entry], [style])
    texts = {entry: (folder / entry).read_text(encoding="utf-8")}
    for name in _imported(found, texts[entry]):
        texts[name] = (folder / name).read_text(encoding="utf-8")
    for text in list(texts.values())[1:]:
        if _TABLE not in text:  # the frame of all pages, which imports their content
            _imported(found, text, only="Blocks-")
    for text in texts.values():
        if _TABLE in text:
            for component in sorted(set(components)):
                _imported(found, text, _COMPONENT % re.escape(component))
    return found


def _imported(found: GradioFiles, text: str, pattern: str = _IMPORT, only: str = "") -> list[str]:
    """Adds the imports of a script that match, with their files; returns the imported scripts."""
    listed = _MAP.search(text)
    files = [name.strip('"').removeprefix("./") for name in listed[1].split(",")] if listed else []
    scripts = []
    for script, numbers in re.findall(pattern, text):
        if script.startswith(only):
            scripts.append(script)
            found._add([script, *(files[int(number)] for number in numbers.split(",") if number)])
    return scripts
