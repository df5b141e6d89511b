"""The options: a sheet with system prompt, temperature, reply length, memory, tools, documents, the visitor's key.

`web/options.js` opens and closes the sheet, and hides what the chosen backend does not use.
"""

from dataclasses import dataclass

import gradio as gr

from backends import OPTION_NAMES, Backend
from components.assets import read, script_component, template_text
from components.hf_login import build_login_button
from components.page_state import Updates
from documents.quotes import SEARCH
from memory.modes import MODES
from memory.options import TurnOptions


@dataclass(frozen=True)
class OptionsPane:
    """The components of the options."""

    system_prompt: gr.Textbox
    temperature: gr.Number
    max_tokens: gr.Number
    thinking: gr.Checkbox
    tools: gr.CheckboxGroup
    documents: gr.Checkbox
    mode_options: gr.HTML
    """The options of a memory mode that is not part of this project. The value is {mode: {option: value}}."""
    probabilities: gr.Checkbox
    key_row: gr.Row
    key: gr.Textbox
    use_key: gr.Button
    forget_key: gr.Button


def build_options(
    system_prompt: str,
    reply_tokens: int,
    document_bytes: int,
    tools: list[str],
    *,
    search_first: bool = True,
    embeddings: str | None = None,
    servers: bool = False,
    sign_in: bool = False,
) -> OptionsPane:
    """Builds the options with the settings' system prompt, limits and tools.

    `search_first` is whether documents are searched before a reply, and `embeddings` the model that reads them.
    `servers` adds the state of the tools' servers, and `sign_in` the login button.
    """
    with gr.Column(elem_id="options"):
        script_component("options-head", "options.js", template=read("options.html"))
        if sign_in:
            build_login_button()
        with gr.Row(elem_id="key-row", visible=False) as key_row:
            key = gr.Textbox(
                label="Your key",
                type="password",
                lines=1,
                elem_id="key",
                html_attributes=gr.InputHTMLAttributes(autocomplete="off", spellcheck=False, autocapitalize="off"),
            )
            use_key = gr.Button("Use key", elem_id="use-key", size="sm", scale=0, min_width=80)
            forget_key = gr.Button("Forget key", elem_id="forget-key", size="sm", scale=0, min_width=80, visible=False)
        prompt = gr.Textbox(
            system_prompt,
            label="System prompt",
            placeholder="none: the model gets no instructions",
            lines=3,
            max_lines=8,
            elem_id="system-prompt",
        )
        temperature = gr.Number(None, label="Temperature", placeholder="model default", step=0.1, elem_id="temperature")
        longest = gr.Number(
            None,
            label="Max reply length",
            placeholder=f"{reply_tokens:,} tokens",
            precision=0,
            step=64,
            elem_id="max-tokens",
        )
        thinking = gr.Checkbox(
            True,
            label="Think before answering",
            info="Without it answers come sooner, and may be worse.",
            elem_id="thinking",
        )
        own = {mode.name: [option.listed() for option in mode.options] for mode in MODES.values() if mode.options}
        template = read("mode_options.html")
        mode_options = script_component(
            "mode-options", "mode_options.js", template=template, value={}, modes=own, visible=bool(own)
        )
        offered = gr.CheckboxGroup(tools, value=tools, label="Tools", elem_id="tools", visible=bool(tools) or servers)
        if servers:
            script_component("servers", "servers.js", template=read("servers.html"))
        probabilities = gr.Checkbox(
            False,
            label="Token probabilities",
            info="How likely each word of the reply was: marked in the reply, and in the panel's tab Tokens.",
            elem_id="probabilities",
        )
        template = read("documents.html").replace('data-bytes=""', f'data-bytes="{document_bytes}"')
        if embeddings:
            about = template_text(f"The model {embeddings} reads their text, to find passages by their meaning")
            template = template.replace("</span>", f" <small>{about}</small></span>", 1)
        script_component("documents", "documents.js", template=template)
        documents = gr.Checkbox(
            search_first,
            label="Search my documents before each reply",
            info="For models that cannot search themselves: they are given the passages that match your message.",
            elem_id="search-first",
            visible=SEARCH in tools,
        )
    first = (prompt, temperature, longest, thinking, offered)
    return OptionsPane(*first, documents, mode_options, probabilities, key_row, key, use_key, forget_key)


def render_options(backend: Backend, options: TurnOptions | None = None) -> Updates:
    """Renders the key for a backend; with `options`, the values of the options too, all of which are set."""
    own = backend.has_visitors_key
    if own:
        hint = "your key is in use; a new one replaces it"
    elif backend.key:
        hint = "the server's key is in use; yours replaces it"
    else:
        hint = "paste it here"
    label = f"Your key for {backend.name} · kept in memory only, until you leave"
    updates: Updates = {
        "key_row": gr.update(visible=backend.settings.key_name is not None),
        "key": gr.update(label=label, placeholder=hint),
        "forget_key": gr.update(visible=own),
    }
    if options:
        updates |= {name: getattr(options, name) for name in OPTION_NAMES}
        updates |= {"tools": list(options.tools or ()), "thinking": options.thinking is not False}
        updates["documents"] = options.documents
    return updates
