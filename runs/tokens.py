"""How many tokens a text has, where nobody counts them."""


def guess(text: str) -> int:
    """One for four bytes."""
    return -(-len(text.encode()) // 4)
