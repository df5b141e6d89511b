"""Text from outside, made storable without losing what it says."""

import re

_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
_CONTROL = re.compile(f"[{re.escape(''.join(map(chr, _PICTURES)))}]")


def valid_text(text: str) -> str:
    """Text that can be encoded: surrogate pairs become their character, lone surrogates U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def clean_text(text: str) -> str:
    """Valid text with `\\n` as line end, and visible pictures in place of control characters."""
    text = valid_text(text).replace("\r\n", "\n").replace("\r", "\n")
    return text.translate(_PICTURES) if _CONTROL.search(text) else text  # translating takes a hundred times as long
