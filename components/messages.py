"""Renders the messages of a conversation as the value of the Chatbot, and the controls below them.

The value has the format that Gradio sends to the browser, because the listeners run with `postprocess=False`: the cost
of Gradio's own conversion grows with the conversation.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode

from components.elements import text_html
from components.page_state import ConversationView
from components.parts import cited_passages, parts_html, sources_before
from components.reply import reply_html
from memory.messages import Message
from runs.errors import split_message
from runs.images import Image
from runs.reply import ReplyPart, reply_sequence

Wire = dict[str, Any]

SHOWN_CHARACTERS = 200_000
"""Characters of a message that the page shows, and that its Copy button copies."""
_SHORTENED = f"[Only the first {SHOWN_CHARACTERS:,} characters are shown. Export the conversation to see all of it.]"
_NOTES = {
    "interrupted": "Interrupted: the server stopped while writing this reply",
    "failed": "The reply failed, and its cause is unknown. Retry to ask again.",
}
_AUTHORS = {"user": "You", "assistant": "Model", "system": "System prompt", "tool": "Tool result"}


def wire(role: str, *texts: str) -> Wire:
    """Renders a message of HTML texts, each of which the Chatbot shows in a row of its own."""
    content = [{"type": "text", "text": text} for text in texts]
    return {"role": role, "metadata": None, "content": content, "options": None}


def render_messages(messages: Sequence[Message], conversation_id: str | None = None) -> list[Wire]:
    """Renders the Chatbot's value. An incomplete reply ends with a note that says why."""
    return [_wire_message(message, conversation_id) for message in messages]


def _wire_message(message: Message, conversation_id: str | None) -> Wire:
    message = _shortened(message)
    if message.role == "user":
        return wire("user", images_html(message.images, conversation_id) + user_html(message.text))
    texts, sources = list[str](), dict[int, str]()
    for one in _sequence(message):
        if isinstance(one, str):
            texts.append(reply_html(one, sources))
        else:
            sources = {**sources, **sources_before(cited_passages(one), one[0].offset)}
            texts.append(parts_html(one))
    if note := _note(message):
        texts.append(failure_html(note) if message.standing == "failed" else f"<p class='note'>{text_html(note)}</p>")
    return wire("assistant", *texts)


def _shortened(message: Message) -> Message:
    """Cuts the text and the parts of a message to `SHOWN_CHARACTERS`. A cut text ends with a notice."""
    text, parts, rest = message.text, list[ReplyPart](), SHOWN_CHARACTERS
    if len(text) > SHOWN_CHARACTERS:
        text = f"{text[:SHOWN_CHARACTERS]}\n\n{_SHORTENED}"
    for part in message.parts:
        if rest > 0:
            parts.append(part if len(part.text) <= rest else replace(part, text=f"{part.text[:rest]}\n{_SHORTENED}"))
            rest -= part.size - part.attached  # which are bounded by themselves
    return replace(message, text=text, parts=tuple(parts))


def _sequence(message: Message) -> list[str | list[ReplyPart]]:
    """Returns what a reply shows in its order. An empty text is among it only if the reply has nothing else."""
    found = reply_sequence(message.text, message.parts)
    return found if found or _note(message) else [message.text]


def _note(message: Message) -> str | None:
    return message.note or _NOTES.get(message.standing)


def _rows(message: Message) -> int:
    """Counts the rows of a message in the Chatbot without rendering them."""
    return 1 if message.role == "user" else len(_sequence(_shortened(message))) + bool(_note(message))


def images_html(images: Sequence[Image], conversation_id: str | None) -> str:
    """Renders the images of a visitor's message, each as a link to itself; empty without any."""
    query = f"?{urlencode({'conversation_id': conversation_id})}" if conversation_id else ""
    shown = [
        f"<a href='images/{image.id}{query}' title='Open the image'><img src='images/{image.id}{query}' alt='Image "
        f"{number}: {image.width} by {image.height} pixels' width='{image.width}' height='{image.height}'></a>"
        for number, image in enumerate(images, 1)
    ]
    return f"<div class='pictures'>{''.join(shown)}</div>" if shown else ""


def user_html(text: str) -> str:
    """Renders a visitor's message exactly as typed, not as Markdown. `web/edit.js` reads it back for editing."""
    return f"<div class='said' dir='auto'>{text_html(text)}</div>"


def failure_html(note: str) -> str:
    """Renders the card of a reply that failed: the cause, what to do, and buttons, to which `web/turns.js` listens."""
    cause, advice = split_message(note)
    buttons = "".join(
        f"<button type='button' class='{name}'>{label}</button>" for name, label in _FAILURE_BUTTONS.items()
    )
    text = f"<p><b>{text_html(cause)}</b>{text_html(advice)}</p>"
    return f"<div class='failure'>{text}<div class='row'>{buttons}</div></div>"


_FAILURE_BUTTONS = {"retry": "Retry", "switch": "Switch model", "more": "Show details"}


def render_message_controls(view: ConversationView) -> list[Wire]:
    """Renders the controls below each message. `rows` counts the message's rows in the Chatbot; `text` is for Copy."""
    turns: list[Wire] = []
    asked: str | None = None
    for message in view.messages:
        asked = message.id if message.role == "user" else asked
        reply = message.role == "assistant"
        turns.append(
            {
                "id": message.id,
                "author": (message.model or message.backend if reply else None) or _AUTHORS[message.role],
                "rows": _rows(message),
                "text": message.text[:SHOWN_CHARACTERS],
                "run": message.run_id if reply else None,
                "asked": asked if reply else None,
                "versions": view.versions.get(message.id, []),
            }
        )
    return turns
