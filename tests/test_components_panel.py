from collections.abc import Iterable

from components.panel import render_context, render_panel
from runs import events
from runs.events import Entry, Event
from runs.fold import apply
from runs.state import AgentState

BEGIN = [events.Run("c", "b", "m"), events.Status("queued", "Processing...")]


def state_of(told: Iterable[tuple[float, Event]]) -> AgentState:
    state = AgentState()
    for seq, (at, event) in enumerate(told, 1):
        state = apply(state, Entry(seq, "r", at, event))
    return state


def ended_state() -> AgentState:
    told = [
        *BEGIN,
        events.ChainStart("agent", "1", None, []),
        events.ChainStart("model", "2", "1", [{"role": "user", "content": "Hello"}]),
        events.Context([{"role": "user", "content": "x" * 5000, "tokens": 9}], [], 9, 10),
        events.ModelStart("3", "2", "Model"),
        events.Reasoning("hm"),
        events.Token("Hi", 1),
        events.Complete("Hi", {}, {}),
    ]
    return state_of((100.0 + place, event) for place, event in enumerate(told, 1))


def test_panel_of_an_ended_run_is_constant() -> None:
    value = render_panel(ended_state(), whole=False)
    assert (value["live"], value["phase"], value["elapsed_s"], value["rate"]) == (False, "complete", 8.0, None)
    assert [(step["name"], step["depth"]) for step in value["steps"]] == [("agent", 0), ("model", 1), ("Model", 2)]
    assert value["steps"][0]["start"] == 2.0
    assert value["steps"][1]["input"] == "user: Hello"
    assert value["thoughts"] == "hm"
    assert value == render_panel(ended_state(), whole=False)


def test_whole_value_has_the_context_with_long_texts_cut() -> None:
    context = render_panel(ended_state(), whole=True)["context"]
    assert len(context["messages"][0]["content"]) < 2100
    assert "5,000 characters" in context["messages"][0]["content"]


def test_long_list_of_left_out_messages_is_cut_and_counted() -> None:
    left = [{"role": "user", "content": str(n), "tokens": 2, "reason": "old"} for n in range(500)]
    shown = render_context(events.Context([], left, 0, 10))
    assert [m["content"] for m in shown["left_out"]] == [str(n) for n in range(460, 500)]
    assert (shown["left_out_count"], shown["left_out_tokens"]) == (500, 1000)
    assert shown["reasons"] == [{"reason": "old", "count": 500, "tokens": 1000}]


def test_all_left_out_messages_are_counted_by_reason() -> None:
    left = [{"role": "user", "content": "x", "tokens": n, "reason": "old" if n % 2 else "empty"} for n in range(1, 101)]
    assert render_context(events.Context([], left, 0, 10))["reasons"] == [
        {"reason": "old", "count": 50, "tokens": 2500},
        {"reason": "empty", "count": 50, "tokens": 2550},
    ]


def test_first_and_latest_messages_of_a_long_input_are_listed() -> None:
    given = [{"role": "user", "content": str(n), "tokens": 3} for n in range(500)]
    shown = render_context(events.Context(given, [], 1500, 2000))
    assert [m["content"] for m in shown["messages"]] == ["0", "1", *(str(n) for n in range(462, 500))]
    assert shown["gap"] == {"after": 2, "count": 460, "tokens": 1380}
    whole = render_context(events.Context(given[:40], [], 120, 2000))
    assert (len(whole["messages"]), whole["gap"]) == (40, None)


def test_context_has_parts_note_and_tools_but_old_records_have_none() -> None:
    recalled = {"role": "user", "content": "the whale", "tokens": 4, "part": "recalled", "why": "matches whale"}
    tool = {"name": "clock", "content": "x" * 5000, "tokens": 6}
    shown = render_context(events.Context([recalled], [], 10, 99, parts={"recalled": 4}, note="so", tools=[tool]))
    assert (shown["messages"], shown["parts"], shown["note"]) == ([recalled], {"recalled": 4}, "so")
    assert "5,000 characters" in shown["tools"][0]["content"]
    old = render_context(events.Context([], [], 0, 10))
    assert (old["parts"], old["note"], old["tools"]) == (None, None, [])


def test_concurrent_calls_are_below_their_own_steps() -> None:
    state = state_of(
        [
            *((0.0, event) for event in BEGIN),
            (1.0, events.ChainStart("agent", "a", None, [])),
            (2.0, events.ChainStart("tools", "t1", "a", [])),
            (2.0, events.ChainStart("tools", "t2", "a", [])),
            (3.0, events.ToolStart("clock", "c2", {}, "t2")),
            (3.0, events.ToolStart("count", "c1", {"upto": 2}, "t1")),
            (4.0, events.ToolOutput("count", "c1", "1 of 2\n")),
        ]
    )
    value = render_panel(state, whole=False)
    assert [(step["id"], step["depth"]) for step in value["steps"]] == [
        *[("a", 0), ("t1", 1), ("c1", 2)],
        *[("t2", 1), ("c2", 2)],
    ]
    assert value["tools"] == ["clock", "count"]
    assert [part["title"] for part in value["parts"]] == ["clock", "count"]
    assert value["parts"][1]["blocks"] == [["Input", '{\n "upto": 2\n}'], ["Output so far", "1 of 2"]]


def test_details_of_old_steps_are_only_in_a_whole_value() -> None:
    state = state_of(
        [
            *((0.0, event) for event in BEGIN),
            (1.0, events.ToolStart("clock", "1", {})),
            (2.0, events.ToolEnd("clock", "1", "noon", 1.0)),
            (2.0, events.ToolStart("count", "2", {})),
        ]
    )
    value = render_panel(state, whole=False)
    assert ["output" in step for step in value["steps"]] == [False, True]
    assert ["blocks" in part for part in value["parts"]] == [False, True]
    whole = render_panel(state, whole=True)
    assert [step["output"] for step in whole["steps"]] == ["noon", ""]
    assert all("blocks" in part for part in whole["parts"])


def test_call_with_an_unknown_parent_is_shown_at_the_top() -> None:
    state = state_of([*((0.0, event) for event in BEGIN), (1.0, events.ToolStart("clock", "1", {}, "gone"))])
    assert [(step["name"], step["depth"]) for step in render_panel(state, whole=True)["steps"]] == [("clock", 0)]
