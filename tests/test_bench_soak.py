"""The benchmark of many visitors, a minute of it; `make bench` takes half an hour."""

from bench.report import MOST_GROWN
from bench.soak import measure_soak


def test_fifty_visitors_a_tenth_of_them_hostile_leave_nothing_behind() -> None:
    row = measure_soak(1)
    assert row["wrong"] == []
    assert not any(row["left"].values()), row["left"]
    assert row["after_bytes"] <= MOST_GROWN * row["early_bytes"]
    acts = {"talk", "stop", "reload", "leave", "switch", "upload", "socket", "flood", "pry", "garbage", "drip"}
    assert acts <= set(row["done"]), "not everything was done"
