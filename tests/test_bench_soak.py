"""The benchmark of many visitors, for less than a minute; `make bench` takes half an hour."""

import random
from typing import Any

import pytest

from bench.attackers import ATTACKS
from bench.soak import MOST_WARMED, measure_soak, report
from bench.visitors import Seen, Visitor


@pytest.mark.usefixtures("forked")
def test_visitors_leave_nothing_behind() -> None:
    row = measure_soak(0.4)
    assert row["wrong"] == []
    assert not any(row["left"].values()), row["left"]
    actions = {"talk", "stop", "reload", "leave", "switch", "upload", "socket"}
    assert actions <= set(row["done"]), "not everything was done"
    assert {attack.__name__ for attack in ATTACKS} & set(row["done"]), "nobody attacked"
    assert report([row]), "it uses too much memory"


async def test_only_words_of_another_visitor_are_reported() -> None:
    seen = Seen()
    one, another = (Visitor(number, "http://127.0.0.1:9/", ["Bench"], seen, random.Random(number)) for number in (1, 2))
    one._check_text(f"{one._words()} And a code that a model made up: secret-of-{0:012x}-1.")
    assert seen.wrong == []
    one._check_text(another._words())
    assert seen.wrong == ["visitor 1, Visitor: received words of visitor 2"]


@pytest.mark.parametrize(
    ("row", "good"),
    [
        ({"warm_bytes": 200, "after_bytes": 219}, True),
        ({"warm_bytes": 200, "after_bytes": 221}, False),
        ({"after_bytes": 100 + MOST_WARMED}, True),
        ({"after_bytes": 101 + MOST_WARMED}, False),
        ({"after_bytes": 1, "left": {"runs": 1}}, False),
        ({"after_bytes": 1, "wrong": ["an error"]}, False),
    ],
    ids=["steady", "grown", "warmed up", "grown at once", "left", "wrong"],
)
def test_growth_errors_and_leftovers_are_reported(row: dict[str, Any], good: bool) -> None:
    common = {"minutes": 1, "visitors": 50, "done": {"talk": 1}, "tokens": 1, "start_bytes": 100, "late_bytes": 300}
    assert report([common | {"wrong": [], "left": {"runs": 0}} | row]) is good
