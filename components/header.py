"""The header of the page: the name, and the dropdowns for backend, model and memory mode."""

from dataclasses import dataclass

import gradio as gr

from backends import Backends
from components.assets import read, script_component
from components.hf_login import build_login_button
from components.page_state import Updates
from components.render import render_modes
from memory.modes import MODES
from memory.options import PARAMETERS, TurnOptions, parameter_range
from settings import MemorySettings


@dataclass(frozen=True)
class HeaderPane:
    """The components of the header, and the note below it."""

    backend: gr.Dropdown
    model: gr.Dropdown
    """Visible if the chosen backend offers several models."""
    memory: gr.Dropdown
    parameters: dict[str, gr.Number]
    """The parameters of the memory modes by name; those of the chosen mode are visible."""
    about: gr.HTML
    """The note about the chosen backend. It polls `GET /backends` while one loads."""


def build_header(
    backends: Backends, memory_settings: MemorySettings, *, shared: bool = False, sign_in: bool = False
) -> HeaderPane:
    """Builds the header. `shared` adds the public link, `sign_in` the login with Hugging Face."""
    with gr.Row(elem_id="header"):
        gr.HTML(read("brand.html"), elem_id="brand")
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
        parameters = {name: _number(name, memory_settings) for name in PARAMETERS}
        if shared:
            script_component("share", "share.js", template=read("share.html"), style=read("share.css"))
        if sign_in:
            build_login_button()
        gr.Button("Options", elem_id="show-options", size="sm", scale=0, min_width=76)
    about = script_component("about", "about.js", template="<p role='status'></p><div class='menu'></div>")
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


def render_parameters(mode: str, memory: MemorySettings, options: TurnOptions | None = None) -> Updates:
    """Renders the parameters of a mode; with `options`, their values too."""
    updates = {name: gr.update(visible=name in MODES[mode].parameters) for name in PARAMETERS}
    if options:
        for name, update in updates.items():
            update["value"] = getattr(options, name) or getattr(memory, name)
    return updates
