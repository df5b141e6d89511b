"""What holds for every run that is sent by AG-UI."""

from typing import Any

from ag_ui.core import Event
from pydantic import TypeAdapter

_EVENT: TypeAdapter[Any] = TypeAdapter(Event)

Events = list[dict[str, Any]]


def verify(received: Events) -> dict[str, Any]:
    """What the official client's verifier asks of a finished run, and a little more; returns the state it leaves."""
    state: dict[str, Any] = {}
    opened: set[tuple[str, str]] = set()
    calls: set[str] = set()
    minted: set[tuple[str, str]] = set()
    for at, one in enumerate(received):
        kind = one["type"]
        _EVENT.validate_python(one)
        assert (kind == "RUN_STARTED") == (at == 0)
        assert (kind in ("RUN_FINISHED", "RUN_ERROR")) == (at == len(received) - 1)
        if kind == "STATE_SNAPSHOT":
            state = dict(one["snapshot"])
        elif kind == "STATE_DELTA":
            assert one["delta"]
            for mend in one["delta"]:
                assert mend["op"] == "replace" and mend["path"][1:] in state
                state[mend["path"][1:]] = mend["value"]
        elif kind == "TOOL_CALL_RESULT":
            assert ("TOOL_CALL", one["toolCallId"]) not in opened
        stem, _, edge = kind.rpartition("_")
        name = one.get("toolCallId") or one.get("stepName") or one.get("messageId") or ""
        if edge in ("START", "STARTED") and stem != "RUN":
            assert (stem, name) not in opened
            opened.add((stem, name))
            if stem == "TOOL_CALL":
                assert name not in calls
                calls.add(name)
            elif stem != "STEP":
                assert (stem, name) not in minted
                minted.add((stem, name))
        elif edge in ("CONTENT", "ARGS"):
            assert (stem, name) in opened
        elif edge in ("END", "FINISHED") and stem != "RUN":
            opened.remove((stem, name))
    assert not opened
    return state
