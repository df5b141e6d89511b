"""Text from outside, made storable without losing what it says."""

from runs.text import whole as whole

_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {0x7F: 0x2421}


def clean(text: str) -> str:
    """Line ends as `\\n`, control characters as their visible pictures, half surrogate pairs as U+FFFD."""
    return whole(text).replace("\r\n", "\n").replace("\r", "\n").translate(_PICTURES)
