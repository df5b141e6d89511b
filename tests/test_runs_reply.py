from hypothesis import given
from hypothesis import strategies as st

from runs import events
from runs.events import Entry, Event
from runs.fold import apply
from runs.reply import ReplyPart, ReplyText, grouped_parts, part_offsets, reply_parts, split_text
from runs.state import AgentState

RUN = events.Run("c", "b", "m")


def folded(*received: Event) -> AgentState:
    state = AgentState()
    for seq, event in enumerate((RUN, *received), 1):
        state = apply(state, Entry(seq, "r", float(seq), event))
    return state


def test_parts_know_how_much_text_was_there_when_they_began() -> None:
    state = folded(
        events.ModelStart("1", None, "Chat"),
        events.Reasoning("Hm"),
        events.Token("Let me see. ", 3),
        events.ModelEnd("1", None, 1.0),
        events.ToolStart("clock", "a", {}),
        events.ToolStart("count", "b", {}),
        events.ToolEnd("clock", "a", "noon", 1.0),
        events.ToolEnd("count", "b", "1", 1.0),
        events.ModelStart("2", None, "Chat"),
        events.Token("Noon.", 5),
        events.Reasoning("Really?"),
    )
    parts = reply_parts(state)
    assert [(part.name or part.text, part.offset) for part in parts] == [
        ("Hm", 0),
        ("clock", 12),
        ("count", 12),
        ("Really?", 17),
    ]
    assert part_offsets(state) == [0, 12, 17]
    assert split_text("Let me see. Noon.", part_offsets(state)) == ["", "Let me see. ", "Noon.", ""]
    assert [(offset, len(group)) for offset, group in grouped_parts(parts)] == [(0, 1), (12, 2), (17, 1)]


def test_retracted_text_counts_for_no_offset() -> None:
    state = folded(
        events.ModelStart("1", None, "Chat"),
        events.Token("Kept. ", 2),
        events.ModelEnd("1", None, 1.0),
        events.ToolStart("clock", "a", {}),
        events.ToolEnd("clock", "a", "noon", 1.0),
        events.ModelStart("2", None, "Chat"),
        events.Token("I think", 4),
        events.Reasoning("aloud"),
        events.Reasoning("I think", retracts=True),
        events.Token("Noon.", 6),
        events.ToolStart("count", "b", {}),
    )
    found = [(part.name or part.text, part.offset) for part in reply_parts(state)]
    assert found == [("clock", 6), ("I think", 6), ("aloud", 6), ("count", 11)]
    assert state.text_length == len("Kept. Noon.")


def test_old_stored_part_has_no_offset_and_stands_before_the_text() -> None:
    stored = {"kind": "thinking", "text": "Hm", "start": 1.0, "end": 2.0, "name": "", "input": None, "error": None}
    part = ReplyPart(**stored)  # type: ignore[arg-type]
    assert part.offset == 0
    assert ReplyPart(**part.wire()) == part


@given(st.text(max_size=40), st.lists(st.integers(0, 60), max_size=5))
def test_split_text_loses_only_white_space(text: str, offsets: list[int]) -> None:
    pieces = split_text(text, sorted(offsets))
    assert len(pieces) == len(offsets) + 1
    assert "".join("".join(pieces).split()) == "".join(text.split())


@given(st.lists(st.sampled_from(["token", "call", "thought", "retracts", "tool"]), max_size=14))
def test_offsets_are_places_in_the_text(kinds: list[str]) -> None:
    received: list[Event] = []
    for number, kind in enumerate(kinds):
        match kind:
            case "token":
                received.append(events.Token(f"{number} ", number))
            case "call":
                received.append(events.ModelStart(str(number), None, "Chat"))
            case "tool":
                received.append(events.ToolStart("clock", str(number), {}))
            case _:
                received.append(events.Reasoning("hm", retracts=kind == "retracts" or None))
    reply, state = ReplyText(), folded(*received)
    for event in received:
        reply.add(event)
    assert state.text_length == len(str(reply))
    assert all(0 <= part.offset <= state.text_length for part in reply_parts(state) if part.kind == "thinking")
