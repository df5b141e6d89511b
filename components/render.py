"""Domain data as values of Gradio components: pure functions.

Chatbot values are in the shape that goes over the wire, since their listeners run with `postprocess=False`: Gradio's
own conversion costs more the longer the conversation is.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gradio as gr

from backends import Backend, Backends, Health, Key, ModelChoice
from components.elements import text_html
from components.page_state import PageState, View
from components.parts import parts_html
from components.reply import GrowingReply, reply_html
from memory.messages import Message
from memory.modes import MODES
from runs.live import new_id
from runs.reply import ReplyPart
from runs.text import valid_text

Wire = dict[str, Any]

SHOWN_CHARACTERS = 200_000
"""Characters of one message that are drawn, and copied by its button."""
_SHORTENED = f"[Only the first {SHOWN_CHARACTERS:,} characters are shown. Export the conversation to see all of it.]"
_FILTERED = 8
"""Models from which on the dropdown can be searched by typing."""
_NOTED = {"interrupted": "Interrupted: the server went away while this was written"}


def _wire(role: str, *texts: str) -> Wire:
    content = [{"type": "text", "text": text} for text in texts]
    return {"role": role, "metadata": None, "content": content, "options": None}


def render_messages(messages: Sequence[Message]) -> list[Wire]:
    """The Chatbot's value; a reply that is not whole says so in a part of its own."""
    return [_wire_message(message) for message in messages]


def _wire_message(message: Message) -> Wire:
    message = _shortened(message)
    if message.role == "user":
        return _wire("user", said_html(message.text))
    note = _note(message)
    texts = [parts_html(message.parts)] if message.parts else []
    if _has_text(message):
        texts.append(reply_html(message.text))
    return _wire("assistant", *texts, *([f"<p class='note'>{text_html(note)}</p>"] if note else []))


def _shortened(message: Message) -> Message:
    """A message whose text and parts are short enough to be drawn; a text that is cut says so."""
    text, parts, room = message.text, list[ReplyPart](), SHOWN_CHARACTERS
    if len(text) > SHOWN_CHARACTERS:
        text = f"{text[:SHOWN_CHARACTERS]}\n\n{_SHORTENED}"
    for part in message.parts:
        if room > 0:
            parts.append(part if len(part.text) <= room else replace(part, text=f"{part.text[:room]}\n{_SHORTENED}"))
            room -= part.size
    return replace(message, text=text, parts=tuple(parts))


def _note(message: Message) -> str | None:
    return message.note or _NOTED.get(message.standing)


def _has_text(message: Message) -> bool:
    """Whether a text is drawn: an empty one only where a reply would have nothing else."""
    return bool(message.text) or not (_note(message) or message.parts)


def _rows(message: Message) -> int:
    """How many texts a message has in the Chatbot, without making them."""
    return 1 if message.role == "user" else bool(message.parts) + _has_text(message) + bool(_note(message))


def said_html(text: str) -> str:
    """A visitor's message exactly as typed: it is text, not Markdown. `web/reading.js` takes it back for editing."""
    return f"<div class='said' dir='auto'>{text_html(text)}</div>"


def render_live(text: str, growing: GrowingReply) -> list[Wire]:
    """The value of the live reply: one message, or none while there is no text."""
    return [_wire("assistant", growing.html(text))] if text else []


def render_backends(backends: Backends, visitor: str | None) -> list[tuple[str, str]]:
    """The backend dropdown's choices for a visitor: label and name. The label begins with the name."""
    return [(_backend_label(b, backends.health(b, visitor)), b.name) for b in backends]


def _backend_label(backend: Backend, health: Health) -> str:
    if not health.ready:
        return f"{backend.name} · {health.state.replace('_', ' ')}"
    if not backend.is_model:
        return f"{backend.name} · no model"
    return backend.name if backend.ttft_s is None else f"{backend.name} · first token {backend.ttft_s:.1f} s"


def render_models(backend: Backend, key: Key | None, model: str | None, *, opened: bool = False) -> Wire:
    """The model dropdown for a backend: hidden where there is no choice; the default where a model is not offered.

    `model` is what the dropdown shows. It is only replaced where it has to be, since a visitor may have chosen another
    one meanwhile; a page that is `opened` is given its value.
    """
    offers = backend.model_choices(key)
    choices = [(_model_label(offer), offer.model_info.name) for offer in offers]
    if model and not offers and backend.settings.models:
        choices = [(model, model)]  # a conversation's own, until the provider's list is there
    names = [name for _, name in choices]
    default = backend.with_model(None, key).model
    value = model if model in names else default if default in names else None
    drawn: dict[str, Any] = {"choices": choices, "visible": len(offers) > 1, "filterable": len(offers) > _FILTERED}
    if opened or value != model:
        drawn["value"] = value
    return gr.update(**drawn)


def _model_label(offer: ModelChoice) -> str:
    return f"{offer.model_info.name} · not available" if offer.problem else offer.model_info.name


def render_modes() -> list[tuple[str, str]]:
    """The memory dropdown's choices: label and name. The label begins with the name."""
    return [(f"{mode.name} · {mode.about}", mode.name) for mode in MODES.values()]


def render_draft(*, accepted: str | None = None, back: str | None = None) -> Wire:
    """What became of the prompt's text: the beginning that was `accepted` as a message is to be taken out, the text
    `back` to be put back. The former is told by its length, as JavaScript counts it: it may have half a character,
    which has no UTF-8. -> draft
    """
    length = None if accepted is None else len(accepted.encode("utf-16-le", "surrogatepass")) // 2
    return {
        "accepted": length,
        "back": back and valid_text(back),
        "id": new_id(),
    }  # the id: equal values are two events


def render_buttons(page: PageState) -> tuple[Wire, Wire]:
    """Send between runs, Stop during one. -> send, stop"""
    return gr.update(visible=page.run_id is None), gr.update(visible=page.run_id is not None)


def render_frame(view: View) -> tuple[Wire, Wire, list[Wire]]:
    """What stands around the messages of a page. -> intro, earlier, turns"""
    label = f"Show earlier messages ({view.page.earlier:,})"
    earlier = gr.update(visible=view.page.earlier > 0, value=label)
    return gr.update(visible=not view.messages), earlier, render_turns(view)


def render_turns(view: View) -> list[Wire]:
    """What is offered below each drawn message, which has as many `rows` on the page as it has parts, and the text that
    its Copy button copies.
    """
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
