"""The benchmark of long conversations: what counts as read again, and when the figures are within the limits."""

import json
import urllib.request
from typing import Any

import pytest

from bench.long import report
from bench.prefix_server import PrefixServer, Requests


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


def test_a_request_that_continues_the_one_before_reads_nothing_again() -> None:
    requests, messages = Requests(), [user("one")]
    for text in ("two", "three"):
        messages += [assistant(requests.add(messages)), user(text)]
    requests.add(messages)
    assert requests.shares[1:] == [0, 0]


def test_a_request_without_the_oldest_turn_reads_the_rest_again() -> None:
    requests = Requests()
    messages = [user("x" * 100), assistant("y" * 100), user("z" * 200), assistant("w" * 200), user("one")]
    reply = requests.add(messages)
    requests.add([*messages[2:], assistant(reply), user("two")])
    again = sum(len(f"<|{m['role']}|>{m['content']}\n") for m in messages[2:])
    new = sum(len(f"<|{m['role']}|>{m['content']}\n") for m in (assistant(reply), user("two")))
    assert requests.shares[1] == pytest.approx(again / (again + new), abs=0.03)


def test_requests_for_summaries_are_not_counted() -> None:
    with PrefixServer() as server:
        for system in ("You keep the notes of a conversation.", "You are a helpful assistant."):
            body = json.dumps({"messages": [{"role": "system", "content": system}, user("one")]}).encode()
            with urllib.request.urlopen(f"{server.base_url}/chat/completions", body, timeout=10) as answer:
                assert b"[DONE]" in answer.read()
        assert len(server.requests.shares) == 1


@pytest.mark.parametrize(
    ("case", "again", "ttft_s", "good"),
    [
        ("tokens", [0.0] * 18 + [0.9], 1.2, True),
        ("tokens", [0.0] * 16 + [0.9] * 3, 1.2, False),
        ("tokens", [0.0] * 19, 1.4, False),
        ("recall", [0.9] * 19, 1.2, True),
        ("recall", [0.9] * 19, 1.4, False),
    ],
    ids=["good", "too often", "too slow", "exempt", "exempt, too slow"],
)
def test_limits_of_long_conversations(case: str, again: list[float], ttft_s: float, good: bool) -> None:
    rows: list[dict[str, Any]] = [
        {"side": "local", "case": name, "turn": turn, "tokens": 100, "read": 9, "again": share, "ttft_s": seconds}
        for name, shares, seconds in (("below the limit", [0.0] * 19, 1.0), (case, again, ttft_s))
        for turn, share in enumerate(shares, 2)
    ]
    assert report(rows) is good
