"""Results of servers: texts, images, structured content, logs, and what is bounded of them."""

import asyncio
import base64
import io
from typing import Any

import pytest
from mcp_types import CallToolResult, ImageContent, TextContent, TextResourceContents
from PIL import Image

from agent.mcp.results import (
    LONGEST_ATTACHMENT,
    LONGEST_TEXT,
    MOST_ATTACHMENTS,
    image_attachment,
    read_contents,
    read_result,
)
from agent.mcp.run_connections import RunConnections
from agent.mcp.schemas import ListedTool
from agent.mcp.servers import Server, Servers
from agent.mcp.tools import _MOST_LOG, _Call, make_tool
from agent.questions import question_handler
from components.parts import parts_html
from runs.reply import ReplyPart
from runs.tool_calls import ApprovalAnswer
from settings import McpSettings


def encoded(kind: str, size: tuple[int, int] = (4, 4), **more: Any) -> str:
    held = io.BytesIO()
    Image.effect_noise(size, 90).convert("RGB").save(held, kind, **more)
    return base64.b64encode(held.getvalue()).decode()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP"])
def test_images_of_known_types_are_shown(kind: str) -> None:
    found = image_attachment(encoded(kind), "Image")
    assert isinstance(found, dict) and found["type"] == f"image/{kind.lower()}"


def test_images_are_small_and_of_known_types() -> None:
    held = io.BytesIO()
    Image.new("1", (2100, 2100)).save(held, "PNG")
    assert "4 million pixels" in str(image_attachment(base64.b64encode(held.getvalue()).decode(), "Image"))
    assert "more than 150 kB" in str(image_attachment(encoded("PNG", (400, 400)), "Image"))
    for wrong in (encoded("BMP"), encoded("TIFF"), base64.b64encode(b"<svg onload='x'>").decode(), "no base64!", ""):
        assert "no PNG, JPEG, GIF or WebP" in str(image_attachment(wrong, "Image"))


def test_texts_and_attachments_are_cut() -> None:
    data = encoded("PNG")
    images = [ImageContent(type="image", data=data, mime_type="image/png") for _ in range(20)]
    long = TextContent(type="text", text="x" * 300_000)
    text, attachments = read_result(CallToolResult(content=[long, *images], structured_content={"a": 1}))
    assert len(text) <= LONGEST_TEXT + 10 and text.endswith("[cut]")
    assert len(attachments) == MOST_ATTACHMENTS
    _, resource = read_contents(TextResourceContents(uri="note://1", text="y" * 100_000))
    assert resource and len(resource["text"]) <= LONGEST_ATTACHMENT + 10


def test_structured_content_alone_is_the_text_for_the_model() -> None:
    text, (attachment,) = read_result(CallToolResult(content=[], structured_content={"rows": [1]}))
    assert "rows" in text and attachment["kind"] == "data"


class Noisy:
    """A connection whose calls log a lot and have an image."""

    async def call(self, name: str, arguments: Any, hooks: Any) -> CallToolResult:
        for _ in range(1000):
            hooks.log("info", "z" * 1000)
        image = ImageContent(type="image", data=encoded("PNG", (200, 200)), mime_type="image/png")
        return CallToolResult(content=[image])


def make_call(connections: RunConnections, connection: Any = None) -> _Call:
    listed = ListedTool("noisy", "noisy", "", {"type": "object", "properties": {}, "required": []}, True, None)
    tool = make_tool("noisy", Server(McpSettings(name="box", command=["x"])), listed)
    return _Call(tool, connection or Noisy(), connections)


async def test_log_is_cut() -> None:
    _, attachments = await make_call(RunConnections(Servers())).run({})
    assert [one["kind"] for one in attachments] == ["image", "log"]
    assert len(attachments[1]["text"]) <= _MOST_LOG + 50


async def test_attachments_of_a_run_are_bounded() -> None:
    connections, kept = RunConnections(Servers()), []
    for _ in range(20):
        kept.append(bool((await make_call(connections).run({}))[1]))
        await asyncio.sleep(0)
    assert kept[0] and not kept[-1]
    assert connections.characters_left >= 0


class Curious:
    """A connection whose call asks far too many questions at once."""

    async def call(self, name: str, arguments: Any, hooks: Any) -> CallToolResult:
        schema = {"type": "object", "properties": {}}
        answers = await asyncio.gather(*(hooks.ask(f"Question {i}?", schema) for i in range(500)))
        actions = [answer.action for answer in answers]
        return CallToolResult(content=[TextContent(type="text", text=f"{actions.count('accept')} of {len(actions)}")])


async def test_questions_of_a_call_are_bounded() -> None:
    asked = []

    async def ask(question: dict[str, Any]) -> ApprovalAnswer:
        asked.append(question["question"])
        return ApprovalAnswer(True)

    with question_handler(ask):
        text, _ = await make_call(RunConnections(Servers()), Curious()).run({})
    assert (text, len(asked)) == ("10 of 500", 10)


def test_attachments_are_drawn_as_text_and_checked_images() -> None:
    attachments = [
        {"kind": "log", "title": "<b>Log</b>", "text": "<script>alert(1)</script>"},
        {"kind": "image", "title": "'><i>", "type": "image/png", "data": "AAAA"},
        {"kind": "image", "title": "x", "type": "image/svg+xml", "data": "AAAA"},
        {"kind": "image", "title": "x", "type": "image/png", "data": "A' onerror='alert(1)"},
    ]
    html = parts_html([ReplyPart("tool", "done", 1.0, 2.0, "look", {}, attachments=attachments)])
    assert html.count("<img") == 1 and "<img src='data:image/png;base64,AAAA'" in html
    assert "<script" not in html and "<b>Log" not in html and "<i>" not in html and "onerror" not in html
