"""One request to a remote agent over AG-UI: `RunAgentInput` is sent, and events come back as Server-Sent Events."""

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

import httpx

from backends.activity import report_activity
from backends.chat_model import read_body
from backends.sse_reader import SSEReader

_LONGEST_EVENT = 2_000_000
"""The most bytes of one event."""
_MOST_BODY = 100_000
"""The most bytes that are read of the body of a rejection."""

Received = Mapping[str, Any]
"""An event of AG-UI as it was sent."""


class RejectedRequest(Exception):
    """A response that has no events. `body` is its text, for the log."""

    def __init__(self, response: httpx.Response, body: str) -> None:
        super().__init__(f"HTTP {response.status_code}")
        self.response, self.status_code, self.body = response, response.status_code, body


class FailedRun(Exception):
    """The agent's own report that its run failed. `body` is its code and its text, for the log."""

    def __init__(self, event: Received) -> None:
        super().__init__("the run failed")
        self.event = event
        self.body = {name: event[name] for name in ("code", "message") if name in event}


class InvalidEvent(Exception):
    """An event that AG-UI does not allow. `what` is its type, and the field that is wrong."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


class NoAgent(Exception):
    """A response that is not AG-UI; the text says what came instead."""


class RunCut(Exception):
    """A response that ended before the run did."""


async def agent_events(
    client: httpx.AsyncClient, url: str, headers: Mapping[str, str], body: Mapping[str, Any]
) -> AsyncGenerator[Sequence[Received], None]:
    """Yields the events of one run, as they arrive together. Closing the generator closes the connection.

    Raises the exceptions of this module and of httpx.
    """
    accepted = {"Content-Type": "application/json", "Accept": "text/event-stream", "Accept-Encoding": "identity"}
    content, reader = json.dumps(body, allow_nan=False), SSEReader(_LONGEST_EVENT)
    async with client.stream("POST", url, headers={**accepted, **headers}, content=content) as response:
        report_activity()
        await _check(response)
        async for data in response.aiter_raw():
            report_activity()
            if found := [one for one in reader.feed(data) if isinstance(one, dict)]:
                yield found
        if found := [one for one in reader.end() if isinstance(one, dict)]:
            yield found


async def _check(response: httpx.Response) -> None:
    """Raises an exception for a response that cannot be AG-UI's. Other types than that of a stream are read."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if response.status_code != 200:
        body = await read_body(response, _MOST_BODY) or b""
        raise RejectedRequest(response, body.decode(errors="replace"))
    if kind == "text/html":
        raise NoAgent("a web page")
    if coding := response.headers.get("content-encoding", "identity").strip().lower().replace("identity", ""):
        raise NoAgent(f"a compressed reply ({coding[:20]})")
