"""References to images of messages. The images themselves are files, of which `documents/images.py` knows."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from runs.events import JSON

_TILE = 768
"""The side of the square of pixels that many models read as a whole."""
_TILE_TOKENS = 258
"""Tokens of such a square, as Gemini's documentation says; other providers' figures are near."""
TYPE = "image/jpeg"
"""The type of every stored image."""


@dataclass(frozen=True, slots=True)
class Image:
    """A stored image. Its id says nothing about its place: the owner and the conversation do."""

    id: str
    width: int
    height: int
    bytes: int

    @property
    def tokens(self) -> int:
        """An estimate of its tokens: each provider counts in its own way."""
        return _TILE_TOKENS * math.ceil(self.width / _TILE) * math.ceil(self.height / _TILE)

    def wire(self) -> JSON:
        """The reference as JSON."""
        return {"id": self.id, "width": self.width, "height": self.height, "bytes": self.bytes}

    @classmethod
    def of(cls, value: Any) -> "Image":
        """The reference of a JSON object."""
        return cls(str(value["id"]), int(value["width"]), int(value["height"]), int(value["bytes"]))


def image_tokens(images: Sequence[Image]) -> int:
    """The estimated tokens of images together."""
    return sum(image.tokens for image in images)
