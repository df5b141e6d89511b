"""Conversion between rows of the tables and the store's values."""

from typing import Any, cast

from sqlalchemy import Row

from memory.folded_text import fold_text
from memory.messages import Message, Role, Standing
from memory.options import TurnOptions
from runs.events import JSON
from runs.images import Image
from runs.reply import ReplyPart

_TITLE = 60


def message_row(message: Message, conversation_id: str, place: int, now: float) -> dict[str, Any]:
    """The row of a new message at a depth of `place`."""
    text = storable(message.text)
    return {
        "id": message.id,
        "conversation_id": conversation_id,
        "parent_id": message.parent_id,
        "place": place,
        "role": message.role,
        "text": text,
        "folded": None if message.standing == "growing" else fold_text(text),
        "standing": message.standing,
        "run_id": message.run_id,
        "note": message.note and storable(message.note),
        "parts": parts_column(message),
        "images": [image.wire() for image in message.images] or None,
        "backend": message.backend,
        "model": message.model,
        "created": now,
    }


def message_of(row: Row[Any]) -> Message:
    """The message of a row."""
    return Message(
        row.id,
        cast(Role, row.role),
        row.text,
        cast(Standing, row.standing),
        row.run_id,
        row.note,
        parts=tuple(ReplyPart(**part) for part in row.parts) if row.parts else (),
        parent_id=row.parent_id,
        backend=row.backend,
        model=row.model,
        images=tuple(map(Image.of, row.images or ())),
    )


def parts_column(message: Message) -> list[JSON] | None:
    """The column `parts` of a message."""
    return [part.wire() for part in message.parts] or None


def options_of(row: Row[Any]) -> TurnOptions:
    """The options of a conversation's row."""
    return TurnOptions(**{name: getattr(row, name) for name in TurnOptions.model_fields})


def storable(text: str) -> str:
    """The text with a visible picture in place of each NUL, which PostgreSQL cannot store."""
    return text.replace("\x00", "\u2400") if "\x00" in text else text


def title_of(first: str) -> str:
    """A conversation's title: the beginning of the user's first message."""
    return storable(" ".join(first.split(maxsplit=_TITLE))[:_TITLE])
