"""The reader of OpenAI-compatible streams against any combination of deviations, over real HTTP and in complete turns.

The invariant: the reply is complete, or the error names the server's fault.
"""

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent import retries
from agent.tools import Toolbox
from backends import reply_reader
from settings import ToolSettings
from tests.house import CANARY, Events, House, housed, of, text_of
from tests.providers import OpenAIServer, Request, Stream
from tests.streams import delta, usage
from tests.strict_server import StrictServer
from tests.test_backends_openai import TestOpenAI as Contract
from tests.test_backends_tool_deltas import ARGUMENTS, IDS, INDEXES, NAMES, Calling, whole_call

DONE = "[DONE]"
THOUGHTS = ("none", "reasoning_content", "reasoning", "parts", "tags", "closing tag")
SIGNS = ("reason", "reason without delta", "reason with message", "done", "usage", "none")
LINES = ("end", "eof", "hang", "cut", "garbage", "error")
FAULTS = ("none", "none", "none", "error", "error event", "garbage", "cut", "eof")
FAILURES = {
    "error": "failed",
    "error event": "failed",
    "garbage": "sent an unreadable reply",
    "cut": "broke off",
    "eof": "broke off",
}
"""What the error says of each fault."""


@dataclass(frozen=True)
class Case:
    """A reply, and the deviations of its server from OpenAI's."""

    text: Sequence[str]
    thought: Sequence[str]
    calls: Sequence[tuple[str, dict[str, str]]]
    thinking: str
    calling: Calling
    sign: str
    line: str
    empty_reasons: bool
    line_end: str
    blank: str
    single: bool
    mark: bool
    escaped: bool
    comments: bool
    size: int
    fault: str
    at: int
    known: bool
    """Whether the template is taken to open the thinking."""


CHARACTERS = 'ab .\n\u2028\u2029\u0085é世😀👩\u200d💻{}"\\'
PIECE = st.text(CHARACTERS, min_size=1, max_size=6)
CALL = st.one_of(
    st.tuples(st.just("calculator"), st.builds(lambda n: {"expression": f"1 + {n}"}, st.integers(0, 99))),
    st.just(("clock", {"timezone": "UTC"})),
)
CALLING = st.builds(
    Calling,
    st.sampled_from(INDEXES),
    st.sampled_from(IDS),
    st.sampled_from(NAMES),
    st.sampled_from(ARGUMENTS),
    st.booleans(),
    st.booleans(),
)
CASE = st.builds(
    Case,
    st.lists(PIECE, min_size=1, max_size=5),
    st.lists(PIECE, min_size=1, max_size=4),
    st.lists(CALL, max_size=3, unique_by=str),
    st.sampled_from(THOUGHTS),
    CALLING,
    st.sampled_from(SIGNS),
    st.sampled_from(LINES),
    st.booleans(),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from([" ", ""]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0, 0, 1, 13]),
    st.sampled_from(FAULTS),
    st.integers(0, 30),
    st.booleans(),
)


def units(text: str) -> str:
    """Returns the text in UTF-16 units, with surrogate pairs as two halves."""
    code = text.encode("utf-16-le")
    return "".join(chr(int.from_bytes(code[n : n + 2], "little")) for n in range(0, len(code), 2))


def halved(pieces: Sequence[str], escaped: bool) -> list[str]:
    """Returns the chunks, with surrogate pairs split over two of them if the JSON is escaped."""
    if not escaped:
        return list(pieces)
    joined = units("".join(pieces))
    step = max(1, len(joined) // (len(pieces) + 1))
    return [joined[n : n + step] for n in range(0, len(joined), step)]


def text_deltas(case: Case) -> list[dict[str, Any]]:
    text, thought = halved(case.text, case.escaped), halved(case.thought, case.escaped)
    match case.thinking:
        case "none":
            return [{"content": piece} for piece in text]
        case "reasoning_content" | "reasoning" as field:
            return [{field: piece} for piece in thought] + [{"content": piece} for piece in text]
        case "parts":
            parts: list[Any] = [[{"type": "thinking", "thinking": piece}] for piece in thought]
            return [{"content": part} for part in [*parts, *([{"type": "text", "text": piece}] for piece in text)]]
        case "tags":
            tagged = ["<think>", *thought, "</th", "ink>", "\n\n", *text]
        case _:
            tagged = [*thought, "\n</th", "ink>", "\n\n", *text]
    return [{"content": piece} for piece in tagged]


def objects(case: Case) -> list[Any]:
    """Returns the stream's events."""
    reason = {"finish": ""} if case.empty_reasons else {}
    found: list[Any] = [delta(**reason, role="assistant")]
    found += [
        {"choices": [{"index": 0, "delta": one, "finish_reason": "" if reason else None}]} for one in text_deltas(case)
    ]
    message: dict[str, Any] = {"role": "assistant", "content": None}
    if case.calls and case.calling.last and case.sign == "reason with message":
        message["tool_calls"] = [whole_call(n, *call) for n, call in enumerate(case.calls)]
    elif case.calls:
        found += [delta(tool_calls=some) for some in case.calling.deltas(case.calls)]
    finish = "tool_calls" if case.calls else "stop"
    return (
        found
        + {
            "reason": [delta("", finish), usage(), DONE],
            "reason without delta": [{"choices": [{"index": 0, "finish_reason": finish}]}],
            "reason with message": [{"choices": [{"index": 0, "finish_reason": finish, "message": message}]}],
            "done": [DONE],
            "usage": [usage()],
            "none": [],
        }[case.sign]
    )


def faulty(case: Case, found: list[Any]) -> list[Any]:
    """Returns the events before a fault within the reply, and the fault."""
    if case.fault == "none":
        return found
    faults = {
        "error": {"error": {"message": "It broke.", "type": "server_error", "code": "overloaded"}},
        "error event": ("error", {"message": "It broke."}),
        "garbage": '{"choices": [{"del',
    }
    until = min(case.at, len(text_deltas(case)))
    return [*found[: 1 + until], *([faults[case.fault]] if case.fault in faults else [])]


def encoded(case: Case) -> bytes:
    """Returns the events as a server writes them."""
    ends, body = case.line_end, "\ufeff" if case.mark else ""
    for one in faulty(case, objects(case)):
        kind, data = one if isinstance(one, tuple) else ("", one)
        text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=case.escaped)
        body += f": waiting{ends}{ends}" if case.comments else ""
        body += f"event:{kind}{ends}" if kind else ""
        strict = case.fault == "garbage" or kind
        body += f"data:{case.blank}{text}{ends}{'' if case.single and not strict else ends}"
    return body.encode()


def stream_of(case: Case) -> Stream:
    body = encoded(case)
    pieces: list[Any] = [body[n : n + case.size] for n in range(0, len(body), case.size)] if case.size else [body]
    if case.fault in ("cut", "eof"):
        return Stream(pieces, case.fault)  # type: ignore[arg-type]
    if case.fault != "none" or case.sign == "none":
        return Stream(pieces, "eof" if case.line == "eof" else "end")
    if case.line in ("garbage", "error"):
        ends, late = case.line_end * 2, {"garbage": "nonsense", "error": '{"error": {"message": "It broke."}}'}
        pieces.append(f"{ends}data: {late[case.line]}{ends}")
    return Stream(pieces, case.line if case.line in ("eof", "hang", "cut") else "end")  # type: ignore[arg-type]


def check_request(case: Case, body: Any) -> None:
    """Raises AssertionError if a strict server would reject the request after the case's reply.

    A server with a field for thinking requires it back with the tool calls, in that field.
    """
    field = case.thinking if case.thinking in ("reasoning_content", "reasoning") else ""
    StrictServer(thinking=field).check(body)


def expected_thought(case: Case) -> str:
    return "" if case.thinking == "none" else "".join(case.thought)


def expected_text(case: Case) -> str:
    """Returns all streamed text; before its closing tag, thinking is text."""
    text = "".join(case.text)
    return text.lstrip("\n") if case.thinking == "tags" else text


def check_whole(case: Case, received: Events) -> None:
    text, good = "".join(case.text), "\n\nGood." if case.calls else ""
    if case.thinking in ("tags", "closing tag"):
        text = text.lstrip("\n")
    assert received[-1]["type"] == "complete", received[-1]
    content, whole = received[-1]["content"], text + good
    assert content == (whole if text else good.lstrip("\n"))
    if not (case.known and case.thinking == "none"):
        thoughts = "".join(e["content"] for e in of(received, "reasoning"))
        if case.calls:  # where a template is known to open the thinking, the second reply begins as such
            thoughts = thoughts.removesuffix("Good.")
        assert thoughts.strip() == expected_thought(case).strip()
    assert sorted((e["tool"], sorted(e["input"].items())) for e in of(received, "tool_start")) == sorted(
        (name, sorted(arguments.items())) for name, arguments in case.calls
    )
    assert all(not e.get("error") for e in of(received, "tool_end"))


def check_failed(case: Case, received: Events) -> None:
    """The reply so far is kept, and the error names the server's fault."""
    last, before = received[-1], "".join(case.thought) if case.thinking == "closing tag" else ""
    says = FAILURES.get(case.fault, "broke off")
    assert last["type"] == "error", last
    assert says in last["message"]
    possible = (expected_text(case), expected_text(case).lstrip("\n"), before + "\n")
    assert any(one.startswith(last["content"].rstrip("\ufffd")) for one in possible)
    assert not of(received, "tool_start")


@dataclass
class Rig:
    """A `House` with one server for all cases."""

    server: OpenAIServer
    house: House
    runner: asyncio.Runner

    def ask(self, case: Case) -> Events:
        refused: list[str] = []

        def second(request: Request) -> Stream:
            try:
                check_request(case, request.body)
            except (AssertionError, KeyError, TypeError, ValueError) as e:
                refused.append(f"{type(e).__name__}: {e}")
            return Stream([delta("Good.", "stop"), f"data: {DONE}\n\n"])

        self.server.answers = [stream_of(case), *([second] if case.calls and case.fault == "none" else [])]
        self.house.backend.opens_thinking = case.known
        received = self.runner.run(self.house.ask())
        self.house.runs.clear()
        assert not refused, refused
        return received


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    contract = Contract()
    with pytest.MonkeyPatch.context() as patch, asyncio.Runner() as runner, contract.server() as server:
        patch.setattr(retries, "_BACKOFF", lambda state: 0.0)
        patch.setattr(reply_reader, "USAGE_S", 0.1)
        opening = housed(Path(tmp_path_factory.mktemp("matrix")), contract.entry(server), TEST_KEY=CANARY)
        house = runner.run(opening.__aenter__())
        house.turns.toolbox = Toolbox(ToolSettings(enabled=["calculator", "clock"]))
        assert isinstance(server, OpenAIServer)
        yield Rig(server, house, runner)
        runner.run(opening.__aexit__(None, None, None))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(CASE)
def test_the_reply_is_complete_or_an_error_is_reported(rig: Rig, case: Case) -> None:
    received = rig.ask(case)
    if case.fault == "none" and case.sign != "none":
        check_whole(case, received)
    else:
        check_failed(case, received)


PLAIN = Case(
    text=["Well, ", "4."],
    thought=["2 and ", "2."],
    calls=(),
    thinking="none",
    calling=Calling(),
    sign="reason",
    line="end",
    empty_reasons=False,
    line_end="\n",
    blank=" ",
    single=False,
    mark=False,
    escaped=False,
    comments=False,
    size=0,
    fault="none",
    at=1,
    known=False,
)


@pytest.mark.parametrize("thinking", THOUGHTS)
@pytest.mark.parametrize("sign", SIGNS)
def test_each_kind_of_thinking_with_each_end(rig: Rig, thinking: str, sign: str) -> None:
    for line in LINES:
        case = replace(PLAIN, thinking=thinking, sign=sign, line=line)
        (check_failed if sign == "none" else check_whole)(case, rig.ask(case))


@pytest.mark.parametrize("fault", sorted(FAILURES))
@pytest.mark.parametrize("thinking", THOUGHTS)
def test_each_fault_during_each_kind_of_thinking(rig: Rig, fault: str, thinking: str) -> None:
    for at in (0, 1, 3):
        case = replace(PLAIN, thinking=thinking, fault=fault, at=at)
        check_failed(case, rig.ask(case))


@pytest.mark.parametrize("known", [True, False])
def test_a_fault_within_a_closing_tag_shows_nothing_of_the_tag(rig: Rig, known: bool) -> None:
    case = replace(PLAIN, thought=["2"], thinking="closing tag", fault="error", at=2, known=known)
    assert rig.ask(case)[-1]["content"] == "2\n"


def test_text_of_is_the_visible_text(rig: Rig) -> None:
    received = rig.ask(PLAIN)
    assert text_of(received, "token") == received[-1]["content"] == "Well, 4."
