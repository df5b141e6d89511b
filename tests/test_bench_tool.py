"""The benchmark of tools: its tool, and how late or missing marks are reported."""

import time
from pathlib import Path
from typing import Any

import pytest

from bench.app_tools import marks
from bench.model import SERIES, ScriptedModel, numbers
from bench.tool import Case, lateness, report

_TEXT = " w0000@1000.0\n w0001@1050.5\n w0000a@2000.0\n w0001a@2050.0\n"
_ROW = {"page": "ours", "history": 0, "repetition": 0, "case": "one"}


async def test_marks_have_numbers_and_moments() -> None:
    begun = time.time() * 1000
    text = await marks.ainvoke({"count": 3})
    ended = time.time() * 1000
    assert numbers(text) == [0, 1, 2]
    ages = lateness(Case("", 3), text, {"": [ended] * 3})
    assert ended - begun + 1 > ages[0] > ages[1] > ages[2] > -1


def test_lateness_is_from_the_yield_to_the_page() -> None:
    seen = {"": [1010.0, 1150.5], "a": [2001.0, 2052.0], "b": []}
    assert lateness(Case("", 2, SERIES[:2]), _TEXT, seen) == [10, 100, 1, 2]
    assert lateness(Case("", 2), _TEXT, seen) == [10, 100]


@pytest.mark.parametrize(
    ("text", "seen"),
    [(_TEXT, [1010.0]), (_TEXT[14:], [1010.0, 1150.5]), (_TEXT + _TEXT, [1010.0, 1150.5]), (_TEXT, [990.0, 1150.5])],
    ids=["not recorded", "not on the page", "twice on the page", "recorded before its yield"],
)
def test_missing_marks_are_an_error(text: str, seen: list[float]) -> None:
    with pytest.raises(ValueError, match="of 2 marks"):
        lateness(Case("", 2), text, {"": seen})


async def test_model_calls_several_tools_at_once(tmp_path: Path) -> None:
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
def test_at_most_five_percent_can_be_late(turns: list[list[float]], line: str, capsys: Any) -> None:
    assert report([_ROW | {"late_ms": late} for late in turns]) is line.endswith("yes")
    assert f"| one | 0 | {line} |" in capsys.readouterr().out


def test_failure_is_reported(capsys: Any) -> None:
    assert not report([_ROW | {"late_ms": [1.0]}, _ROW | {"repetition": 1, "error": "gone"}])
    assert "case one, page ours, history 0, repetition 1: gone" in capsys.readouterr().out
