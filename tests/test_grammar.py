"""The grammar's checker: a valid run passes, and each violation is found."""

from collections.abc import Callable
from typing import Any

import pytest

from runs import events
from runs.events import Entry
from tests.grammar import check

Sent = list[dict[str, Any]]

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


def sound() -> Sent:
    return [Entry(seq, "r", 1000.0 + seq, event).wire() for seq, event in enumerate(SOUND, 1)]


def renumbered(sent: Sent) -> Sent:
    return [{**e, "seq": seq} for seq, e in enumerate(sent, 1)]


def states(count: int) -> Sent:
    sent = sound()
    return renumbered([*sent[:2], *[{**sent[6], "timestamp": sent[1]["timestamp"]}] * count, *sent[2:]])


def with_state(step: str) -> Sent:
    return [{**e, "current_step": step} if e["type"] == "state" else e for e in sound()]


BROKEN: dict[str, Callable[[Sent], Sent]] = {
    "no run": lambda sent: renumbered(sent[1:]),
    "no first status": lambda sent: renumbered([sent[0], *sent[2:]]),
    "a gap": lambda sent: [*sent[:3], *sent[4:]],
    "an open start": lambda sent: renumbered([*sent[:5], *sent[6:]]),
    "an end without start": lambda sent: renumbered([*sent[:2], *sent[3:]]),
    "no last event": lambda sent: sent[:-1],
    "two last events": lambda sent: renumbered([*sent, sent[-1]]),
    "something after the last": lambda sent: renumbered([*sent, sent[3]]),
    "another content": lambda sent: [*sent[:-1], {**sent[-1], "content": "Hell"}],
    "an unknown phase": lambda sent: [*sent[:1], {**sent[1], "phase": "musing"}, *sent[2:]],
    "a missing field": lambda sent: [{k: v for k, v in e.items() if k != "total_tokens"} for e in sent],
    "time that runs back": lambda sent: [*sent[:-1], {**sent[-1], "timestamp": sent[0]["timestamp"]}],
    "too many states": lambda sent: states(11),
    "too large a state": lambda sent: with_state("x" * 2048),
}


def test_a_sound_run_passes() -> None:
    check(sound())
    check(states(9))


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_run_is_noticed(fault: str) -> None:
    with pytest.raises(AssertionError):
        check(BROKEN[fault](sound()))
