"""Text that can be encoded."""


def valid_text(text: str) -> str:
    """The text with pairs of half surrogates as the character that they are, and single halves as U+FFFD."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
