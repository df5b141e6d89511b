"""Pure functions that turn domain data into values of Gradio components.

Chatbot values have the format that Gradio sends to the browser, because the listeners run with `postprocess=False`: the
cost of Gradio's own conversion grows with the conversation.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gradio as gr

from backends import Backend, Backends, Health, ModelChoice
from components.elements import text_html
from components.page_state import ConversationView, PageState, Updates
from components.parts import parts_html
from components.reply import GrowingReply, reply_html
from memory.messages import Message
from memory.modes import MODES
from runs.live import new_id
from runs.reply import ReplyPart
from runs.text import valid_text

Wire = dict[str, Any]

SHOWN_CHARACTERS = 200_000
"""Characters of a message that the page shows, and that its Copy button copies."""
_SHORTENED = f"[Only the first {SHOWN_CHARACTERS:,} characters are shown. Export the conversation to see all of it.]"
_FILTERED = 8
"""The dropdown of models is searchable if it has more than this many."""
_NOTES = {"interrupted": "Interrupted: the server stopped while writing this reply"}


def _wire(role: str, *texts: str) -> Wire:
    content = [{"type": "text", "text": text} for text in texts]
    return {"role": role, "metadata": None, "content": content, "options": None}


def render_messages(messages: Sequence[Message]) -> list[Wire]:
    """Renders the Chatbot's value. An incomplete reply ends with a note that says why."""
    return [_wire_message(message) for message in messages]


def _wire_message(message: Message) -> Wire:
    message = _shortened(message)
    if message.role == "user":
        return _wire("user", user_html(message.text))
    note = _note(message)
    texts = [parts_html(message.parts)] if message.parts else []
    if _has_text(message):
        texts.append(reply_html(message.text))
    return _wire("assistant", *texts, *([f"<p class='note'>{text_html(note)}</p>"] if note else []))


def _shortened(message: Message) -> Message:
    """Cuts the text and the parts of a message to `SHOWN_CHARACTERS`. A cut text ends with a notice."""
    text, parts, rest = message.text, list[ReplyPart](), SHOWN_CHARACTERS
    if len(text) > SHOWN_CHARACTERS:
        text = f"{text[:SHOWN_CHARACTERS]}\n\n{_SHORTENED}"
    for part in message.parts:
        if rest > 0:
            parts.append(part if len(part.text) <= rest else replace(part, text=f"{part.text[:rest]}\n{_SHORTENED}"))
            rest -= part.size
    return replace(message, text=text, parts=tuple(parts))


def _note(message: Message) -> str | None:
    return message.note or _NOTES.get(message.standing)


def _has_text(message: Message) -> bool:
    """Returns whether the text is drawn. An empty text is drawn only if the reply has nothing else."""
    return bool(message.text) or not (_note(message) or message.parts)


def _rows(message: Message) -> int:
    """Counts the texts of a message in the Chatbot without rendering them."""
    return 1 if message.role == "user" else bool(message.parts) + _has_text(message) + bool(_note(message))


def user_html(text: str) -> str:
    """Renders a visitor's message exactly as typed, not as Markdown. `web/edit.js` reads it back for editing."""
    return f"<div class='said' dir='auto'>{text_html(text)}</div>"


def render_live(text: str, growing: GrowingReply) -> list[Wire]:
    """Renders the live reply: one message, or none while there is no text."""
    return [_wire("assistant", growing.html(text))] if text else []


def render_backends(backends: Backends, visitor: str | None) -> list[tuple[str, str]]:
    """Renders the choices of the backend dropdown for a visitor, as (label, name). The label begins with the name."""
    return [(_backend_label(b, backends.health(b.name, visitor)), b.name) for b in backends]


def _backend_label(backend: Backend, health: Health) -> str:
    if not health.ready:
        return f"{backend.name} · {health.state.replace('_', ' ')}"
    if not backend.is_model:
        return f"{backend.name} · no model"
    return backend.name if backend.ttft_s is None else f"{backend.name} · first token {backend.ttft_s:.1f} s"


def render_models(backend: Backend, model: str | None, *, opened: bool = False) -> Wire:
    """Renders the model dropdown for a backend. It is hidden if there is no choice.

    `model` is the dropdown's value. It is replaced only if the backend does not offer it, because the visitor may have
    chosen another one in the meantime. With `opened`, the value is always set.
    """
    offers = backend.model_choices()
    choices = [(_model_label(offer), offer.model_info.name) for offer in offers]
    if model and not offers and backend.settings.models:
        choices = [(model, model)]  # the conversation's model, until the provider's list has arrived
    names = [name for _, name in choices]
    default = backend.with_model(None).model
    value = model if model in names else default if default in names else None
    drawn: dict[str, Any] = {"choices": choices, "visible": len(offers) > 1, "filterable": len(offers) > _FILTERED}
    if opened or value != model:
        drawn["value"] = value
    return gr.update(**drawn)


def _model_label(offer: ModelChoice) -> str:
    return f"{offer.model_info.name} · not available" if offer.problem else offer.model_info.name


def render_modes() -> list[tuple[str, str]]:
    """Renders the choices of the memory dropdown, as (label, name). The label begins with the name."""
    return [(f"{mode.name} · {mode.about}", mode.name) for mode in MODES.values()]


def render_draft(*, accepted: str | None = None, back: str | None = None) -> Wire:
    """Renders a change of the prompt: its beginning, `accepted` as a message, is removed; the text `back` is restored.

    `accepted` is sent as its length in UTF-16 code units, because it may end in half a character.
    """
    length = None if accepted is None else len(accepted.encode("utf-16-le", "surrogatepass")) // 2
    return {
        "accepted": length,
        "back": back and valid_text(back),
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
        "chat": render_messages(view.messages),
        "intro": gr.update(visible=not view.messages),
        "earlier": gr.update(visible=view.page.earlier > 0, value=label),
        "turns": render_turns(view),
    }


def render_view(view: ConversationView) -> Updates:
    """Renders a conversation and its page."""
    return render_page(view.page) | render_conversation(view)


def render_turns(view: ConversationView) -> list[Wire]:
    """Renders the controls below each message. `rows` counts the message's texts in the Chatbot; `text` is for Copy."""
    turns: list[Wire] = []
    asked: str | None = None
    for message in view.messages:
        asked = message.id if message.role == "user" else asked
        reply = message.role == "assistant" and message.run_id is not None
        turns.append(
            {
                "id": message.id,
                "rows": _rows(message),
                "text": message.text[:SHOWN_CHARACTERS],
                "run": message.run_id if reply else None,
                "asked": asked if reply else None,
                "versions": view.versions.get(message.id, []),
            }
        )
    return turns
