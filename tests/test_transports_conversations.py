"""The list of conversations, and what goes out and comes in: Markdown, and JSON with its branches."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from settings import LimitSettings
from tests.conftest import children_with, until
from tests.exports import chatgpt, letter, node, tour, zipped
from tests.exports import text_message as spoken
from tests.live_app import Api, client_of, events_of, live_api, refused
from tests.test_memory_exports import children_first


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder: Path = tmp_path_factory.mktemp("conversations")
    with live_api(folder) as app:
        yield app


async def said(client: Any, message: str, **more: Any) -> dict[str, Any]:
    """A turn; returns its first event."""
    return dict((await events_of(client, "POST", "/stream", json={"message": message, **more}))[0])


async def test_the_list_is_the_visitors_own(app: Api) -> None:
    async with client_of(app) as anna, client_of(app) as ben, client_of(app, cookie=False) as nobody:
        one = (await said(anna, "whales"))["conversation_id"]
        two = (await said(anna, "ships", memory="recall"))["conversation_id"]
        await said(nobody, "whales")
        received = (await anna.get("/conversations")).json()
        assert [c["id"] for c in received["conversations"]] == [two, one]
        newest = received["conversations"][0]
        assert (newest["title"], newest["memory"], newest["live"], newest["found"]) == ("ships", "recall", False, None)
        assert received["next"] is None
        found = (await anna.get("/conversations", params={"search": "WHALE"})).json()["conversations"]
        assert [(c["id"], c["found"]) for c in found] == [(one, "whales")]
        for other in (ben, nobody):
            assert (await other.get("/conversations")).json() == {"conversations": [], "next": None}
            await refused(await other.patch(f"/conversations/{one}", json={"title": "mine"}), 404, "not_found")
            await refused(await other.get(f"/conversations/{one}?format=markdown"), 404, "not_found")
        renamed = await anna.patch(f"/conversations/{one}", json={"title": " of  whales "})
        assert renamed.json() == {"id": one, "title": "of whales"}
        await refused(await anna.patch(f"/conversations/{one}", json={"title": " "}), 400, "invalid_request")
        await refused(await anna.get("/conversations", params={"format": "x", "limit": 0}), 400, "invalid_request")
        await refused(await anna.get("/conversations", params={"before": "x"}), 400, "invalid_request")


async def test_markdown_export_escapes_its_content(app: Api) -> None:
    async with client_of(app) as client:
        talk = [
            {"role": "user", "content": "<b>Hi</b> \u05e9\u05dc\u05d5\u05dd/../\"'\n# not a title"},
            {
                "role": "assistant",
                "content": "```\ncode\n```",
                "standing": "stopped",
                "note": "Stopped by you",
                "parts": [
                    {"kind": "tool", "text": "````\n</details>", "start": 1.0, "name": "<i>t", "input": {"a": 1}}
                ],
            },
        ]
        this = (await client.post("/conversations", json={"messages": talk})).json()["conversation_id"]
        answer = await client.get(f"/conversations/{this}?format=markdown")
        assert answer.headers["content-type"].startswith("text/markdown")
        named = answer.headers["content-disposition"]
        assert named.startswith('attachment; filename="b Hi b') and "/" not in named and "\n" not in named
        text = answer.text
        assert text.startswith("# \\<b\\>Hi\\</b\\>")
        assert "## You\n\n<b>Hi</b>" in text
        assert "<details><summary>Tool: &lt;i&gt;t</summary>" in text
        assert "`````\n````\n</details>\n`````" in text
        assert text.rstrip().endswith("```\ncode\n```\n\n*Stopped by you*")


async def test_markdown_export_has_thinking_tools_and_text_in_their_order(app: Api) -> None:
    async with client_of(app) as client:
        text = "First the sum.\n\nIt is 391."
        parts = [
            {"kind": "thinking", "text": "I add them.", "start": 1.0, "end": 2.0, "offset": 0},
            {"kind": "tool", "text": "391", "start": 3.0, "name": "calculator", "offset": len("First the sum.")},
        ]
        talk = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": text, "parts": parts}]
        this = (await client.post("/conversations", json={"messages": talk})).json()["conversation_id"]
        markdown = (await client.get(f"/conversations/{this}?format=markdown")).text
        reply = markdown[markdown.index("## Model") :]
        order = ["<summary>Thinking", "First the sum.", "<summary>Tool: calculator", "It is 391."]
        places = [reply.index(one) for one in order]
        assert places == sorted(places)
        assert reply.count("First the sum.") == reply.count("It is 391.") == 1
        assert "</details>\n\nIt is 391." in reply, "no empty lines are added"


async def test_branches_are_exported_and_imported(app: Api) -> None:
    async with client_of(app) as client:
        this = (await said(client, "one"))["conversation_id"]
        await said(client, "two", conversation_id=this)
        whole = (await client.get(f"/conversations/{this}")).json()
        assert [m["content"] for m in whole["messages"]][::2] == ["one", "two"]
        assert whole["other_messages"] == []
        first, reply = whole["messages"][:2]
        branch = [
            {"role": "assistant", "content": "another reply", "id": "b1", "parent_id": first["id"]},
            {"role": "user", "content": "other", "id": "a2", "parent_id": "a1"},
            {"role": "assistant", "content": "ha", "id": "a1", "parent_id": reply["id"], "standing": "growing"},
            {"role": "user", "content": "another beginning", "id": "c1", "parent_id": None},
            {"role": "user", "content": "hangs nowhere", "id": "d1", "parent_id": "no such"},
        ]
        sent = whole | {"other_messages": branch, "title": "Imported"}
        copy = (await client.post("/conversations", json=sent)).json()["conversation_id"]
        got = (await client.get(f"/conversations/{copy}")).json()
        assert got["title"] == "Imported"
        assert [m["content"] for m in got["messages"]] == [m["content"] for m in whole["messages"]]
        assert {m["id"] for m in got["messages"]}.isdisjoint(m["id"] for m in whole["messages"])
        others = {m["content"]: m for m in got["other_messages"]}
        assert others.keys() == {"another reply", "other", "ha", "another beginning"}
        assert others["another reply"]["parent_id"] == got["messages"][0]["id"]
        assert others["other"]["parent_id"] == others["ha"]["id"]
        assert others["ha"]["standing"] == "interrupted"
        assert others["another beginning"]["parent_id"] is None
        again = (await client.post("/conversations", json=got)).json()["conversation_id"]
        assert len((await client.get(f"/conversations/{again}")).json()["other_messages"]) == 4
        await said(client, "goes on", conversation_id=again)


@pytest.mark.parametrize(
    "bad",
    [
        {"messages": [{"role": "user", "content": "x", "parts": "none"}]},
        {"messages": [{"role": "critic", "content": "x"}]},
        {"messages": [{"role": "user", "content": "x", "standing": "odd"}]},
        {"messages": [], "title": "x" * 300},
        {"messages": [], "other_messages": {}},
        {},
        [],
    ],
)
async def test_invalid_conversation_is_refused(app: Api, bad: Any) -> None:
    async with client_of(app) as client:
        await refused(await client.post("/conversations", json=bad), 400, "invalid_request")


async def test_export_files_of_other_services_are_imported(app: Api) -> None:
    async with client_of(app) as client:
        for body in (json.dumps([tour(), letter()]).encode(), zipped(conversations=[tour(), letter()], user={})):
            received = (await client.post("/conversations", content=body)).json()
            assert [one["title"] for one in received["conversations"]] == ["Whales", "Sums"]
            assert received["conversation_id"] == received["conversations"][0]["conversation_id"]
            assert (received["skipped"], received["left_out"]) == ([], 0)
            listed = (await client.get("/conversations")).json()["conversations"]
            assert [one["title"] for one in listed][:2] == ["Whales", "Sums"]
        sums = (await client.get(f"/conversations/{received['conversations'][1]['conversation_id']}")).json()
        assert [m["content"] for m in sums["messages"]][1:] == [
            "It is 391 ([a](https://a.test)).",
            "Thanks",
            "You are welcome",
        ]
        assert [m["content"] for m in sums["other_messages"]] == ["Another answer"]
        assert [part["name"] for part in sums["messages"][1]["parts"]] == ["", "python"]
        again = await client.post("/conversations", json=sums)
        assert again.json().keys() == {"conversation_id"}
        found = (await client.get("/conversations", params={"search": "another answer"})).json()["conversations"]
        assert found[0]["found"] == "Another answer" and found[0]["mark"] == [0, 14]
        await said(client, "goes on", conversation_id=received["conversation_id"])


async def test_import_reports_what_it_left_out(tmp_path: Path) -> None:
    with live_api(tmp_path, limits=LimitSettings(conversations_per_visitor=3)) as app:
        async with client_of(app) as client:
            await said(client, "one")
            many = [chatgpt(f"t{n}", [node("q", None, spoken("user", "hi"))], "q", at=1.7e9 + n) for n in range(5)]
            received = (await client.post("/conversations", json=[*many, {"mapping": {}, "title": "empty"}])).json()
            assert [one["title"] for one in received["conversations"]] == ["t4", "t3"]
            assert received["left_out"] == 4
            assert "3 conversations" in await refused(
                await client.post("/conversations", json=many), 429, "rate_limited"
            )
        async with client_of(app) as client:
            received = (await client.post("/conversations", json=[many[0], {"mapping": {}, "title": "empty"}])).json()
            assert received["skipped"] == [{"title": "empty", "reason": "It has no messages that could be shown."}]


async def test_parallel_imports_respect_the_conversation_limit(tmp_path: Path) -> None:
    with live_api(tmp_path, limits=LimitSettings(conversations_per_visitor=3, messages_per_minute=100)) as app:
        async with client_of(app) as client:
            many = [chatgpt(f"t{n}", [node("q", None, spoken("user", "hi"))], "q", at=1.7e9 + n) for n in range(2)]
            await client.get("/conversations")
            answers = await asyncio.gather(*(client.post("/conversations", json=many) for _ in range(6)))
            assert len((await client.get("/conversations")).json()["conversations"]) == 3
            assert sorted(answer.status_code for answer in answers) == [200, 200, 429, 429, 429, 429]
            for answer in answers:
                if answer.status_code == 429:
                    assert "3 conversations" in await refused(answer, 429, "rate_limited")


async def test_only_imports_may_be_large_and_do_not_block_others(tmp_path: Path) -> None:
    words = ["whale", "ship", "\u9cb8\u9c7c", "caf\u00e9"] * 750
    messages = [
        {"role": ("user", "assistant")[n % 2], "content": " ".join(words), "id": f"m{n}", "parts": []}
        for n in range(1064)
    ]
    with live_api(tmp_path, limits=LimitSettings(import_bytes=30_000_000)) as app:
        async with client_of(app) as anna, client_of(app) as ben:
            body = json.dumps({"title": "Large", "messages": messages})
            assert 20_000_000 < len(body) < 30_000_000
            lags = asyncio.create_task(slowest(ben))
            made = (await anna.post("/conversations", content=body, timeout=200)).json()
            lags.cancel()
            assert await lags < 3
            whole = (await anna.get(f"/conversations/{made['conversation_id']}", timeout=60)).json()
            assert [m["content"] for m in whole["messages"]] == [m["content"] for m in messages]
            again = await anna.post("/conversations", json=whole, timeout=200)  # what we export we can import
            assert again.status_code == 200
            too_large = json.dumps({"messages": messages * 2})
            received = await refused(await anna.post("/conversations", content=too_large, timeout=60), 413, "too_large")
            assert "30,000,000" in received
            for path in ("/stream", "/context", f"/conversations/{made['conversation_id']}"):
                answer = await anna.request("PATCH" if "conv" in path else "POST", path, content=body, timeout=60)
                assert "4,000,000" in await refused(answer, 413, "too_large")


async def test_number_of_large_bodies_is_bounded(tmp_path: Path) -> None:
    go_on, begun = asyncio.Event(), list[int]()

    async def body() -> AsyncIterator[bytes]:
        yield b"x" * 5000
        begun.append(1)
        await go_on.wait()
        yield b"x"

    with live_api(tmp_path, limits=LimitSettings(body_bytes=4000)) as app:
        async with client_of(app) as client:
            sending = [asyncio.create_task(client.post("/conversations", content=body())) for _ in range(8)]
            await until(lambda: len(begun) == 8)
            for _ in range(50):  # the server may not have read the last of them yet
                answer = await client.post("/conversations", content=b"x" * 5000)
                if answer.status_code == 409:
                    break
                await asyncio.sleep(0.1)
            assert "try again" in await refused(answer, 409, "busy")
            small = await client.post("/conversations", json={"messages": []})
            assert small.status_code == 200
            go_on.set()
            for one in await asyncio.gather(*sending):
                await refused(one, 400, "invalid_request")
            await refused(await client.post("/conversations", content=b"x" * 5000), 400, "invalid_request")


async def slowest(client: Any) -> float:
    """The longest that another visitor waits for a health check, until it is cancelled."""
    longest = 0.0
    try:
        while True:
            begun = time.monotonic()
            await client.get("/healthz")
            longest = max(longest, time.monotonic() - begun)
            await asyncio.sleep(0.02)
    except asyncio.CancelledError:
        return longest


async def test_alternatives_listed_children_first_are_imported_soon(app: Api) -> None:
    async with client_of(app) as client:
        answer = await client.post("/conversations", json=children_first(10_000), timeout=60)
        got = (await client.get(f"/conversations/{answer.json()['conversation_id']}", timeout=60)).json()
        assert len(got["other_messages"]) == 10_000


async def test_import_of_a_client_that_leaves_ends(app: Api) -> None:
    async with client_of(app) as client:
        importing = asyncio.create_task(client.post("/conversations", json=children_first(10_000), timeout=60))
        await until(lambda: children_with("memory.exports.child"))
        importing.cancel()
        await asyncio.gather(importing, return_exceptions=True)
        await until(lambda: not children_with("memory.exports.child"))
        one = {"messages": [{"role": "user", "content": "Hello"}]}
        await client.post("/conversations", json=one, timeout=60)  # waits for the same visitor's earlier import
        assert len((await client.get("/conversations")).json()["conversations"]) == 1


async def test_odd_parts_do_not_stop_an_import(app: Api) -> None:
    async with client_of(app) as client:
        parts = [{"kind": "thinking", "text": "Hm\ud800", "start": 1.0}, {"kind": "virus"}, 7, None]
        message = {"role": "assistant", "content": "x", "parts": parts, "run_id": "not taken"}
        sent = json.dumps({"messages": [message]})
        answer = await client.post("/conversations", content=sent, headers={"Content-Type": "application/json"})
        this = answer.json()["conversation_id"]
        (kept,) = (await client.get(f"/conversations/{this}")).json()["messages"]
        assert [part["text"] for part in kept["parts"]] == ["Hm\ufffd"]
        assert kept["run_id"] is None
