"""The files of `web/`, which the browser loads as they are, and the components that they draw."""

import html
from pathlib import Path
from typing import Any

import gradio as gr

WEB = Path(__file__).parent.parent / "web"
QUIET: Any = {"postprocess": False, "show_progress": "hidden", "api_visibility": "private"}
"""Options of the page's listeners."""


def drawn_by(
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
    """What goes into the page's head: behaviour that no component has. It runs before any component is there."""
    scripts = ((WEB / name).read_text() for name in ("prompt.js", "page.js"))
    return "".join(f"<script type='module'>{script}</script>" for script in scripts)


def first_script() -> str:
    """A script that runs before any of Gradio's: the page's own address, and reasons of refusals."""
    return f"<script>{(WEB / 'first.js').read_text()}</script>"
