"""Tools of MCP servers in whole turns: calls, progress, questions, approvals, and servers that fail meanwhile."""

import asyncio
import base64
import io
import json
import os
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image
from pydantic import SecretStr

from agent.turns import Turns
from memory.options import TurnOptions
from runs.live import LiveRun
from runs.tool_calls import ApprovalAnswer
from tests.calls import Events, asked, begun, ended, of, options
from tests.conftest import until
from tests.mcp_turns import Connect, bad, entry, server_processes

pytest_plugins = ["tests.mcp_turns"]
LONG = 90


async def received_from(turns: Turns, message: str, **more: Any) -> Events:
    return await ended(await begun(turns, message, **more), LONG)


def end_of(received: Events, tool: str) -> dict[str, Any]:
    (end,) = [e for e in of(received, "tool_end") if e["tool"] == tool]
    return end


async def asking(run: LiveRun) -> dict[str, Any]:
    """The input of the question or the approval for which a run waits."""
    await until(lambda: run.ended or (run.tool_calls.awaiting_approval and run.state.approvals), LONG)
    assert not run.ended, [entry.json for entry in run.log.entries if entry.type == "tool_end"]
    return dict(run.state.approvals[0].input)


def answer(run: LiveRun, given: dict[str, Any] | None, *, approved: bool = True) -> None:
    run.tool_calls.answer(run.tool_calls.awaiting_approval[0], ApprovalAnswer(approved, given))


# Calls


async def test_tools_are_offered_listed_and_commands(connect: Connect) -> None:
    turns = await connect(entry())
    listed = {one["name"]: one for one in turns.toolbox.listed()}
    assert "server" not in listed["calculator"]
    assert (listed["add"]["server"], listed["add"]["about"]) == ("box", "Adds two numbers.")
    assert list(listed["add"]["input"]) == ["a", "b"]
    assert {name for name, one in listed.items() if one["approval"]} == {"erase"}
    received = await received_from(turns, '/add {"a": 2, "b": 3}')
    assert (received[-1]["type"], end_of(received, "add")["output"]) == ("complete", "5")
    assert end_of(await received_from(turns, "/add 41"), "add")["output"] == "42", "a typed text becomes a number"
    await until(lambda: not server_processes(), LONG)


async def test_model_calls_tools_in_one_connection(connect: Connect) -> None:
    seen: list[Any] = []
    rounds = [[("visits", {}, "c0")], [("visits", {}, "c1"), ("add", {"a": 1}, "c2")]]
    turns = await connect(entry(), model=options(seen) | {"rounds": rounds}, kind="Scripted")
    received = await received_from(turns, "Hi")
    outputs = {e["tool_call_id"]: e["output"] for e in of(received, "tool_end")}
    first, second = outputs["c0"].split(" in "), outputs["c1"].split(" in ")
    assert (first[0], second[0], outputs["c2"]) == ("1", "2", "2")
    assert first[1] == second[1], "one process for the run"
    other = await received_from(turns, "/visits")
    first = next(e for e in of(other, "tool_end") if e["tool"] == "visits")
    assert first["output"].split(" in ")[0] == "1", "another run has another connection"


async def test_progress_is_partial_output_and_the_log_is_attached(connect: Connect) -> None:
    turns = await connect(entry())
    received = await received_from(turns, '/steps {"upto": 3}')
    chunks = [e["chunk"] for e in of(received, "tool_output")]
    assert "".join(chunks) == "1 of 3: step 1\n2 of 3: step 2\n3 of 3: step 3\nall steps done"
    assert len(chunks) > 2, "they came one by one"
    end = end_of(received, "steps")
    assert end["output"] == "all steps done"
    (log,) = end["attachments"]
    assert (log["kind"], log["text"]) == ("log", "info: did 1\ninfo: did 2\ninfo: did 3\n")


async def test_all_kinds_of_results(connect: Connect) -> None:
    turns = await connect(entry())
    run = await begun(turns, "/report")
    end = end_of(await ended(run, LONG), "report")
    text = end["output"]
    for part in (
        "a report",
        "[image: shown to the visitor]",
        "no PNG, JPEG, GIF or WebP",
        "inside the note",
        "note://2",
    ):
        assert part in text
    kinds = [one["kind"] for one in end["attachments"]]
    assert kinds == ["image", "resource", "data", "resource"]
    image, inside, data, linked = end["attachments"]
    assert image["type"] == "image/png"
    assert Image.open(io.BytesIO(base64.b64decode(image["data"]))).size == (8, 8)
    assert (inside["text"], json.loads(data["text"])) == ("inside the note", {"rows": [1, 2]})
    assert (linked["title"], linked["text"]) == ("Resource note://2", "behind the link")
    (part,) = (await turns.store.history(run.conversation_id))[-1].parts
    assert list(part.attachments) == end["attachments"], "they are stored with the reply"


async def test_failed_call_gives_the_servers_text(connect: Connect) -> None:
    received = await received_from(await connect(entry()), "/fail")
    assert "out of ink" in end_of(received, "fail")["error"]
    assert end_of(received, "fail")["error"].startswith("box: ")
    assert received[-1]["type"] == "complete"


async def test_over_http(connect: Connect, http_server: str) -> None:
    turns = await connect(entry(url=http_server))
    received = await received_from(turns, "/steps")
    assert end_of(received, "steps")["output"] == "all steps done"
    assert of(received, "tool_output")
    assert end_of(await received_from(turns, '/big {"megabytes": 50}'), "big")["error"].startswith("box: it sent a ")
    assert end_of(await received_from(turns, "/add 1"), "add")["output"] == "2"


# Approval and questions


@pytest.mark.parametrize(
    ("approval", "waits"), [("always", {"add", "erase"}), ("destructive", {"erase"}), ("never", set())]
)
async def test_approval_is_as_the_entry_says(connect: Connect, approval: Any, waits: set[str]) -> None:
    turns = await connect(entry(approval=approval, tools=["add", "erase"]))
    assert turns.toolbox.approval == waits
    run = await begun(turns, "/erase /tmp/x")
    if waits:
        assert await asking(run) == {"path": "/tmp/x"}
        answer(run, None, approved=False)
    end = end_of(await ended(run, LONG), "erase")
    assert end.get("error") == ("refused by the visitor" if waits else None)


async def test_form_is_answered(connect: Connect) -> None:
    turns = await connect(entry(), seconds=12)
    run = await begun(turns, "/book")
    question = await asking(run)
    assert question["question"] == "box asks: Which table?"
    assert [(f["name"], f["type"], f["required"]) for f in question["form"]] == [
        ("day", "text", True),
        ("people", "integer", False),
        ("window", "boolean", False),
        ("size", "choice", False),
    ]
    assert question["answer"] == {"people": 2, "window": False, "size": "small"}
    assert run.state.phase == "approval"
    await asyncio.sleep(12.5)  # longer than a call may take
    answer(run, {**question, "answer": {"day": "Monday", "people": 99}})
    await until(lambda: run.tool_calls.awaiting_approval and "problem" in run.state.approvals[-1].input, LONG)
    assert "at most 8" in run.state.approvals[-1].input["problem"]
    answer(run, {**question, "answer": {"day": "Monday", "people": "4", "window": True, "size": "large"}})
    received = await ended(run, LONG)
    assert end_of(received, "book")["output"] == "a large table on Monday for 4, window True"
    assert [e["tool"] for e in of(received, "approval")] == ["question", "question"]


async def test_form_is_declined_and_a_stop_ends_it(connect: Connect) -> None:
    turns = await connect(entry())
    run = await begun(turns, "/book")
    await asking(run)
    answer(run, None, approved=False)
    assert end_of(await ended(run, LONG), "book")["output"] == "no table: decline"
    run = await begun(turns, "/book")
    await asking(run)
    await run.stop("user")
    assert run.log.entries[-1].type == "stopped"
    await until(lambda: not server_processes(), LONG)


# Servers that fail


async def test_stopped_and_late_calls_are_cancelled_at_the_server(connect: Connect, tmp_path: Path) -> None:
    turns = await connect(entry(), seconds=15)
    for name in ("stopped", "late"):
        file = tmp_path / name
        run = await begun(turns, f"/hang {file}")
        await until(lambda run=run: run.tool_calls.any_open, LONG)  # type: ignore[misc]
        if name == "stopped":
            await asyncio.sleep(10)  # until the server has the call
            await run.stop("user")
        else:
            assert "longer than 15 s" in end_of(await ended(run, LONG), "hang")["error"]
        await until(file.exists, LONG)
        assert file.read_text() == "cancelled"


async def test_a_server_that_dies_hangs_or_sends_too_much_harms_one_call(connect: Connect) -> None:
    seen: list[Any] = []
    harms = [("die", {}), ("big", {"megabytes": 50}), ("freeze", {})]
    rounds = [[(name, given, f"c{2 * i}")] for i, (name, given) in enumerate(harms)]
    rounds = [one for i, harm in enumerate(rounds) for one in (harm, [("add", {"a": i}, f"c{2 * i + 1}")])]
    turns = await connect(entry(), model=options(seen) | {"rounds": rounds}, kind="Scripted", seconds=12)
    received = await received_from(turns, "Hi")
    assert received[-1]["type"] == "complete"
    assert [e["error"] for e in of(received, "tool_end") if e["tool"] != "add"] == [
        "box: its process has ended.",
        "box: it sent a message of more than 4 MB.",
        "it took longer than 12 s",
    ]
    assert [e["output"] for e in of(received, "tool_end") if e["tool"] == "add"] == ["1", "2", "3"]


async def test_flood_of_progress_is_cut_and_the_result_arrives(connect: Connect) -> None:
    turns = await connect(entry(), seconds=60)
    received = await received_from(turns, '/flood {"number": 3000}')
    assert end_of(received, "flood")["output"] == "flooded"
    assert sum(len(e["chunk"]) for e in of(received, "tool_output")) < 25_000
    assert len(of(received, "tool_output")) < 200


async def test_endless_flood_ends_with_the_time_limit(connect: Connect) -> None:
    turns = await connect(entry(command=bad("flood")), seconds=4)
    received = await received_from(turns, "/echo x") if "echo" not in turns.toolbox.approval else None
    if received is None:
        run = await begun(turns, "/echo x")
        await asking(run)
        answer(run, None)
        received = await ended(run, LONG)
    assert "longer than 4 s" in end_of(received, "echo")["error"]
    assert received[-1]["type"] == "complete"


async def test_connections_are_bounded(connect: Connect) -> None:
    turns = await connect(entry(), most=1)
    first = await begun(turns, "/book")
    await asking(first)
    second = await received_from(turns, "/add 1")
    assert (
        end_of(second, "add")["error"] == "box: all 1 connections are in use by other replies; try again in a minute."
    )
    answer(first, None, approved=False)
    await ended(first, LONG)
    await until(lambda: not server_processes(), LONG)
    assert end_of(await received_from(turns, "/add 1"), "add")["output"] == "2"


async def test_what_a_server_has_started_ends_with_the_run(connect: Connect) -> None:
    received = await received_from(await connect(entry()), "/spawn")
    child = int(end_of(received, "spawn")["output"])
    await until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == "zombie", LONG)


async def test_a_server_gets_the_variables_of_its_entry_alone(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTHER_API_KEY", "hush-hush")
    turns = await connect(entry(env=["MY_TOKEN"]), variables={"MY_TOKEN": SecretStr("of-mine")})
    output = end_of(await received_from(turns, "/environment"), "environment")["output"]
    assert "MY_TOKEN=of-mine" in output and f"PATH={os.environ['PATH']}" in output
    assert "hush-hush" not in output


async def test_tools_of_a_conversation_can_be_switched_off(connect: Connect) -> None:
    turns = await connect(entry(tools=["add"]))
    turn = await begun(turns, "Hi", options=TurnOptions(tools=("calculator",)))
    assert (await ended(turn, LONG))[-1]["type"] == "complete"
    assert turns.toolbox.is_all(["calculator", "add"])
    assert turns.toolbox.is_all(["calculator"]), "what a page showed before the server was ready"
    assert not turns.toolbox.is_all(["add"])
    assert await asked(turns, "Hello")
