"""The visitor's conversations: a list beside the page, drawn by `web/listing.js` from our own routes.

`web/drawer.js` knows whether it is shown.
"""

import gradio as gr

from components.assets import WEB, script_component


def build_sidebar(import_bytes: int) -> gr.HTML:
    """Its event `open` names the conversation to be shown, by {id}; None for a new one. A file that is imported has at
    most `import_bytes`.
    """
    template = (WEB / "conversations.html").read_text().replace('data-bytes=""', f'data-bytes="{import_bytes}"')
    return script_component("listing.js", "sidebar", template, "drawer.js", shared="conversations")
