"""The sidebar with the visitor's conversations. `web/conversation_list.js` draws the list."""

import gradio as gr

from components.assets import read, script_component


def build_sidebar(import_bytes: int) -> gr.HTML:
    """Builds the sidebar. Its event `open` has the {id} of the conversation to show, None for a new one.

    An imported file may have at most `import_bytes`.
    """
    template = read("conversations.html").replace('data-bytes=""', f'data-bytes="{import_bytes}"')
    scripts = "conversation_list.js", "sidebar.js"
    return script_component("sidebar", *scripts, template=template, style=read("conversations.css"))
