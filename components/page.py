"""The page: puts the parts together and attaches their listeners."""

from typing import Any

import gradio as gr

from components.chat import WEB, ChatPane, build_chat
from components.choices import Choices, build_choices
from components.handlers import Handlers
from components.panel import build_panel
from components.session import PageState


def build_page(handlers: Handlers) -> gr.Blocks:
    settings = handlers.turns.settings
    with gr.Blocks(title="Glassbox", fill_height=True, fill_width=True, analytics_enabled=False) as demo:
        page = gr.State(PageState())
        choices = build_choices(handlers.backends, settings.memory.default)
        with gr.Row(elem_id="main"):
            pane = build_chat(settings.limits.message_characters)
            panel = build_panel()
        wire_page(demo, handlers, page, choices, pane, panel)
    queued: gr.Blocks = demo.queue(default_concurrency_limit=None, api_open=False, max_size=200)
    return queued


def wire_page(
    demo: gr.Blocks, handlers: Handlers, page: gr.State, choices: Choices, pane: ChatPane, panel: gr.HTML
) -> None:
    """A turn is three listeners in a row, so that the conversation is no output while tokens stream."""
    quiet: Any = {"postprocess": False, "show_progress": "hidden", "api_visibility": "private"}
    begun = [
        page, pane.prompt, pane.chat, pane.live, panel, pane.send, pane.stop, pane.intro, pane.earlier
    ]  # fmt: skip
    chosen = [choices.backend, choices.memory, page]
    starts = [
        demo.load(
            handlers.on_load,
            None,
            [*begun[:1], *begun[2:], choices.backend, choices.memory, choices.about],
            **quiet,
        ),
        gr.on(
            [pane.prompt.submit, pane.send.click],
            handlers.on_send,
            [pane.prompt, *chosen],
            begun,
            trigger_mode="once",
            **quiet,
        ),
        pane.chat.retry(handlers.on_retry, chosen, begun, **quiet),
        pane.chat.edit(handlers.on_edit, chosen, begun, **quiet),
    ]
    for start in starts:
        following = start.then(handlers.tail.follow, [page], [pane.live, panel], **quiet)
        following.then(handlers.tail.finish, [page], [page, pane.chat, pane.live, pane.send, pane.stop], **quiet)
    pane.chat.undo(handlers.on_undo, [page], begun, **quiet)
    pane.clear.click(handlers.on_clear, [page], begun, **quiet)
    pane.stop.click(handlers.on_stop, [page], None, queue=False, **quiet)
    pane.earlier.click(handlers.on_earlier, [page], [page, pane.chat, pane.intro, pane.earlier], **quiet)
    choices.about.loaded(handlers.on_refresh, None, [choices.backend, choices.about], **quiet)


def page_head() -> str:
    """What goes into the page's head: behaviour that no component has."""
    return f"<script type='module'>{(WEB / 'page.js').read_text()}</script>"
