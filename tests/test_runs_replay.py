import random
from functools import reduce

import pytest

from runs import events
from runs.events import Entry
from runs.fold import apply
from runs.replay import Player, Replay
from runs.state import AgentState


def recorded(chunks: int) -> list[Entry]:
    """A run of so many chunks, some of them at the same time."""
    log = [
        events.Run("c", "b", "m"),
        events.Status("queued", "Processing..."),
        events.Context([], [], 9, 10),
        events.ModelStart("1", None, "Model"),
        *(events.Token(f"{n} ", n) for n in range(chunks)),
        events.ModelEnd("1", {"output_tokens": chunks}, 1.0),
        events.Complete("", {}, {}),
    ]
    return [Entry(seq, "r", 100 + seq // 3 / 10, event) for seq, event in enumerate(log, 1)]


def test_state_at_any_moment_is_the_fold_of_earlier_events() -> None:
    entries, luck = recorded(900), random.Random(1)
    replay = Replay(entries)
    moments = [0.0, replay.length_s, *(luck.uniform(-1, replay.length_s + 1) for _ in range(60))]
    for moment in moments:
        come = [entry for entry in entries if entry.at - entries[0].at <= moment] or entries[:1]
        state, text = replay.state_at(moment)
        assert state == reduce(apply, come, AgentState())
        assert text == "".join(entry.event.content for entry in come if isinstance(entry.event, events.Token))
    assert replay.state_at(replay.length_s)[0].phase == "complete"


def test_record_without_events_is_rejected() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Replay([])


def test_player_pauses_plays_at_its_speed_and_stops_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
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
