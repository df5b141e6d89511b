"""The images that a model is given: those of the new message, then the newest of the messages that the mode keeps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.turn import Turn
from backends import Backend
from memory.messages import Message
from runs.events import JSON
from runs.images import Image

MOST_IMAGES = 8
"""Images that a model is given in one call."""


@dataclass(frozen=True, slots=True)
class GivenImages:
    """The data of the images that a model is given, and entries of a context for those that it is not."""

    data: Mapping[str, str] = field(default_factory=dict)
    """The images as base64, by id."""
    left_out: Sequence[JSON] = ()

    def of(self, message: Message) -> list[Image]:
        """Returns the images of a message that are given."""
        return [image for image in message.images if image.id in self.data]


async def select_images(backend: Backend, turn: Turn, kept: Sequence[Message]) -> GivenImages:
    """Selects the images of a turn's message and of the kept messages."""
    messages = [message for message in (*kept, turn.message) if message.images]
    if not messages:
        return GivenImages()
    images = {image.id: image for message in reversed(messages) for image in message.images}
    wanted = list(images.values())[:MOST_IMAGES] if backend.images is not False else []
    data = await turn.load_images(wanted)
    none = "" if wanted else f"{backend.name} takes no images"
    full = f"the newest {MOST_IMAGES} images are given"
    ordered = {image.id: image for message in messages for image in message.images}
    left = [
        _left_out(image, none or ("it is no longer there" if image in wanted else full))
        for image in ordered.values()
        if image.id not in data
    ]
    return GivenImages(data, left)


def _left_out(image: Image, reason: str) -> JSON:
    text = f"[image, {image.width} by {image.height} pixels]"
    return {"role": "user", "content": text, "tokens": image.tokens, "reason": reason, "estimated": True}
