"""The benchmark of many visitors, a minute of it; `make bench` takes half an hour."""

from bench.attackers import ATTACKS
from bench.soak import measure_soak


def test_fifty_visitors_a_tenth_of_them_hostile_leave_nothing_behind() -> None:
    row = measure_soak(1)
    assert row["wrong"] == []
    assert not any(row["left"].values()), row["left"]
    acts = {"talk", "stop", "reload", "leave", "switch", "upload", "socket"}
    assert acts <= set(row["done"]), "not everything was done"
    assert {attack.__name__ for attack in ATTACKS} & set(row["done"]), "nobody attacked"
