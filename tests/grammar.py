"""A checker of the run grammar, for the JSON events of an ended run from any transport."""

import json
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any, get_args

from runs.costs import TOTAL_COSTS
from runs.errors import Code
from runs.events import Phase, StopReason
from runs.live import LiveRun

LAST = {"complete", "stopped", "error"}

FIELDS: dict[str, set[str]] = {
    "run": {"conversation_id", "backend", "memory"},
    "status": {"phase", "content"},
    "context": {"messages", "left_out", "tokens", "limit"},
    "model_start": {"id", "parent_id", "name"},
    "model_end": {"id", "usage", "duration_s"},
    "reasoning": {"content"},
    "token": {"content", "total_tokens"},
    "chain_start": {"name", "id", "parent_id", "input"},
    "chain_end": {"id", "output"},
    "tool_input": {"tool", "tool_call_id", "delta"},
    "tool_start": {"tool", "tool_call_id", "input"},
    "tool_output": {"tool", "tool_call_id", "chunk"},
    "tool_end": {"tool", "tool_call_id", "output", "duration_s"},
    "approval": {"tool", "tool_call_id", "input"},
    "state": {
        "status",
        "current_step",
        "tokens_received",
        "estimated",
        "tools_called",
        "tokens_per_second",
        "ttft_s",
    },
    "complete": {"content", "status", "usage", "timing"},
    "stopped": {"content", "reason", "usage", "timing"},
    "error": {"code", "message", "retryable", "content"},
}
"""The required fields of each type besides type, seq, run_id and timestamp."""

_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
_STATES_A_SECOND, _STATE_BYTES, _STEP_BYTES = 10, 2048, 8192


def check_run(run: LiveRun) -> list[dict[str, Any]]:
    """Checks an ended run's log; returns its events as JSON."""
    assert run.ended
    sent = [json.loads(entry.json) for entry in run.log.entries]
    check(sent)
    return sent


def check(sent: list[dict[str, Any]]) -> None:
    """Raises AssertionError if the events of an ended run violate the grammar."""
    _check_envelopes(sent)
    assert sent[0]["type"] == "run"
    assert (sent[1]["type"], sent[1].get("content")) == ("status", "Processing...")
    assert [e["type"] for e in sent].count("run") == 1
    ends = [i for i, e in enumerate(sent) if e["type"] in LAST]
    assert ends == [len(sent) - 1], "exactly one last event, and nothing after it"
    assert sent[-1]["content"] == written(sent)
    _check_values(sent)
    _check_brackets(sent)
    _check_states([e for e in sent if e["type"] == "state"])


def written(sent: Iterable[dict[str, Any]]) -> str:
    """The reply by its events: a retracting `reasoning` removes the tokens since the latest model call."""
    tokens, call = list[str](), 0
    for e in sent:
        match e["type"]:
            case "token":
                tokens.append(e["content"])
            case "model_start":
                call = len(tokens)
            case "reasoning" if e.get("retracts"):
                assert e["content"].strip() == "".join(tokens[call:]).strip()
                del tokens[call:]
    return "".join(tokens)


def _check_envelopes(sent: list[dict[str, Any]]) -> None:
    assert [e["seq"] for e in sent] == list(range(1, len(sent) + 1))
    assert len({e["run_id"] for e in sent}) == 1
    times = [e["timestamp"] for e in sent]
    assert all(_TIMESTAMP.fullmatch(t) for t in times)
    assert times == sorted(times)
    for e in sent:
        missing = FIELDS[e["type"]] - e.keys()
        assert not missing, f"{e['type']} lacks {missing}"


def _check_values(sent: Iterable[dict[str, Any]]) -> None:
    counted = 0
    for e in sent:
        match e["type"]:
            case "status":
                assert e["phase"] in get_args(Phase)
            case "state":
                assert e["status"] in get_args(Phase)
            case "error":
                assert e["code"] in get_args(Code)
            case "stopped":
                assert e["reason"] in get_args(StopReason)
            case "complete":
                assert e["status"] == "complete"
            case "token":
                assert e["content"]
                assert e["total_tokens"] > counted
                counted = e["total_tokens"]
            case "chain_start" | "chain_end":
                assert len(json.dumps(e.get("input", e.get("output")))) <= _STEP_BYTES
        if e["type"] in ("complete", "stopped"):
            optional = {"estimated", "cached_tokens", "reasoning_tokens", "cost_usd", *TOTAL_COSTS}
            assert e["usage"].keys() - optional == {"input_tokens", "output_tokens"}
            assert e["usage"].get("estimated", True) is True
            assert e["timing"].keys() == {"ttft_s", "duration_s", "tokens_per_s"}


def _check_brackets(sent: Iterable[dict[str, Any]]) -> None:
    """Checks that every start has one end after it, and that a tool's output and approval are between them."""
    started: set[tuple[str, str]] = set()
    open_now: set[tuple[str, str]] = set()
    for e in sent:
        kind, _, edge = e["type"].partition("_")
        step = kind, e.get("id") or e.get("tool_call_id", "")
        if edge == "start":
            assert step not in started, f"{step} started twice"
            started.add(step)
            open_now.add(step)
        elif edge == "end":
            assert step in open_now, f"{step} ended, but is not open"
            open_now.remove(step)
        elif e["type"] in ("tool_output", "approval"):
            assert ("tool", e["tool_call_id"]) in open_now
    assert not open_now, f"{open_now} never ended"


def _check_states(states: list[dict[str, Any]]) -> None:
    at = [datetime.fromisoformat(e["timestamp"]).timestamp() for e in states]
    for first, eleventh in zip(at, at[_STATES_A_SECOND:], strict=False):
        assert eleventh - first >= 0.999, f"more than {_STATES_A_SECOND} states in a second"
    for e in states:
        assert len(json.dumps(e, ensure_ascii=False).encode()) <= _STATE_BYTES
