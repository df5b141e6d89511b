"""The header: the name of the place, and the dropdowns for backend and memory mode."""

from dataclasses import dataclass

import gradio as gr

from backends import Backends
from components.render import render_modes
from components.web import WEB, drawn_by


@dataclass(frozen=True)
class Choices:
    backend: gr.Dropdown
    memory: gr.Dropdown
    about: gr.HTML
    """Says what there is to say about the backends, and asks `GET /backends` while one loads."""


def build_choices(backends: Backends, memory_default: str) -> Choices:
    with gr.Row(elem_id="header"):
        gr.HTML((WEB / "brand.html").read_text(), elem_id="brand")
        backend = gr.Dropdown(
            [backend.name for backend in backends],
            value=backends.first.name,
            label="Backend",
            elem_id="backend",
            filterable=False,
            scale=1,
            min_width=120,
        )
        memory = gr.Dropdown(
            render_modes(),
            value=memory_default,
            label="Memory",
            elem_id="memory",
            filterable=False,
            scale=1,
            min_width=120,
        )
        gr.Button("Options", elem_id="show-options", size="sm", scale=0, min_width=76)
    about = drawn_by("about.js", "about", "<p role='status'></p><div class='menu'></div>")
    return Choices(backend, memory, about)
