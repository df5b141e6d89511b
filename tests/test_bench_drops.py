"""The benchmark of dropped lines, shorter than `make bench` runs it."""

from bench.drops import measure_drops


def test_drops_lose_nothing_and_leave_nothing() -> None:
    row = measure_drops(runs=6, drops=60)
    assert (row["dropped"], row["whole"]) == (60, 6)
    assert row["left"] == {"live": 0, "followers": 0, "tasks": 0}
