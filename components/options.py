"""The options row: system prompt, temperature, longest reply, tools, documents to search, and the visitor's key."""

from dataclasses import dataclass
from typing import Any

import gradio as gr

from backends import OPTION_NAMES, Backend
from components.assets import read, script_component
from components.page_state import Updates
from memory.options import TurnOptions

_NAMES = {"system_prompt": "System prompt", "temperature": "Temperature", "max_tokens": "Longest reply"}
_TOOLS = "Tools"
_BY_NAME = "this backend does not call them itself; type /name"


@dataclass(frozen=True)
class OptionsPane:
    """The components of the options row."""

    system_prompt: gr.Textbox
    temperature: gr.Number
    max_tokens: gr.Number
    tools: gr.CheckboxGroup
    key_row: gr.Row
    key: gr.Textbox
    use_key: gr.Button
    forget_key: gr.Button


def build_options(system_prompt: str, reply_tokens: int, document_bytes: int, tools: list[str]) -> OptionsPane:
    """Builds the options row with the settings' system prompt, limits and tools."""
    with gr.Row(elem_id="options"):  # shown and hidden by web/page.js
        prompt = gr.Textbox(
            system_prompt,
            label=_NAMES["system_prompt"],
            placeholder="none: the model gets no instructions",
            lines=1,
            max_lines=6,
            elem_id="system-prompt",
            scale=6,
            min_width=200,
        )
        temperature = gr.Number(
            None,
            label=_NAMES["temperature"],
            placeholder="model default",
            step=0.1,
            elem_id="temperature",
            scale=1,
            min_width=130,
        )
        longest = gr.Number(
            None,
            label=_NAMES["max_tokens"],
            placeholder=f"{reply_tokens:,} tokens",
            precision=0,
            step=64,
            elem_id="max-tokens",
            scale=1,
            min_width=130,
        )
    with gr.Row(elem_id="tool-row"):
        offered = gr.CheckboxGroup(tools, value=tools, label=_TOOLS, elem_id="tools", visible=bool(tools), scale=1)
        template = read("documents.html").replace('data-bytes=""', f'data-bytes="{document_bytes}"')
        script_component("documents", "documents.js", template=template)
    with gr.Row(elem_id="key-row", visible=False) as key_row:
        key = gr.Textbox(
            label="Your key",
            type="password",
            lines=1,
            elem_id="key",
            scale=1,
            min_width=160,
            html_attributes=gr.InputHTMLAttributes(autocomplete="off", spellcheck=False, autocapitalize="off"),
        )
        use_key = gr.Button("Use key", elem_id="use-key", size="sm", scale=0, min_width=80)
        forget_key = gr.Button("Forget key", elem_id="forget-key", size="sm", scale=0, min_width=80, visible=False)
    return OptionsPane(prompt, temperature, longest, offered, key_row, key, use_key, forget_key)


def render_options(backend: Backend, options: TurnOptions | None = None) -> Updates:
    """Renders the options for a backend; with `options`, their values too."""
    values = {} if options is None else {name: getattr(options, name) for name in (*OPTION_NAMES, "tools")}
    own = backend.has_visitors_key
    if own:
        hint = "your key is in use; a new one replaces it"
    elif backend.key:
        hint = "the server's key is in use; yours replaces it"
    else:
        hint = "paste it here"
    label = f"Your key for {backend.name} · kept in memory only, until you leave"
    tools: dict[str, Any] = {"value": list(values["tools"] or ())} if values else {}
    return {
        **{name: _field(name, backend, values) for name in OPTION_NAMES},
        "tools": gr.update(label=_TOOLS if backend.offers_tools else f"{_TOOLS} · {_BY_NAME}", **tools),
        "key_row": gr.update(visible=backend.settings.key_name is not None),
        "key": gr.update(label=label, placeholder=hint),
        "forget_key": gr.update(visible=own),
    }


def _field(name: str, backend: Backend, values: dict[str, Any]) -> Any:
    supported = name in backend.supported_options
    label = _NAMES[name] if supported else f"{_NAMES[name]} · not used here"
    return gr.update(label=label, interactive=supported, **({"value": values[name]} if name in values else {}))
