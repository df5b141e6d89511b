from collections.abc import Iterable
from dataclasses import replace

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from components.panel import _JOINED, _TURNS, render_context, render_panel, turn_blocks
from runs import events
from runs.events import Entry, Event
from runs.fold import apply
from runs.state import AgentState

BEGIN = [events.Run("c", "b", "m"), events.Status("queued", "Processing...")]


def state_of(received: Iterable[tuple[float, Event]]) -> AgentState:
    state = AgentState()
    for seq, (at, event) in enumerate(received, 1):
        state = apply(state, Entry(seq, "r", at, event))
    return state


def ended_state() -> AgentState:
    received = [
        *BEGIN,
        events.ChainStart("agent", "1", None, []),
        events.ChainStart("model", "2", "1", [{"role": "user", "content": "Hello"}]),
        events.Context([{"role": "user", "content": "x" * 5000, "tokens": 9}], [], 9, 10),
        events.ModelStart("3", "2", "Model"),
        events.Reasoning("hm"),
        events.Token("Hi", 1),
        events.Complete("Hi", {}, {}),
    ]
    return state_of((100.0 + place, event) for place, event in enumerate(received, 1))


def test_panel_of_an_ended_run_is_constant() -> None:
    value = render_panel(ended_state(), whole=False)
    assert (value["live"], value["phase"], value["elapsed_s"], value["rate"]) == (False, "complete", 8.0, None)
    assert [(step["name"], step["depth"]) for step in value["steps"]] == [("agent", 0), ("model", 1), ("Model", 2)]
    assert value["steps"][0]["start"] == 2.0
    assert value["steps"][1]["blocks"] == [["New input", "user: Hello"]]
    assert value["steps"][2]["marks"] == ["part-0", "text-0", "text-1"]
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
    assert [step["marks"] for step in value["steps"]] == [[], [], ["part-1"], [], ["part-0"]]
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
    assert ["blocks" in step for step in value["steps"]] == [False, True]
    assert ["blocks" in part for part in value["parts"]] == [False, True]
    whole = render_panel(state, whole=True)
    assert [step["blocks"] for step in whole["steps"]] == [
        [["Input", "{}"], ["Output", "noon"]],
        [["Input", "{}"], ["Output so far", "none"]],
    ]
    assert all("blocks" in part for part in whole["parts"])


def test_call_with_an_unknown_parent_is_shown_at_the_top() -> None:
    state = state_of([*((0.0, event) for event in BEGIN), (1.0, events.ToolStart("clock", "1", {}, "gone"))])
    assert [(step["name"], step["depth"]) for step in render_panel(state, whole=True)["steps"]] == [("clock", 0)]


WRAPPED: list[tuple[float, Event]] = [
    *((0.0, event) for event in BEGIN),
    (1.0, events.ChainStart("agent", "a", None, [])),
    (1.01, events.ChainStart("model", "m", "a", [{"role": "user", "content": "Hello"}])),
    (1.02, events.ModelStart("c", "m", "Chat")),
    (2.0, events.Reasoning("hm")),
    (2.5, events.Token("Hi", 1)),
    (3.0, events.ModelEnd("c", {"input_tokens": 1, "output_tokens": 2}, 1.98)),
    (3.01, events.ChainEnd("m", [])),
    (3.02, events.ChainStart("tools", "t", "a", [])),
    (3.03, events.ToolStart("clock", "call", {}, "t")),
    (5.0, events.ToolEnd("clock", "call", "noon", 1.97)),
    (5.01, events.ChainEnd("t", [{"role": "tool", "content": "noon"}])),
    (5.5, events.ChainStart("tools", "u", "a", [])),
    (6.5, events.ToolStart("count", "late", {}, "u")),
]


def test_wrapper_with_the_times_of_its_only_child_is_merged_into_it() -> None:
    steps = render_panel(state_of(WRAPPED), whole=True, now=7.0)["steps"]
    assert [(step["name"], step["depth"], step["wrappers"]) for step in steps] == [
        ("agent", 0, []),
        ("Chat", 1, ["model"]),
        ("clock", 1, ["tools"]),
        ("tools", 1, []),
        ("count", 2, []),
    ]
    chat, clock = steps[1], steps[2]
    assert (chat["id"], chat["call"], chat["start"], chat["end"]) == ("m", "c", 1.02, 3.0), "the times of the call"
    assert chat["blocks"][:2] == [["Inside", "model"], ["model: New input", "user: Hello"]], "nothing is lost"
    assert (clock["kind"], clock["call"]) == ("tool", "call")
    assert clock["blocks"] == [["Inside", "tools"], ["Input", "{}"], ["Output", "noon"]], "nothing is repeated"
    assert [step["marks"] for step in steps] == [[], ["part-0", "text-0", "text-1"], ["part-1"], [], ["part-2"]]


@pytest.mark.parametrize(
    ("timings", "lines"),
    [
        (None, None),
        ({"cached_tokens": 0}, ["In the cache: 0 tokens"]),
        ({"prompt_s": 0.0, "prompt_tokens": 1}, ["Reading: 1 token in 0.00 s"]),
        ({"generated_s": 2.5}, ["Writing: 2.50 s"]),
        (
            {"prompt_s": 0.5, "prompt_tokens": 100, "cached_tokens": 1200, "generated_s": 2.0, "generated_tokens": 80},
            [
                "Reading: 100 tokens in 0.50 s, 200 a second",
                "In the cache: 1,200 tokens",
                "Writing: 80 tokens in 2.00 s, 40 a second",
            ],
        ),
    ],
)
def test_bar_of_a_model_call_says_where_its_time_went(
    timings: dict[str, float] | None, lines: list[str] | None
) -> None:
    run = [
        *BEGIN,
        events.ModelStart("c", None, "Chat"),
        events.ModelEnd("c", {"output_tokens": 80}, 3.0, timings=timings),
    ]
    (bar,) = render_panel(state_of((100.0 + n, event) for n, event in enumerate(run)), whole=True)["steps"]
    assert [text for label, text in bar["blocks"] if label == "Time"] == (["\n".join(lines)] if lines else [])
    assert bar["read_s"] == (timings or {}).get("prompt_s")


@pytest.mark.parametrize("until", range(1, len(WRAPPED) + 1))
def test_bars_are_never_fewer_than_the_calls_and_keep_their_ids(until: int) -> None:
    state = state_of(WRAPPED[:until])
    steps = render_panel(state, whole=False, now=WRAPPED[until - 1][0])["steps"]
    shown = {name for step in steps for name in (step["name"], *step["wrappers"])}
    assert shown == {step.name for step in state.steps}
    assert len({step["id"] for step in steps}) == len(steps)


def test_node_of_an_agent_is_named_in_the_bar_of_its_model() -> None:
    renamed = [
        (at, replace(event, name="write") if isinstance(event, events.ChainStart) and event.name == "model" else event)
        for at, event in WRAPPED
    ]
    ended = next(place for place, (_, event) in enumerate(renamed, 1) if isinstance(event, events.ModelEnd))
    (bar,) = render_panel(state_of(renamed[:ended]), whole=False, now=3.05)["steps"]
    assert (bar["name"], bar["wrappers"]) == ("write \u203a Chat", ["agent", "write"])


def test_wrapper_that_works_after_its_child_is_a_bar_again() -> None:
    ended = next(place for place, (_, event) in enumerate(WRAPPED, 1) if isinstance(event, events.ModelEnd))
    at_once = render_panel(state_of(WRAPPED[:ended]), whole=False, now=3.05)["steps"]
    later = render_panel(state_of(WRAPPED[:ended]), whole=False, now=4.0)["steps"]
    assert [step["name"] for step in at_once] == ["Chat"]
    assert [(step["name"], step["wrappers"]) for step in later] == [("model", ["agent"]), ("Chat", [])]


STATES = st.sampled_from(["kept", "recalled", "summarised", "left_out"])
TURNS = st.lists(st.builds(lambda state, count: {"state": state, "count": count}, STATES, st.integers(1, 60)))


@for_all(TURNS)
def test_strip_of_turns_counts_every_turn_in_few_blocks(turns: list[dict[str, object]]) -> None:
    blocks = turn_blocks(turns)
    assert len(blocks) <= _TURNS + _JOINED + 1
    last = 0
    for block in blocks:
        assert block["first"] == last + 1
        last = block["last"]
        assert sum(block["states"].values()) == block["last"] - block["first"] + 1
    assert last == sum(int(str(turn["count"])) for turn in turns)
    for state in ("kept", "recalled", "summarised", "left_out"):
        counted = sum(block["states"].get(state, 0) for block in blocks)
        assert counted == sum(int(str(turn["count"])) for turn in turns if turn["state"] == state)
    assert all(block["first"] == block["last"] for block in blocks[-min(_TURNS, last) :])


def test_curve_has_the_rate_of_each_span_of_time() -> None:
    spoken = [*((0.0, event) for event in BEGIN), (1.0, events.Token("four", 1)), (1.1, events.Token("more", 2))]
    assert render_panel(state_of(spoken), whole=False)["curve"] == {"span_s": 0.25, "rates": [0, 0, 0, 0, 8.0]}
