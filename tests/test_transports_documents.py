"""The routes of documents and tools of a running app."""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from settings import BackendSettings, LimitSettings, ToolSettings
from tests.conftest import children_with, until
from tests.grammar import check
from tests.live_app import Api, client_of, events_of, events_until_end, live_api, socket_of
from tests.pdfs import SLOW

MOST = 20_000


@contextmanager
def serving(data: Path, *tools: str, **limits: int) -> Iterator[Api]:
    bounds = LimitSettings(**{"body_bytes": 5_000, "document_bytes": MOST, **limits})
    enabled = ToolSettings(enabled=list(tools))
    with live_api(data, tools=enabled, limits=bounds, trusted_proxies=["127.0.0.1"]) as app:
        yield app


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with serving(tmp_path_factory.mktemp("documents"), "calculator", "search") as app:
        yield app


@pytest.fixture
def anna(app: Api) -> Iterator[httpx.Client]:
    with visitor(app) as client:
        yield client


@contextmanager
def visitor(app: Api, **headers: str) -> Iterator[httpx.Client]:
    """A client with a visitor's cookie."""
    with httpx.Client(base_url=app.url, timeout=20, headers=headers) as client:
        client.get("/example").raise_for_status()
        yield client


def test_the_tools_are_listed(anna: httpx.Client) -> None:
    tools = anna.get("/tools").json()
    assert [(tool["name"], list(tool["input"]), tool["approval"]) for tool in tools] == [
        ("calculator", ["expression"], False),
        ("search", ["query"], False),
    ]


def test_a_document_is_added_listed_and_removed(anna: httpx.Client) -> None:
    added = anna.post("/documents", params={"name": "whales.md"}, content="# Whales\n\nThey sing.")
    assert (added.status_code, added.json()["name"], added.json()["passages"]) == (201, "whales.md", 1)
    assert anna.get("/documents").json() == [added.json()]
    gone = f"/documents/{added.json()['id']}"
    assert anna.delete(gone).status_code == 204
    assert anna.get("/documents").json() == []
    assert (anna.delete(gone).status_code, anna.delete(gone).json()["code"]) == (404, "not_found")


def test_a_document_may_be_larger_than_other_requests_and_not_too_large(anna: httpx.Client) -> None:
    assert anna.post("/documents", params={"name": "a.txt"}, content="word " * 3000).status_code == 201
    refused = anna.post("/documents", params={"name": "a.txt"}, content="word " * 5000)
    assert (refused.status_code, refused.json()["code"]) == (413, "too_large")
    assert anna.post("/stream", content="word " * 3000).status_code == 413


@pytest.mark.parametrize("encoding", ["gb18030", "shift_jis", "utf-16", "windows-1251"])
def test_encoding_of_a_document_is_reported(anna: httpx.Client, encoding: str) -> None:
    text = {"gb18030": "灯塔守卫者看见了鲸鱼。", "shift_jis": "灯台守は鯨を見た。"}.get(
        encoding, "Смотритель увидел китов."
    )
    added = anna.post("/documents", params={"name": "a.txt"}, content=text.encode(encoding))
    assert added.status_code == 201
    assert added.json()["encoding"] == {"shift_jis": "cp932"}.get(encoding, encoding)
    assert added.json() in anna.get("/documents").json()


def test_documents_of_another_visitor_are_not_found(app: Api, anna: httpx.Client) -> None:
    mine = anna.post("/documents", params={"name": "diary.txt"}, content="secret thoughts").json()
    with visitor(app) as ben:
        assert ben.get("/documents").json() == []
        assert ben.delete(f"/documents/{mine['id']}").status_code == 404
    assert mine in anna.get("/documents").json()


def test_documents_need_a_cookie(app: Api) -> None:
    with httpx.Client(base_url=app.url, timeout=20) as nobody:
        assert nobody.get("/documents").json() == []
        refused = nobody.post("/documents", params={"name": "a.txt"}, content="word")
        assert (refused.status_code, refused.json()["code"]) == (401, "authentication")


def test_page_of_another_site_cannot_add_a_document(anna: httpx.Client) -> None:
    refused = anna.post("/documents", params={"name": "a.txt"}, content="w", headers={"Origin": "https://evil.test"})
    assert refused.status_code == 403


@pytest.mark.parametrize(
    ("name", "content", "received"),
    [
        ("a.exe", b"MZ", "allowed are files that end in"),
        ("", b"word", "allowed are files that end in"),
        ("a.txt", b"", "no text"),
        ("a.pdf", b"word", "its name says PDF"),
        ("a.txt", b"%PDF-1.7 word", "its name says text"),
        ("a" * 500 + ".txt", b"word", "name"),
    ],
)
def test_unsearchable_file_is_refused(anna: httpx.Client, name: str, content: bytes, received: str) -> None:
    refused = anna.post("/documents", params={"name": name}, content=content)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
    assert received in refused.json()["message"]


def test_path_in_a_document_name_is_removed(anna: httpx.Client, app: Api) -> None:
    added = anna.post("/documents", params={"name": "../../x.txt"}, content="word")
    assert added.json()["name"] == "x.txt"
    assert not list(app.settings.data.rglob("x.txt"))


def test_documents_need_the_tool_search(tmp_path: Path) -> None:
    with serving(tmp_path, "calculator") as app:
        with visitor(app) as client:
            refused = client.post("/documents", params={"name": "a.txt"}, content="word")
            assert (refused.status_code, refused.json()["code"]) == (404, "not_found")
            assert client.get("/documents").status_code == 404


def test_one_address_does_not_fill_the_library_for_others(tmp_path: Path) -> None:
    """Each document has a new cookie, as of an attacker who fills the library."""
    limits = {"document_characters_per_visitor": 6_000, "document_bytes_per_day": 9_000, "visitors_per_address": 2}
    with serving(tmp_path, "search", **limits) as app:
        received = list[tuple[int, str]]()
        for _ in range(5):
            with visitor(app) as client:
                for name in "ab":
                    answer = client.post("/documents", params={"name": f"{name}.txt"}, content="word " * 1000)
                    received.append((answer.status_code, "" if answer.status_code == 201 else answer.json()["message"]))
        kept = [status for status, _ in received if status == 201]
        assert len(kept) == 2
        assert {status for status, _ in received} == {201, 413, 429}
        assert any("the limit for your address is reached" in message for _, message in received)
        assert any("may be added by your address in a day" in message for _, message in received)
        with visitor(app, **{"X-Forwarded-For": "203.0.113.7"}) as other:
            assert other.post("/documents", params={"name": "a.txt"}, content="word " * 1000).status_code == 201


async def test_pdfs_of_a_client_that_leaves_are_not_read(tmp_path: Path) -> None:
    def readers() -> list[psutil.Process]:
        return children_with("pdf_child.py")

    with serving(tmp_path, "search", document_bytes=1_000_000) as app:
        async with httpx.AsyncClient(base_url=app.url, timeout=60) as client:
            await client.get("/example")
            files = [{"name": f"{n}.pdf"} for n in range(4)]
            sending = [asyncio.create_task(client.post("/documents", params=file, content=SLOW)) for file in files]
            await until(readers)
            for one in sending:
                one.cancel()
            await asyncio.gather(*sending, return_exceptions=True)
            await until(lambda: not readers(), 5)  # each would take longer
            assert (await client.get("/documents")).json() == []


ASKED = "What is the password of the shed?"
TALK = {"text": "Plumbago [1].", "pause": 0}
READER = BackendSettings(
    **{"name": "Reader", "kind": "langchain", "class": "tests.models:Talker", "options": TALK}  # type: ignore[arg-type]
)
Events = list[dict[str, Any]]


async def over_stream(app: Api, client: httpx.AsyncClient, **more: Any) -> Events:
    return await events_of(client, "POST", "/stream", json={"message": ASKED, **more})


async def over_eventsource(app: Api, client: httpx.AsyncClient, **more: Any) -> Events:
    return await events_of(client, "GET", "/stream", params={"query": ASKED, **more})


async def over_socket(app: Api, client: httpx.AsyncClient, **more: Any) -> Events:
    async with socket_of(app, client) as socket:
        await socket.send(json.dumps({"message": ASKED, **more}))
        return await events_until_end(socket)


async def over_agui(app: Api, client: httpx.AsyncClient, **more: Any) -> Events:
    """The record of a run of AG-UI, whose own events are those of a tool call."""
    body = {"threadId": "t", "runId": "r", "tools": [], "context": [], "state": {}, "forwardedProps": more}
    answer = await client.post("/agui", json=body | {"messages": [{"id": "1", "role": "user", "content": ASKED}]})
    sent = [json.loads(line.removeprefix("data: ")) for line in answer.text.splitlines() if line.startswith("data: ")]
    results = [event["content"] for event in sent if event["type"] == "TOOL_CALL_RESULT"]
    events = await events_of(client, "GET", f"/runs/{answer.headers['x-run-id']}/events")
    assert results == [event["output"] for event in events if event["type"] == "tool_end"]
    return events


async def over_batch(app: Api, client: httpx.AsyncClient, **more: Any) -> Events:
    events = await events_of(client, "POST", "/batch", json={"prompts": [ASKED], **more})
    assert events.pop()["type"] == "batch_done"
    return [{name: value for name, value in event.items() if name != "index"} for event in events]


async def test_documents_are_read_alike_over_every_transport_and_can_be_left_out(tmp_path: Path) -> None:
    with live_api(tmp_path, backends=[READER]) as app:
        found = list[list[tuple[str, Any]]]()
        for over in (over_stream, over_eventsource, over_socket, over_agui, over_batch):
            async with client_of(app) as client:
                text = "The password of the shed is plumbago."
                (await client.post("/documents", params={"name": "notes.txt"}, content=text)).raise_for_status()
                events, without = await over(app, client), await over(app, client, documents=False)
                if over is not over_batch:  # whose runs are not kept
                    assert await events_of(client, "GET", f"/runs/{events[0]['run_id']}/events") == events
            for received in (events, without):
                check(received)
                assert received[-1]["content"] == "Plumbago [1]. "
            assert not [e for e in without if e["type"] == "tool_start"]
            assert [e["output"] for e in events if e["type"] == "tool_end"] == [f"[1] notes.txt, section 1\n{text}"]
            found.append([(e["type"], e.get("messages") or e.get("output")) for e in events if e["type"] not in UNTOLD])
        assert found == [found[0]] * len(found)


UNTOLD = {"state", "status"}
"""Events whose number depends on time."""


async def test_exports_keep_the_numbers_and_the_passages(tmp_path: Path) -> None:
    with live_api(tmp_path, backends=[READER]) as app:
        async with client_of(app) as client:
            text = "The password of the shed is plumbago. [2] </details>"
            (await client.post("/documents", params={"name": "notes.txt"}, content=text)).raise_for_status()
            this = (await over_stream(app, client))[0]["conversation_id"]
            markdown = (await client.get(f"/conversations/{this}?format=markdown")).text
            reply = markdown[markdown.index("## Model") :]
            assert "<details><summary>Passages of documents</summary>" in reply
            assert f"```\n[1] notes.txt, section 1\n{text}\n```" in reply
            assert reply.index("</details>\n\nPlumbago [1].")
            whole = (await client.get(f"/conversations/{this}")).json()
            again = (await client.post("/conversations", json=whole)).json()["conversation_id"]
            found = (await client.get(f"/conversations/{again}")).json()["messages"][-1]
            assert found["content"] == "Plumbago [1]. "
            assert [part["text"] for part in found["parts"]] == [f"[1] notes.txt, section 1\n{text}"]
