"""The visitor's conversations: a list beside the page, drawn by `web/listing.js` from our own routes.

`web/drawer.js` knows whether it is shown.
"""

import gradio as gr

from components.web import WEB, drawn_by


def build_drawer() -> gr.HTML:
    """Its event `open` names the conversation to be shown, by {id}; None for a new one."""
    template = (WEB / "conversations.html").read_text()
    return drawn_by("listing.js", "drawer", template, "drawer.js", shared="conversations")
