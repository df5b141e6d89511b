import random
from functools import reduce

import pytest

from runs import events
from runs.events import Entry
from runs.replay import Player, Replay
from runs.state import AgentState, apply


def recorded(pieces: int) -> list[Entry]:
    """A run of so many pieces, of which some come in the same moment."""
    told = [
        events.Run("c", "b", "m"),
        events.Status("queued", "Processing..."),
        events.Context([], [], 9, 10),
        events.ModelStart("1", None, "Model"),
        *(events.Token(f"{n} ", n) for n in range(pieces)),
        events.ModelEnd("1", {"output_tokens": pieces}, 1.0),
        events.Complete("", {}, {}),
    ]
    return [Entry(seq, "r", 100 + seq // 3 / 10, event) for seq, event in enumerate(told, 1)]


def test_any_moment_in_any_order_is_the_fold_of_what_had_come_until_then() -> None:
    entries, luck = recorded(900), random.Random(1)
    replay = Replay(entries)
    moments = [0.0, replay.length_s, *(luck.uniform(-1, replay.length_s + 1) for _ in range(60))]
    for moment in moments:
        come = [entry for entry in entries if entry.at - entries[0].at <= moment] or entries[:1]
        state, text = replay.state_at(moment)
        assert state == reduce(apply, come, AgentState())
        assert text == "".join(entry.event.content for entry in come if isinstance(entry.event, events.Token))
    assert replay.state_at(replay.length_s)[0].phase == "complete"


def test_a_record_without_events_is_none() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Replay([])


def test_a_player_stands_or_goes_on_at_its_speed_and_ends_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 50.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    player = Player(Replay(recorded(900)))
    assert (player.position_s, player.playing) == (0.0, False)
    player.seek(2.0, 5.0, playing=True)
    now += 1
    assert player.position_s == 7.0
    player.seek(3.0, 5.0, playing=False)
    now += 1
    assert player.position_s == 3.0
    player.seek(-4.0, 1.0, playing=True)
    assert player.position_s == 0.0
    now += 1000
    assert player.position_s == player.replay.length_s
