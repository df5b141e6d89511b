"""Pure functions that turn domain data into values of Gradio components. `messages.py` has those of the Chatbot."""

from collections.abc import Sequence
from typing import Any

import gradio as gr

from backends import Backend
from components.messages import Wire, render_message_controls, render_messages
from components.page_state import ConversationView, PageState, Updates
from memory.modes import MODES
from runs.live import new_id
from runs.text import valid_text


def render_model(backend: Backend, model: str | None, *, opened: bool = False) -> Wire:
    """Renders the menu of a backend's models, without its choices. It is hidden if there is no choice.

    `model` is the menu's value. It is replaced only if the backend does not offer it, because the visitor may have
    chosen another one in the meantime. With `opened`, the value is always set.
    """
    names = [offer.model_info.name for offer in backend.model_choices()]
    several = len(names) > 1
    if model and not names and backend.settings.models:
        names = [model]  # the conversation's model, until the provider's list has arrived
    default = backend.with_model(None).model
    value = model if model in names else default if default in names else None
    return gr.update(visible=several, **({"value": value} if opened or value != model else {}))


def render_modes() -> list[Wire]:
    """Renders the choices of the memory menu. `shown` is the text while the menu is closed; it begins with the name."""
    titles = {mode.name: mode.about.partition(": ") for mode in MODES.values()}
    return [
        {"name": name, "state": title, "about": about, "shown": f"{name} · {title}"}
        for name, (title, _, about) in titles.items()
    ]


def render_draft(*, accepted: str | None = None, back: str | None = None, images: Sequence[Any] = ()) -> Wire:
    """Renders a change of the prompt: its beginning, `accepted` as a message, is removed; the text `back` is restored.

    `images` are the ids of those that were accepted, or the references of those that are restored.

    `accepted` is sent as its length in UTF-16 code units, because it may end in half a character.
    """
    length = None if accepted is None else len(accepted.encode("utf-16-le", "surrogatepass")) // 2
    return {
        "accepted": length,
        "back": back and valid_text(back),
        "images": list(images),
        "id": new_id(),
    }  # the id makes equal values two events


def render_page(page: PageState) -> Updates:
    """Renders the state of a page, with Send between runs and Stop during one."""
    running = page.run_id is not None
    return {"page": page, "send": gr.update(visible=not running), "stop": gr.update(visible=running)}


def render_conversation(view: ConversationView) -> Updates:
    """Renders the messages of a page, and what stands around them."""
    label = f"Show earlier messages ({view.page.earlier:,})"
    return {
        "chat": render_messages(view.messages, view.page.conversation_id),
        "intro": gr.update(visible=not view.messages),
        "earlier": gr.update(visible=view.page.earlier > 0, value=label),
        "turns": render_message_controls(view),
    }


def render_view(view: ConversationView) -> Updates:
    """Renders a conversation and its page."""
    return render_page(view.page) | render_conversation(view)
