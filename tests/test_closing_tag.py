"""A reply whose thinking has only its closing tag, from a real server to every view: what was streamed as text before
the tag is no part of the reply for anybody.
"""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gradio_client import Client

from agent.tools import Toolbox
from app import App
from runs.record import decode
from runs.replay import Replay
from settings import BackendSettings, ToolSettings
from tests.agui import verify
from tests.conftest import until
from tests.grammar import check, written
from tests.house import asked_for_replies, of, text_of
from tests.live_app import client_of, events_of, events_until_end, live_app, socket_of
from tests.providers import OpenAIServer, Stream
from tests.streams import DONE, ONE_CALL, asked, delta

THOUGHT, ANSWER = "They want a sum. 2 and 2.\n", "It is 4."
PIECES = ["They want ", "a sum. ", "2 and 2.\n", "</think>", "\n\n", "It is ", "4."]
CLOSED = Stream([*map(delta, PIECES), delta("", "stop"), DONE])
SLOW = Stream([*map(delta, PIECES[:-1]), 2.5, delta(PIECES[-1]), delta("", "stop"), DONE])
PLAIN = Stream([delta("It is "), delta("5."), delta("", "stop"), DONE])


async def test_the_text_before_the_tag_is_a_thought_and_no_reply(tmp_path: Path) -> None:
    async with asked(tmp_path, CLOSED) as (house, _):
        received = await house.ask()
        (reply,) = [m for m in await house.turns.store.history(house.runs[0].conversation_id) if m.role == "assistant"]
    (thought,) = of(received, "reasoning")
    assert (thought["content"], thought["retracts"]) == (THOUGHT, True)
    assert text_of(received, "token") == THOUGHT + ANSWER
    assert (received[-1]["content"], reply.text) == (ANSWER, ANSWER)
    assert [(part.kind, part.text) for part in reply.parts] == [("thinking", THOUGHT)]
    assert [e["phase"] for e in of(received, "status")][-3:] == ["streaming", "thinking", "streaming"]


async def test_the_next_reply_begins_within_thinking(tmp_path: Path) -> None:
    async with asked(tmp_path, CLOSED) as (house, server):
        await house.ask("One")
        received = await house.ask("Two", conversation_id=house.runs[0].conversation_id, memory="full")
        sent = asked_for_replies(server)[1].body["messages"]
    assert [m["content"] for m in sent if m["role"] == "assistant"] == [ANSWER]
    assert (text_of(received, "reasoning"), text_of(received, "token")) == (THOUGHT, ANSWER)
    assert not any(e.get("retracts") for e in received)
    assert received[-1]["content"] == ANSWER


async def test_an_entry_may_say_that_the_template_opens_the_thinking(tmp_path: Path) -> None:
    async with asked(tmp_path, CLOSED, thinking="open") as (house, _):
        received = await house.ask()
    assert (text_of(received, "reasoning"), text_of(received, "token")) == (THOUGHT, ANSWER)


async def test_a_reply_without_thinking_teaches_the_contrary(tmp_path: Path) -> None:
    async with asked(tmp_path, CLOSED, PLAIN, PLAIN) as (house, _):
        received = [await house.ask() for _ in range(3)]
    assert [one[-1]["content"] for one in received] == [ANSWER, "It is 5.", "It is 5."]
    assert [text_of(one, "token") for one in received] == [THOUGHT + ANSWER, "It is 5.", "It is 5."]
    assert [len(of(one, "token")) for one in received[1:]] == [1, 2], "the last came as it was written"


async def test_what_the_settings_say_is_not_unlearned(tmp_path: Path) -> None:
    async with asked(tmp_path, PLAIN, CLOSED, thinking="open") as (house, _):
        assert (await house.ask())[-1]["content"] == "It is 5."
        received = await house.ask()
    assert (text_of(received, "reasoning"), text_of(received, "token")) == (THOUGHT, ANSWER)


LONG = [delta("It is "), delta("5, and "), delta("so on")]
INTERRUPTED = {
    "cut at its longest": Stream([*LONG, delta("", "length"), DONE]),
    "broken off": Stream([*LONG, 0.05], "cut"),
    "an error": Stream([*LONG, {"error": {"message": "overloaded"}}]),
    "stopped": Stream([*LONG, 20.0]),
}


@pytest.mark.parametrize("how", INTERRUPTED)
async def test_an_interrupted_reply_is_kept_where_thinking_was_learned(tmp_path: Path, how: str) -> None:
    async with asked(tmp_path, CLOSED, INTERRUPTED[how], PLAIN) as (house, _):
        await house.ask()
        assert house.backend.opens_thinking
        run = await house.start()
        if how == "stopped":
            await until(lambda: "so on" in "".join(thought.text for thought in run.state.thoughts), most=10)
            await run.stop("user")
        assert run.task
        await asyncio.wait({run.task})
        reply = (await house.turns.store.history(run.conversation_id))[-1]
        assert (run.text, reply.text) == ("It is 5, and so on",) * 2
        assert not house.backend.opens_thinking
        assert text_of(await house.ask(), "reasoning") == ""


async def test_an_interrupted_thought_stays_one_where_the_settings_say_so(tmp_path: Path) -> None:
    async with asked(tmp_path, INTERRUPTED["cut at its longest"], thinking="open") as (house, _):
        received = await house.ask()
        assert house.backend.opens_thinking
    assert (text_of(received, "reasoning"), text_of(received, "token")) == ("It is 5, and so on", "")


@pytest.mark.parametrize(
    "pieces",
    [
        ["It is written `</think>`", "."],
        ["```\n", "</think>\n", "```"],
        ["A thought ends with </think> here."],
        ["这通常是服务器没有过滤", "</think>", "标签造成的。"],
        ["Servers leave tags in, such as: ", "</think>", " tags."],
    ],
)
async def test_a_tag_that_is_spoken_of_stays(tmp_path: Path, pieces: list[str]) -> None:
    async with asked(tmp_path, Stream([*map(delta, pieces), delta("", "stop"), DONE])) as (house, _):
        received = await house.ask()
        assert not house.backend.opens_thinking
    assert received[-1]["content"] == text_of(received, "token") == "".join(pieces)


async def test_a_visitor_who_speaks_of_the_tag_teaches_nothing(tmp_path: Path) -> None:
    async with asked(tmp_path, CLOSED) as (house, _):
        received = await house.ask("What does </think> mean?")
        assert not house.backend.opens_thinking
    assert received[-1]["content"] == "".join(PIECES)


async def test_thinking_before_a_tool_call_is_not_sent_back(tmp_path: Path) -> None:
    calls = Stream([*map(delta, PIECES), *ONE_CALL["as OpenAI"], delta("", "tool_calls"), DONE])
    async with asked(tmp_path, calls, CLOSED) as (house, server):
        house.turns.toolbox = Toolbox(ToolSettings(enabled=["calculator"]))
        received = await house.ask()
        asking = next(m for m in asked_for_replies(server)[1].body["messages"] if m.get("tool_calls"))
    assert asking["content"] == ANSWER
    assert received[-1]["content"] == f"{ANSWER}\n\n{ANSWER}"
    assert [bool(e.get("retracts")) for e in of(received, "reasoning")] == [True, False, False, False]


# Every view of it


@pytest.fixture(scope="module")
def provider() -> Iterator[OpenAIServer]:
    with OpenAIServer(CLOSED) as server:
        yield server


@pytest.fixture
def app(provider: OpenAIServer, tmp_path: Path) -> Iterator[App]:
    """A new one for each test, whose backend knows nothing yet."""
    provider.answers = [CLOSED]
    entry = BackendSettings(name="Remote", kind="openai", model="test-model", base_url=provider.base_url)
    with live_app(tmp_path, backends=[entry]) as app:
        yield app


async def test_every_transport_tells_the_same(app: App, provider: OpenAIServer) -> None:
    async with client_of(app) as anna:
        received = await events_of(anna, "POST", "/stream", json={"message": "2+2?"})
        check(received)
        assert (received[-1]["content"], written(received)) == (ANSWER, ANSWER)
        run_id = received[0]["run_id"]
        lines = (await anna.get(f"/runs/{run_id}")).text.splitlines()
        assert list(map(json.loads, lines)) == received
        for after in (3, 10, len(received) - 3):
            assert await events_of(anna, "GET", f"/runs/{run_id}/events?after={after}") == received[after:]
        async with socket_of(app, anna) as socket:
            await socket.send(json.dumps({"type": "resume", "run_id": run_id, "after": 0}))
            assert await events_until_end(socket) == received
        exported = (await anna.get(f"/conversations/{received[0]['conversation_id']}")).json()
        assert [m["content"] for m in exported["messages"]] == ["2+2?", ANSWER]
        shown = (await anna.get(f"/conversations/{received[0]['conversation_id']}?format=markdown")).text
        assert shown.count(THOUGHT.strip()) <= 1 and "</think>" not in shown


async def test_a_replay_shows_it_as_it_was_at_each_moment(app: App) -> None:
    async with client_of(app) as anna:
        received = await events_of(anna, "POST", "/stream", json={"message": "2+2?"})
        lines = (await anna.get(f"/runs/{received[0]['run_id']}")).text.splitlines()
    entries = [decode(line) for line in lines]
    begun = entries[0].at
    for number, entry in enumerate(entries, 1):
        entry.at = begun + number  # so that each has a moment of its own
    replay = Replay(entries)
    for count in range(1, len(received) + 1):
        state, text = replay.state_at(entries[count - 1].at - begun - 1)
        assert text == written(received[:count])
        assert state.ended is None or [thought.text for thought in state.thoughts] == [THOUGHT]


async def test_a_page_that_is_loaded_amid_the_reply_has_it_without_the_thinking(
    app: App, provider: OpenAIServer
) -> None:
    provider.answers = [SLOW]
    async with client_of(app) as anna, anna.stream("POST", "/stream", json={"message": "2+2?"}) as answer:
        run = app.turns.runs.find(answer.headers["x-run-id"])
        assert run
        await until(lambda: run.text == "It is ", most=10)
        stored = ""
        while stored != "It is ":  # as a process that is killed now would leave it
            await asyncio.sleep(0.1)
            exported = (await anna.get(f"/conversations/{run.conversation_id}")).json()
            stored = exported["messages"][-1]["content"]
            assert not run.ended
        received = await events_of(anna, "GET", f"/runs/{run.id}/events")
    assert received[-1]["content"] == ANSWER


def messages_of(received: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages that a client of AG-UI has after a run, as its protocol has them put together."""
    messages: dict[str, dict[str, Any]] = {}
    for one in received:
        match one["type"]:
            case "TEXT_MESSAGE_START" | "REASONING_MESSAGE_START":
                messages[one["messageId"]] = {"role": one["type"].split("_")[0], "content": ""}
            case "TEXT_MESSAGE_CONTENT" | "REASONING_MESSAGE_CONTENT":
                messages[one["messageId"]]["content"] += one["delta"]
            case "MESSAGES_SNAPSHOT":
                messages = {m["id"]: m for m in one["messages"]}
    return list(messages.values())


async def test_a_client_of_ag_ui_receives_what_is_left(app: App) -> None:
    given = {"threadId": "a-thread-with-a-long-name", "runId": "r", "state": {}, "tools": [], "context": []}
    body = {**given, "messages": [{"id": "1", "role": "user", "content": "2+2?"}], "forwardedProps": {}}
    async with client_of(app) as anna:
        answer = await anna.post("/agui", json=body)
    received = [
        json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: ")
    ]
    verify(received)
    found = [(m["role"], m["content"]) for m in messages_of(received)]
    assert found == [("user", "2+2?"), ("REASONING", THOUGHT), ("TEXT", ANSWER)]


async def test_a_batch_and_gradios_own_clients_have_the_reply_alone(app: App) -> None:
    async with client_of(app, cookie=False) as client:
        received = await events_of(client, "POST", "/batch", json={"prompts": ["2+2?"]})
    assert next(e for e in received if e["type"] == "complete")["content"] == ANSWER

    def ask() -> str:
        return str(Client(app.url, verbose=False).predict("2+2?", api_name="/chat"))

    assert await asyncio.to_thread(ask) == ANSWER


async def test_no_line_of_ours_ends_at_another_character(app: App, provider: OpenAIServer) -> None:
    text = "a\u2028b\u2029c\u0085d"
    provider.answers = [Stream([delta(text), delta("", "stop"), DONE])]
    message = f"Say {text}"
    async with client_of(app) as anna:
        streamed = await anna.post("/stream", json={"message": message})
        run_id = streamed.headers["x-run-id"]
        record = await anna.get(f"/runs/{run_id}")
        batch = await anna.post("/batch", json={"prompts": [message]})
        given = {"threadId": "a-thread-with-a-long-name", "runId": "r", "state": {}, "tools": [], "context": []}
        agui = await anna.post(
            "/agui", json={**given, "messages": [{"id": "1", "role": "user", "content": message}], "forwardedProps": {}}
        )
        async with socket_of(app, anna) as socket:
            await socket.send(json.dumps({"type": "resume", "run_id": run_id, "after": 0}))
            frames = [await asyncio.wait_for(socket.recv(), 20) for _ in record.text.split("\n")[:-1]]
    for body in (streamed.text, record.text, batch.text, agui.text, *map(str, frames)):
        assert not set("\u2028\u2029\u0085") & set(body)
    for line in [*record.text.splitlines(), *map(str, frames)]:
        json.loads(line)  # naive readers split so
    received = [
        json.loads(line.removeprefix("data: ")) for line in streamed.text.splitlines() if line.startswith("data: ")
    ]
    assert received[-1]["content"] == text
