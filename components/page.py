"""Builds the page from its parts, and attaches their listeners by the names of components."""

from collections.abc import Mapping, Sequence
from functools import partial, wraps
from typing import Any

import gradio as gr
from gradio.events import api

from backends import OPTION_NAMES
from components.assets import QUIET
from components.blocks import PageBlocks
from components.brand import Brand
from components.chat import ChatPane, build_chat
from components.fields import FIELDS, Fields
from components.handlers import Handlers
from components.header import build_header
from components.header_handlers import HeaderHandlers
from components.options import build_options
from components.page_state import PageState
from components.panel import build_panel
from components.sidebar import build_sidebar
from components.viewer import build_viewer
from memory.options import PARAMETERS

TURN_OUTPUTS = ("page", "draft", "chat", "live", "panel", "send", "stop", "intro", "earlier", "turns")
"""What the handlers of turns update."""
KEY_OUTPUTS = ("about", "model", "key_row", "key", "forget_key")
"""What depends on a visitor's key."""
OPENED_OUTPUTS = (
    "answer",
    *(name for name in TURN_OUTPUTS if name != "draft"),
    *KEY_OUTPUTS,
    "backend",
    "memory",
    *PARAMETERS,
    *OPTION_NAMES,
    "tools",
    "documents",
    "mode_options",
    "embedded",
)
"""What opening a conversation updates."""


def build_page(handlers: Handlers, brand: Brand) -> gr.Blocks:
    """Builds the page and its public endpoint."""
    settings = handlers.turns.settings
    demo = PageBlocks(title=brand.page.title, fill_height=True, fill_width=True, analytics_enabled=False)
    with demo:
        page = gr.State(PageState())
        header = build_header(handlers.backends, settings.memory, brand.header(), shared=settings.share)
        options = build_options(
            settings.system_prompt,
            settings.limits.reply_tokens,
            settings.limits.document_bytes,
            handlers.turns.toolbox.names,
            search_first=settings.tools.documents,
            embeddings=settings.documents.embeddings,
            servers=bool(settings.mcp),
            sign_in=settings.sign_in,
        )
        with gr.Row(elem_id="main"):
            chat = build_chat(
                settings.limits.message_characters,
                handlers.turns.images.limits,
                brand.intro(),
                servers=bool(settings.mcp),
                traced=settings.tracing.langsmith,
            )
            panel = build_panel()
            sidebar = build_sidebar(settings.limits.import_bytes)
        _put_composer_first(chat)
        viewer = build_viewer()
        components = {"page": page, "panel": panel, **vars(chat), **vars(header), **vars(options), **header.parameters}
        fields = Fields(components)
        wiring = Wiring({**components, "answer": fields.answer}, fields)
        wire_turns(demo, handlers, wiring, sidebar)
        wire_runs(handlers, wiring)
        wire_options(handlers.header, wiring, viewer)
        fields.wire()
        # a Number without a value shows 0 at first, which would be sent as the visitor's choice
        demo.load(None, None, [options.temperature, options.max_tokens], js="() => [null, null]", **QUIET)
        api(handlers.endpoint.chat, api_name="chat")
    for listener in demo.fns.values():
        listener.show_progress_on = []  # else the text of a hidden timer would stand in the growing reply
        if listener.fn is None:  # Gradio would let clients call it outside the queue, and fail
            listener.queue = True
    demo.start_queue()
    return demo


def _put_composer_first(chat: ChatPane) -> None:
    """Puts the messages after the composer in the document, so that few Tabs lead to it. Styles show them above it."""
    composer: Any = chat.send.parent
    parts = composer.parent.children
    parts.sort(key=lambda part: part.elem_id == "scroll")


class Wiring:
    """Attaches listeners to the page by the names of its components."""

    def __init__(self, components: Mapping[str, Any], fields: Fields) -> None:
        self.components, self.fields = components, fields

    def on(self, event: Any, handler: Any, inputs: Sequence[str] = (), outputs: Sequence[str] = (), **more: Any) -> Any:
        """Attaches a handler that returns `Updates` for the outputs, or nothing where there are none."""
        function = _in_order(handler, outputs) if outputs else handler
        return event(function, self._of(inputs) or None, self._of(outputs) or None, **QUIET, **more)

    def stream(self, event: Any, handler: Any, **more: Any) -> Any:
        """Attaches a generator that follows the page's run or replay, and yields values of live and panel."""
        return event(handler, self._of(["page"]), self._of(["live", "panel"]), **QUIET, **more)

    def _of(self, names: Sequence[str]) -> list[Any]:
        return [self.components[name] for name in names]


def _in_order(handler: Any, outputs: Sequence[str]) -> Any:
    """Wraps a handler that returns `Updates`: the listener returns a value for each output, for Gradio."""

    @wraps(handler)
    async def listener(*inputs: Any) -> Any:
        updates = await handler(*inputs)
        assert updates.keys() <= set(outputs), f"not an output: {updates.keys() - set(outputs)}"
        values = tuple(updates.get(name, gr.skip()) for name in outputs)
        return values if len(values) > 1 else values[0]

    return listener


def wire_turns(demo: gr.Blocks, handlers: Handlers, wiring: Wiring, sidebar: gr.HTML) -> None:
    """Attaches the listeners of turns.

    A turn is three listeners in a row (see `_follow`), so that the conversation is not redrawn while tokens stream.
    """
    one, fields, loader = wiring.components, wiring.fields, handlers.loader
    inputs = ["page", *FIELDS]
    submit = partial(gr.on, [one["prompt"].submit, one["send"].click])
    starts = [
        wiring.on(demo.load, fields.on_load(loader), [], OPENED_OUTPUTS),
        wiring.on(sidebar.open, fields.on_open(loader), inputs, OPENED_OUTPUTS, trigger_mode="always_last"),
        wiring.on(submit, handlers.on_send, ["prompt", *inputs, "images"], TURN_OUTPUTS, trigger_mode="once"),
        wiring.on(one["chat"].edit, handlers.on_edit, inputs, TURN_OUTPUTS),
        wiring.on(one["turns"].regenerate, handlers.on_regenerate, inputs, TURN_OUTPUTS),
        wiring.on(one["panel"].continue_reply, handlers.on_continue_reply, inputs, TURN_OUTPUTS),
    ]
    for start in starts:
        _follow(start, handlers, wiring)
    wiring.on(one["chat"].undo, handlers.on_undo, ["page"], TURN_OUTPUTS)
    wiring.on(one["clear"].click, handlers.on_clear, ["page"], TURN_OUTPUTS)
    wiring.on(one["stop"].click, handlers.on_stop, ["page"], queue=False)
    wiring.on(one["turns"].switch_branch, handlers.on_switch_branch, ["page"], TURN_OUTPUTS)
    wiring.on(one["earlier"].click, handlers.on_show_earlier, ["page"], ["page", "chat", "intro", "earlier", "turns"])


def wire_runs(handlers: Handlers, wiring: Wiring) -> None:
    """Attaches the listeners of approvals, replays and earlier replies.

    A page that waits for an approval follows nothing. It follows its run again after an answer, and checks regularly
    whether another page has answered.
    """
    one, approval = wiring.components, handlers.approval
    for event, handler in ((one["approval"].answer, approval.on_answer), (one["approval"].wake, approval.on_wake)):
        _follow(event(handler, [one["page"]], [one["page"]], **QUIET), handlers, wiring)
    wiring.on(one["line"].end_thinking, approval.on_end_thinking, ["page"], queue=False)
    wiring.on(one["panel"].cancel, approval.on_cancel, ["page"], queue=False)
    wiring.on(one["panel"].inspect, handlers.inspector.on_inspect, ["page"], ["panel"], trigger_mode="always_last")
    played = wiring.on(one["replay"].play, handlers.replay.on_play, ["page"], trigger_mode="multiple")
    wiring.stream(played.then, handlers.replay.follow, trigger_mode="multiple")


def _follow(start: Any, handlers: Handlers, wiring: Wiring) -> None:
    following = wiring.stream(start.then, handlers.follower.follow)
    outputs = ["page", "chat", "live", "send", "stop", "turns"]
    wiring.on(following.then, handlers.follower.finish, ["page"], outputs)


def wire_options(header: HeaderHandlers, wiring: Wiring, viewer: gr.HTML) -> None:
    """Attaches the listeners of the header and the options."""
    one, fields, chosen = wiring.components, wiring.fields, ["backend", "model"]
    modes, drawn = ["memory", *PARAMETERS], [name for name in KEY_OUTPUTS if name != "about"]
    wiring.on(one["about"].changed, header.on_backends_changed, chosen, ["about", "model"])
    wiring.on(one["memory"].input, header.on_choose_mode, ["memory"], list(PARAMETERS), trigger_mode="always_last")
    wiring.on(viewer.use, fields.on_use(header), FIELDS, ["answer", *modes])
    kept = ["backend", "memory", "model"]
    wiring.on(fields.answer.kept, header.on_keep, kept, [*drawn, *PARAMETERS], trigger_mode="always_last")
    for name in chosen:
        wiring.on(one[name].input, header.on_choose, chosen, drawn, trigger_mode="always_last")
    one["backend"].change(None, None, [one["key"]], js="() => ''", **QUIET)
    changes = [one[name].change for name in PARAMETERS]
    gr.on(changes, None, js="() => window.glassbox.emit('parameters')", **QUIET)
    submit = partial(gr.on, [one["key"].submit, one["use_key"].click])
    script = "(...given) => window.glassbox.keySent(...given)"
    tried = wiring.on(submit, header.on_key, ["key", *chosen], KEY_OUTPUTS, trigger_mode="once", js=script)
    tried.success(None, [one["key"]], [one["key"]], js="(now) => window.glassbox.keyTried(now)", **QUIET)
    wiring.on(one["forget_key"].click, header.on_forget_key, chosen, KEY_OUTPUTS)
