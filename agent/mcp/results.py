"""The result of a tool call of a server: a text for the model, and attachments for the visitor.

An attachment is {kind, title, text} of the kinds log, resource and data, or {kind: "image", title, type, data} with the
image as base64. Images are only of types that a browser can be trusted with, small, and of few pixels.
"""

import base64
import binascii
import io
import json
import warnings
from typing import Any

from runs.events import JSON
from runs.text import valid_text

MOST_ATTACHMENTS = 12
"""Attachments of one result, without the log."""
LONGEST_ATTACHMENT = 20_000
"""Characters of the text of an attachment."""
LONGEST_TEXT = 100_000
"""Characters of a result; the model may be given fewer."""
_MOST_IMAGE = 200_000
"""Characters of an image as base64."""
_MOST_PIXELS = 4_000_000
_PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
_TYPES = {"JPEG": "image/jpeg", "GIF": "image/gif", "WEBP": "image/webp"}
_CUT = "\n[cut]"


def read_result(result: Any) -> tuple[str, list[JSON]]:
    """Returns the text of a CallToolResult, and its attachments."""
    texts, attachments = list[str](), list[JSON]()
    for block in result.content:
        text, attachment = _read_block(block)
        if text:
            texts.append(text)
        if attachment and len(attachments) < MOST_ATTACHMENTS:
            attachments.append(attachment)
    if not _is_repeated(result.structured_content, texts) and len(attachments) < MOST_ATTACHMENTS:
        data = json.dumps(result.structured_content, ensure_ascii=False, indent=1, default=str)
        attachments.append(text_attachment("data", "Structured content", data))
        if not texts:
            texts.append(data)
    return shortened("\n".join(texts), LONGEST_TEXT), attachments


def _is_repeated(data: Any, texts: list[str]) -> bool:
    """True if structured content says nothing that the text does not: servers repeat one as the other."""
    if data is None or (isinstance(data, dict) and list(data) == ["result"] and texts == [data["result"]]):
        return True
    try:
        return len(texts) == 1 and len(texts[0]) <= LONGEST_TEXT and bool(json.loads(texts[0]) == data)
    except (ValueError, RecursionError):
        return False


def _read_block(block: Any) -> tuple[str, JSON | None]:
    """Returns what a block of content is for the model, and for the visitor."""
    match block.type:
        case "text":
            return valid_text(block.text), None
        case "image":
            image = image_attachment(block.data, "Image")
            if isinstance(image, str):
                return f"[image: {image}]", None
            return "[image: shown to the visitor]", image
        case "audio":
            return "[audio: not played here]", None
        case "resource_link":
            return f"[resource: {valid_text(str(block.uri))[:500]}]", None
        case "resource":
            return read_contents(block.resource)
    return "", None


def read_contents(contents: Any) -> tuple[str, JSON | None]:
    """Returns the contents of a resource for the model, and for the visitor."""
    title = f"Resource {valid_text(str(contents.uri))[:300]}"
    if (text := getattr(contents, "text", None)) is not None:
        return valid_text(text), text_attachment("resource", title, text)
    image = image_attachment(contents.blob, title)
    if isinstance(image, str):
        return f"[{title}: {len(contents.blob) * 3 // 4:,} bytes that are not shown]", None
    return f"[{title}: an image, shown to the visitor]", image


def text_attachment(kind: str, title: str, text: str) -> JSON:
    """Returns a text as an attachment, shortened."""
    return {"kind": kind, "title": title, "text": shortened(valid_text(text), LONGEST_ATTACHMENT)}


def shortened(text: str, most: int) -> str:
    """Cuts a text after so many characters."""
    return text if len(text) <= most else text[:most] + _CUT


def image_attachment(data: str, title: str) -> JSON | str:
    """Returns an image as an attachment, or why it is not shown."""
    if len(data) > _MOST_IMAGE:
        return f"not shown, since it has more than {_MOST_IMAGE * 3 // 4 // 1000} kB"
    try:
        raw = base64.b64decode(data, validate=True)
        kind, pixels = _head(raw)
    except (binascii.Error, ValueError, OSError, SyntaxError):
        return "not shown, since it is no PNG, JPEG, GIF or WebP"
    if pixels > _MOST_PIXELS:
        return f"not shown, since it has more than {_MOST_PIXELS // 1_000_000} million pixels"
    return {"kind": "image", "title": title, "type": kind, "data": base64.b64encode(raw).decode()}


def _head(raw: bytes) -> tuple[str, int]:
    """Returns the type and the number of pixels of an image. Raises ValueError, OSError or SyntaxError for no image."""
    if raw.startswith(_PNG) and len(raw) > 24:  # Pillow refuses some that browsers show
        return "image/png", int.from_bytes(raw[16:20]) * int.from_bytes(raw[20:24])
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the number of pixels, which the caller checks
        try:
            with Image.open(io.BytesIO(raw), formats=list(_TYPES)) as image:  # reads the head alone
                return _TYPES[str(image.format)], image.width * image.height
        except Image.DecompressionBombError:
            return "", _MOST_PIXELS + 1


def characters(attachments: list[JSON]) -> int:
    """The characters of attachments."""
    return sum(len(str(value)) for one in attachments for value in one.values())
