"""The conversation: what is drawn, the reply that grows, the prompt. Layout only; `page.py` attaches the listeners."""

from dataclasses import dataclass

import gradio as gr

from components.assets import WEB, script_component
from components.parts import build_parts
from tracing import NOTE

_SURE = "<div class='sure' role='group' aria-label='Delete the conversation' hidden></div>"
_ASKED = "<div class='asked' role='group' aria-label='Waiting for your approval'></div>"


@dataclass(frozen=True)
class ChatPane:
    intro: gr.HTML
    earlier: gr.Button
    turns: gr.HTML
    chat: gr.Chatbot
    parts: gr.HTML
    live: gr.Chatbot
    approval: gr.HTML
    replay: gr.HTML
    prompt: gr.Textbox
    draft: gr.HTML
    """Tells the browser what became of the prompt's text (`render_draft`): an answer never sets the prompt itself."""
    send: gr.Button
    stop: gr.Button
    clear: gr.Button


def _chatbot(elem_id: str, **options: object) -> gr.Chatbot:
    """One scrolling column holds both Chatbots, so neither has a height or a frame of its own."""
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


def build_chat(message_characters: int, *, traced: bool = False) -> ChatPane:
    with gr.Column(elem_id="conversation"):
        with gr.Column(elem_id="scroll"):
            intro = gr.HTML(html_template=(WEB / "intro.html").read_text(), js_on_load=None, elem_id="intro")
            earlier = gr.Button("Show earlier messages", elem_id="earlier", size="sm", visible=False)
            turns = script_component("turns.js", "turns", "")
            chat = _chatbot("chat", editable="user", buttons=["copy"])
            parts = build_parts()
            live = _chatbot("live-reply", buttons=[])
            approval = script_component("approval.js", "approval", _ASKED)
        bar, style = (WEB / "replay.html").read_text(), (WEB / "replay.css").read_text()
        replay = script_component("replay.js", "replay", bar, style=style)
        script_component("commands.js", "commands", "<ul role='listbox' aria-label='Commands'></ul>")
        with gr.Row(elem_id="composer"):
            prompt = gr.Textbox(
                elem_id="prompt",
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
            send = gr.Button("Send", elem_id="send", variant="primary", scale=0, min_width=84)
            stop = gr.Button("Stop", elem_id="stop", variant="stop", scale=0, min_width=84, visible=False)
        draft = script_component("draft.js", "draft", "")
        with gr.Row(elem_id="below"):
            gr.HTML(
                f"<span data-most='{message_characters}'>Enter sends, Shift+Enter breaks the line</span>",
                elem_id="hint",
            )
            script_component(
                "limits.js", "limits", (WEB / "limits.html").read_text(), style=(WEB / "limits.css").read_text()
            )
            script_component("clear.js", "ask-clear", _SURE)
            clear = gr.Button("Clear", elem_id="clear", size="sm", scale=0, min_width=60)
        if traced:
            gr.HTML(f"<p>{NOTE}</p>", elem_id="traced")
    return ChatPane(intro, earlier, turns, chat, parts, live, approval, replay, prompt, draft, send, stop, clear)
