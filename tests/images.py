"""Images for tests, and the harm that some can do."""

import base64
import io
import struct
import zlib
from typing import Any

from PIL import Image

GPS = 0x8825
ORIENTATION = 0x0112
SECRET = "a secret place"
SVG = b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script><rect width='9' height='9'/></svg>"


def picture(kind: str = "PNG", size: tuple[int, int] = (64, 48), colour: Any = "teal", mode: str = "RGB") -> bytes:
    return written(Image.new(mode, size, colour), kind)


def written(image: Image.Image, kind: str, **more: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **more)
    return file.getvalue()


def photo(orientation: int = 1, size: tuple[int, int] = (64, 48)) -> bytes:
    """A JPEG with everything that may say something about its maker."""
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif[0x010F] = exif[0x9286] = SECRET
    exif.get_ifd(GPS)[1] = "N"
    exif.get_ifd(GPS)[29] = SECRET
    image = Image.new("RGB", size, "teal")
    more = {"exif": exif, "comment": SECRET.encode(), "xmp": SECRET.encode(), "icc_profile": SECRET.encode()}
    return written(image, "JPEG", **more)


def noise(size: tuple[int, int]) -> bytes:
    return written(Image.effect_noise(size, 200), "PNG")


def huge_png(side: int) -> bytes:
    """A PNG of one bit a pixel that is all there, and small."""
    row = bytes(1 + (side + 7) // 8)
    packer, rows = zlib.compressobj(9), bytearray()
    for _ in range(side):
        rows += packer.compress(row)
    rows += packer.flush()
    head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", bytes(rows)) + _chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A PNG whose compressed text unpacks to 500 MB."""
    packed = zlib.compressobj(9)
    text = b"".join([packed.compress(bytes(1_000_000)) for _ in range(500)]) + packed.flush()
    plain = picture()
    return plain[:33] + _chunk(b"zTXt", b"Comment\0\0" + text) + plain[33:]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def data_url(image: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(image).decode()}"


def opened(jpeg: bytes) -> Image.Image:
    return Image.open(io.BytesIO(jpeg), formats=["JPEG"])
