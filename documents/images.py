"""The images that visitors send with their messages: files of small JPEGs, in a folder of each owner.

In it each conversation has a folder, so that its images are deleted with it; images that no message has yet are in
`unsent`. Conversations without an owner share a folder. An image is found only by who names its owner and conversation.
"""

import base64
import binascii
import hmac
import logging
import re
import shutil
import time
from asyncio import shield
from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from documents.image_reader import ImageReader
from runs.errors import ChatError
from runs.images import Image
from runs.live import new_id
from runs.threads import Threads
from settings import LimitSettings

logger = logging.getLogger(__name__)

T = TypeVar("T")
_UNSENT, _SHARED, _SUFFIX = "unsent", "shared", ".jpg"
_UNSENT_S = 3600.0
"""Seconds after which an image without a message is deleted."""
_READERS = 4
"""Files that are read at once."""
_NAME = re.compile(r"[\w-]{1,64}", re.ASCII)
"""Ids of images and conversations, as they may be names of files."""
_DATA_URL = re.compile(r"data:[\w./+-]{0,100};base64,")
LONGEST_URL = 700_000
"""Characters of a `data:` address."""
_NOT_FOUND = "images: there is no such image, or it is not yours. Add it again."
_FAILED = "Your images are not available right now. Try again; if it happens again, tell the operator of this app."


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """Limits of images."""

    file_bytes: int = 10_000_000
    pixels: int = 50_000_000
    """Pixels of an image as it arrives."""
    side: int = 1536
    """The longest side of an image as it is kept, in pixels."""
    per_message: int = 5
    owner_images: int = 200
    """Images of one owner, with those that no message has yet."""
    total_bytes: int = 2_000_000_000
    """Bytes of all images together."""

    @classmethod
    def from_settings(cls, settings: LimitSettings) -> "ImageLimits":
        """Takes the limits that can be configured from the settings."""
        return cls(file_bytes=settings.image_bytes, owner_images=settings.images_per_visitor)


class ImageLibrary:
    """The images of all owners. Any task may use it; errors of files are ChatError `internal`."""

    def __init__(self, folder: Path, limits: ImageLimits = ImageLimits(), salt: bytes = b"") -> None:
        """Folders of owners are named by hashes with `salt`."""
        self._folder, self.limits, self._salt = folder, limits, salt
        self._writer, self._readers = Threads("image writes", 1), Threads("image reads", _READERS)
        self._reader = ImageReader()
        self._bytes: int | None = None
        """Bytes of all images; None until they are counted."""

    async def add(self, owner: str | None, name: str, data: bytes, address: str | None = None) -> Image:
        """Adds a file that was uploaded from an address. Raises ChatError for one that is no image or exceeds a limit.

        `name` is for the messages of errors alone.
        """
        limits, label = self.limits, repr(name) if name else "The image"
        if len(data) > limits.file_bytes:
            raise ChatError("too_large", f"{label} is too large: at most {limits.file_bytes / 1e6:g} MB.")
        await self._run(self._writer, self._check_space, owner)
        reader = address or owner or _SHARED
        width, height, jpeg = await self._reader.read(label, data, limits.pixels, limits.side, reader)
        image = Image(new_id(), width, height, len(jpeg))
        await self._run(self._writer, self._write, owner, image.id, jpeg)
        return image

    async def remove(self, owner: str | None, image_id: str) -> None:
        """Removes an image that no message has. Raises ChatError `not_found`."""
        await self._run(self._writer, self._remove, self._file(owner, _UNSENT, image_id))

    @asynccontextmanager
    async def attached(
        self, visitor: str | None, owner: str | None, conversation_id: str, ids: Sequence[str]
    ) -> AsyncGenerator[tuple[Image, ...], None]:
        """Makes a visitor's images those of an owner's conversation, and no longer if the block fails.

        The images are the conversation's already, or no message has them. Raises ChatError `not_found` for others.
        """
        moved: list[tuple[Path, Path]] = []
        try:
            images: tuple[Image, ...] = ()
            if ids:
                new, target = self._place(visitor) / _UNSENT, self._place(owner) / conversation_id
                images = await self._run(self._writer, _attach, new, target, ids, moved)
            yield images
        except BaseException:
            if ids:  # also where `moved` is still empty: a cancelled call's thread may be about to fill it
                await shield(self._writer.run(_move_back, moved))
            raise

    async def read(self, owner: str | None, conversation_id: str, image_id: str) -> bytes:
        """Returns an image of a conversation. Raises ChatError `not_found`."""
        return await self._run(self._readers, self._file(owner, conversation_id, image_id).read_bytes)

    async def read_own(self, owner: str, image_id: str) -> bytes:
        """Returns an image of an owner. Raises ChatError `not_found`."""
        return await self._run(self._readers, _find, self._place(owner), image_id)

    async def encoded(self, owner: str | None, conversation_id: str, images: Sequence[Image]) -> dict[str, str]:
        """Returns images of a conversation as base64, by their ids; those that are no longer there are omitted."""
        files = {image.id: self._file(owner, conversation_id, image.id) for image in images}
        return await self._run(self._readers, _encoded, files) if files else {}

    async def delete(self, conversations: Collection[str]) -> None:
        """Deletes the images of conversations."""
        if conversations:
            await self._run(self._writer, self._delete, frozenset(conversations))

    async def expire(self) -> list[str]:
        """Deletes images that no message has had for an hour. Returns the conversations that have older images."""
        return await self._run(self._writer, self._expire, time.time() - _UNSENT_S)

    def close(self) -> None:
        """Ends the processes that are reading an image."""
        self._reader.close()

    async def _run(self, threads: Threads, work: Callable[..., T], *args: Any) -> T:
        try:
            return await threads.run(work, *args)
        except FileNotFoundError:
            raise ChatError("not_found", _NOT_FOUND) from None
        except OSError as e:
            logger.warning("images: %s", e.strerror or type(e).__name__)
            raise ChatError("internal", _FAILED, retryable=True) from None

    def _place(self, owner: str | None) -> Path:
        if owner is None:
            return self._folder / _SHARED
        return self._folder / hmac.new(self._salt, owner.encode(), "sha256").hexdigest()[:32]

    def _file(self, owner: str | None, conversation_id: str, image_id: str) -> Path:
        return _image_file(self._place(owner) / conversation_id, image_id)

    def _check_space(self, owner: str | None) -> None:
        most = self.limits.owner_images
        if most and owner and sum(1 for _ in self._place(owner).glob(f"*/*{_SUFFIX}")) >= most:
            message = f"You have {most:,} images, the most that are kept: delete a conversation that has some first."
            raise ChatError("too_large", message)
        if self._bytes is None:
            self._bytes = sum(file.stat().st_size for file in self._folder.glob(f"*/*/*{_SUFFIX}"))
        if self._bytes >= self.limits.total_bytes:
            raise ChatError("too_large", "This server keeps no more images. Tell the operator of this app.")

    def _write(self, owner: str | None, image_id: str, jpeg: bytes) -> None:
        self._check_space(owner)  # others may have been added meanwhile
        file = self._file(owner, _UNSENT, image_id)
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.write_bytes(jpeg)
        self._bytes = (self._bytes or 0) + len(jpeg)

    def _remove(self, file: Path) -> None:
        size = file.stat().st_size
        file.unlink()
        self._bytes = None if self._bytes is None else self._bytes - size

    def _delete(self, conversations: Collection[str]) -> None:
        for folder in self._conversations():
            if folder.name in conversations:
                shutil.rmtree(folder, ignore_errors=True)
                _remove_if_empty(folder.parent)
                self._bytes = None

    def _expire(self, before: float) -> list[str]:
        for file in self._folder.glob(f"*/{_UNSENT}/*{_SUFFIX}"):
            if file.stat().st_mtime < before:
                file.unlink(missing_ok=True)
                _remove_if_empty(file.parent)
                _remove_if_empty(file.parent.parent)
                self._bytes = None
        return [folder.name for folder in self._conversations() if folder.stat().st_mtime < before]

    def _conversations(self) -> Iterator[Path]:
        yield from (folder for folder in self._folder.glob("*/*") if folder.name != _UNSENT)


def data_of(url: str) -> bytes:
    """Returns the data of a `data:` address. Raises ChatError."""
    head = _DATA_URL.match(url)
    try:
        if head is None or len(url) > LONGEST_URL:
            raise ValueError
        return base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError):
        form = f"data:TYPE;base64,… with at most {LONGEST_URL:,} characters"
        raise ChatError("invalid_request", f"images: an address has the form {form}.") from None


def _find(place: Path, image_id: str) -> bytes:
    folders = place.iterdir() if place.is_dir() else ()
    found = next((file for folder in folders if (file := _image_file(folder, image_id)).exists()), None)
    if found is None:
        raise ChatError("not_found", _NOT_FOUND)
    return found.read_bytes()


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):  # it is not empty
        folder.rmdir()


def _image_file(folder: Path, image_id: str) -> Path:
    if not (_NAME.fullmatch(folder.name) and _NAME.fullmatch(image_id)):
        raise ChatError("not_found", _NOT_FOUND)
    return folder / f"{image_id}{_SUFFIX}"


def _attach(new: Path, target: Path, ids: Sequence[str], moved: list[tuple[Path, Path]]) -> tuple[Image, ...]:
    """Moves new images into the folder of their conversation; `moved` gets the old and the new paths."""
    images = list[Image]()
    for image_id in dict.fromkeys(ids):
        unsent, file = _image_file(new, image_id), _image_file(target, image_id)
        if unsent.exists():
            file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            unsent.rename(file)
            moved.append((unsent, file))
        images.append(Image(image_id, *_size(file), file.stat().st_size))
    return tuple(images)


def _size(file: Path) -> tuple[int, int]:
    """Returns the width and height of one of our JPEGs."""
    from PIL import Image as Pillow

    with Pillow.open(file, formats=["JPEG"]) as image:
        return image.size


def _encoded(files: Mapping[str, Path]) -> dict[str, str]:
    found: dict[str, str] = {}
    for image_id, file in files.items():
        with suppress(FileNotFoundError):
            found[image_id] = base64.b64encode(file.read_bytes()).decode()
    return found


def _move_back(moved: Sequence[tuple[Path, Path]]) -> None:
    for unsent, file in moved:
        with suppress(OSError):  # its conversation may have been deleted meanwhile
            file.rename(unsent)
