"""The benchmark of dropped connections, shorter than `make bench` runs it."""

import pytest

from bench.drops import measure_drops, report


def test_drops_lose_nothing_and_leave_nothing() -> None:
    row = measure_drops(runs=6, drops=60)
    assert (row["dropped"], row["whole"]) == (60, 6)
    assert row["left"] == {"live": 0, "followers": 0, "tasks": 0}
    assert all(row["busy"].values()), "what would be left is counted"
    assert report([row])


@pytest.mark.parametrize(
    "wrong", [{"whole": 5}, {"left": {"tasks": 1}}, {"busy": {"tasks": 0}}], ids=["lost", "left", "not counted"]
)
def test_losses_and_leftovers_are_reported(wrong: dict[str, object]) -> None:
    row = {"runs": 6, "dropped": 60, "whole": 6, "left": {"tasks": 0}, "busy": {"tasks": 1}}
    assert report([row]) and not report([row | wrong])
