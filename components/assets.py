"""The files of `web/`, which the browser loads as they are, and the components that they draw."""

import html
import json
from pathlib import Path
from typing import Any

import gradio
import gradio as gr

WEB = Path(__file__).parent.parent / "web"
QUIET: Any = {"postprocess": False, "show_progress": "hidden", "api_visibility": "private"}
"""Options of the page's listeners."""


def script_component(
    script: str, elem_id: str, template: str, *more: str, shared: str | None = None, style: str = ""
) -> gr.HTML:
    """A component whose value a script of `web/` draws into its template, which is built once.

    `more` scripts draw other parts of it; each has its own names. They all know those of the script `shared`.js, whose
    style is in `shared`.css. Nothing of a value is ever read as markup: Gradio
    would evaluate a template with the value in it once more.
    """
    code = "\n".join(f"{{\n{(WEB / name).read_text()}\n}}" for name in (script, *more))
    if shared:
        code = f"{(WEB / f'{shared}.js').read_text()}\n{code}"
        style = f"{(WEB / f'{shared}.css').read_text()}\n{style}"
    return gr.HTML(
        value=None,
        html_template=template,
        css_template=style,
        js_on_load=code,
        apply_default_css=False,
        elem_id=elem_id,
    )


def as_text(message: str) -> str:
    """A notice that stays text: Gradio would read markup in it, and `<query>` would be gone."""
    return html.escape(message, quote=False)


def warn(message: str) -> None:
    gr.Warning(as_text(message))


def page_head() -> str:
    """What goes into the page's head: behaviour that no component has. It runs before any component is there, and each
    script has names of its own.
    """
    assets = f"const ASSETS = {json.dumps(_assets())};\n"
    scripts = "".join(f"<script type='module'>{(WEB / f'{name}.js').read_text()}</script>" for name in _SCRIPTS)
    print_style = (
        f"<style media='print'>{(WEB / 'print.css').read_text()}</style>"  # Gradio would scope it to its own part
    )
    return f"<script type='module'>{assets}{(WEB / 'typeset.js').read_text()}</script>{scripts}{print_style}"


_SCRIPTS = "prompt", "page", "editing", "copying", "selection", "printing"


def _assets() -> dict[str, Any]:
    """The addresses of what Gradio ships to draw formulas, code and diagrams. The names end with hashes."""
    folder = Path(gradio.__file__).parent / "templates/frontend/assets"

    def address(pattern: str) -> str:
        (found,) = folder.glob(pattern)
        return f"assets/{found.name}"

    languages = {
        file.stem.removeprefix("prism-")[: -len("-????????")]: f"assets/{file.name}"
        for file in folder.glob("prism-*-????????.js")
    }
    return {
        "katex": address("katex-????????.js"),
        "style": address("katex-????????.css"),
        "mermaid": address("mermaid.core-????????.js"),
        "prism": address("prism-????????.js"),
        "languages": languages,
    }


def early_script() -> str:
    """A script that runs before any of Gradio's: the page's own address, and reasons of refusals."""
    return f"<script>{(WEB / 'first.js').read_text()}</script>"
