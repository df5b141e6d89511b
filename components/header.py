"""The header of the page: its name, the menus for model, version and memory mode, and two buttons."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from backends import Backends
from components.assets import read, script_component
from components.page_state import Updates
from components.render import render_modes
from memory.modes import MODES
from memory.options import PARAMETERS, TurnOptions, parameter_range
from settings import MemorySettings


@dataclass(frozen=True)
class HeaderPane:
    """The components of the header, and the line below it."""

    backend: gr.HTML
    """The menu of backends. The value of a menu is the chosen name."""
    model: gr.HTML
    """The menu of models; visible if the chosen backend offers several."""
    memory: gr.HTML
    parameters: dict[str, gr.Number]
    """The parameters of the memory modes by name; those of the chosen mode are in the memory menu."""
    about: gr.HTML
    """The line about the chosen backend. It polls `GET /backends` while one loads, and draws the menus' choices."""


def build_header(
    backends: Backends, memory_settings: MemorySettings, brand: str, *, shared: bool = False
) -> HeaderPane:
    """Builds the header, which begins with the HTML `brand`; `shared` adds the public link."""
    with gr.Row(elem_id="header"):
        script_component("brand", "brand.js", template=brand)
        names = [{"name": backend.name} for backend in backends]
        backend = _menu("backend", "Model", names, backends.default.name)
        model = _menu("model", "Version", [], None, visible=False)
        with gr.Row(elem_id="memory-control"):
            memory = _menu("memory", "Memory", render_modes(), memory_settings.default)
            parameters = {name: _number(name, memory_settings) for name in PARAMETERS}
        template = read("share.html").replace('data-public=""', f'data-public="{"yes" if shared else ""}"')
        script_component("share", "share.js", template=template, style=read("share.css"))
        script_component("options-button", template=read("options_button.html"))
    about = script_component("about", "about.js", template=read("about.html"))
    return HeaderPane(backend, model, memory, parameters, about)


def _menu(name: str, label: str, choices: Sequence[Any], value: str | None, **more: Any) -> gr.HTML:
    template = read("menu.html").replace("menu-name", name).replace("menu-label", label)
    return script_component(name, "menu.js", template=template, value=value, choices=choices, **more)


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
