from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from agent.turn import TurnRequest
from agent.turns import Turns
from memory.message_index import Match
from memory.messages import Message, Summary
from memory.modes import (
    MODES,
    Candidates,
    LeftOut,
    Mode,
    ModeLimits,
    Selection,
    get_mode,
    least_start,
    recent_start,
    summarized_start,
    token_offsets,
)
from runs import events
from runs.errors import ChatError
from settings import MemorySettings

SENT = st.tuples(st.sampled_from(["user", "assistant", "system", "tool"]), st.integers(1, 400))
HISTORIES = st.lists(SENT, max_size=40).map(
    lambda sent: [Message(f"m{i}", role, f"text {i}", tokens=tokens) for i, (role, tokens) in enumerate(sent)]
)
LIMITS = st.builds(
    ModeLimits,
    input_budget=st.integers(0, 4000),
    spent=st.integers(0, 1500),
    window_turns=st.integers(1, 6),
    token_limit=st.integers(64, 3000),
)
BOUNDED = [name for name in MODES if name != "full"]


@st.composite
def pasts(draw: st.DrawFn) -> Candidates:
    """A strategy for histories with or without a summary of a beginning, and with any messages as matches."""
    history = draw(HISTORIES)
    if not history:
        return Candidates(history)
    covered = draw(st.none() | st.sampled_from(history))
    summary = Summary(covered.id, "In short.", "B", draw(st.integers(0, 600))) if covered else None
    matching = draw(st.lists(st.sampled_from(history), unique_by=lambda m: m.id, max_size=8))
    failed = draw(st.none() | st.just("The summary could not be written: no."))
    cost = "The summary took 1 model call." if summary and draw(st.booleans()) else None
    return Candidates(history, summary, failed, cost, [Match(m.id, ("word",)) for m in matching])


def turns(*sizes: int) -> list[Message]:
    """A history of questions and replies; `sizes` are the tokens of each message of a turn."""
    roles = ("user", "assistant")
    return [Message(f"{role}{i}", role, "", tokens=size) for i, size in enumerate(sizes) for role in roles]


def seen(past: Candidates | list[Message], name: str, limits: ModeLimits) -> Selection:
    return MODES[name].select(past if isinstance(past, Candidates) else Candidates(past), limits)


def turns_of(history: list[Message]) -> list[set[str]]:
    """The ids of each turn's messages, with tool calls and results."""
    found: list[set[str]] = []
    for message in history:
        if message.role == "user":
            found.append(set())
        if found:
            found[-1].add(message.id)
    return found


def test_each_mode_is_found_by_its_name() -> None:
    for name, mode in MODES.items():
        assert get_mode(name) is mode
        assert mode.about


def test_unknown_mode_is_rejected_with_the_known_names() -> None:
    with pytest.raises(ChatError) as refused:
        get_mode("telepathy")
    assert refused.value.code == "not_found"
    assert "'telepathy'" in refused.value.message
    assert "window" in refused.value.message


@pytest.mark.parametrize("name", MODES)
@given(past=pasts(), limits=LIMITS)
def test_selection_keeps_messages_in_order_and_accounts_for_all(
    name: str, past: Candidates, limits: ModeLimits
) -> None:
    history = list(past.messages)
    view = seen(past, name, limits)
    places = {message.id: place for place, message in enumerate(history)}
    recalled = [m for m in view.kept if m.id in view.why]
    latest = [m for m in view.kept if m.id not in view.why]
    for part in (latest, recalled, [item.message for item in view.left_out]):
        assert [places[m.id] for m in part] == sorted(places[m.id] for m in part)
        assert all(history[places[m.id]] == m for m in part)
    assert len(view.kept) + len(view.left_out) == len(history) == len(past.messages)
    assert {m.id for m in view.kept} | {item.message.id for item in view.left_out} == set(places)
    assert all(item.reason for item in view.left_out)
    assert all(view.why[m.id] for m in view.kept if m.id in view.why)
    assert set(view.why) <= {m.id for m in view.kept}
    assert seen(past, name, limits) == view


@pytest.mark.parametrize("name", BOUNDED)
@given(past=pasts(), limits=LIMITS)
def test_selection_fits_and_begins_with_a_user_message(name: str, past: Candidates, limits: ModeLimits) -> None:
    view = seen(past, name, limits)
    summary = view.summary.tokens if view.summary else 0
    if view.kept or summary:
        assert limits.spent + summary + sum(m.tokens for m in view.kept) <= limits.input_budget
    if view.kept:
        assert view.kept[0].role == "user"


@pytest.mark.parametrize("name", MODES)
@given(past=pasts(), limits=LIMITS)
def test_selection_has_only_complete_turns(name: str, past: Candidates, limits: ModeLimits) -> None:
    kept = {m.id for m in seen(past, name, limits).kept}
    for turn in turns_of(list(past.messages)):
        # a turn that a summary covers in part is left out
        assert turn <= kept or not turn & kept


@given(past=pasts(), limits=LIMITS)
def test_recall_selects_recent_turns_and_best_matches(past: Candidates, limits: ModeLimits) -> None:
    history = list(past.messages)
    view, first = seen(past, "recall", limits), recent_start(history, limits)
    least = least_start(history, limits)
    recalled = [turn for turn in turns_of(history) if turn & set(view.why)]
    assert len(recalled) <= limits.recall_turns
    assert all(turn & {match.message_id for match in past.matches} for turn in recalled)
    latest = [m for m in view.kept if m.id not in view.why]
    assert latest == history[len(history) - len(latest) :] and len(latest) <= len(history) - first
    if sum(m.tokens for m in history[least:]) <= limits.history and any(m.role == "user" for m in history):
        assert len(latest) >= len(history) - max(least, history.index(next(m for m in history if m.role == "user")))
    behind = [m for m in view.kept if m.id not in view.why and view.why and view.kept.index(m) > len(latest) - 1]
    assert sum(m.role == "user" for m in behind) <= 1, "the recalled turns are before the last one"


@given(past=pasts(), limits=LIMITS)
def test_summary_replaces_covered_messages_or_falls_back_to_tokens(past: Candidates, limits: ModeLimits) -> None:
    history, view = list(past.messages), seen(past, "summary", limits)
    if view.summary:
        covered = [m.id for m in history].index(view.summary.message_id)
        covered_items = [item for item in view.left_out if item.reason == "in the summary"]
        assert all(history.index(item.message) <= covered for item in covered_items)
        assert view.note == (past.failed or past.cost)
    elif recent_start(history, limits) or (past.summary and least_start(history, limits)):
        assert (view.kept, view.left_out) == (seen(past, "tokens", limits).kept, seen(past, "tokens", limits).left_out)
        why = past.failed or ("The summary does not fit." if past.summary else "There is no summary yet.")
        assert view.note == f"{why} The latest messages that fit are given instead."
    else:
        assert (view.kept, view.left_out) == (seen(past, "window", limits).kept, seen(past, "window", limits).left_out)
        assert view.note == (past.failed if view.left_out and least_start(history, limits) else None)


def test_recall_names_matched_words_and_rejected_turns() -> None:
    matches = [Match("assistant1", ("whale",)), Match("user0", ("keeper", "whale")), Match("user2", ("sea",))]
    limits = ModeLimits(input_budget=1000, spent=0, window_turns=1, recall_turns=1)
    view = seen(Candidates(turns(*[10] * 13), matches=matches), "recall", limits)
    recent = ["user11", "assistant11", "user12", "assistant12"]
    assert [m.id for m in view.kept] == [*recent[:-2], "user1", "assistant1", *recent[-2:]]
    assert view.why == {"user1": "matches whale", "assistant1": "matches whale"}
    reasons = {item.message.id: item.reason for item in view.left_out}
    assert reasons["user0"] == "matches keeper, whale, but not among the best 1 turns that fit"


@given(history=HISTORIES, limits=LIMITS)
def test_tokens_respects_its_limit_and_keeps_enough(history: list[Message], limits: ModeLimits) -> None:
    view = seen(history, "tokens", limits)
    budget = max(0, min(limits.input_budget, limits.token_limit) - limits.spent)
    kept = sum(m.tokens for m in view.kept)
    assert kept <= budget
    ends = [sum(m.tokens for m in history[first:]) for first, m in enumerate(history) if m.role == "user"]
    longest = max((size for size in ends if size <= budget), default=0)
    assert kept == longest or kept >= budget / 4
    if ends and ends[0] <= budget:
        assert kept == ends[0], "all of it fits"


@given(st.integers(0, 60), st.integers(1, 6))
def test_window_keeps_the_last_turns_and_up_to_ten_more(count: int, window: int) -> None:
    history = turns(*[10] * count)
    view = seen(history, "window", ModeLimits(input_budget=10_000, spent=0, window_turns=window))
    kept = len(view.kept) // 2
    assert list(view.kept) == history[len(history) - 2 * kept :]
    assert kept == count or window <= kept <= window + 10
    if view.left_out:
        assert view.left_out[0].reason == f"older than the last {kept} turns"


@examples(max_examples=30)
@given(
    st.sampled_from(["window", "tokens", "summary", "recall"]),
    st.lists(st.tuples(st.integers(5, 25), st.integers(5, 25)), min_size=40, max_size=80),
    st.integers(500, 1200),
)
def test_consecutive_turns_begin_with_the_same_messages(name: str, sizes: list[tuple[int, int]], capacity: int) -> None:
    firsts = firsts_of(name, sizes, capacity)
    changes = [before != after for before, after in pairwise(firsts)]
    assert firsts == sorted(firsts), "what was dropped does not return"
    step = capacity / 2 if name in ("window", "tokens") else capacity / 4
    by_turns = 0 if name == "tokens" else len(sizes) / 11
    assert sum(changes) <= sum(map(sum, sizes)) / step + by_turns + 1


@given(
    st.sampled_from(["window", "tokens", "recall"]),
    st.lists(st.tuples(st.integers(1, 900), st.integers(1, 900)), max_size=40),
    st.integers(200, 2000),
)
def test_dropped_messages_do_not_return(name: str, sizes: list[tuple[int, int]], capacity: int) -> None:
    firsts = firsts_of(name, sizes, capacity)
    assert firsts == sorted(firsts)


def firsts_of(name: str, sizes: list[tuple[int, int]], capacity: int) -> list[int]:
    """The position of the first kept message in each turn of a conversation with a message and a reply a turn.

    In the mode `summary` each summary is written as soon as it is due.
    """
    history = [
        Message(f"{n}{role}", role, "", tokens=size)
        for n, turn in enumerate(sizes)
        for role, size in zip(("user", "assistant"), turn, strict=True)
    ]
    found, summary = list[int](), None
    for n, (asked, _) in enumerate(sizes):
        past, spent = history[: 2 * n], 100 + asked
        limits = ModeLimits(input_budget=capacity + 100, spent=spent, message=asked, token_limit=10_000, window_turns=2)
        # the estimates differ from the counts
        offsets = token_offsets([replace(m, tokens=m.tokens + 3) for m in past])
        view = seen(Candidates(past, summary, token_offsets=offsets), name, limits)
        roughly = limits.model_copy(update={"spent": 100})
        if name == "summary" and (due := summarized_start(past, roughly)):
            summary = Summary(past[due - 1].id, "In short.", "B", 20)
        found.append(history.index(view.kept[0]) if view.kept else 2 * n)
    return found


@given(HISTORIES, LIMITS)
def test_a_summary_is_due_for_whole_turns_that_are_not_the_last(history: list[Message], limits: ModeLimits) -> None:
    due = summarized_start(history, limits)
    assert recent_start(history, limits) <= due <= least_start(history, limits)
    assert due == 0 or history[due].role == "user"


def test_window_selects_fewer_turns_in_a_small_context() -> None:
    view = seen(turns(100, 100, 100), "window", ModeLimits(input_budget=450, spent=50, window_turns=3))
    assert [m.id for m in view.kept] == ["user1", "assistant1", "user2", "assistant2"]
    assert "450" in view.left_out[0].reason


@given(history=HISTORIES, limits=LIMITS)
def test_none_selects_nothing_and_full_everything(history: list[Message], limits: ModeLimits) -> None:
    assert seen(history, "none", limits).kept == ()
    assert list(seen(history, "full", limits).kept) == history


def test_reason_names_the_limit() -> None:
    by_setting = seen(turns(100, 100), "tokens", ModeLimits(input_budget=1000, spent=0, token_limit=250))
    by_model = seen(turns(100, 100), "tokens", ModeLimits(input_budget=250, spent=0, token_limit=1000))
    assert by_setting.kept == by_model.kept
    assert "the limit of 250" in by_setting.left_out[0].reason
    assert "no more room than 250" in by_model.left_out[0].reason


async def test_new_mode_is_one_function_and_one_line(turns: Turns, monkeypatch: pytest.MonkeyPatch) -> None:
    def questions(candidates: Candidates, limits: ModeLimits) -> Selection:
        kept = tuple(message for message in candidates.messages if message.role == "user")
        return Selection(kept, tuple(LeftOut(m, "a reply") for m in candidates.messages if m not in kept))

    monkeypatch.setitem(MODES, "questions", Mode("questions", "your own messages", questions))
    assert MemorySettings(default="questions").default == "questions"
    first = await turns.start(TurnRequest("one", "anna", memory="questions"))
    assert first.task
    await first.task
    second = await turns.start(TurnRequest("two", "anna", first.conversation_id, memory="questions"))
    assert second.task
    await second.task
    (context,) = (entry.event for entry in second.log.entries if isinstance(entry.event, events.Context))
    assert [message["content"] for message in context.messages if message["role"] == "user"] == ["one\n\ntwo"]
    assert [(message["role"], message["reason"]) for message in context.left_out] == [("assistant", "a reply")]
    assert (await turns.store.conversation(first.conversation_id, "anna")).memory == "questions"
