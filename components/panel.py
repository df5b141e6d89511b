"""The agent state: phase, figures, timeline and what the model was given, drawn in place by `web/panel.js`."""

import gradio as gr

from components.chat import WEB


def build_panel() -> gr.HTML:
    """Its value is what `render_panel` makes. The template is built once; nothing of a value is ever read as markup."""
    return gr.HTML(
        value=None,
        html_template=(WEB / "panel.html").read_text(),
        css_template=(WEB / "panel.css").read_text(),
        js_on_load=(WEB / "panel.js").read_text(),
        apply_default_css=False,
        elem_id="agent-state",
    )
