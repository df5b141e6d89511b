"""The tool `clock`: the current time in any time zone."""

import difflib
from collections.abc import AsyncGenerator
from datetime import datetime
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

from agent.tools.streaming import streaming_tool
from runs.threads import Threads

_THREADS = Threads("clock", 1)
_LONGEST_NAME = 60
"""Longest name of a time zone, in characters."""


@streaming_tool
async def clock(time_zone: str = "UTC") -> AsyncGenerator[str, None]:
    """Tells the date and the time now in a time zone, such as UTC or Europe/Berlin; a city's name alone will do."""
    zone = await _THREADS.run(_zone, time_zone)
    now = datetime.now(ZoneInfo(zone))
    yield f"{now.isoformat(timespec='seconds')}, {now:%A} ({zone})"


@cache
def _zones() -> dict[str, list[str]]:
    """Returns the time zones by name in lower case: the full name, and its last part."""
    found: dict[str, list[str]] = {}
    for zone in sorted(available_timezones()):
        for name in {zone.lower(), zone.rpartition("/")[2].lower()}:
            found.setdefault(name, []).append(zone)
    return found


def _zone(name: str) -> str:
    """Returns the time zone for a name. Raises ValueError with suggestions."""
    key = "_".join(name.lower().split()) or "utc"
    zones = _zones()
    named = zones.get(key, [])
    exact = [zone for zone in named if zone.lower() == key]
    if exact:
        return exact[0]
    if named and len({datetime.now(ZoneInfo(zone)).utcoffset() for zone in named}) == 1:
        return named[0]  # several old names of one zone
    close = named or [zones[near][0] for near in difflib.get_close_matches(key[:_LONGEST_NAME], zones, 3)]
    hint = f"did you mean {' or '.join(dict.fromkeys(close))}?" if close else "use an IANA name such as Europe/Berlin."
    raise ValueError(f"There is no one time zone {name[:_LONGEST_NAME]!r}: {hint}")
