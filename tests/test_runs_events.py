import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runs import events
from runs.events import WIRE_TYPES, Entry
from runs.record import decode, fold_record
from runs.tokens import estimate_chunk_tokens
from tests.grammar import FIELDS

EXAMPLES = [
    events.Run("c", "b", "m"),
    events.Status("waiting", "Waiting"),
    events.Context([{"role": "user", "content": "hi", "tokens": 1}], [], 1, 10),
    events.Context([], [], 9, 10, True, {"tools": 9}, "so", [{"name": "clock", "content": "tells", "tokens": 9}]),
    events.ModelStart("m", None, "model"),
    events.ModelEnd("m", {"input_tokens": 1, "output_tokens": 2}, 0.5),
    events.ModelEnd("m", None, 0.5, "cancelled"),
    events.ModelEnd("m", None, 0.5, timings={"generated_s": 0.4, "generated_tokens": 8}),
    events.Reasoning("so"),
    events.Token("a", 1),
    events.ChainStart("agent", "c", None, [], True),
    events.ChainEnd("c", [{"role": "user", "content": "x"}]),
    events.ToolInput("clock", "t", '{"zone"'),
    events.ToolStart("clock", "t", {"zone": "UTC"}),
    events.ToolOutput("clock", "t", "12"),
    events.ToolEnd("clock", "t", "12:00", 0.1),
    events.Approval("clock", "t", {}),
    events.State("streaming", "Writing", 3, True, ["clock"], 4.5, None),
    events.Complete("a", {"input_tokens": None, "output_tokens": 1}, {"ttft_s": 0.1}),
    events.Stopped("a", "user", {}, {}),
    events.Error("rate_limited", "wait", True, "", 30),
    events.Error("internal", "oh", True, "a"),
]


def entry(event: events.Event, seq: int = 1, at: float = 1_700_000_000.25) -> Entry:
    return Entry(seq, "run-1", at, event)


def test_every_type_of_the_contract_has_a_class() -> None:
    assert set(WIRE_TYPES.values()) == FIELDS.keys()
    assert {type(e) for e in EXAMPLES} == WIRE_TYPES.keys()


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda e: WIRE_TYPES[type(e)])
def test_wire_shape_has_the_fields_of_the_contract(event: events.Event) -> None:
    sent = json.loads(entry(event, seq=7).json)
    assert sent == entry(event, seq=7).wire()
    assert (sent["type"], sent["seq"], sent["run_id"]) == (WIRE_TYPES[type(event)], 7, "run-1")
    assert sent["timestamp"] == "2023-11-14T22:13:20.250Z"
    assert FIELDS[sent["type"]] <= sent.keys()


@pytest.mark.parametrize("event", EXAMPLES, ids=lambda e: WIRE_TYPES[type(e)])
def test_decoded_entry_equals_the_original(event: events.Event) -> None:
    assert decode(entry(event).json) == entry(event)


def test_only_optional_fields_are_omitted_if_none() -> None:
    sent = entry(events.ModelEnd("m", None, 0.5)).wire()
    assert "error" not in sent
    assert sent["usage"] is None
    assert "truncated" not in entry(events.ChainEnd("c", None)).wire()
    assert "retry_after" not in entry(events.Error("internal", "oh", True, "")).wire()


@given(st.text())
def test_any_text_is_one_line_and_decodes_to_itself(text: str) -> None:
    line = entry(events.Token(text, 1)).json
    assert "\n" not in line
    assert decode(line).event == events.Token(text, 1)


@given(st.lists(st.text().map(lambda text: events.Token(text, 1)), max_size=5))
def test_record_with_any_texts_can_be_folded(tokens: list[events.Token]) -> None:
    lines = [entry(e, seq).json for seq, e in enumerate([events.Run("c", "b", "m"), *tokens], 1)]
    assert fold_record("\n".join(lines)).tokens == sum(estimate_chunk_tokens(token.content) for token in tokens)


@pytest.mark.parametrize("line", ["", "{", "[]", "3", '{"type":"token"}', '{"type":"nothing","seq":1}', "null"])
def test_invalid_line_is_rejected(line: Any) -> None:
    with pytest.raises(ValueError):
        decode(line)
