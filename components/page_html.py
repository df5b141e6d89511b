"""Rewrites Gradio's HTML of the page, so that it is small and shows a box to type into at once.

The page begins with our frame. `web/frame.js` replaces it by Gradio's page when that is drawn. What is equal for
all visitors is in files that browsers keep: Gradio's configuration, which has our scripts and styles, and style sheets.
"""

import html
import json
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio

from components.assets import read
from components.brand import Brand
from components.gradio_files import GradioFiles, find_files
from hosting.static_files import StaticFiles

GRADIO_ASSETS = Path(gradio.__file__).parent / "templates/frontend/assets"
_CONSTANT = "components", "css", "dependencies", "head", "layout", "page"
"""The parts of Gradio's configuration that are equal for all visitors."""
_CONFIG = re.compile(
    rb"<script>window\.gradio_config = ([^<]*);</script><script>window\.gradio_api_info = ([^<]*);</script>"
)
_ENTRY = re.compile(
    rb'<script type="module" crossorigin src="\./assets/([\w.-]+)"></script>\s*'
    rb'<link rel="stylesheet" crossorigin href="\./assets/([\w.-]+)">'
)
_GRADIO_SCRIPT = b"<script data-gradio-mode>"
"""The first of Gradio's scripts after the one with its configuration."""
_ROOT = re.compile(rb'const root = "[^"\n]*";'), b"const root = window.gradio_config.root;"
"""The line of a script of Gradio's that sets the page's address, and its replacement."""
_REPLACED = {
    b'href="/manifest.json"': b'href="./manifest.json"',  # the only address that ignores a path prefix
    b"document.head.appendChild(script);": b"if (parent !== window) document.head.appendChild(script);",
}
_SOCIAL = re.compile(rb'<meta\s+(?:property="og:|name="twitter:)[^>]*>\s*')
"""Gradio's descriptions of the page for other sites, with its own name and pictures."""
_BODY = re.compile(rb"<body\b[^>]*>")
_APP = b"<gradio-app"
_LARGE = 20_000
"""Bytes from which a script is large: it takes longer than a round trip on a slow line."""
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
"""The address of an object, which differs at each start."""
_PAGES = 8
"""The most rewritten pages that are kept."""


class PageHtml:
    """Rewrites the page of an app. Its files are added to `files`."""

    def __init__(self, demo: Any, files: StaticFiles, brand: Brand) -> None:
        self._demo, self._files = demo, files
        self._early = f"<script>(() => {{\n{read('early.js')}\n{read('queue_stream.js')}\n}})();</script>".encode()
        self._frame, self._names = _frame(brand).encode(), _names(brand).encode()
        self.rewrite = lru_cache(_PAGES)(self._rewrite)

    def _rewrite(self, page: bytes) -> bytes:
        if _GRADIO_SCRIPT not in page:
            return page
        page = _ROOT[0].sub(_ROOT[1], page)
        for old, new in _REPLACED.items():
            page = page.replace(old, new)
        page = _SOCIAL.sub(b"", page).replace(b"<style>", self._names + b"<style>", 1)
        config, entry, body = _CONFIG.search(page), _ENTRY.search(page), _BODY.search(page)
        own, constants = _split(config[1], config[2]) if config else ({}, {})
        if config and entry and body and constants:
            loads = self._loads(entry, constants).encode()
            page = b"".join(
                [
                    page[: config.start()],
                    f"<script>window.gradio_config = {_as_script(own)};</script>".encode(),
                    page[config.end() : entry.start()],
                    page[entry.end() : body.end()],
                    self._frame,
                    loads,
                    page[body.end() :].replace(_APP, _APP + b" inert", 1),
                ]
            )
        return page.replace(_GRADIO_SCRIPT, self._early + _GRADIO_SCRIPT, 1)

    def _loads(self, entry: re.Match[bytes], constants: dict[str, Any]) -> str:
        """Returns the elements that load scripts and styles; the first loads all scripts at once."""
        script, style = entry[1].decode(), entry[2].decode()
        types = {block.get_block_name() for block in self._demo.blocks.values()}
        found = find_files(GRADIO_ASSETS, script, style, types)
        values = self._files.add("page", ".js", _constants_script(constants).encode())
        styles = self._files.add("page", ".css", self._styles(found).encode())
        return "\n".join(
            [
                f'<link rel="stylesheet" href="./assets/{styles}">',
                f'<script src="./assets/{values}"></script>',
                *(f'<link rel="modulepreload" crossorigin href="./assets/{name}">' for name in self._mixed(found)),
                # Gradio loads no style sheet that has such an element; a disabled one is not loaded
                *(f'<link rel="stylesheet" crossorigin href="./assets/{name}" disabled>' for name in found.styles),
                f'<script type="module" crossorigin src="./assets/{script}"></script>',
            ]
        )

    def _mixed(self, found: GradioFiles) -> list[str]:
        """Returns the scripts, the large ones between small ones.

        A browser loads six files at a time. The line would be idle while it waits for six small ones.
        """
        sizes = {name: (GRADIO_ASSETS / name).stat().st_size for name in found.scripts}
        large = [name for name in found.scripts if sizes[name] >= _LARGE]
        small = [name for name in found.scripts if sizes[name] < _LARGE]
        step = -(-len(small) // max(1, len(large)))
        return [
            name for i in range(max(1, len(large))) for name in (*large[i : i + 1], *small[i * step : (i + 1) * step])
        ]

    def _styles(self, found: GradioFiles) -> str:
        theme = re.sub(r"""(url\(['"]?)(?=static/)""", r"\1../", self._demo.theme_css)
        return "\n".join([*self._read(found.styles), theme])

    def _read(self, names: Iterable[str]) -> Iterable[str]:
        return (self._files.read(name).decode() for name in names)


def _split(config: bytes, api_info: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    """Splits Gradio's configuration into what is the visitor's own and what is equal for all.

    The second is empty for the login page, and for a page with values of a session in it.
    """
    own: dict[str, Any] = json.loads(config)
    if own.get("auth_required") or own.get("deep_link_state") != "none":
        return own, {}
    constants = {name: own.pop(name) for name in _CONSTANT if name in own}
    return own, {"config": constants, "api": json.loads(api_info)}


def _as_script(value: Any) -> str:
    """Encodes a value for a script within HTML."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _constants_script(constants: dict[str, Any]) -> str:
    """Returns the script that completes Gradio's configuration, and defines the helpers of all our scripts.

    The theme's styles are in our style sheet. Gradio must not load them again.
    """
    helpers = "".join(f"(() => {{\n{read(name)}\n}})();\n" for name in ("dom.js", "context.js", "forms.js"))
    config = _ADDRESS.sub("", _as_script(constants["config"]))
    return f"""Object.assign(window.gradio_config, {config});
window.gradio_api_info = {_as_script(constants["api"])};
{{
  const theme = document.createElement('link');
  theme.toggleAttribute('disabled', true);
  theme.rel = 'stylesheet';
  theme.href = `${{window.gradio_config.root}}/theme.css?v=${{window.gradio_config.theme_hash}}`;
  document.head.append(theme);
}}
{helpers}"""


def _names(brand: Brand) -> str:
    """Returns the elements that name the page: in the tab, and where a link to it is shown."""
    title, about = html.escape(brand.page.title), html.escape(brand.page.tagline)
    return f"""<title>{title}</title>
<meta name="description" content="{about}">
<meta property="og:type" content="website">
<meta property="og:title" content="{title}">
<meta property="og:description" content="{about}">
"""


def _frame(brand: Brand) -> str:
    """Returns the frame with its styles and its script."""
    style = f"<style>{read('frame.css')}\n{brand.style()}</style>"
    scripts = "".join(f"(() => {{\n{read(name)}\n}})();\n" for name in ("embedded.js", "frame.js"))
    return f"{style}\n{brand.frame()}<script>{scripts}</script>\n"
