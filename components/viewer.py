"""The context viewer: a dialog over the page that shows what the model was given in a turn, and what two memory modes
would give it, side by side. `web/viewer.js` and `web/compare.js` draw it from the routes; Python gives it no value.
"""

import gradio as gr

from components.assets import WEB, script_component


def build_viewer() -> gr.HTML:
    """Scripts of the page open it by `glassboxContext(run_id)` and `glassboxCompare()`."""
    template, style = (WEB / "viewer.html").read_text(), (WEB / "viewer.css").read_text()
    return script_component("viewer.js", "viewer", template, "compare.js", shared="context", style=style)
