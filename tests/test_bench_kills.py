"""The benchmark of kills, shorter than `make bench` runs it: one kill of each kind."""

import sys
from collections.abc import Callable, Iterator

import pytest

from bench.kills import MOMENTS, measure_kills
from bench.report import MOST_LOST_S


@pytest.fixture(scope="module", autouse=True)
def bytecode(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Where Python keeps none, all starts share it here: each would compile everything for seconds."""
    with pytest.MonkeyPatch.context() as patch:
        if sys.dont_write_bytecode:
            patch.setenv("PYTHONPYCACHEPREFIX", str(tmp_path_factory.mktemp("bytecode")))
        yield


@pytest.mark.parametrize(("moments", "database"), [(MOMENTS[1:], "sqlite"), (MOMENTS[:1], "postgresql")])
def test_kills_lose_nothing_but_the_last_second(
    moments: tuple[str, ...], database: str, request: pytest.FixtureRequest
) -> None:
    make: Callable[[], str] | None = request.getfixturevalue("postgres") if database == "postgresql" else None
    rows = measure_kills(len(moments), make() if make else None, moments, compared=False)
    assert [row["moment"] for row in rows] == list(moments)
    for row in rows:
        assert (row["wrong"], row["damage"]) == ([], [])
        assert max(row["lost_s"], default=0.0) <= MOST_LOST_S
    assert any(row["lost_s"] for row in rows), "no reply was cut, so this shows nothing"
