"""Estimates of token counts, for texts that no provider has counted."""

_TOKEN_BYTES = 16
"""Bytes of the longest common tokens."""


def estimate_tokens(text: str) -> int:
    """One token for each four bytes, rounded up."""
    return -(-len(text.encode()) // 4)


def estimate_chunk_tokens(chunk: str) -> int:
    """One token for a short chunk of a stream, since most servers send each token by itself."""
    size = len(chunk.encode(errors="replace"))
    return bool(size) if size <= _TOKEN_BYTES else estimate_tokens(chunk)
