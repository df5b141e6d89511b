"""The mapping of single events of AG-UI: bounds, and forms that few servers send."""

from typing import Any

import pytest

from agent.agui_fields import merged
from agent.agui_interrupts import read_interrupts
from agent.agui_mapper import AguiMapper
from agent.agui_state import RemoteState
from agent.agui_transcript import Transcript
from backends.agui_client import InvalidEvent
from runs import events
from runs.events import Event


def mapped(mapper: AguiMapper, *sent: dict[str, Any]) -> list[Event]:
    return [event for number, one in enumerate(sent) for event in mapper.map(one, float(number))]


def new_mapper() -> AguiMapper:
    return AguiMapper("Remote", Transcript([]))


def test_pieces_that_arrive_together_are_joined() -> None:
    def piece(delta: Any, message_id: str = "m", kind: str = "TEXT_MESSAGE_CONTENT") -> dict[str, Any]:
        return {"type": kind, "messageId": message_id, "delta": delta}

    end = {"type": "TEXT_MESSAGE_END", "messageId": "m"}
    sent = [piece("a"), piece("b"), piece("c", "n"), end, piece("d"), piece(5), piece("e"), piece("f"), end]
    thought = piece("g", kind="REASONING_MESSAGE_CONTENT")
    joined = [piece("ab"), piece("c", "n"), end, piece("d"), piece(5), piece("ef"), end, thought]
    assert merged([*sent, thought]) == joined and merged([]) == []
    delta = {"type": "STATE_DELTA", "delta": []}
    assert merged([delta, delta]) == [delta, delta]


def test_long_names_and_ids_are_cut() -> None:
    call = {"toolCallId": "i" * 5000, "toolCallName": "n" * 5000}
    error = {"content": "x", "metadata": {"error": "e" * 5000}}
    found = mapped(
        new_mapper(),
        {"type": "STEP_STARTED", "stepName": "s" * 5000},
        {"type": "TOOL_CALL_START", **call},
        {"type": "TOOL_CALL_RESULT", **call, **error},
        {"type": "CUSTOM", "name": "c" * 5000, "value": 1},
    )
    names = [len(e.name) for e in found if isinstance(e, events.ChainStart)]
    start, end = (e for e in found if isinstance(e, events.ToolStart | events.ToolEnd))
    assert names == [200, 200] and len(start.tool) == 200 and len(start.tool_call_id) < 20
    assert isinstance(end, events.ToolEnd) and len(end.error or "") == 2000


def test_a_call_cannot_have_the_id_of_a_step() -> None:
    (start,) = mapped(
        new_mapper(),
        {"type": "TOOL_CALL_START", "toolCallId": "step-1", "toolCallName": "t"},
        {"type": "TOOL_CALL_END", "toolCallId": "step-1"},
    )
    assert isinstance(start, events.ToolStart) and start.tool_call_id != "step-1"


def test_the_transcript_is_bounded() -> None:
    mapper = new_mapper()
    for number in range(2500):
        mapped(mapper, {"type": "TEXT_MESSAGE_CONTENT", "messageId": f"m{number}", "delta": "w"})
    assert len(mapper.transcript.messages) == 2000
    assert mapper.transcript.messages[0] == {"id": "m0", "role": "assistant", "content": "w"}


def test_interrupts_are_bounded() -> None:
    mapper = new_mapper()
    for _ in range(30):
        mapped(mapper, {"type": "CUSTOM", "name": "on_interrupt", "value": "?"})
    assert len(read_interrupts({"type": "RUN_FINISHED"}, mapper.interrupts)) == 20
    many = [{"id": str(number), "reason": "?"} for number in range(30)]
    with pytest.raises(InvalidEvent):
        read_interrupts({"outcome": {"type": "interrupt", "interrupts": many}}, [])


def test_a_value_that_only_looks_like_requests_is_a_question() -> None:
    for bad in ([{"args": {}}], "all", [{"name": "a", "args": 5}], [{"name": "a"}] * 30):
        (one,) = read_interrupts({}, [{"name": "on_interrupt", "value": {"action_requests": bad}}])
        assert list(one.value) == ["question"]
    requests = [{"name": "send", "args": {"to": "Ada"}}]
    (one,) = read_interrupts({}, [{"name": "on_interrupt", "value": {"action_requests": requests}}])
    assert one.value == {"action_requests": requests}


def test_only_what_is_new_of_a_state_is_returned() -> None:
    state = RemoteState()
    assert state.replace({"a": 1, "list": [1], "messages": ["x"], "empty": []}) == []
    assert state.changes() == {"a": 1, "list": [1]} and state.changes() is None
    state.replace({"a": 1, "list": [1, 2], "messages": ["x", "y"]})
    assert state.changes() == {"list": [2]}
    assert state.patch([{"op": "replace", "path": "/a", "value": 2}]) == []
    assert state.patch([{"op": "test", "path": "/a", "value": 2}]) == []
    assert state.changes() == {"a": 2}
    moved = [{"op": "move", "from": "/a", "path": "/b"}, {"op": "add", "path": "/list/-", "value": 3}]
    assert state.patch(moved) == [] and state.changes() == {"b": 2, "list": [3]}
    assert state.value == {"b": 2, "list": [1, 2, 3], "messages": ["x", "y"]}
    large = {"text": "x" * 300_000}
    assert state.replace(large) == [large] and state.value == {}


def test_a_patch_that_does_not_fit_is_returned_and_ends_the_state() -> None:
    for bad in ({"op": "remove", "path": "/no"}, {"op": "?"}, 5, {"op": "add", "path": "no slash", "value": 1}, {}):
        state = RemoteState()
        state.replace({"a": 1})
        assert state.patch([bad]) == [{"a": 1}, [bad]] and state.value == {}
        later = [{"op": "add", "path": "/b", "value": 1}]
        assert state.patch(later) == [later], "the state is not known"
        state.replace([1])
        assert state.changes() == [1] == state.value


def test_changes_of_the_state_are_gathered() -> None:
    mapper, found = new_mapper(), list[Event]()
    for number in range(45):
        change = [{"op": "add", "path": "/tokens", "value": number}]
        found += mapper.map({"type": "STATE_DELTA", "delta": change}, number / 10 + 1)
        found += mapper.map({"type": "REASONING_MESSAGE_CONTENT", "delta": "x"}, number / 10 + 1)
    found += mapper.map({"type": "STEP_STARTED", "stepName": "next"}, 6.0)
    shown = [(e.name, e.input) for e in found if isinstance(e, events.ChainStart)]
    assert [name for name, _ in shown] == ["state", "state", "state", "next"]
    assert shown[2] == ("state", {"tokens": 44})


def test_events_of_another_glassbox_are_not_shown_twice() -> None:
    received = {"type": "CUSTOM", "name": "status", "value": {"phase": "queued", "content": "Loading SmolLM2, 30%"}}
    written = {"type": "CUSTOM", "name": "tool_input", "value": {"tool": "t", "tool_call_id": "1", "delta": "{"}}
    assert mapped(new_mapper(), received, written) == [events.Status("waiting", "Loading SmolLM2, 30%")]
    own = {"type": "CUSTOM", "name": "status", "value": "of another agent"}
    assert [type(e) for e in mapped(new_mapper(), own)] == [events.ChainStart, events.ChainEnd]


def test_partial_results_of_another_glassbox_are_shown_while_the_tool_runs() -> None:
    value = {"tool": "count", "tool_call_id": "c", "chunk": "1 2"}
    call = {"toolCallId": "c", "toolCallName": "count"}
    part = {"type": "CUSTOM", "name": "tool_output", "value": value}
    early = mapped(new_mapper(), part)
    _, during, _, _ = mapped(
        new_mapper(),
        {"type": "TOOL_CALL_START", **call},
        {"type": "TOOL_CALL_END", **call},
        part,
        {"type": "TOOL_CALL_RESULT", **call, "content": "1 2 3"},
    )
    assert [type(e) for e in early] == [events.ChainStart, events.ChainEnd], "the call is not known"
    assert during == events.ToolOutput("count", "c", "1 2")
