"""Loads the scripts, styles and templates of `web/` into the page, and builds the components that they draw."""

import html
import json
from pathlib import Path
from typing import Any

import gradio
import gradio as gr

WEB = Path(__file__).parent.parent / "web"
QUIET: Any = {"postprocess": False, "show_progress": "hidden", "api_visibility": "private"}
"""The options of every listener of the page."""


def read(name: str) -> str:
    """Reads a file of `web/`."""
    return (WEB / name).read_text()


def script_component(elem_id: str, *scripts: str, template: str = "", style: str = "", **more: Any) -> gr.HTML:
    """Builds a component that scripts of `web/` draw into a static template.

    Each script has a scope of its own, and `more` in its `props`. The template holds no `{{value}}`, because Gradio
    would evaluate the value as a template.
    """
    return gr.HTML(
        html_template=template,
        css_template=style,
        js_on_load="\n".join(f"{{\n{read(name)}\n}}" for name in scripts),
        apply_default_css=False,
        elem_id=elem_id,
        **more,
    )


def as_text(message: str) -> str:
    """Escapes a message for Gradio, which reads notices as markup."""
    return html.escape(message, quote=False)


def template_text(text: str) -> str:
    """Escapes a text for the template of a component."""
    return inert(html.escape(text))


def inert(markup: str) -> str:
    """Returns markup for a template, in which Gradio would evaluate `${…}` and `{{…}}`."""
    return markup.replace("$", "&#36;").replace("{", "&#123;").replace("}", "&#125;")


def warn(message: str) -> None:
    """Shows a warning on the page of the current event."""
    gr.Warning(as_text(message))


def page_head(style: str = "") -> str:
    """Builds the HTML of the page's head: scripts that belong to no component, the style for printing, and `style`.

    Each script has a scope of its own.
    """
    assets = f"const ASSETS = {json.dumps(_assets())};\n"
    scripts = "".join(f"<script type='module'>{read(f'{name}.js')}</script>" for name in _SCRIPTS)
    # Gradio would scope these to its container
    styles = f"<style media='print'>{read('print.css')}</style><style>{read('embedded.css')}</style>"
    if style:
        styles += f"<style>{style}</style>"
    return f"{scripts}<script type='module'>{assets}{read('typeset.js')}</script>{styles}"


_SCRIPTS = "prompt", "page", "edit", "copy", "selection", "citations", "print"


def _assets() -> dict[str, Any]:
    """Returns the URLs of Gradio's libraries for formulas, code and diagrams. Their names end with hashes."""
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
