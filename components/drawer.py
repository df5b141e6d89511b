"""The visitor's conversations: a list beside the page, drawn by `web/conversations.js` from our own routes."""

import gradio as gr

from components.web import WEB, drawn_by


def build_drawer() -> gr.HTML:
    """Its event `open` names the conversation to be shown, by {id}; None for a new one."""
    template, style = (WEB / "conversations.html").read_text(), (WEB / "conversations.css").read_text()
    return drawn_by("conversations.js", "drawer", template, style=style)
