"""The page: puts the parts together and attaches their listeners."""

from typing import Any

import gradio as gr
from gradio.data_classes import BlocksConfigDict
from gradio.events import api
from gradio.state_holder import SessionState

from components.assets import QUIET
from components.chat import ChatPane, build_chat
from components.fields import Fields
from components.handlers import Handlers
from components.header import HeaderPane, build_header
from components.header_handlers import HeaderHandlers
from components.options import OptionsPane, build_options
from components.page_state import PageState
from components.panel import build_panel
from components.sidebar import build_sidebar
from components.viewer import build_viewer

_POLL_S, _PROGRESS_S = 0.01, 0.25
"""How often Gradio's queue looks for events, and for bars of progress, which this page has none of. Its own choice, a
thousand times a second, takes a tenth of a processor from the model and from whoever leaves the page open.
"""


class Page(gr.Blocks):
    """Gradio's Blocks with three differences: `/chat` accepts fewer than all inputs over plain HTTP (Gradio's own
    clients fill in the rest), an idle page holds no connection, and no session keeps what was drawn on its page.
    """

    def get_config_file(self) -> BlocksConfigDict:
        """The configuration that browsers load, without Gradio's heartbeat.

        Gradio asks each page with a `gr.State` to hold one request open for ever. A browser opens at most six
        connections to an HTTP/1.1 host, for all its tabs together, so that the seventh tab would get no answer at all.
        `hosting/sessions.py` notices pages that have gone without it.
        """
        return {**super().get_config_file(), "connect_heartbeat": False}

    def validate_inputs(self, block_fn: Any, inputs: list[Any]) -> None:
        if block_fn.api_name == "chat":
            inputs.extend("" for _ in block_fn.inputs[len(inputs) :])
        super().validate_inputs(block_fn, inputs)

    async def preprocess_data(
        self, block_fn: Any, inputs: list[Any], state: SessionState | None, explicit_call: bool = False
    ) -> list[Any]:
        processed: list[Any] = await super().preprocess_data(block_fn, inputs, _light(state), explicit_call)
        return processed

    async def postprocess_data(self, block_fn: Any, predictions: Any, state: SessionState | None) -> Any:
        return await super().postprocess_data(block_fn, predictions, _light(state))


def _light(state: SessionState | None) -> SessionState | None:
    """The session without its components' latest values, which Gradio keeps for deep links alone; none are served."""
    if state is not None and "_update_value_in_config" not in vars(state):
        held: Any = state
        held._update_value_in_config = lambda key, value: None
        state.config_values.clear()
    return state


def build_page(handlers: Handlers) -> gr.Blocks:
    settings = handlers.turns.settings
    with Page(title="Glassbox", fill_height=True, fill_width=True, analytics_enabled=False) as demo:
        page = gr.State(PageState())
        choices = build_header(handlers.backends, settings.memory, shared=settings.share, sign_in=settings.sign_in)
        options = build_options(
            settings.system_prompt,
            settings.limits.reply_tokens,
            settings.limits.document_bytes,
            handlers.turns.toolbox.names,
        )
        with gr.Row(elem_id="main"):
            drawer = build_sidebar(settings.limits.import_bytes)
            pane = build_chat(settings.limits.message_characters, traced=settings.tracing.langsmith)
            panel = build_panel()
        viewer = build_viewer()
        fields = Fields([choices.backend, choices.memory, *options.fields, *choices.parameters, choices.model])
        wire_page(demo, handlers, page, choices, options, pane, panel, drawer, fields)
        wire_approval(handlers, page, pane, panel)
        replayed = pane.replay.play(handlers.replay.on_play, [page], None, trigger_mode="multiple", **QUIET)
        replayed.then(handlers.replay.follow, [page], [pane.live, panel], trigger_mode="multiple", **QUIET)
        wire_options(handlers.header, choices, options, fields, viewer)
        # a Number without a value shows 0 at first, which would be sent as the visitor's choice
        demo.load(None, None, [options.temperature, options.max_tokens], js="() => [null, null]", **QUIET)
        api(handlers.endpoint.chat, api_name="chat")
    for listener in demo.fns.values():
        listener.show_progress_on = []  # a hidden timer's words would stand in the growing reply
        if listener.fn is None:  # only the browser runs it; Gradio would let it be called without the line, and fail
            listener.queue = True
    queued: gr.Blocks = demo.queue(default_concurrency_limit=None, api_open=False, max_size=200)
    queue: Any = demo._queue
    queue.sleep_when_free, queue.progress_update_sleep_when_free = _POLL_S, _PROGRESS_S
    return queued


def wire_page(
    demo: gr.Blocks,
    handlers: Handlers,
    page: gr.State,
    choices: HeaderPane,
    options: OptionsPane,
    pane: ChatPane,
    panel: gr.HTML,
    drawer: gr.HTML,
    fields: Fields,
) -> None:
    """A turn is three listeners in a row, so that the conversation is no output while tokens stream."""
    begun = [
        page, pane.draft, pane.chat, pane.live, panel, pane.send, pane.stop, pane.intro, pane.earlier, pane.turns
    ]  # fmt: skip
    chosen = fields.fields
    opened = [
        *[one for one in begun if one is not pane.draft],
        *[choices.backend, choices.memory, choices.about, choices.model, *options.drawn, *choices.parameters],
    ]
    answered = [fields.answer, *opened]
    shows = [
        demo.load(fields.on_load(handlers.loader, opened), None, answered, **QUIET),
        drawer.open(
            fields.on_open(handlers.loader, opened),
            [page, *chosen],
            answered,
            trigger_mode="always_last",
            **QUIET,
        ),
    ]
    starts = [
        *shows,
        gr.on(
            [pane.prompt.submit, pane.send.click],
            handlers.on_send,
            [pane.prompt, page, *chosen],
            begun,
            trigger_mode="once",
            **QUIET,
        ),
        pane.chat.retry(handlers.on_retry, [page, *chosen], begun, **QUIET),
        pane.chat.edit(handlers.on_edit, [page, *chosen], begun, **QUIET),
        pane.turns.again(handlers.on_regenerate, [page, *chosen], begun, **QUIET),
    ]
    for start in starts:
        _follow(start, handlers, page, pane, panel)
    pane.chat.undo(handlers.on_undo, [page], begun, **QUIET)
    pane.clear.click(handlers.on_clear, [page], begun, **QUIET)
    pane.stop.click(handlers.on_stop, [page], None, queue=False, **QUIET)
    pane.turns.walk(handlers.on_switch_branch, [page], begun, **QUIET)
    frame = [pane.intro, pane.earlier, pane.turns]
    pane.earlier.click(handlers.on_show_earlier, [page], [page, pane.chat, *frame], **QUIET)


def wire_approval(handlers: Handlers, page: gr.State, pane: ChatPane, panel: gr.HTML) -> None:
    """A waiting page follows its run again when it answers, and looks now and then whether somebody else has."""
    approving = handlers.approval
    for start in (
        pane.approval.answer(approving.on_answer, [page], [page], **QUIET),
        pane.approval.wake(approving.on_wake, [page], [page], **QUIET),
    ):
        _follow(start, handlers, page, pane, panel)
    panel.cancel(approving.on_cancel, [page], None, queue=False, **QUIET)


def _follow(start: Any, handlers: Handlers, page: gr.State, pane: ChatPane, panel: gr.HTML) -> None:
    following = start.then(handlers.follower.follow, [page], [pane.live, panel], **QUIET)
    following.then(
        handlers.follower.finish,
        [page],
        [page, pane.chat, pane.live, pane.parts, pane.send, pane.stop, pane.turns],
        **QUIET,
    )


def wire_options(
    header_handlers: HeaderHandlers, choices: HeaderPane, options: OptionsPane, fields: Fields, viewer: gr.HTML
) -> None:
    """What depends on the chosen backend, model and memory mode, and on what is known of them."""
    known, chosen = [choices.backend, choices.about, choices.model], [choices.backend, choices.model]
    choices.about.news(header_handlers.on_backends_changed, chosen, known, **QUIET)
    modes = [choices.memory, *choices.parameters]
    choices.memory.input(
        header_handlers.on_choose_mode, [choices.memory], choices.parameters, trigger_mode="always_last", **QUIET
    )
    viewer.use(fields.on_use(header_handlers, modes), fields.fields, [fields.answer, *modes], **QUIET)
    fields.wire()
    drawn = [choices.model, *options.drawn]
    fields.answer.kept(
        header_handlers.on_keep,
        [choices.backend, choices.memory, choices.model],
        [*drawn, *choices.parameters],
        trigger_mode="always_last",
        **QUIET,
    )
    # a dropdown tells of its input when it is left too: what is drawn then must not touch a key that is being typed
    for dropdown in chosen:
        dropdown.input(header_handlers.on_choose, chosen, drawn, trigger_mode="always_last", **QUIET)
    choices.backend.change(None, None, [options.key], js="() => ''", **QUIET)
    tried = gr.on(
        [options.key.submit, options.use_key.click],
        header_handlers.on_key,
        [options.key, *chosen],
        [*known, *options.drawn],
        trigger_mode="once",
        js="(...given) => window.glassboxKeySent(...given)",
        **QUIET,
    )
    tried.success(None, [options.key], [options.key], js="(now) => window.glassboxKeyTried(now)", **QUIET)
    options.forget_key.click(header_handlers.on_forget_key, chosen, [*known, *options.drawn], **QUIET)
