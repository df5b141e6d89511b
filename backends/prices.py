"""The cost of tokens, by the `price` of an entry."""

from collections.abc import Sequence


def cost_usd(price: Sequence[float], input_tokens: int, output_tokens: int, cached_tokens: int = 0) -> float:
    """Returns US dollars for so many tokens, `cached_tokens` among the input.

    `price` has the dollars for a million input and output tokens, and optionally for a million cached input tokens.
    """
    cached_price = price[2] if len(price) > 2 else price[0]
    cached = min(cached_tokens, input_tokens)
    parts = price[0] * (input_tokens - cached), price[1] * output_tokens, cached_price * cached
    return round(sum(parts) / 1e6, 8)
