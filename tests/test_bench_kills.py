"""The benchmark of kills, shorter than `make bench` runs it."""

from collections.abc import Callable

import pytest

from bench.kills import measure_kills
from bench.report import MOST_LOST_S


@pytest.mark.parametrize(("kills", "database"), [(4, "sqlite"), (1, "postgresql")])
def test_kills_lose_nothing_but_the_last_second(kills: int, database: str, request: pytest.FixtureRequest) -> None:
    make: Callable[[], str] | None = request.getfixturevalue("postgres") if database == "postgresql" else None
    _, *rows = measure_kills(kills, usual=0, database_url=make() if make else None)
    assert len(rows) == kills
    for row in rows:
        assert (row["wrong"], row["sound"]) == ([], True)
        assert row["lost_s"] <= MOST_LOST_S
