"""The tool `clock`: time zones by name or city, and hints for unknown ones."""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.tools.clock import _zone, clock


@pytest.mark.parametrize(
    ("wanted", "zone"),
    [
        ("UTC", "UTC"),
        ("", "UTC"),
        ("Europe/Berlin", "Europe/Berlin"),
        ("europe/berlin", "Europe/Berlin"),
        ("Berlin", "Europe/Berlin"),
        ("  new   york ", "America/New_York"),
        ("GMT", "GMT"),
        ("Buenos Aires", "America/Argentina/Buenos_Aires"),
    ],
)
async def test_clock_returns_the_time_of_a_zone(wanted: str, zone: str) -> None:
    received = await clock.ainvoke({"time_zone": wanted})
    time, _, rest = received.partition(", ")
    then, now = datetime.fromisoformat(time), datetime.now(ZoneInfo(zone))
    assert then.utcoffset() == now.utcoffset()
    assert timedelta(seconds=-2) < now - then < timedelta(seconds=30)
    assert rest == f"{then:%A} ({zone})"


async def test_default_zone_is_utc() -> None:
    assert (await clock.ainvoke({})).endswith("(UTC)")


@pytest.mark.parametrize(
    ("wanted", "hint"),
    [
        ("Berlyn", r"'Berlyn': did you mean Europe/Berlin\?"),
        ("Americas/New York", "America/New_York"),
        ("West", "Australia/West or Brazil/West"),
        ("+02:00", "such as Europe/Berlin"),
        ("../../etc/passwd", "such as Europe/Berlin"),
        ("x" * 100_000, "such as Europe/Berlin"),
    ],
)
async def test_an_unknown_zone_is_refused_with_a_hint(wanted: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint) as refused:
        await clock.ainvoke({"time_zone": wanted})
    assert len(str(refused.value)) < 250


def test_every_zone_is_found_by_its_name() -> None:
    assert all(_zone(zone.lower()).lower() == zone.lower() for zone in available_timezones())


@given(st.text())
def test_any_text_is_a_zone_or_refused(text: str) -> None:
    try:
        assert _zone(text) in available_timezones()
    except ValueError as e:
        assert "no one time zone" in str(e)
