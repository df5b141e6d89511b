"""The benchmark's tool: what it yields is found again on the page, and what is late or missing is told."""

import time
from pathlib import Path
from typing import Any

import pytest

from bench.model import SERIES, ScriptedModel, numbers
from bench.report import print_tools
from bench.tools import Case, lateness, marks

_TEXT = " w0000@1000.0\n w0001@1050.5\n w0000a@2000.0\n w0001a@2050.0\n"
_ROW = {"page": "ours", "history": 0, "repetition": 0, "case": "one"}


async def test_marks_are_numbered_and_tell_their_moments() -> None:
    begun = time.time() * 1000
    text = await marks.ainvoke({"count": 3})
    ended = time.time() * 1000
    assert numbers(text) == [0, 1, 2]
    ages = lateness(Case("", 3), text, {"": [ended] * 3})
    assert ended - begun + 1 > ages[0] > ages[1] > ages[2] > -1


def test_lateness_is_from_the_yield_to_the_page_in_each_series() -> None:
    seen = {"": [1010.0, 1150.5], "a": [2001.0, 2052.0], "b": []}
    assert lateness(Case("", 2, SERIES[:2]), _TEXT, seen) == [10, 100, 1, 2]
    assert lateness(Case("", 2), _TEXT, seen) == [10, 100]


@pytest.mark.parametrize(
    ("text", "seen"),
    [(_TEXT, [1010.0]), (_TEXT[14:], [1010.0, 1150.5]), (_TEXT + _TEXT, [1010.0, 1150.5]), (_TEXT, [990.0, 1150.5])],
    ids=["not recorded", "not on the page", "twice on the page", "recorded before its yield"],
)
def test_what_is_not_whole_has_no_figure(text: str, seen: list[float]) -> None:
    with pytest.raises(ValueError, match="of 2 marks"):
        lateness(Case("", 2), text, {"": seen})


async def test_the_model_calls_several_at_once(tmp_path: Path) -> None:
    called = await anext(ScriptedModel(log=tmp_path / "log").astream("T=3 N=60"))
    inputs = [(call["name"], call["args"]) for call in called.tool_calls]
    assert inputs == [("marks", {"count": 60, "series": series}) for series in SERIES]


_GOOD, _BAD = [100.0] * 39 + [900.0], [100.0] * 38 + [900.0] * 2


@pytest.mark.parametrize(
    ("turns", "line"),
    [
        ([_GOOD, _GOOD, _BAD], "100 | 100 (100 to 900) | 900 | yes"),
        ([_GOOD, _BAD, _BAD], "100 | 900 (100 to 900) | 900 | no"),
    ],
)
def test_at_most_five_in_a_hundred_may_be_late(turns: list[list[float]], line: str, capsys: Any) -> None:
    assert print_tools([_ROW | {"late_ms": late} for late in turns]) is line.endswith("yes")
    assert f"| one | 0 | {line} |" in capsys.readouterr().out


def test_a_failure_is_no_good_result(capsys: Any) -> None:
    assert not print_tools([_ROW | {"late_ms": [1.0]}, _ROW | {"repetition": 1, "error": "gone"}])
    assert "one, ours, 0 earlier, repetition 1 failed: gone" in capsys.readouterr().out
