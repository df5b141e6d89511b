"""How far a figure may be from the truth.

A count is exact, or marked as an estimate and then right within a factor of two. Times and rates are right within 5 %
or 50 ms, besides the time that the machine took to bring what was sent to the visitor.
"""

FACTOR = 2.0
_FEW = 4
"""Tokens by which an estimate may be off in any case."""


def near(found: float, truth: float, slack: float) -> None:
    off = abs(found - truth)
    assert off <= max(0.05 * truth, slack), f"{found:.3f} s, and it was {truth:.3f} s (± {slack:.3f} s)"


def between(found: float, least: float, most: float, slack: float) -> None:
    """A time that was from `least` to `most`: what begins with a run begins after the message was sent."""
    near(found, min(max(found, least), most), slack)


def estimated(found: float, least: float, most: float) -> None:
    """An estimate of what was from `least` to `most`."""
    assert least / FACTOR - _FEW <= found <= most * FACTOR + _FEW, f"{found}, and it was {least} to {most}"
