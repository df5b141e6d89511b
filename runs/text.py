"""Text from outside, made storable without losing what it says."""

import re

from runs.valid_text import valid_text as valid_text

_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
_CONTROL = re.compile(f"[{re.escape(''.join(map(chr, _PICTURES)))}]")


def clean_text(text: str) -> str:
    """Line ends as `\\n`, control characters as their visible pictures, half surrogate pairs as U+FFFD."""
    text = valid_text(text).replace("\r\n", "\n").replace("\r", "\n")
    return text.translate(_PICTURES) if _CONTROL.search(text) else text  # it takes a hundred times as long
