"""The benchmark of kills, shorter than `make bench` runs it: one kill at each moment."""

import sqlite3
from collections.abc import Callable
from contextlib import closing

import pytest

from bench.kills import MOMENTS, MOST_LOST_S, find_damage, measure_kills, report
from memory.store import Store


@pytest.mark.usefixtures("forked")
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


@pytest.mark.parametrize(
    ("wrong", "good"),
    [
        ({}, True),
        ({"lost_s": [1.5]}, False),
        ({"lost_s": []}, False),
        ({"wrong": ["x"]}, False),
        ({"damage": ["x"]}, False),
    ],
)
def test_losses_are_reported(wrong: dict[str, object], good: bool) -> None:
    row = {"case": "kill", "model": "scripted", "moment": "any", "acknowledged": 1, "lost_s": [0.5], "start_s": 1.0}
    assert report([row | {"wrong": [], "damage": []} | wrong]) is good


async def test_damage_is_found(store: Store, database_url: str) -> None:
    await store.create("anna", [("user", "hello")])
    assert find_damage(database_url) == []
    with closing(sqlite3.connect(database_url.removeprefix("sqlite:///"))) as db, db:
        db.execute("UPDATE conversations SET head = 'nowhere'")
    assert "1 conversations whose head is missing" in find_damage(database_url)
