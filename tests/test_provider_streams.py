"""Streams of OpenAI-compatible servers that deviate from OpenAI's, in their ends, shapes and characters."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest

from agent import retries
from backends import reply_reader
from tests.conftest import until
from tests.house import asked_for_replies, text_of
from tests.providers import Stream
from tests.streams import COUNTED, DONE, HELLO, STOP, USAGE, asked, delta, halves, received_from, usage, without_delta

GARBAGE = 'data: {"choices": [{"del\n\n'
FAILED = {"error": {"message": "The server had an error.", "type": "server_error", "code": "overloaded"}}


@pytest.fixture(autouse=True)
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_BACKOFF", lambda state: 0.0)


ENDS = {
    "finish reason": [*HELLO, STOP],
    "finish reason with the last text": [*HELLO[:2], delta("lo", "stop")],
    "finish reason without delta": [*HELLO, without_delta("stop")],
    "finish reason with a null delta": [*HELLO, without_delta("stop", delta=None)],
    "finish reason with message": [*HELLO, without_delta("stop", message={"role": "assistant", "content": "Hello"})],
    "only the final message": [delta(role="assistant"), without_delta("stop", message={"content": "Hello"})],
    "final message and an empty delta": [without_delta("stop", message={"content": "Hello"}, delta={"content": ""})],
    "final message with the rest": [*HELLO[:2], without_delta("stop", message={"content": "Hello"})],
    "messages in place of deltas": [
        without_delta(None, message={"role": "assistant", "content": "Hel"}),
        without_delta(None, message={"content": "lo"}),
        without_delta("stop", message={"content": ""}),
    ],
    "texts in place of deltas": [without_delta(None, text="Hel"), without_delta("stop", text="lo")],
    "another reason": [*HELLO, delta("", "eos_token")],
    "done": [*HELLO, DONE],
    "done, with empty reasons": [delta("Hel", ""), delta("lo", ""), delta("", ""), DONE],
    "done, with reasons called null": [delta("Hel", "null"), delta("lo", "null"), DONE],
    "done without blank": [*HELLO, "data:[DONE]\n\n"],
    "done in quotes": [*HELLO, 'data: "[DONE]"\n\n'],
    "done with one line end": [*HELLO, "data: [DONE]\n"],
    "done as an event of that name": [*HELLO, "event: done\ndata: [DONE]\n\n"],
    "final usage": [*HELLO, usage()],
    "final usage without choices": [*HELLO, {"usage": USAGE}],
    "final usage with null choices": [*HELLO, usage(choices=None)],
}
AFTERWARDS: dict[str, tuple[list[Any], Any]] = {
    "end": ([], "end"),
    "eof": ([], "eof"),
    "open": ([], "hang"),
    "cut": ([], "cut"),
    "reset": ([0.05], "reset"),
    "garbage": ([GARBAGE], "end"),
    "error": ([FAILED], "end"),
    "error event": (["event: error\ndata: it broke\n\n"], "hang"),
    "noise": ([": waiting\n\n", "data: {}\n\n"] * 3, "hang"),
}


@pytest.mark.parametrize("after", AFTERWARDS)
@pytest.mark.parametrize("end", ENDS)
async def test_any_sign_of_the_end_ends_the_reply(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, after: str
) -> None:
    monkeypatch.setattr(reply_reader, "USAGE_S", 0.2)
    more, line = AFTERWARDS[after]
    begun = time.monotonic()
    async with asked(tmp_path, Stream([*ENDS[end], *more], line), timeout=8) as (house, server):
        received = await house.ask()
        await until(lambda: not server.open_streams, most=2)
    assert (received[-1]["type"], received[-1]["content"]) == ("complete", "Hello")
    assert len(asked_for_replies(server)) == 1
    assert time.monotonic() - begun < 6, "the timeout was waited for"


@pytest.mark.parametrize("end", ["finish reason", "done", "finish reason without delta", "only the final message"])
@pytest.mark.parametrize("line", ["end", "hang", "cut"])
async def test_usage_that_follows_within_a_second_counts(tmp_path: Path, end: str, line: Any) -> None:
    received = await received_from(tmp_path, Stream([*ENDS[end], 0.3, usage()], line))
    assert received[-1]["usage"] == COUNTED


async def test_usage_has_a_timeout_of_one_second_in_total(tmp_path: Path) -> None:
    noise = [": still here\n\n", 0.3, "data: {}\n\n", 0.3, delta(""), 0.3, without_delta(None), 0.3] * 10
    begun = time.monotonic()
    received = await received_from(tmp_path, Stream([*HELLO, STOP, *noise], "hang"), timeout=20)
    assert (received[-1]["type"], received[-1]["content"]) == ("complete", "Hello")
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("field", ["usage", None])
async def test_a_reply_with_usage_does_not_wait_for_the_end_of_the_body(tmp_path: Path, field: str | None) -> None:
    end = [STOP, usage()] if field is None else [{**STOP, "usage": USAGE}]
    begun = time.monotonic()
    received = await received_from(tmp_path, Stream([*HELLO, *end], "hang"), timeout=20)
    assert received[-1]["usage"] == COUNTED
    assert received[-1]["timing"]["duration_s"] < time.monotonic() - begun < 5


async def test_text_after_a_finish_reason_belongs_to_the_reply(tmp_path: Path) -> None:
    """Some servers send a finish reason with every chunk."""
    received = await received_from(tmp_path, Stream([delta("Hel", "stop"), 0.2, delta("lo", "stop"), usage(), DONE]))
    assert received[-1]["content"] == "Hello"
    received = await received_from(tmp_path / "none", Stream([delta("Hello"), DONE, delta(" and more")]))
    assert received[-1]["content"] == "Hello", "[DONE] is the last"


@pytest.mark.parametrize("first", [usage(), {"choices": [], "prompt_filter_results": []}, "data: {}\n\n"])
async def test_usage_before_the_reply_does_not_end_it(tmp_path: Path, first: Any) -> None:
    received = await received_from(tmp_path, Stream([first, 1.3, *HELLO, STOP, usage(), DONE]))
    assert (received[-1]["type"], received[-1]["content"]) == ("complete", "Hello")
    assert received[-1]["usage"] == COUNTED


ZERO = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
RUNNING = {"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8}


@pytest.mark.parametrize("figures", [ZERO, RUNNING, {"prompt_tokens": 7}], ids=["zero", "running", "prompt alone"])
@pytest.mark.parametrize("end", [[STOP, 0.3, usage(), DONE], [0.3, usage()], [without_delta("stop"), DONE]])
async def test_usage_within_the_reply_does_not_end_it(tmp_path: Path, figures: Any, end: list[Any]) -> None:
    amid = {"choices": [], "usage": figures}
    received = await received_from(tmp_path, Stream([delta("Hel"), amid, 0.3, delta("lo"), amid, 0.3, *end]))
    assert (received[-1]["type"], received[-1]["content"]) == ("complete", "Hello")


async def test_zero_usage_does_not_complete_a_reply(tmp_path: Path) -> None:
    received = await received_from(tmp_path, Stream([*HELLO, {"choices": [], "usage": ZERO}, 0.05], "cut"))
    assert (received[-1]["type"], received[-1]["content"]) == ("error", "Hello")
    assert "broke off" in received[-1]["message"]


async def test_usage_within_a_reply_does_not_complete_a_cut_one(tmp_path: Path) -> None:
    """The first usage is followed by text, so it was not the final one."""
    amid = {"choices": [], "usage": RUNNING}
    received = await received_from(tmp_path, Stream([delta("Hel"), amid, 0.2, delta("lo"), 0.05], "cut"))
    assert (received[-1]["type"], received[-1]["content"]) == ("error", "Hello")


@pytest.mark.parametrize("line", ["end", "eof", "cut", "reset"])
@pytest.mark.parametrize("unfinished", [HELLO, [delta("Hel", ""), delta("lo", "")], [*HELLO, 'data: {"choices": [{']])
async def test_without_a_sign_of_the_end_the_reply_is_cut(tmp_path: Path, unfinished: list[Any], line: Any) -> None:
    received = await received_from(tmp_path, Stream([*unfinished, 0.05], line))
    assert (received[-1]["code"], received[-1]["content"], received[-1]["retryable"]) == (
        "backend_unavailable",
        "Hello",
        True,
    )
    assert "broke off" in received[-1]["message"]


@pytest.mark.parametrize(
    "error",
    [
        FAILED,
        {"error": "overloaded"},
        [FAILED],
        {"object": "error", "message": "overloaded", "code": 500},
        {"code": 500, "message": "overloaded"},
        {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
        {**FAILED, **without_delta("error")},
        'event: error\ndata: {"message": "overloaded"}\n\n',
        "event: error\ndata: overloaded\n\n",
        'error: {"message": "overloaded", "code": 500}\n\n',
    ],
)
async def test_an_error_within_the_stream_is_not_a_reply(tmp_path: Path, error: Any) -> None:
    received = await received_from(tmp_path, Stream([*HELLO, error, DONE]))
    assert (received[-1]["code"], received[-1]["content"]) == ("backend_unavailable", "Hello")
    assert "Remote failed" in received[-1]["message"]


@pytest.mark.parametrize("data_", ["ping", "null", "[]", "It works."])
async def test_a_stream_of_other_data_is_not_a_reply(tmp_path: Path, data_: str) -> None:
    received = await received_from(tmp_path, Stream([f"data: {data_}\n\n"] * 2))
    assert (received[-1]["type"], received[-1]["code"]) == ("error", "backend_unavailable")
    assert "sent an unreadable reply" in received[-1]["message"]


async def test_an_error_in_a_list_is_reported_with_its_names(tmp_path: Path) -> None:
    received = await received_from(tmp_path, Stream([[FAILED]]))
    assert "overloaded" in received[-1]["message"]


WHOLE = {
    "object": "chat.completion",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    "usage": USAGE,
}
BARE = {
    "one line": json.dumps(WHOLE),
    "a line end": json.dumps(WHOLE) + "\n",
    "indented": json.dumps(WHOLE, indent=2),
    "indented, CRLF": json.dumps(WHOLE, indent=2).replace("\n", "\r\n") + "\r\n",
    "as an event": f"data: {json.dumps(WHOLE)}\n\n",
    "lines": "".join(json.dumps(one) + "\n" for one in [*HELLO, STOP, usage()]),
    "lines, then done": "".join(json.dumps(one) + "\n" for one in [*HELLO, usage()]) + "[DONE]\n",
}


@pytest.mark.parametrize("line", ["end", "eof", "hang"])
@pytest.mark.parametrize("body", BARE)
async def test_a_response_without_events_is_a_reply(tmp_path: Path, body: str, line: Any) -> None:
    text, at = BARE[body], len(BARE[body]) // 2
    received = await received_from(tmp_path, Stream([text[:at], 0.01, text[at:]], line, "application/json"), timeout=8)
    assert (received[-1]["type"], received[-1]["content"]) == ("complete", "Hello")
    assert received[-1]["usage"] == COUNTED


def data(*objects: Any) -> str:
    return "".join(f"data: {json.dumps(one)}\n\n" for one in objects)


WIRE = {
    "CRLF": data(*HELLO, STOP).replace("\n", "\r\n") + "data: [DONE]\r\n\r\n",
    "CR": data(*HELLO, STOP).replace("\n", "\r") + "data: [DONE]\r\r",
    "mark": "\ufeff" + data(*HELLO, STOP) + DONE,
    "no blank": data(*HELLO, STOP).replace("data: ", "data:") + "data:[DONE]\n\n",
    "comments": ": PROCESSING\n\n" + data(*HELLO).replace("data", ": x\ndata") + data(STOP) + ":\n\n" + DONE,
    "pings": "event: ping\ndata: {}\n\nevent: ping\ndata: now\n\n" + data(*HELLO, STOP) + DONE,
    "pings as data": "data: ping\n\ndata: null\n\n" + data(HELLO[0]) + "data: []\n\n" + data(*HELLO[1:], STOP) + DONE,
    "data twice": (data(*HELLO, STOP) + DONE).replace("data: ", "data: data: "),
    "codes of success": data(
        {"code": 0, "message": "success", "choices": []},
        *({**one, "code": "200", "message": "OK"} for one in HELLO),
        {"code": None, "message": "still here"},
        {**STOP, "code": 0, "message": "success"},
    ),
    "other events": "event: metadata\ndata: some text\n\n" + data(*HELLO, STOP) + DONE,
    "empty data": "data\n\ndata:\n\ndata: \n\n" + data(*HELLO, STOP) + DONE,
    "other fields": data(*HELLO, STOP).replace("data", "id: 3\nretry: 100\nevent: message\nodd\ndata") + DONE,
    "several lines": "".join(
        "".join(f"data: {line}\n" for line in json.dumps(one, indent=1).split("\n")) + "\n" for one in [*HELLO, STOP]
    ),
    "single line ends": data(*HELLO, STOP).replace("\n\n", "\n") + "data: [DONE]\n",
    "no last line end": (data(*HELLO, STOP) + DONE).rstrip(),
}


@pytest.mark.parametrize("size", [0, 1, 7])
@pytest.mark.parametrize("wire", WIRE)
async def test_server_sent_events_are_read_by_the_standard(tmp_path: Path, wire: str, size: int) -> None:
    body = WIRE[wire].encode()
    pieces = [body[at : at + size] for at in range(0, len(body), size)] if size else [body]
    received = await received_from(tmp_path, Stream(pieces))
    assert (received[-1]["type"], received[-1]["content"]) == ("complete", "Hello")


RAW = "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg\x1dh\x1ei"


@pytest.mark.parametrize("field", ["content", "reasoning_content", "reasoning"])
@pytest.mark.parametrize("size", [0, 1, 5])
async def test_only_cr_and_lf_end_a_line(tmp_path: Path, field: str, size: int) -> None:
    one = {"choices": [{"index": 0, "delta": {field: RAW}, "finish_reason": None}]}
    text = json.dumps(one, ensure_ascii=False).replace("\\u000b", "\x0b").replace("\\f", "\x0c")
    for code in (0x0B, 0x0C, 0x1C, 0x1D, 0x1E):  # JSON has these escaped
        text = text.replace(chr(code), f"\\u{code:04x}")
    body = f"data: {text}\n\n".encode()
    pieces = [body[at : at + size] for at in range(0, len(body), size)] if size else [body]
    received = await received_from(tmp_path, Stream([*pieces, delta("."), STOP, DONE]))
    assert received[-1]["type"] == "complete"
    shown = text_of(received, "token" if field == "content" else "reasoning")
    assert shown.removesuffix(".") == RAW


@pytest.mark.parametrize("field", ["content", "reasoning_content"])
@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (["Hi \\ud83d", "\\ude00!"], "Hi 😀!"),
        (["\\ud83d", "\\ude00", "\\ud83d", "\\ude01"], "😀😁"),
        (["\\ud83d", "", "\\ude00"], "😀"),
        (["a\\ud83d", "b"], "a\ufffdb"),
        (["a\\ud83d"], "a\ufffd"),
        (["\\ude00a"], "\ufffda"),
        (["\\ud83d", "\\ud83d", "\\ude00"], "\ufffd😀"),
        (["👩\\u200d\\ud83d", "\\udcbb"], "👩\u200d💻"),
    ],
)
async def test_a_character_in_two_deltas_is_one(tmp_path: Path, field: str, pieces: list[str], text: str) -> None:
    received = await received_from(tmp_path, Stream([*halves(field, *pieces), STOP, DONE]))
    assert text_of(received, "token" if field == "content" else "reasoning") == text
    assert received[-1]["content"] == (text if field == "content" else "")
    assert received[-1]["type"] == "complete"


async def test_a_character_between_thinking_and_text_is_two_halves(tmp_path: Path) -> None:
    received = await received_from(
        tmp_path, Stream([*halves("reasoning_content", "\\ud83d"), *halves("content", "\\ude00"), STOP, DONE])
    )
    assert (text_of(received, "reasoning"), received[-1]["content"]) == ("\ufffd", "\ufffd")


async def test_a_character_may_be_cut_between_its_bytes(tmp_path: Path) -> None:
    body = f"data: {json.dumps(delta('Grüße 世界 😀'), ensure_ascii=False)}\n\n".encode()
    received = await received_from(
        tmp_path, Stream([*(piece for b in body for piece in (bytes([b]), 0.0001)), STOP, DONE])
    )
    assert received[-1]["content"] == "Grüße 世界 😀"


async def test_a_stop_while_waiting_for_usage_ends_the_connection(tmp_path: Path) -> None:
    async with asked(tmp_path, Stream([*HELLO, STOP], "hang"), timeout=20) as (house, server):
        run = await house.start()
        await until(lambda: run.text == "Hello")
        await asyncio.sleep(0.1)
        await run.stop("user")
        await until(lambda: not server.open_streams, most=2)
