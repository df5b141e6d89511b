"""How many tokens a text has, where nobody counts them."""

_TOKEN_BYTES = 16
"""Bytes of the longest common tokens."""


def estimate_tokens(text: str) -> int:
    """One for four bytes."""
    return -(-len(text.encode()) // 4)


def estimate_chunk_tokens(piece: str) -> int:
    """One for a piece of a stream that may be a single token, since most servers send each token by itself."""
    size = len(piece.encode(errors="replace"))
    return bool(size) if size <= _TOKEN_BYTES else estimate_tokens(piece)
