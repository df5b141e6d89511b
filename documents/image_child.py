"""Reads one image in a process of its own, since an image can be made to take unlimited time and memory.

This is a script that imports no other module of the project. It reads the file from standard input and writes one line
of JSON: `width` and `height` of the JPEG that follows, or `error`, a message for people. The JPEG is made of the pixels
alone, without metadata. Arguments: the most pixels of the file, the longest side and the most bytes of the JPEG.
"""

import json
import os
import sys
from contextlib import suppress
from io import BytesIO

_BYTES = 900_000_000
_SECONDS = 10
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF")
_QUALITIES = (85, 65, 45, 25)
"""Qualities of a JPEG, tried until it is small enough; then it is made smaller."""
_NICE = 5
"""A low priority, but not the lowest: a person waits, and a model of this machine may use all processors."""


def _limit() -> None:
    """Limits this process's memory, CPU time and priority, as far as the system supports it."""
    with suppress(AttributeError, OSError):
        os.nice(_NICE)
    with suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (_SECONDS, _SECONDS))
        resource.setrlimit(resource.RLIMIT_AS, (_BYTES, _BYTES))


def convert(data: bytes, most_pixels: int, side: int, most_bytes: int) -> tuple[dict[str, object], bytes]:
    """Returns `width` and `height` with the JPEG, or `error`. Of an animation it is the first picture."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    Image.MAX_IMAGE_PIXELS = None  # our own limit is checked below, before anything is unpacked
    try:
        with Image.open(BytesIO(data), formats=_FORMATS) as opened:
            image: Image.Image = opened
            if image.width * image.height > most_pixels:
                return {"error": f"it has more than {most_pixels // 1_000_000} million pixels"}, b""
            if image.mode in ("1", "P", "PA"):  # colours of a palette cannot be mixed
                image = image.convert("RGBA")
            image.thumbnail((side, side))
            with suppress(Exception):  # metadata may be broken where the picture is not
                ImageOps.exif_transpose(image, in_place=True)
            clear = image.convert("RGBA")
            plain = Image.new("RGB", clear.size, "white")
            plain.paste(clear, mask=clear.getchannel("A"))
    except UnidentifiedImageError:
        return {"error": "allowed are PNG, JPEG, WebP and GIF images"}, b""
    except MemoryError:
        return {"error": "unpacked, it is too large"}, b""
    except Exception:  # a broken file can raise anything
        return {"error": "it is damaged"}, b""
    while True:
        for quality in _QUALITIES:
            made = BytesIO()
            plain.save(made, "JPEG", quality=quality, optimize=True)
            if made.tell() <= most_bytes or plain.size == (1, 1):
                return {"width": plain.width, "height": plain.height}, made.getvalue()
        plain.thumbnail((max(1, plain.width * 3 // 4), max(1, plain.height * 3 // 4)))


def main() -> None:
    """Reads standard input and writes the answer."""
    _limit()
    about, jpeg = convert(sys.stdin.buffer.read(), *map(int, sys.argv[1:4]))
    sys.stdout.buffer.write(json.dumps(about).encode() + b"\n" + jpeg)


if __name__ == "__main__":
    main()
