import pytest
from hypothesis import given
from hypothesis import strategies as st

from memory.messages import Message
from memory.modes import MODES, Limits, View, get_mode
from runs.errors import ChatError
from settings import MemoryMode

SENT = st.tuples(st.sampled_from(["user", "assistant", "system", "tool"]), st.integers(1, 400))
HISTORIES = st.lists(SENT, max_size=40).map(
    lambda sent: [Message(f"m{i}", role, f"text {i}", tokens=tokens) for i, (role, tokens) in enumerate(sent)]
)
LIMITS = st.builds(
    Limits,
    room=st.integers(0, 4000),
    spent=st.integers(0, 1500),
    window_turns=st.integers(1, 6),
    token_limit=st.integers(64, 3000),
)
BOUNDED = [name for name in MODES if name != "full"]


def turns(*sizes: int) -> list[Message]:
    """A history of questions and replies; each of a turn's two messages has its size."""
    roles = ("user", "assistant")
    return [Message(f"{role}{i}", role, "", tokens=size) for i, size in enumerate(sizes) for role in roles]


def seen(history: list[Message], name: str, limits: Limits) -> View:
    return MODES[name].select(history, limits)


def test_the_modes_are_those_that_the_settings_allow() -> None:
    assert set(MODES) == set(MemoryMode.__args__)  # type: ignore[attr-defined]
    for name, mode in MODES.items():
        assert get_mode(name) is mode
        assert mode.about


def test_an_unknown_mode_is_refused_with_what_there_is() -> None:
    with pytest.raises(ChatError) as refused:
        get_mode("telepathy")
    assert refused.value.code == "not_found"
    assert "'telepathy'" in refused.value.message
    assert "window" in refused.value.message


@pytest.mark.parametrize("name", MODES)
@given(history=HISTORIES, limits=LIMITS)
def test_a_view_keeps_whole_messages_in_order_and_accounts_for_all(
    name: str, history: list[Message], limits: Limits
) -> None:
    before = list(history)
    view = seen(history, name, limits)
    left = [item.message for item in view.left_out]
    assert [*left, *view.kept] == history == before
    assert all(item.reason for item in view.left_out)
    assert seen(history, name, limits) == view


@pytest.mark.parametrize("name", BOUNDED)
@given(history=HISTORIES, limits=LIMITS)
def test_what_is_kept_fits_and_begins_with_a_user(name: str, history: list[Message], limits: Limits) -> None:
    kept = seen(history, name, limits).kept
    if kept:
        assert kept[0].role == "user"
        assert limits.spent + sum(m.tokens for m in kept) <= limits.room


@given(history=HISTORIES, limits=LIMITS)
def test_tokens_keeps_its_own_limit_and_drops_nothing_that_fits(history: list[Message], limits: Limits) -> None:
    view = seen(history, "tokens", limits)
    budget = min(limits.room, limits.token_limit) - limits.spent
    kept = sum(m.tokens for m in view.kept)
    assert kept <= max(0, budget)
    for first in range(len(view.left_out)):
        longer = history[first:]
        assert longer[0].role != "user" or sum(m.tokens for m in longer) > max(0, budget)


@given(st.integers(0, 12), st.integers(1, 6))
def test_window_keeps_the_last_turns(count: int, window: int) -> None:
    history = turns(*[10] * count)
    view = seen(history, "window", Limits(room=10_000, spent=0, window_turns=window))
    assert list(view.kept) == history[-2 * window :]


def test_window_keeps_less_where_the_model_has_no_room() -> None:
    view = seen(turns(100, 100, 100), "window", Limits(room=450, spent=50, window_turns=3))
    assert [m.id for m in view.kept] == ["user1", "assistant1", "user2", "assistant2"]
    assert "450" in view.left_out[0].reason


@given(history=HISTORIES, limits=LIMITS)
def test_none_keeps_nothing_and_full_everything(history: list[Message], limits: Limits) -> None:
    assert seen(history, "none", limits).kept == ()
    assert list(seen(history, "full", limits).kept) == history


def test_the_reason_names_what_set_the_limit() -> None:
    by_setting = seen(turns(100, 100), "tokens", Limits(room=1000, spent=0, token_limit=250))
    by_model = seen(turns(100, 100), "tokens", Limits(room=250, spent=0, token_limit=1000))
    assert by_setting.kept == by_model.kept
    assert "the limit of 250" in by_setting.left_out[0].reason
    assert "no more room than 250" in by_model.left_out[0].reason
