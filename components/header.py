"""The header: the name of the place, and the dropdowns for backend, model and memory mode."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from backends import Backends
from components.assets import WEB, script_component
from components.hf_login import build_login_button
from components.render import render_modes
from memory.messages import TurnOptions
from memory.modes import MODES
from settings import MemorySettings, parameter_range

PARAMETERS = {
    "window_turns": "Turns kept",
    "token_limit": "Token limit",  # nosec B105 # a label
    "summary_tokens": "Summary tokens",
    "recall_turns": "Turns recalled",
}
"""The parameters of the memory modes, with their labels."""


@dataclass(frozen=True)
class HeaderPane:
    backend: gr.Dropdown
    model: gr.Dropdown
    """Shown where the chosen backend offers several models."""
    memory: gr.Dropdown
    parameters: list[gr.Number]
    """Of the memory modes, in the order of `PARAMETERS`; those of the chosen one are shown."""
    about: gr.HTML
    """Says what there is to say about the backends, and asks `GET /backends` while one loads."""


def build_header(
    backends: Backends, memory_settings: MemorySettings, *, shared: bool = False, sign_in: bool = False
) -> HeaderPane:
    """`shared`: there is a public link, or will be; `sign_in`: visitors may sign in with Hugging Face."""
    with gr.Row(elem_id="header"):
        gr.HTML((WEB / "brand.html").read_text(), elem_id="brand")
        backend = gr.Dropdown(
            [backend.name for backend in backends],
            value=backends.default.name,
            label="Backend",
            elem_id="backend",
            filterable=False,
            scale=1,
            min_width=120,
        )
        model = gr.Dropdown([], value=None, label="Model", elem_id="model", visible=False, scale=1, min_width=120)
        memory = gr.Dropdown(
            render_modes(),
            value=memory_settings.default,
            label="Memory",
            elem_id="memory",
            filterable=False,
            scale=1,
            min_width=120,
        )
        parameters = [_number(name, memory_settings) for name in PARAMETERS]
        if shared:
            script_component(
                "share.js", "share", (WEB / "share.html").read_text(), style=(WEB / "share.css").read_text()
            )
        if sign_in:
            build_login_button()
        gr.Button("Options", elem_id="show-options", size="sm", scale=0, min_width=76)
    about = script_component("about.js", "about", "<p role='status'></p><div class='menu'></div>")
    return HeaderPane(backend, model, memory, parameters, about)


def _number(name: str, memory: MemorySettings) -> gr.Number:
    least, _ = parameter_range(name)
    return gr.Number(
        getattr(memory, name),
        label=PARAMETERS[name],
        precision=0,
        minimum=least,
        elem_id=name.replace("_", "-"),
        elem_classes="parameter",
        visible=name in MODES[memory.default].parameters,
        scale=0,
        min_width=60,
    )


def render_parameters(mode: str, memory: MemorySettings, options: TurnOptions | None = None) -> list[Any]:
    """The parameters of a mode; with `options`, their values, too. -> Choices.parameters"""
    shown = MODES[mode].parameters
    values = {name: getattr(options, name) or getattr(memory, name) for name in PARAMETERS} if options else {}
    return [gr.update(visible=name in shown, **({"value": values[name]} if values else {})) for name in PARAMETERS]
