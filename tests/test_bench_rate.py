"""The benchmark of rates: the clock of a side."""

from bench.rate import Turn, own_s

TURNS = [Turn("ours", 10.0, 10.2), Turn("ours", 10.5, 10.7), Turn("ours", 11.0, 11.2)]


def test_clock_of_a_side_runs_only_in_its_own_turns() -> None:
    found = [round(own_s(TURNS, at), 6) for at in (9.0, 10.0, 10.1, 10.2, 10.4, 10.6, 10.9, 11.1, 12.0)]
    assert found == [0.0, 0.0, 0.1, 0.2, 0.2, 0.3, 0.4, 0.5, 0.6]
