"""The merger of tool call deltas, in every combination of servers' deviations."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.tool_deltas import ToolDeltas

Call = tuple[str, dict[str, str]]
TOOLS = {"calculator", "clock", "count", "count_words"}
INDEXES = ("right", "missing", "null", "same", "from one")
IDS = ("once", "repeated", "missing", "empty", "late", "other each time")
NAMES = ("once", "repeated", "pieces", "empty after")
ARGUMENTS = ("pieces", "whole", "object", "growing", "after empty")
TWICE = ("encoded twice", "encoded twice, in pieces")


@dataclass(frozen=True)
class Calling:
    """A server's way of sending tool calls."""

    index: str = "right"
    ids: str = "once"
    names: str = "once"
    arguments: str = "pieces"
    together: bool = False
    """Whether whole calls come in one delta."""
    last: bool = False
    """Whether they come only in the final message."""

    def deltas(self, calls: Sequence[Call]) -> list[list[dict[str, Any]]]:
        """Returns the `tool_calls` of each delta."""
        if self.together:
            return [[whole_call(n, *call) | _index(n, self.index) for n, call in enumerate(calls)]]
        return [[one] for n, call in enumerate(calls) for one in call_deltas(n, *call, self)]


def cut(text: str) -> list[str]:
    return [text[:3], text[3:7], text[7:]]


def call_deltas(number: int, name: str, arguments: dict[str, str], how: Calling) -> list[dict[str, Any]]:
    """Returns the deltas that a server sends for one call."""
    text = json.dumps(arguments)
    pieces: list[Any] = {
        "pieces": cut(text),
        "whole": [text],
        "object": [arguments],
        "growing": [text[:5], text[:9], text],
        "after empty": ["{}", *cut(text)],
        "encoded twice": [json.dumps(text)],
        "encoded twice, in pieces": cut(json.dumps(text)),
    }[how.arguments]
    names = {"once": [name], "repeated": [name] * (len(pieces) + 1), "pieces": [name[:3], name[3:]]}
    named = names.get(how.names, [name, *[""] * len(pieces)])
    given: list[Any] = [*[None] * (len(named) - 1 if how.names == "pieces" else 0), *pieces]
    found = []
    for at, one in enumerate(given):
        function = {"arguments": one} | ({"name": named[at]} if at < len(named) else {})
        found.append({"function": function} | _index(number, how.index) | _id(number, at, len(given), how.ids))
    return found


def _index(number: int, how: str) -> dict[str, Any]:
    return {} if how == "missing" else {"index": {"null": None, "same": 0, "from one": number + 1}.get(how, number)}


def _id(number: int, at: int, most: int, how: str) -> dict[str, Any]:
    if how == "missing" or (how == "once" and at) or (how == "late" and at < most - 1):
        return {}
    return {"id": {"empty": "", "other each time": f"call_{number}_{at}"}.get(how, f"call_{number}")}


def whole_call(number: int, name: str, arguments: dict[str, str]) -> dict[str, Any]:
    return {"id": f"call_{number}", "function": {"name": name, "arguments": json.dumps(arguments)}}


def merged(deltas: Sequence[Any], tools: Any = TOOLS) -> list[tuple[str, Any]]:
    """Returns the calls' names and arguments, and checks their shape and indexes."""
    merging = ToolDeltas(tools)
    for one in deltas:
        merging.add(one)
    calls = merging.calls()
    assert [call["index"] for call in calls] == list(range(len(calls)))
    assert {call["type"] for call in calls} <= {"function"}
    return [(call["function"]["name"], json.loads(call["function"]["arguments"])) for call in calls]


SUM = ("calculator", {"expression": "1 + 1"})
CALLS: list[list[Call]] = [
    [SUM],
    [SUM, ("calculator", {"expression": "2 + 2"})],
    [SUM, ("clock", {"timezone": "UTC"})],
    [("count", {"upto": "3"}), ("count_words", {"text": "a b"}), ("count", {"upto": "{4}"})],
]


@pytest.mark.parametrize("calls", CALLS, ids=len)
@pytest.mark.parametrize("arguments", ARGUMENTS)
@pytest.mark.parametrize("names", NAMES)
def test_calls_are_complete_in_each_combination(calls: list[Call], names: str, arguments: str) -> None:
    for index, ids in itertools.product(INDEXES, IDS):
        deltas = Calling(index, ids, names, arguments).deltas(calls)
        assert merged(deltas) == calls, (index, ids, deltas)


@pytest.mark.parametrize("calls", CALLS, ids=len)
@pytest.mark.parametrize("arguments", TWICE)
@pytest.mark.parametrize("names", ["once", "repeated"])
def test_arguments_may_be_encoded_twice(calls: list[Call], names: str, arguments: str) -> None:
    for index, ids in itertools.product(INDEXES, ("once", "repeated", "missing")):
        assert merged(Calling(index, ids, names, arguments).deltas(calls)) == calls, (index, ids)


@pytest.mark.parametrize("calls", CALLS, ids=len)
@pytest.mark.parametrize("arguments", ["pieces", "whole", "growing"])
def test_the_index_may_count_the_deltas_of_calls_that_are_named_each_time(calls: list[Call], arguments: str) -> None:
    deltas = Calling("right", "repeated", "repeated", arguments).deltas(calls)
    assert merged([[{**one, "index": n}] for n, (one,) in enumerate(deltas)]) == calls


def test_a_counted_delta_continues_the_call_of_its_id() -> None:
    pieces = ['{"q":', "1}"]
    deltas = [
        [{"index": n, "id": "a", "function": {"name": "search", "arguments": piece}}] for n, piece in enumerate(pieces)
    ]
    assert merged(deltas, {"search"}) == [("search", {"q": 1})]


@pytest.mark.parametrize("calls", CALLS, ids=len)
@pytest.mark.parametrize("index", INDEXES)
def test_complete_calls_in_one_delta_stay_separate(calls: list[Call], index: str) -> None:
    assert merged(Calling(index, together=True).deltas(calls)) == calls


@pytest.mark.parametrize("calls", CALLS, ids=len)
@pytest.mark.parametrize("ids", IDS)
def test_numbered_calls_may_be_interleaved(calls: list[Call], ids: str) -> None:
    apart = [call_deltas(n, *call, Calling("right", ids)) for n, call in enumerate(calls)]
    mixed = [[one] for some in itertools.zip_longest(*apart) for one in some if one is not None]
    assert merged(mixed) == calls


TEXT = st.text(st.sampled_from('ab{}[]"\\\\: ,1\u2028é😀'), max_size=12)
OBJECT = st.dictionaries(st.sampled_from(["a", "b", "{", "text"]), TEXT, min_size=1, max_size=3)


@given(OBJECT, st.lists(st.integers(0, 60), max_size=8), st.sampled_from(IDS), st.booleans())
def test_arguments_may_be_cut_anywhere(given_: dict[str, str], places: list[int], ids: str, named: bool) -> None:
    text = json.dumps(given_)
    ends = sorted({place % len(text) for place in places} | {0, len(text)})
    pieces = [text[a:b] for a, b in itertools.pairwise(ends)]
    deltas = []
    for at, piece in enumerate(pieces):
        function = {"arguments": piece} | ({"name": "calculator"} if named or not at else {})
        deltas.append([{"index": 0, "function": function} | _id(0, at, len(pieces), ids)])
    if not (ids == "other each time" and named):  # there a piece that begins with a brace may be another call
        assert merged(deltas) == [("calculator", given_)]


@pytest.mark.parametrize(
    ("deltas", "names"),
    [
        ([{"name": "count"}, {"name": "count_words"}], ["count", "count_words"]),
        ([{"name": "count"}, {"name": "_words"}], ["count_words"]),
        ([{"name": "cal"}, {"name": "calculator"}], ["calculator"]),
        ([{"name": "clock"}, {"name": "clock"}], ["clock"]),
        ([{"name": "un"}, {"name": "known"}], ["unknown"]),
        ([{"name": "unknown"}, {"name": "unknown"}], ["unknown"]),
        ([{"name": ""}, {"name": None}, {"name": "clock"}], ["clock"]),
    ],
)
def test_names_are_repeated_or_in_pieces(deltas: list[Any], names: list[str]) -> None:
    merging = ToolDeltas(TOOLS)
    for one in deltas:
        merging.add([{"function": one}])
    assert [call["function"]["name"] for call in merging.calls()] == names


@pytest.mark.parametrize("arguments", ["[1, 2]", "nonsense", '"1+1"', '{"a": ', "5"])
def test_arguments_that_are_not_an_object_are_unchanged(arguments: str) -> None:
    merging = ToolDeltas(TOOLS)
    merging.add([{"index": 0, "function": {"name": "clock", "arguments": arguments}}])
    assert merging.calls()[0]["function"]["arguments"] == arguments


@pytest.mark.parametrize("odd", [[None], ["text"], [5], 5, True])
def test_an_invalid_call_is_rejected(odd: Any) -> None:
    with pytest.raises(TypeError):
        ToolDeltas().add(odd)


def test_no_delta_gives_no_call() -> None:
    merging = ToolDeltas(TOOLS)
    merging.add([{"index": 0, "function": {}}])
    merging.add([])
    assert merging.calls() == []
