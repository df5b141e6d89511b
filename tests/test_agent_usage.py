"""The figures of a reply's usage that only some providers report, and its cost."""

from pathlib import Path

import pytest

from backends.prices import cost_usd
from runs.errors import ChatError
from tests.house import of
from tests.providers import Stream
from tests.streams import HELLO, STOP, asked, usage

DETAILS = {
    "prompt_tokens": 1000,
    "completion_tokens": 50,
    "total_tokens": 1050,
    "prompt_tokens_details": {"cached_tokens": 800},
    "completion_tokens_details": {"reasoning_tokens": 20},
}


@pytest.mark.parametrize(
    ("price", "cost"),
    [(None, None), ([1.0, 2.0], 0.0011), ([1.0, 2.0, 0.1], 0.00038), ([0.0, 0.0], 0.0)],
)
async def test_usage_has_what_the_provider_counts_and_the_cost(
    tmp_path: Path, price: list[float] | None, cost: float | None
) -> None:
    async with asked(tmp_path, Stream([*HELLO, STOP, usage(usage=DETAILS)]), price=price) as (house, _):
        received = await house.ask()
    (end,) = of(received, "model_end")
    for found in (end["usage"], received[-1]["usage"]):
        assert (found["input_tokens"], found["output_tokens"]) == (1000, 50)
        assert (found["cached_tokens"], found["reasoning_tokens"]) == (800, 20)
        assert found.get("cost_usd") == cost


async def test_totals_are_those_of_the_conversation_and_of_the_visitors_day(tmp_path: Path) -> None:
    answer = Stream([*HELLO, STOP, usage(usage=DETAILS)])
    async with asked(tmp_path, answer, price=[1.0, 2.0]) as (house, _):
        first = await house.ask(visitor="me")
        second = await house.ask(visitor="me", conversation_id=first[0]["conversation_id"])
        other = await house.ask(visitor="me")
        stranger = await house.ask(visitor="stranger")
    totals = [
        (end["usage"]["conversation_cost_usd"], end["usage"]["day_cost_usd"])
        for *_, end in (first, second, other, stranger)
    ]
    assert totals == [(0.0011, 0.0011), (0.0022, 0.0022), (0.0011, 0.0033), (0.0011, 0.0011)]


async def test_reply_does_not_fail_where_the_total_costs_are_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise ChatError("internal", "The database is busy.")

    async with asked(tmp_path, Stream([*HELLO, STOP, usage(usage=DETAILS)]), price=[1.0, 2.0]) as (house, _):
        monkeypatch.setattr(house.turns.store, "costs", fail)
        received = await house.ask()
    assert (received[-1]["type"], received[-1]["usage"]["cost_usd"]) == ("complete", 0.0011)
    assert "day_cost_usd" not in received[-1]["usage"]


async def test_usage_without_details_has_no_further_figures(tmp_path: Path) -> None:
    async with asked(tmp_path, Stream([*HELLO, STOP, usage()])) as (house, _):
        received = await house.ask()
    assert received[-1]["usage"].keys() == {"input_tokens", "output_tokens"}


def test_cost_of_cached_tokens_is_that_of_input_without_a_price_of_their_own() -> None:
    assert cost_usd([2, 4], 1_000_000, 0, 500_000) == 2
    assert cost_usd([2, 4, 1], 1_000_000, 0, 500_000) == 1.5
    assert cost_usd([2, 4, 1], 10, 0, 500_000) == 0.00001
