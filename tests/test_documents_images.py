"""Images: what is kept of them, files that do harm, the turns of visitors, limits, and whose they are."""

import asyncio
import importlib.util
import io
import os
import signal
import threading
import time
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image as Pillow

from documents import image_reader as module
from documents import images
from documents.image_reader import ImageReader
from documents.images import ImageLibrary, ImageLimits, data_of
from runs.errors import ChatError
from runs.images import Image
from tests.child_limits import limited
from tests.conftest import children_with, until
from tests.images import SECRET, SVG, data_url, huge_png, noise, opened, photo, picture, text_bomb, written

ENDLESS = """
import sys, time
from pathlib import Path
name = sys.stdin.buffer.read().decode()
Path(name).touch()
while not Path("all may end").exists():
    time.sleep(0.01)
print('{"width": 1, "height": 1}')
"""


@pytest.fixture
async def library(tmp_path: Path) -> AsyncIterator[ImageLibrary]:
    library = ImageLibrary(tmp_path / "images", salt=b"salt")
    yield library
    library.close()


async def kept(library: ImageLibrary, data: bytes) -> bytes:
    """What is kept of a file."""
    image = await library.add("anna", "a.png", data)
    jpeg = await library.read_own("anna", image.id)
    assert opened(jpeg).size == (image.width, image.height)
    assert len(jpeg) == image.bytes
    return jpeg


async def refused(library: ImageLibrary, data: bytes, code: str = "invalid_request") -> str:
    with pytest.raises(ChatError) as error:
        await library.add("anna", "a.png", data)
    assert error.value.code == code
    return error.value.message


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
async def test_each_kind_becomes_a_jpeg_of_the_same_pixels(library: ImageLibrary, kind: str) -> None:
    jpeg = opened(await kept(library, picture(kind)))
    assert jpeg.size == (64, 48)
    assert all(abs(a - b) < 6 for a, b in zip(jpeg.getpixel((9, 9)), (0, 128, 128), strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I", "I;16"])
async def test_each_mode_of_colours_is_read(library: ImageLibrary, mode: str) -> None:
    assert opened(await kept(library, picture("PNG", colour=None, mode=mode))).size == (64, 48)
    assert opened(await kept(library, picture("JPEG", mode="CMYK", colour=0))).mode == "RGB"


async def test_transparent_parts_become_white(library: ImageLibrary) -> None:
    for data in (picture("PNG", colour=(0, 0, 0, 0), mode="RGBA"), picture("WEBP", colour=(0, 0, 0, 0), mode="RGBA")):
        assert min(opened(await kept(library, data)).getpixel((9, 9))) > 250  # type: ignore[arg-type, type-var]


async def test_metadata_is_removed(library: ImageLibrary) -> None:
    data = photo()
    assert data.count(SECRET.encode()) >= 5
    jpeg = await kept(library, data)
    assert SECRET.encode() not in jpeg
    found = opened(jpeg)
    assert not found.getexif() and found.info.keys() <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


async def test_photo_is_turned_as_its_metadata_says(library: ImageLibrary) -> None:
    assert opened(await kept(library, photo(orientation=6))).size == (48, 64)


async def test_large_image_is_scaled(library: ImageLibrary) -> None:
    assert opened(await kept(library, picture("JPEG", (6000, 4000)))).size == (1536, 1024)
    assert opened(await kept(library, picture("PNG", (5000, 1)))).size == (1536, 1)
    assert opened(await kept(library, picture("PNG", (1, 1)))).size == (1, 1)


async def test_image_of_many_bytes_gets_a_lower_quality(library: ImageLibrary) -> None:
    data = noise((1536, 1536))
    assert len(data) > 1_500_000
    assert len(await kept(library, data)) <= module._MOST_BYTES


async def test_of_an_animation_the_first_picture_is_kept(library: ImageLibrary) -> None:
    frames = [Pillow.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        data = written(frames[0], kind, save_all=True, append_images=frames[1:])
        red, _, blue = opened(await kept(library, data)).getpixel((9, 9))  # type: ignore[misc]
        assert red > 200 and blue < 60


WRONG = {
    "nothing": b"",
    "text": b"just text",
    "a page": b"<!doctype html><script>alert(1)</script>",
    "SVG with a script": SVG,
    "a PDF": b"%PDF-1.7\n%%EOF",
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage",
    "TIFF": written(Pillow.new("RGB", (9, 9)), "TIFF"),
    "BMP": written(Pillow.new("RGB", (9, 9)), "BMP"),
    "ICO": written(Pillow.new("RGB", (16, 16)), "ICO"),
    "a PNG's head": b"\x89PNG\r\n\x1a\n",
    "zeros": bytes(100_000),
}


@pytest.mark.parametrize("kind", WRONG)
async def test_other_files_are_refused(library: ImageLibrary, kind: str) -> None:
    message = await refused(library, WRONG[kind])
    assert message.startswith("'a.png' cannot be added: ")
    assert "allowed are PNG, JPEG, WebP and GIF images" in message or "it is damaged" in message


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF"])
async def test_damaged_images_are_refused(library: ImageLibrary, kind: str) -> None:
    data = written(Pillow.effect_noise((200, 200), 90), kind)
    assert "it is damaged" in await refused(library, data[: len(data) // 2])


async def test_of_two_formats_in_one_file_only_the_pixels_are_kept(library: ImageLibrary) -> None:
    payload = b"<script>alert(1)</script>*/=1;"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("page.html", payload)
    for kind in ("PNG", "JPEG", "GIF", "WEBP"):
        for data in (picture(kind) + payload, picture(kind) + packed.getvalue()):
            jpeg = await kept(library, data)
            assert payload not in jpeg and b"PK\x03\x04" not in jpeg
            assert jpeg.startswith(b"\xff\xd8\xff") and jpeg.endswith(b"\xff\xd9")


BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "400 million pixels": (lambda: huge_png(20_000), "more than 50 million pixels"),
    "a head that lies": (
        lambda: picture("GIF")[:6] + b"\xff\xff\xff\xff" + picture("GIF")[10:],
        "more than 50 million",
    ),
    "a text of 500 MB": (text_bomb, "damaged|too large|time or memory"),
}


@pytest.mark.parametrize("bomb", BOMBS)
async def test_bombs_are_refused_in_time(library: ImageLibrary, bomb: str) -> None:
    make, why = BOMBS[bomb]
    data, begun = make(), time.monotonic()
    assert len(data) < 5_000_000
    message = await refused(library, data)
    assert time.monotonic() - begun < 20
    assert any(reason in message for reason in why.split("|")), message


async def test_largest_allowed_image_is_read(library: ImageLibrary) -> None:
    assert opened(await kept(library, huge_png(7_000))).size == (1536, 1536)


async def test_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    library = ImageLibrary(tmp_path, ImageLimits(file_bytes=1000))
    assert "at most 0.001 MB" in await refused(library, bytes(1001), "too_large")


async def test_number_of_an_owners_images_is_limited(tmp_path: Path) -> None:
    library = ImageLibrary(tmp_path, ImageLimits(owner_images=2))
    first = await library.add("anna", "", picture())
    async with library.attached("anna", "anna", "c" * 22, [first.id]):
        pass
    await library.add("anna", "", picture())
    assert "You have 2 images" in await refused(library, picture(), "too_large")
    await library.add("ben", "", picture())
    await library.delete(["c" * 22])
    await library.add("anna", "", picture())


async def test_total_of_all_images_is_limited(tmp_path: Path) -> None:
    library = ImageLibrary(tmp_path, ImageLimits(total_bytes=1))
    image = await library.add("anna", "", picture())
    again = ImageLibrary(tmp_path, ImageLimits(total_bytes=1))
    for one in (library, again):
        assert "keeps no more images" in await refused(one, picture(), "too_large")
    await library.remove("anna", image.id)
    await library.add("anna", "", picture())


async def test_concurrent_images_are_all_kept(library: ImageLibrary) -> None:
    images = await asyncio.gather(*(library.add(f"visitor {n}", "", picture()) for n in range(6)))
    for number, image in enumerate(images):
        assert await library.read_own(f"visitor {number}", image.id)


CONVERSATION = "c" * 22


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def attach(library: ImageLibrary, *ids: str, who: str | None = "anna", where: str = CONVERSATION) -> list[Image]:
    async with library.attached(who, who, where, ids) as images:
        return list(images)


async def test_images_belong_to_a_conversation_and_are_deleted_with_it(library: ImageLibrary, tmp_path: Path) -> None:
    added = [await library.add("anna", "", picture("PNG", (20, 10 * n))) for n in (1, 2)]
    assert await attach(library, *(image.id for image in added)) == added
    assert await attach(library, added[1].id) == [added[1]], "an edited message has it again"
    assert await library.read("anna", CONVERSATION, added[0].id)
    assert set(await library.encoded("anna", CONVERSATION, added)) == {image.id for image in added}
    await library.delete([CONVERSATION])
    assert await library.encoded("anna", CONVERSATION, added) == {}
    assert files_in(tmp_path) == []


async def test_images_of_a_message_that_is_not_stored_can_be_sent_again(library: ImageLibrary) -> None:
    image = await library.add("anna", "", picture())
    with pytest.raises(asyncio.CancelledError):
        async with library.attached("anna", "anna", CONVERSATION, [image.id]):
            raise asyncio.CancelledError
    assert await attach(library, image.id, where="d" * 22) == [image]


async def test_an_image_of_a_message_that_is_cancelled_while_it_is_moved_can_be_sent_again(
    library: ImageLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, move = await library.add("anna", "", picture()), images._attach
    begun, may_end = threading.Event(), threading.Event()

    def move_late(*args: Any) -> Any:
        begun.set()
        may_end.wait(10)
        return move(*args)

    monkeypatch.setattr(images, "_attach", move_late)
    sending = asyncio.create_task(attach(library, image.id))
    await until(begun.is_set)
    sending.cancel()
    asyncio.get_running_loop().call_later(0.1, may_end.set)
    with pytest.raises(asyncio.CancelledError):
        await sending
    assert await attach(library, image.id, where="d" * 22) == [image]


async def test_images_of_others_are_not_found(library: ImageLibrary) -> None:
    image = await library.add("anna", "", picture())
    for wanted in (image.id, "x" * 22, "../secret", "", "a/b", "\0", "a" * 500, f"../anna/unsent/{image.id}"):
        with pytest.raises(ChatError, match="no such image"):
            await attach(library, wanted, who="ben")
    other = await library.add("anna", "", picture())
    with pytest.raises(ChatError, match="no such image"):
        await attach(library, other.id, "x" * 22)
    assert await attach(library, image.id, other.id) == [image, other], "nothing was moved before"
    for who, conversation in (("ben", CONVERSATION), (None, CONVERSATION), ("anna", "d" * 22), ("anna", "..")):
        with pytest.raises(ChatError, match="no such image"):
            await library.read(who, conversation, image.id)
    with pytest.raises(ChatError, match="no such image"):
        await library.read_own("ben", image.id)
    with pytest.raises(ChatError, match="no such image"):
        await attach(library, image.id, where="d" * 22)


async def test_conversation_without_an_owner_has_the_images_of_its_messages(library: ImageLibrary) -> None:
    image = await library.add(None, "", picture())
    assert await attach(library, image.id, who=None) == [image]
    mine = await library.add("anna", "", picture())
    async with library.attached("anna", None, CONVERSATION, [mine.id]) as images:
        assert images == (mine,)
    assert await library.read(None, CONVERSATION, mine.id)


def make_old(folder: Path, spared: str) -> None:
    for path in folder.rglob("*"):
        if spared not in path.name:
            os.utime(path, (0, 0))


async def test_images_without_a_message_expire(library: ImageLibrary, tmp_path: Path) -> None:
    sent, _, fresh = [await library.add("anna", "", picture()) for _ in range(3)]
    await attach(library, sent.id)
    assert await library.expire() == []
    make_old(tmp_path, fresh.id)
    assert await library.expire() == [CONVERSATION]
    assert {path.stem for path in files_in(tmp_path)} == {sent.id, fresh.id}


async def test_folders_do_not_name_their_owners(library: ImageLibrary, tmp_path: Path) -> None:
    await library.add("anna", "secret.png", picture())
    (found,) = files_in(tmp_path / "images")
    assert "anna" not in str(found.relative_to(tmp_path)) and "secret" not in found.name


async def test_errors_of_the_disk_are_reported(tmp_path: Path) -> None:
    (tmp_path / "images").write_text("no folder")
    with pytest.raises(ChatError, match="not available right now") as error:
        await ImageLibrary(tmp_path / "images").add("anna", "", picture())
    assert error.value.code == "internal"


@pytest.mark.parametrize(
    "url", ["data:,x", "data:image/png;base64,%%", "data:image/png;base64,abc", "data:" + "a" * 800_000]
)
def test_wrong_addresses_are_refused(url: str) -> None:
    with pytest.raises(ChatError, match="data:TYPE;base64"):
        data_of(url)


def test_address_has_the_data() -> None:
    assert data_of(data_url(b"any data")) == b"any data"


# The process that reads an image


async def test_slow_image_times_out(library: ImageLibrary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_READ_S", 0.01)
    assert "takes too much time" in await refused(library, picture())
    await until(lambda: children_with(str(module._CHILD)) == [])


@pytest.mark.skipif(importlib.util.find_spec("resource") is None, reason="this system has no such limits")
def test_time_and_memory_of_the_child_are_limited() -> None:
    assert limited(module._CHILD, "while True: pass").returncode == -signal.SIGKILL
    assert b"MemoryError" in limited(module._CHILD, "bytearray(2_000_000_000)").stderr
    assert limited(module._CHILD, "import os; print(os.getpriority(os.PRIO_PROCESS, 0))").stdout.split() == [b"5"]


async def test_failure_of_the_child_is_reported(
    library: ImageLibrary, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    child = tmp_path / "child.py"
    monkeypatch.setattr(module, "_CHILD", child)
    assert "takes too much time or memory" in await refused(library, picture())  # no such script
    child.write_text("print('no answer')")
    assert "cannot read images at the moment" in await refused(library, picture())


@pytest.fixture
def begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    """Children that end when they may. Returns a function that gives the names of the files that are being read."""
    (tmp_path / "child.py").write_text(ENDLESS)
    monkeypatch.setattr(module, "_CHILD", tmp_path / "child.py")
    monkeypatch.chdir(tmp_path)
    return lambda: sorted(path.name for path in tmp_path.glob("*.png"))


def reading(reader: ImageReader, name: str, address: str) -> "asyncio.Task[tuple[int, int, bytes]]":
    return asyncio.create_task(reader.read(name, name.encode(), 1, 1, address))


def end_all() -> None:
    Path("all may end").touch()


async def test_addresses_take_turns_and_few_images_are_read_at_once(begun: Callable[[], list[str]]) -> None:
    reader = ImageReader()
    places = (("a.png", "one"), ("b.png", "one"), ("c.png", "two"), ("d.png", "three"))
    tasks = [reading(reader, name, address) for name, address in places]
    await until(lambda: len(begun()) == 2)
    await asyncio.sleep(0.2)
    assert begun() == ["a.png", "c.png"]
    end_all()
    assert [one[:2] for one in await asyncio.gather(*tasks)] == [(1, 1)] * 4


async def test_long_wait_for_other_images_is_refused(
    begun: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WAIT_S", 0.2)
    reader = ImageReader()
    first = reading(reader, "a.png", "one")
    await until(begun)
    with pytest.raises(ChatError, match="other images are still being read") as error:
        await reading(reader, "b.png", "one")
    assert (error.value.code, error.value.retryable) == ("busy", True)
    end_all()
    await first


async def test_cancelled_and_closed_readers_leave_no_process(begun: Callable[[], list[str]], tmp_path: Path) -> None:
    reader = ImageReader()
    tasks = [reading(reader, "a.png", "one"), reading(reader, "b.png", "two")]
    await until(lambda: len(begun()) == 2)
    tasks[0].cancel()
    await asyncio.wait({tasks[0]})
    reader.close()
    with pytest.raises(ChatError):
        await tasks[1]
    await until(lambda: not [one for one in children_with(str(tmp_path)) if one.status() != psutil.STATUS_ZOMBIE])
