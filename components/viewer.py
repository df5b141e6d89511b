"""The context viewer: a dialog that shows the model input of a turn, or compares those of two memory modes.

`web/viewer.js`, `web/prompt_view.js` and `web/compare.js` fetch the data from the routes; the component has no value.
"""

import html
import json

import gradio as gr

from components.assets import read, script_component
from memory.options import PARAMETERS


def build_viewer() -> gr.HTML:
    """Builds the dialog. Scripts open it by the events `context` and `compare` of `web/dom.js`."""
    labels = html.escape(json.dumps(PARAMETERS))
    template = read("viewer.html").replace('data-labels=""', f'data-labels="{labels}"')
    style = read("context.css") + read("viewer.css")
    return script_component("viewer", "viewer.js", "prompt_view.js", "compare.js", template=template, style=style)
