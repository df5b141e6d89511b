"""The layout of the conversation: messages, growing reply and prompt. `page.py` attaches the listeners."""

from dataclasses import dataclass

import gradio as gr

from components.assets import read, script_component
from documents.images import ImageLimits
from tracing import NOTE

_QUESTION = "<div class='sure' role='group' aria-label='Delete the conversation' hidden></div>"
_WAITING = "<div class='asked' role='group' aria-label='Waiting for your approval'></div>"
_LINE = (
    "<p class='line' aria-hidden='true'></p><p class='spoken' role='status'></p><p class='spoken' role='alert'></p>"
    "<button type='button' hidden>Answer now</button>"
)
"""The live line, what screen readers announce in its place, and the button that ends the thinking."""
_LATEST = "<button type='button' hidden>Jump to latest</button>"


@dataclass(frozen=True)
class ChatPane:
    """The components of the conversation."""

    intro: gr.HTML
    earlier: gr.Button
    turns: gr.HTML
    chat: gr.Chatbot
    live: gr.Chatbot
    line: gr.HTML
    approval: gr.HTML
    replay: gr.HTML
    prompt: gr.Textbox
    draft: gr.HTML
    """Carries changes of the prompt's text (`render_draft`) to the browser. No listener sets the prompt itself."""
    images: gr.HTML
    """The images of the message that is being written. Its value is their ids."""
    send: gr.Button
    stop: gr.Button
    clear: gr.Button
    embedded: gr.HTML
    """The line below the prompt: whether the slim page keeps anything, and a button that shows a folded panel.

    Its value says whether there is a {visitor}, and whether the conversation was {found} that the page's address names.
    """


def _chatbot(elem_id: str, **options: object) -> gr.Chatbot:
    """Builds a Chatbot without a height or a frame: one scrolling column holds both of them."""
    return gr.Chatbot(
        elem_id=elem_id,
        show_label=False,
        container=False,
        height=None,
        autoscroll=False,
        group_consecutive_messages=False,
        layout="bubble",
        latex_delimiters=[],
        **options,  # type: ignore[arg-type]
    )


def build_chat(
    message_characters: int,
    image_limits: ImageLimits,
    intro_html: str,
    *,
    servers: bool = False,
    traced: bool = False,
) -> ChatPane:
    """Builds the conversation, which shows `intro_html` while it is empty.

    A longer message than `message_characters` is not sent. `servers` adds the prompts of the tools' servers, and
    `traced` shows a notice.
    """
    with gr.Column(elem_id="conversation"):
        with gr.Column(elem_id="scroll"):
            scripts = ("intro.js", "server_prompts.js") if servers else ("intro.js",)
            intro = script_component("intro", *scripts, template=intro_html)
            earlier = gr.Button("Show earlier messages", elem_id="earlier", size="sm", visible=False)
            turns = script_component("turns", "turns.js")
            chat = _chatbot("chat", editable="user", buttons=["copy"])
            live = _chatbot("live-reply", buttons=[])
            line = script_component("live-line", "parts.js", "live.js", template=_LINE)
            approval = script_component("approval", "approval.js", template=_WAITING)
        gr.HTML(html_template=_LATEST, js_on_load=None, elem_id="latest")
        replay = script_component("replay", "replay.js", template=read("replay.html"), style=read("replay.css"))
        script_component(
            "commands", "commands.js", template="<ul role='listbox' aria-label='Commands' tabindex='0'></ul>"
        )
        template = read("images.html").replace('data-bytes=""', f'data-bytes="{image_limits.file_bytes}"')
        template = template.replace('data-count=""', f'data-count="{image_limits.per_message}"')
        images = script_component("images", "images.js", template=template, style=read("images.css"), value=[])
        with gr.Row(elem_id="composer"):
            prompt = gr.Textbox(
                elem_id="prompt",
                label="Message",
                show_label=False,
                container=False,
                placeholder="Message the model …",
                lines=1,
                max_lines=8,
                autofocus=True,
                scale=1,
                html_attributes=gr.InputHTMLAttributes(
                    enterkeyhint="send", spellcheck=True, autocapitalize="sentences"
                ),
            )
            script_component("add-image", template=read("add_image.html"))
            send = gr.Button("Send", elem_id="send", variant="primary", scale=0, min_width=84)
            stop = gr.Button("Stop", elem_id="stop", variant="stop", scale=0, min_width=84, visible=False)
        draft = script_component("draft", "draft.js")
        with gr.Row(elem_id="below"):
            gr.HTML(
                f"<span data-most='{message_characters}'>Enter sends, Shift+Enter adds a new line</span>",
                elem_id="hint",
            )
            script_component("limits", "limits.js", template=read("limits.html"), style=read("limits.css"))
            script_component("ask-clear", "clear.js", template=_QUESTION)
            clear = gr.Button("Clear", elem_id="clear", size="sm", scale=0, min_width=60)
        bar = {"template": read("embedded.html"), "style": read("embedded_bar.css")}
        embedded = script_component("embedded", "embedded_bar.js", **bar, value={})
        if traced:
            gr.HTML(f"<p>{NOTE}</p>", elem_id="traced")
    panes = (
        intro,
        earlier,
        turns,
        chat,
        live,
        line,
        approval,
        replay,
        prompt,
        draft,
        images,
        send,
        stop,
        clear,
        embedded,
    )
    return ChatPane(*panes)
