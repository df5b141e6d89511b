from itertools import groupby

from hypothesis import given
from hypothesis import strategies as st

from memory.message_index import Match
from memory.messages import Message, Summary
from memory.modes import MODES, Candidates, ModeLimits
from memory.turn_states import turn_states
from tests.test_memory_modes import LIMITS, pasts


def talk(turns: int) -> list[Message]:
    roles = ("user", "assistant")
    return [Message(f"{role}{n}", role, f"{n}", tokens=10) for n in range(turns) for role in roles]


def limits(**more: int) -> ModeLimits:
    return ModeLimits(input_budget=1000, spent=0, **more)


def states(history: list[Message], mode: str, given: ModeLimits, **past: object) -> list[str]:
    """A letter for each turn: k(ept), r(ecalled), s(ummarised), l(eft out)."""
    view = MODES[mode].select(Candidates(history, **past), given)  # type: ignore[arg-type]
    return ["".join(str(one["state"])[0] * int(one["count"])) for one in turn_states(history, view)]


def test_window_keeps_the_last_turns_and_drops_many_at_once() -> None:
    assert states(talk(12), "window", limits(window_turns=2)) == ["k" * 12]
    assert states(talk(14), "window", limits(window_turns=2)) == ["l" * 11, "kkk"]


def test_recalled_turns_stand_where_they_were() -> None:
    history = talk(13)
    matches = [Match("user1", ("whale",))]
    given = limits(window_turns=2, recall_turns=1)
    assert states(history, "recall", given, matches=matches) == ["l", "r", "l" * 9, "kk"]


def test_turns_in_the_summary_are_summarised() -> None:
    summary = Summary("assistant2", "In short.", "B", 5)
    assert states(talk(5), "summary", limits(window_turns=2), summary=summary) == ["sss", "kk"]


def test_turn_that_was_never_answered_is_left_out() -> None:
    history = [*talk(1), Message("user1", "user", "?", tokens=1), *talk(3)[4:]]
    view = MODES["full"].select(Candidates([m for m in history if m.id != "user1"]), limits())
    assert [one["state"] for one in turn_states(history, view)] == ["kept", "left_out", "kept"]


@given(pasts(), st.sampled_from(list(MODES)), LIMITS)
def test_every_turn_has_one_state(past: Candidates, mode: str, given: ModeLimits) -> None:
    found = turn_states(past.messages, MODES[mode].select(past, given))
    turns = sum(message.role == "user" or at == 0 for at, message in enumerate(past.messages))
    assert sum(one["count"] for one in found) == turns
    assert all(len(list(same)) == 1 for _, same in groupby(one["state"] for one in found)), "neighbours are joined"
