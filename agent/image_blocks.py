"""Images in the messages of a model's input, as LangChain's standard content blocks.

Until a model is called a block has no data, only the image's id and size: so the data is in no event and no state of
the agent, and `with_data` adds it to the messages of each call.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage

from runs.events import JSON
from runs.images import TYPE, Image

_IMAGE = "image"


def user_message(text: str, message_id: str | None, blocks: Sequence[Any] = ()) -> HumanMessage:
    """Returns a user's message, whose image blocks come before its text."""
    if not blocks:
        return HumanMessage(text, id=message_id)
    return HumanMessage([*blocks, {"type": "text", "text": text}], id=message_id)


def image_block(image: Image) -> JSON:
    """Returns the block of an image, without its data."""
    return {"type": _IMAGE, "mime_type": TYPE, **image.wire()}


def image_blocks(message: BaseMessage) -> list[JSON]:
    """Returns the image blocks of a message of the input."""
    if not isinstance(message, HumanMessage) or isinstance(message.content, str):
        return []
    return [block for block in message.content if isinstance(block, dict) and block.get("type") == _IMAGE]


def images_of(message: BaseMessage) -> list[Image]:
    """Returns the images of a message of the input."""
    return [Image.of(block) for block in image_blocks(message)]


def with_data(messages: Sequence[BaseMessage], data: Mapping[str, str]) -> list[BaseMessage]:
    """Returns the messages with the base64 data of their images, by the images' ids."""
    return [_with_data(message, data) if image_blocks(message) else message for message in messages]


def _with_data(message: BaseMessage, data: Mapping[str, str]) -> BaseMessage:
    images = [{"type": _IMAGE, "mime_type": TYPE, "base64": data[image.id]} for image in images_of(message)]
    return user_message(message.text, message.id, images)


def without_data(body: bytes, data: Mapping[str, str]) -> bytes:
    """Returns the body of a request with the ids of images in place of their data.

    Google's SDK encodes data with the alphabet for URLs.
    """
    for image_id, encoded in data.items():
        name = f"[image {image_id}]".encode()
        for text in {encoded, encoded.replace("+", "-").replace("/", "_")}:
            body = body.replace(text.encode(), name)
    return body
