"""The translation of a run's log into AG-UI events, split at any place."""

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.tools import Toolbox
from agent.turn import TurnRequest
from agent.turns import Turns
from runs import events
from runs.events import Entry
from runs.live import LiveRun
from runs.tool_calls import ApprovalAnswer
from settings import ToolSettings
from tests.agui import Events, verify
from transports.agui_events import EventTranslation
from transports.agui_interrupts import InterruptId


def translated(entries: Sequence[Entry], cuts: Sequence[int] = ()) -> list[Events]:
    """The entries of a run as AG-UI runs that end at `cuts` and at the run's end."""
    runs: list[Events] = []
    done = 0
    for cut in [*sorted(set(cuts)), len(entries)]:
        view = EventTranslation("thread", f"run {len(runs)}")
        received = view.begin(entries[:done])
        received += [event for entry in entries[done:cut] for event in view.take(entry)]
        if not view.ended:
            view.waiting = view.waiting or {"call": events.Approval("tool", "call", {})}
            received += view.pause(600)
        runs.append([event.model_dump(mode="json", by_alias=True) for event in received])
        done = cut
    return runs


def joined(runs: Sequence[Events], kind: str, field: str) -> str:
    return "".join(one[field] for received in runs for one in received if one["type"] == kind)


def check_runs(entries: Sequence[Entry], runs: list[Events]) -> None:
    """Checks that each part is a valid AG-UI run, and that together they say what the log says."""
    last = entries[-1].event
    for received in runs:
        state = verify(received)
        assert [received[0][name] for name in ("threadId", "runId")] == ["thread", f"run {runs.index(received)}"]
    texts = [e.event.content for e in entries if isinstance(e.event, events.Token)]
    thoughts = [e.event.content for e in entries if isinstance(e.event, events.Reasoning)]
    assert joined(runs, "TEXT_MESSAGE_CONTENT", "delta") == "".join(texts)
    assert joined(runs, "REASONING_MESSAGE_CONTENT", "delta") == "".join(thoughts)
    called = [one["toolCallId"] for received in runs for one in received if one["type"] == "TOOL_CALL_START"]
    answered = [one["toolCallId"] for received in runs for one in received if one["type"] == "TOOL_CALL_RESULT"]
    assert len(called) == len(set(called)) and sorted(called) == sorted(answered)
    made = [
        (one["type"], one["messageId"])
        for received in runs
        for one in received
        if one["type"] in ("TEXT_MESSAGE_START", "REASONING_START", "TOOL_CALL_RESULT")
    ]
    assert len(made) == len(set(made))
    digests = [e.event for e in entries if isinstance(e.event, events.State)]
    if digests:
        assert {name: state[name] for name in ("tokens_received", "tools_called")} == {
            "tokens_received": digests[-1].tokens_received,
            "tools_called": digests[-1].tools_called,
        }
    end = runs[-1][-1]
    match last:
        case events.Complete():
            assert (end["outcome"], end["result"]["usage"]) == ({"type": "success"}, last.usage)
        case events.Stopped():
            assert (end["outcome"], end["result"]["reason"]) == ({"type": "cancelled"}, last.reason)
        case events.Error():
            assert (end["message"], end["code"]) == (last.message, last.code)


_USAGE = {"input_tokens": 3, "output_tokens": 5}
_TIMING = {"ttft_s": 0.1, "duration_s": 1.0, "tokens_per_s": 2.0}
_LASTS: list[events.Last] = [
    events.Complete("", _USAGE, _TIMING),
    events.Stopped("", "limit", _USAGE, _TIMING),
    events.Error("rate_limited", "Wait.", True, "", 3.0),
]


@st.composite
def logs(draw: st.DrawFn) -> list[Entry]:
    """Any run that follows the grammar, with calls and steps that overlap in any way."""
    received: list[events.Event] = [events.Run("c", "Script", "full"), events.Status("queued", "Processing...")]
    opened: dict[str, events.End] = {}
    for number in range(draw(st.integers(0, 25))):
        name = f"id{number}"
        kind = draw(st.sampled_from(["chain", "model", "tool", "text", "thought", "chunk", "ask", "state", "end"]))
        calls = [one for one in opened.values() if isinstance(one, events.ToolEnd)]
        if kind == "chain":
            received.append(events.ChainStart(draw(st.sampled_from(["agent", "tools", "tools 2"])), name, None, []))
            opened[name] = events.ChainEnd(name, [])
        elif kind == "model":
            received.append(events.ModelStart(name, None, "model"))
            opened[name] = events.ModelEnd(name, draw(st.sampled_from([None, _USAGE])), 0.1)
        elif kind == "tool":
            received.append(events.ToolStart("tool", name, {"a": 1}))
            failed = draw(st.sampled_from([None, "failed"]))
            opened[name] = events.ToolEnd("tool", name, draw(st.sampled_from(["", "out"])), 0.1, failed)
        elif kind == "text":
            received.append(events.Token("text ", number + 1))
        elif kind == "thought":
            received.append(events.Reasoning("thought "))
        elif kind == "chunk" and calls:
            received.append(events.ToolOutput("tool", calls[-1].tool_call_id, "chunk"))
        elif kind == "ask" and calls:
            received.append(events.Approval("tool", calls[-1].tool_call_id, {}))
        elif kind == "state":
            received.append(events.State("tool", "step", number, False, ["tool"], 0.0, None))
        elif kind == "end" and opened:
            received.append(opened.pop(draw(st.sampled_from(sorted(opened)))))
    received += [*opened.values(), draw(st.sampled_from(_LASTS))]
    return [Entry(seq, "r" * 22, 1.7e9 + seq, event) for seq, event in enumerate(received, 1)]


@given(logs(), st.data())
def test_any_run_split_anywhere_gives_valid_agui_runs(entries: list[Entry], data: st.DataObject) -> None:
    cuts = data.draw(st.lists(st.integers(1, len(entries) - 1), max_size=3))
    check_runs(entries, translated(entries, cuts))


async def followed(turns: Turns, message: str, approved: bool = True) -> LiveRun:
    run = await turns.start(TurnRequest(message))
    async with asyncio.timeout(30):
        async for _ in run.log.follow(wake_s=lambda: 0.01):
            for call_id in run.tool_calls.awaiting_approval:
                run.tool_calls.answer(call_id, ApprovalAnswer(approved))
    return run


@pytest.mark.parametrize("message", ["hello", "tour", "approval", "tools", "tool failure", "cut", "/count 3", "busy"])
async def test_scripted_runs_split_anywhere_give_valid_agui_runs(turns: Turns, message: str) -> None:
    turns.toolbox = Toolbox(ToolSettings(enabled=["calculator", "clock", "count"]))
    run = await followed(turns, message)
    entries = run.log.entries
    check_runs(entries, translated(entries))
    for cut in range(1, len(entries)):
        check_runs(entries, translated(entries, [cut]))


def entries_of(*received: events.Event) -> list[Entry]:
    return [Entry(seq, "r" * 22, 1.7e9 + seq, event) for seq, event in enumerate(received, 1)]


def test_run_pauses_only_while_all_open_calls_wait() -> None:
    view = EventTranslation("t", "r")
    log = entries_of(
        events.Run("c", "Script", "full"),
        events.ToolStart("quick", "call_1", {}),
        events.ToolStart("careful", "call_2", {"text": "x" * 1000}),
        events.ToolStart("careful", "call_3", {}),
        events.Approval("careful", "call_2", {"text": "x" * 1000}),
        events.Approval("careful", "call_3", {}),
        events.Status("approval", "Calling careful", "call_3"),
        events.ToolEnd("careful", "call_3", "done", 0.1),
        events.ToolEnd("quick", "call_1", "done", 0.1),
    )
    view.begin()
    assert [view.take(entry) and view.paused for entry in log] == [False] * 4 + [[]] * 2 + [False] * 2 + [True]
    end = view.pause(600)[-1].model_dump(mode="json", by_alias=True)
    [asked] = end["outcome"]["interrupts"]
    assert InterruptId.parse(asked["id"]) == InterruptId("r" * 22, 9, "call_2")
    assert asked["toolCallId"] == f"{'r' * 22}-call_2"
    assert asked["metadata"] == {"tool": "careful", "input": {"text": "x" * 1000}}
    assert len(asked["message"]) < 400
    assert asked["expiresAt"] == "2023-11-14T22:23:21.000Z"
    assert view.ended


def test_usage_counts_each_agui_run_alone() -> None:
    log = entries_of(
        events.Run("c", "Script", "full"),
        events.ModelEnd("a", {"input_tokens": 10, "output_tokens": 4}, 0.1),
        events.ModelEnd("b", {"input_tokens": 5, "output_tokens": 2}, 0.1),
        events.Complete("", {"input_tokens": 15, "output_tokens": 6}, _TIMING),
    )
    first, second = translated(log, [2])
    counts = [(u["inputTokens"], u["outputTokens"], u["totalTokens"]) for u in first[-1]["usage"] + second[-1]["usage"]]
    assert counts == [(10, 4, 14), (5, 2, 7)]
    assert second[-1]["result"]["usage"] == {"input_tokens": 15, "output_tokens": 6}


@pytest.mark.parametrize(
    "last",
    [
        events.ModelEnd("b", {"input_tokens": 374, "output_tokens": 9, "estimated": True}, 0.1),
        events.ModelEnd("b", None, 0.1, "cancelled"),
    ],
)
def test_incomplete_usage_is_not_reported(last: events.ModelEnd) -> None:
    log = entries_of(
        events.Run("c", "Script", "full"),
        events.ModelEnd("a", {"input_tokens": 350, "output_tokens": 20}, 0.1),
        last,
        events.Complete("", {"input_tokens": 724, "output_tokens": 29, "estimated": True}, _TIMING),
    )
    (received,) = translated(log, [])
    assert received[-1].get("usage") is None
    assert received[-1]["result"]["usage"]["estimated"] is True


@pytest.mark.parametrize("text", ["", "x", "a:b:c", "a::c", "a:-1:c", "a:1e3:c", "a:٣:c", "a:99999999999:c", "a:1"])
def test_invalid_interrupt_id_is_not_parsed(text: str) -> None:
    place = InterruptId.parse(text)
    assert place is None or str(place) == "a:1:"


def test_interrupt_id_round_trips_any_call_id() -> None:
    assert InterruptId.parse(str(InterruptId("run", 12, "call:1:2"))) == InterruptId("run", 12, "call:1:2")
