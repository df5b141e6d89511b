"""The average rate of turns over servers that write at a known rate, and what counts as activity of a server."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.generation_time import ChunkTimes, timings
from agent.tools import Toolbox
from backends.activity import activity_listener
from backends.llama_stream import stream_chunks
from components.panel import render_panel
from runs.live import LiveRun
from runs.record import fold_record
from settings import ToolSettings
from tests.house import CANARY, Events, housed, of, text_of
from tests.providers import OpenAIServer, Stream
from tests.remote import RemoteContract
from tests.streams import STOP, call, calls, delta
from tests.test_backends_gemini import TestGemini as Gemini
from tests.test_backends_openai import TestOpenAI as OpenAI

RATE, PAUSE = 50.0, 0.02
"""Tokens per second of the servers, and the seconds before each token."""
READING = 0.5


def usage(tokens: int, hidden: int = 0) -> dict[str, Any]:
    details = {"completion_tokens_details": {"reasoning_tokens": hidden}} if hidden else {}
    return {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": tokens, **details}}


def paced(pieces: Sequence[Any], pause: float = PAUSE) -> list[Any]:
    return [part for piece in pieces for part in (pause, piece)]


def words(count: int) -> list[Any]:
    return paced([delta("word ")] * count)


def arguments(text: str, name: str = "calculator", index: int = 0) -> list[Any]:
    """A tool call, one character per token."""
    begins, *more = [call(index=index, arguments=char) for char in text]
    begins |= {"id": f"call_{index}"}
    begins["function"]["name"] = name
    return paced(calls(begins, *more))


def gemini(text: str, tokens: int, hidden: int = 0, finish: str | None = None, thought: bool = False) -> dict[str, Any]:
    part = {"text": text, **({"thought": True} if thought else {})}
    candidate = {"content": {"parts": [part], "role": "model"}, "index": 0}
    counts = {"promptTokenCount": 7, "candidatesTokenCount": tokens - hidden, "thoughtsTokenCount": hidden}
    return {"candidates": [candidate | ({"finishReason": finish} if finish else {})], "usageMetadata": counts}


ROLE = delta(role="assistant")
SUM = '{"expression": "17*23"}'
COUNT = '{"upto": 2, "pause_s": 0.5}'
CALLED = delta("", "tool_calls")
LLAMA = {"cache_n": 3, "prompt_n": 4, "prompt_ms": 250.0, "predicted_n": 20, "predicted_ms": 400.0}

WRITTEN: dict[str, tuple[type[RemoteContract], list[Stream], int]] = {
    "a steady reply": (OpenAI, [Stream([ROLE, *words(20), STOP, usage(20)])], 20),
    "a reply that is read for long": (OpenAI, [Stream([ROLE, READING, *words(20), STOP, usage(20)])], 20),
    "a reply without a count": (OpenAI, [Stream([ROLE, *words(20), STOP])], 20),
    "a call and three words": (
        OpenAI,
        [
            Stream([ROLE, READING, *arguments(SUM), CALLED, usage(len(SUM))]),
            Stream([ROLE, *words(3), STOP, usage(3)]),
        ],
        len(SUM) + 3,
    ),
    "a slow tool in the middle": (
        OpenAI,
        [
            Stream([ROLE, *words(10), *arguments(COUNT, "count"), CALLED, usage(10 + len(COUNT))]),
            Stream([ROLE, *words(10), STOP, usage(10)]),
        ],
        20 + len(COUNT),
    ),
    "hidden thinking": (OpenAI, [Stream([ROLE, 0.5, *words(3), STOP, usage(28, hidden=25)])], 28),
    "hidden thinking without a sign but the answer's first byte": (
        OpenAI,
        [Stream([": accepted\n\n", 0.5, *words(3), STOP, usage(28, hidden=25)])],
        28,
    ),
    "hidden thinking that is not said to be some": (
        OpenAI,
        [Stream([ROLE, 1.0, *words(3), STOP, usage(53)])],
        53,
    ),
    "pieces of several tokens": (
        OpenAI,
        [
            Stream(
                [ROLE, *paced([delta("ten words that are all of one length here ")] * 4, 10 * PAUSE), STOP, usage(40)]
            )
        ],
        40,
    ),
    "Gemini's hidden thinking": (
        Gemini,
        [Stream([": accepted\n\n", 0.5, gemini("Yes", 26, 25), *paced([gemini(".", 27, 25, "STOP")])])],
        27,
    ),
    "Gemini's pieces of several tokens": (
        Gemini,
        [
            Stream(
                paced(
                    [gemini("ten words that are all of one length here ", 10 * n) for n in (1, 2, 3)]
                    + [gemini("ten words that are all of one length here ", 40, finish="STOP")],
                    10 * PAUSE,
                )
            )
        ],
        40,
    ),
}


async def asked(folder: Path, contract: RemoteContract, *answers: Any, stall_s: float = 5.0, **more: Any) -> LiveRun:
    with contract.server(*answers) as server:
        async with housed(folder, contract.entry(server, **more), TEST_KEY=CANARY) as house:
            house.turns.toolbox = Toolbox(ToolSettings(enabled=["calculator", "count"]))
            house.turns._lifetime = replace(house.turns._lifetime, stall_s=stall_s)
            await house.ask()
    return house.runs[0]


def wire(run: LiveRun) -> Events:
    return [entry.wire() for entry in run.log.entries]


@pytest.mark.parametrize("case", WRITTEN)
async def test_average_rate_equals_the_servers_rate(tmp_path: Path, case: str) -> None:
    kind, answers, tokens = WRITTEN[case]
    run = await asked(tmp_path, kind(), *answers)
    last = wire(run)[-1]
    assert (last["type"], last["usage"]["output_tokens"]) == ("complete", tokens)
    average = last["timing"]["tokens_per_s"]
    assert 0.5 * RATE < average < 1.25 * RATE  # a busy machine can only slow the server down
    assert of(wire(run), "state")[-1]["tokens_per_second"] == pytest.approx(average, abs=0.01)
    assert render_panel(run.state, whole=False)["average"] == pytest.approx(average, abs=0.06)
    assert fold_record("\n".join(entry.json for entry in run.log.entries)).average() == pytest.approx(average, rel=0.05)


async def test_live_rate_is_near_the_final_one_and_stays_during_a_tool(tmp_path: Path) -> None:
    kind, answers, _ = WRITTEN["a slow tool in the middle"]
    received = wire(await asked(tmp_path, kind(), *answers))
    during = [e["tokens_per_second"] for e in of(received, "state") if e["tokens_received"] >= 10]
    assert all(0.4 * RATE < rate < 1.4 * RATE for rate in during)


async def test_tool_arguments_are_streamed(tmp_path: Path) -> None:
    both = [*arguments(SUM), *arguments('{"expression": "1+1"}', index=1)]
    answers = Stream([ROLE, *both, CALLED]), Stream([ROLE, *words(2), STOP])
    received = wire(await asked(tmp_path, OpenAI(), *answers))
    inputs, starts = of(received, "tool_input"), of(received, "tool_start")
    assert len(inputs) > len(starts)
    for start, text in zip(starts, (SUM, '{"expression": "1+1"}'), strict=True):
        pieces = [e for e in inputs if e["tool_call_id"] == start["tool_call_id"]]
        assert ("".join(e["delta"] for e in pieces), {e["tool"] for e in pieces}) == (text, {"calculator"})
    assert ("streaming", "Writing a call of calculator") in [(e["phase"], e["content"]) for e in of(received, "status")]
    assert received[-1]["usage"]["output_tokens"] == len(inputs) + 2, "without a count, pieces are tokens"


async def test_tool_calls_with_reused_ids_are_distinct(tmp_path: Path) -> None:
    rounds = [Stream([ROLE, *arguments(f'{{"expression": "{n}+1"}}'), CALLED]) for n in range(3)]
    received = wire(await asked(tmp_path, OpenAI(), *rounds, Stream([ROLE, *words(2), STOP])))
    starts = {e["tool_call_id"]: e["input"]["expression"] for e in of(received, "tool_start")}
    inputs = {call_id: "" for call_id in starts}
    for e in of(received, "tool_input"):
        inputs[e["tool_call_id"]] += e["delta"]
    assert list(starts.values()) == ["0+1", "1+1", "2+1"]
    assert inputs == {call_id: f'{{"expression": "{text}"}}' for call_id, text in starts.items()}


async def test_timings_of_llama_cpp_are_used(tmp_path: Path) -> None:
    last = {**delta("", "stop"), "timings": LLAMA}
    received = wire(await asked(tmp_path, OpenAI(), Stream([ROLE, *words(20), last, usage(20)])))
    (end,) = of(received, "model_end")
    measured = {"prompt_s": 0.25, "prompt_tokens": 4, "cached_tokens": 3, "generated_s": 0.4, "generated_tokens": 20}
    assert (end["timings"], received[-1]["timing"]["tokens_per_s"]) == (measured, RATE)


@pytest.mark.parametrize(
    "wrong", [None, "no object", {"predicted_ms": "fast"}, {"predicted_ms": -1}, {"predicted_ms": 9e9}]
)
def test_impossible_timings_are_dropped(wrong: Any) -> None:
    assert timings(wrong, 0.5, 1.0, {"output_tokens": 8}) == {"generated_s": 0.5, "generated_tokens": 8}
    assert timings(wrong, None, 1.0, None) is None


def test_reply_in_one_chunk_has_no_rate() -> None:
    assert ChunkTimes().signed(0.0).came(5.0, text="a whole reply of several words").seconds(8, 0) is None
    assert ChunkTimes().seconds(0, 0) is None


SIGNS: dict[str, Any] = {
    "a comment": ": queued\n\n",
    "a comment's one byte": ":",
    "an empty object": "data: {}\n\n",
    "an event of another kind": "event: ping\ndata: 1\n\n",
}


@pytest.mark.parametrize(
    ("kind", "sign", "place"),
    [
        *((OpenAI, sign, "within") for sign in SIGNS),
        (OpenAI, "a comment", "before"),
        (Gemini, "a comment", "within"),
        (Gemini, "a comment", "before"),
    ],
)
async def test_any_byte_of_a_server_is_activity(
    tmp_path: Path, kind: type[RemoteContract], sign: str, place: str
) -> None:
    if kind is OpenAI:
        begins, ends = [delta("word ")], [delta("word ", "stop"), usage(2)]
    else:
        begins, ends = [gemini("word ", 1)], [gemini("word ", 2, finish="STOP")]
    waits = paced([SIGNS[sign]] * 10, 0.1)
    waits += ["\n\n"] if sign.endswith("byte") else []
    pieces = [*waits, *begins, *ends] if place == "before" else [*begins, *waits, *ends]
    run = await asked(tmp_path, kind(), Stream(pieces), stall_s=0.4, timeout=0.7)
    received = wire(run)
    assert (received[-1]["type"], text_of(received, "token")) == ("complete", "word word ")
    assert not [e for e in of(received, "status") if e["phase"] == "stalled"]
    assert "No token for a while; the server is still working" in [e["content"] for e in of(received, "status")]


@pytest.mark.parametrize(
    "piece", [delta(""), call(index=0, arguments=" "), {"choices": []}], ids=["empty", "arguments", "no choices"]
)
async def test_deltas_without_text_are_activity(tmp_path: Path, piece: Any) -> None:
    slow = paced(calls(*[piece] * 10)[:-1] if "function" in piece else [piece] * 10, 0.1)
    begins = [delta("word "), *calls(call(index=0, id="a", name="calculator", arguments=SUM[:5]))[:1]]
    ends = [*calls(call(index=0, arguments=SUM[5:]))[:1], CALLED]
    answers = Stream([*begins, *slow, *ends]), Stream([delta("word ", "stop")])
    received = wire(await asked(tmp_path, OpenAI(), *answers, stall_s=0.4, timeout=0.7))
    assert received[-1]["type"] == "complete"
    assert not [e for e in of(received, "status") if e["phase"] == "stalled"]


async def test_server_that_falls_silent_times_out(tmp_path: Path) -> None:
    run = await asked(
        tmp_path, OpenAI(), Stream([delta("word "), *paced([": queued\n\n"] * 5, 0.1)], "hang"), timeout=0.5
    )
    assert (wire(run)[-1]["type"], wire(run)[-1]["code"]) == ("error", "timeout")


async def test_local_process_reports_activity() -> None:
    signs: list[None] = []
    with OpenAIServer(Stream([*paced([": queued\n\n"] * 5, 0.05), delta("word", "stop")])) as server:
        with activity_listener(lambda: signs.append(None)):
            found = [chunk async for chunk in stream_chunks(server.base_url, "", {"stream": True})]
    assert len(found) == 1 and len(signs) >= 6


async def test_first_token_time_of_a_backend_excludes_tools(tmp_path: Path) -> None:
    answers = (
        Stream([ROLE, *arguments(COUNT, "count"), CALLED]),
        Stream([ROLE, 0.1, *words(2), STOP]),
    )
    contract = OpenAI()
    with contract.server(*answers) as server:
        async with housed(tmp_path, contract.entry(server), TEST_KEY=CANARY) as house:
            house.turns.toolbox = Toolbox(ToolSettings(enabled=["count"]))
            received = await house.ask()
            first = house.backend.ttft_s
    (tool,) = of(received, "tool_end")
    assert first is not None
    assert first == pytest.approx(of(received, "state")[-1]["ttft_s"] - tool["duration_s"], abs=0.15)
