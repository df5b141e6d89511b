"""The images that come with a message: added within the visitor's limits, and checked against the turn's backends."""

from collections.abc import Sequence
from dataclasses import replace

from agent.quota import Quota
from agent.turn import Turn
from backends import Backends
from documents.images import ImageLibrary, data_of
from runs.errors import ChatError
from runs.images import Image
from runs.requester import Requester
from runs.threads import in_thread

_LONG_URL = 50_000
"""Characters of a `data:` address that is decoded in a thread."""


class VisitorImages:
    """The images of messages that are not stored yet."""

    def __init__(self, library: ImageLibrary, backends: Backends, quota: Quota) -> None:
        self._library, self._backends, self._quota = library, backends, quota

    async def add(self, requester: Requester, name: str, data: bytes) -> Image:
        """Adds an image for a later message of the requester. Raises ChatError."""
        self._quota.take_preview(requester, problem="Too many images")
        image = await self._library.add(requester.visitor, name, data, requester.network)
        try:
            self._quota.take_document(requester, image.bytes)
        except ChatError:
            await self._library.remove(requester.visitor, image.id)
            raise
        return image

    async def ids(self, requester: Requester, given: Sequence[str]) -> list[str]:
        """Returns the ids of a message's images; a `data:` address becomes a new image. Raises ChatError."""
        return [await self._id(requester, one) if one.startswith("data:") else one for one in given]

    async def _id(self, requester: Requester, url: str) -> str:
        data = await in_thread(len(url) > _LONG_URL, data_of, url)
        return (await self.add(requester, "", data)).id

    def check(self, turn: Turn, new: int) -> Turn:
        """Returns a turn with images without the fallbacks that take none; `new` images come with the message.

        Raises ChatError where the backend takes none, or not so many.
        """
        most = self._library.limits.per_message
        if new > most:
            raise ChatError("too_large", f"images: found {new:,}, and at most {most} can be sent with a message.")
        if turn.backend.images is False:
            others = (self._backends.bind(one.name, turn.visitor).with_model(None) for one in self._backends)
            names = [one.name for one in others if one.images is not False]
            way_out = f"Remove them, or choose {' or '.join(names)}." if names else "Remove them: no model here does."
            model = f" with its model {turn.backend.chosen_model}" if turn.backend.chosen_model else ""
            raise ChatError("invalid_request", f"{turn.backend.name}{model} takes no images. {way_out}")
        return replace(turn, backends=[backend for backend in turn.backends if backend.images is not False])
