"""The checker itself: a sound run passes, and each way of breaking the grammar is noticed."""

from collections.abc import Callable
from typing import Any

import pytest

from runs import events
from runs.events import Entry
from tests.grammar import check

Told = list[dict[str, Any]]

SOUND: list[events.Event] = [
    events.Run("c", "b", "m"),
    events.Status("queued", "Processing..."),
    events.ModelStart("m", None, "model"),
    events.Token("Hel", 1),
    events.Token("lo", 2),
    events.ModelEnd("m", None, 0.1),
    events.State("complete", None, 2, True, [], 1.0, 0.1),
    events.Complete(
        "Hello", {"input_tokens": 1, "output_tokens": 2}, dict.fromkeys(["ttft_s", "duration_s", "tokens_per_s"])
    ),
]


def sound() -> Told:
    return [Entry(seq, "r", 1000.0 + seq, event).wire() for seq, event in enumerate(SOUND, 1)]


def renumbered(told: Told) -> Told:
    return [{**e, "seq": seq} for seq, e in enumerate(told, 1)]


def states(count: int) -> Told:
    told = sound()
    return renumbered([*told[:2], *[{**told[6], "timestamp": told[1]["timestamp"]}] * count, *told[2:]])


def with_state(step: str) -> Told:
    return [{**e, "current_step": step} if e["type"] == "state" else e for e in sound()]


BROKEN: dict[str, Callable[[Told], Told]] = {
    "no run": lambda told: renumbered(told[1:]),
    "no first status": lambda told: renumbered([told[0], *told[2:]]),
    "a gap": lambda told: [*told[:3], *told[4:]],
    "an open start": lambda told: renumbered([*told[:5], *told[6:]]),
    "an end without start": lambda told: renumbered([*told[:2], *told[3:]]),
    "no last event": lambda told: told[:-1],
    "two last events": lambda told: renumbered([*told, told[-1]]),
    "something after the last": lambda told: renumbered([*told, told[3]]),
    "another content": lambda told: [*told[:-1], {**told[-1], "content": "Hell"}],
    "an unknown phase": lambda told: [*told[:1], {**told[1], "phase": "musing"}, *told[2:]],
    "a missing field": lambda told: [{k: v for k, v in e.items() if k != "total_tokens"} for e in told],
    "time that runs back": lambda told: [*told[:-1], {**told[-1], "timestamp": told[0]["timestamp"]}],
    "too many states": lambda told: states(11),
    "too large a state": lambda told: with_state("x" * 2048),
}


def test_a_sound_run_passes() -> None:
    check(sound())
    check(states(9))


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_run_is_noticed(fault: str) -> None:
    with pytest.raises(AssertionError):
        check(BROKEN[fault](sound()))
