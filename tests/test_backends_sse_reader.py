"""The reader of a streamed body, with bytes cut anywhere."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.sse_reader import Done, LineSplitter, SSEReader, StreamedError, UnreadableResponse

STARTS = ["data: ", "data:", ": comment\n", "event: ping\n", "id: 7\n", "retry: 5\n", "odd\n", "\ufeff"]
DATA = ['{"a": "é😀\u2028"}', '{"a":', ' "b"}', "{}", "[DONE]", " "]
PIECES = st.lists(st.sampled_from([*STARTS, *DATA, "\n", "\r", "\r\n", "\n\n"]), max_size=14).map("".join)
CUTS = st.lists(st.integers(0, 200), max_size=12)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    ends = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(ends)]


def read(*pieces: bytes) -> list[Any]:
    """Returns the objects, `done` for an announced end, and the class of an error."""
    events, found = SSEReader(), list[Any]()
    try:
        for piece in pieces:
            found += events.feed(piece)
        found += events.end()
    except (UnreadableResponse, StreamedError) as e:
        found.append(type(e).__name__)
    return ["done" if isinstance(one, Done) else one for one in found]


@given(PIECES, CUTS)
def test_bytes_may_be_cut_anywhere(text: str, places: list[int]) -> None:
    assert read(*cut(text.encode(), places)) == read(text.encode())


@given(st.text(st.sampled_from("ab\r\n\u2028\u0085é😀\x0b\x1c"), max_size=20), CUTS)
def test_lines_end_at_cr_lf_and_crlf_alone(text: str, places: list[int]) -> None:
    lines = LineSplitter()
    found = [line for piece in cut(text.encode(), places) for line in lines.feed(piece)]
    expected = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert [*found, lines.rest.decode()] == expected


@given(st.lists(st.dictionaries(st.text(max_size=3), st.text(max_size=5), min_size=1), max_size=4), CUTS, st.booleans())
def test_objects_are_found_in_events_and_in_lines(objects: list[Any], places: list[int], bare: bool) -> None:
    written = [json.dumps(one, ensure_ascii=False) for one in objects]
    text = "".join(f"{one}\n" if bare else f"data: {one}\n\n" for one in written)
    assert read(*cut(text.encode(), places)) == objects


KEEP_ALIVES = ["ping", "null", "[]", "5", '"ping"', "[1, 2]", "OPEN: ROUTER"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('data: {"a": 1}\n\ndata: [DONE]\n\n', [{"a": 1}, "done"]),
        ('data: {"a":\ndata: 1}\n\n', [{"a": 1}]),
        ('data: {"a": 1}', [{"a": 1}]),
        ('data: {"a": 1}\n\ndata: {"a"', [{"a": 1}]),
        ('data: {"a"\n\n', ["UnreadableResponse"]),
        ('data: [{"a"\n\n', ["UnreadableResponse"]),
        ('data: [{"a": 1}, {"a": 2}]\n\n', ["UnreadableResponse"]),
        ("data: null\n\n", []),
        ("data: nonsense\n\n", []),
        *((f'data: {one}\n\ndata: {{"a": 1}}\n\n', [{"a": 1}]) for one in KEEP_ALIVES),
        *((f'data: {one}\ndata: {{"a": 1}}\n', [{"a": 1}]) for one in KEEP_ALIVES if one != "[1, 2]"),
        ('data: data: {"a": 1}\n\ndata: data: [DONE]\n\n', [{"a": 1}, "done"]),
        ('data:data:{"a": 1}\n\n', [{"a": 1}]),
        ('data: [{"error": {"code": 500}}]\n\n', [{"error": {"code": 500}}]),
        ('data: [\ndata: {"error": {"details": []\ndata: }}\ndata: ]\n\n', [{"error": {"details": []}}]),
        ('[{\n  "error": {\n    "details": []\n  }\n}]\n', [{"error": {"details": []}}]),
        ("event: other\ndata: nonsense\n\n", []),
        ("event: error\ndata: nonsense\n\n", ["StreamedError"]),
        ('error: {"code": 500}\n\n', ["StreamedError"]),
        ("event: ping\ndata: nonsense\n\n", []),
        ("<!DOCTYPE html>\n<p>Hello</p>\n", []),
        ('{"a": 1}data: {"b": 2}\n\n', [{"a": 1}, {"b": 2}]),
        ('{"a": 1} {"b": 2}\n', [{"a": 1}, {"b": 2}]),
        ('{"a": 1}' * 1500 + "\n", [{"a": 1}] * 1500),
        ('{"a": "}\\"{"}\n', [{"a": '}"{'}]),
        ("", []),
    ],
)
def test_objects_in_a_body(text: str, found: list[Any]) -> None:
    assert read(text.encode()) == read(*[bytes([b]) for b in text.encode()]) == found


def test_an_event_without_end_is_given_up() -> None:
    events = SSEReader()
    with pytest.raises(UnreadableResponse):
        for _ in range(40):
            list(events.feed(b"data: " + b"a" * 1_000_000))
