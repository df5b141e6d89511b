"""Images in a turn: what the provider gets of them, what is left out, what is shown, and where they are refused."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import ToolCall, ToolMessage
from langchain_core.tools import tool

from agent.given_images import MOST_IMAGES
from agent.mcp.results import MOST_ATTACHMENTS
from agent.preview import preview
from agent.tool_results import attachments_of, plain_result
from agent.tools import Toolbox
from agent.turn import TurnRequest
from components.parts import parts_html
from memory.options import TurnOptions
from runs.errors import ChatError
from settings import BackendSettings, ToolSettings
from tests.conftest import scripted
from tests.house import House, asked_for_replies, housed, of
from tests.images import SVG, data_url, opened, picture
from tests.models import Witness
from tests.providers import NO_IMAGES, Drop, GeminiServer, OpenAIServer, ProviderServer, Reply, Request, Tool

PICTURE = base64.b64encode(picture()).decode()
TOKENS = 4 * 258
"""Of an image of 1024 by 1024 pixels."""


def openai(server: OpenAIServer, name: str = "Seer", **more: Any) -> BackendSettings:
    return BackendSettings(name=name, kind="openai", model=server.model, base_url=server.base_url, **more)


async def added(house: House, size: tuple[int, int] = (1024, 1024), visitor: str = "anna") -> str:
    return (await house.turns.images.add(visitor, "", picture("PNG", size))).id


def sizes(request: Request) -> list[tuple[str, list[tuple[int, int]]]]:
    """The text and the images of each of the user's messages."""
    found = []
    for message in request.body["messages"]:
        if message["role"] == "user":
            content = message["content"]
            parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
            urls = [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]
            assert all(url.startswith("data:image/jpeg;base64,") for url in urls)
            images = [opened(base64.b64decode(url.partition(",")[2])).size for url in urls]
            found.append(("".join(part["text"] for part in parts if part["type"] == "text"), images))
    return found


def last_request(server: ProviderServer) -> Request:
    return asked_for_replies(server)[-1]


async def test_provider_receives_the_images_before_the_text(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        async with housed(tmp_path, openai(server)) as house:
            ids = [await added(house, (40, 30)), await added(house, (30, 40))]
            events = await house.ask("What is this?", images=ids)
            assert of(events, "complete")
            assert sizes(last_request(server)) == [("What is this?", [(40, 30), (30, 40)])]
            content = last_request(server).body["messages"][-1]["content"]
            assert [part["type"] for part in content] == ["image_url", "image_url", "text"]


async def test_gemini_receives_the_images(tmp_path: Path) -> None:
    with GeminiServer() as server:
        entry = BackendSettings(name="Gemini", kind="gemini", model=server.model, key="TEST_KEY", base_url=server.url)
        async with housed(tmp_path, entry, TEST_KEY="sk-of-the-operator") as house:
            events = await house.ask("What is this?", images=[await added(house, (40, 30))])
            assert of(events, "complete")
            image, text = last_request(server).body["contents"][-1]["parts"]
            assert text == {"text": "What is this?"}
            assert image["inlineData"]["mime_type"] == "image/jpeg"
            assert opened(base64.urlsafe_b64decode(image["inlineData"]["data"])).size == (40, 30)
            request = house.runs[-1].requests.body(0) or ""
            assert f"[image {of(events, 'context')[0]['messages'][-1]['images'][0]['id']}]" in request
            assert len(request) < 2000


async def test_langchain_class_receives_standard_blocks(tmp_path: Path) -> None:
    entry = BackendSettings(name="Witness", kind="langchain", **{"class": "tests.models:Witness"})
    async with housed(tmp_path, entry) as house:
        await house.ask("What is this?", images=[await added(house, (40, 30))])
        image, text = Witness.received.pop()[-1].content
        assert isinstance(image, dict) and isinstance(text, dict)
        assert (image["type"], image["mime_type"], text["text"]) == ("image", "image/jpeg", "What is this?")
        assert opened(base64.b64decode(image["base64"])).size == (40, 30)


async def test_rejection_of_images_names_them_as_a_cause(tmp_path: Path) -> None:
    with OpenAIServer(NO_IMAGES) as server:
        async with housed(tmp_path, openai(server)) as house:
            (error,) = of(await house.ask("What is this?", images=[await added(house)]), "error")
            assert "It had images, which Seer may not take: choose another model" in error["message"]
            assert error["code"] == "invalid_request"
            (error,) = of(await house.ask("Hello"), "error")
            assert "images" not in error["message"]


async def test_images_are_given_again_as_the_mode_keeps_their_messages(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        async with housed(tmp_path, openai(server)) as house:
            await house.ask("first", images=[await added(house, (40, 30))], memory="full")
            conversation = house.runs[0].conversation_id
            await house.ask("second", conversation_id=conversation, memory="full")
            assert sizes(last_request(server)) == [("first", [(40, 30)]), ("second", [])]
            await house.ask("third", conversation_id=conversation, memory="none")
            assert sizes(last_request(server)) == [("third", [])]
            events = await house.ask(
                "fourth", conversation_id=conversation, memory="full", images=[await added(house, (9, 9))]
            )
            assert [images for _, images in sizes(last_request(server))] == [[(40, 30)], [], [], [(9, 9)]]
            assert of(events, "context")[0]["messages"][1]["images"][0]["width"] == 40


async def test_the_newest_images_are_given(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        async with housed(tmp_path, openai(server, context=100_000)) as house:
            conversation = None
            for n in range(1, 4):
                ids = [await added(house, (10 * n, 10 + at)) for at in range(4)]
                events = await house.ask(f"turn {n}", images=ids, conversation_id=conversation, memory="full")
                conversation = house.runs[-1].conversation_id
            given = [images for _, images in sizes(last_request(server))]
            assert [len(images) for images in given] == [0, 4, 4]
            assert sum(map(len, given)) == MOST_IMAGES
            left = of(events, "context")[0]["left_out"]
            assert [one["reason"] for one in left] == ["the newest 8 images are given"] * 4
            assert left[0]["content"] == "[image, 10 by 10 pixels]"


async def test_tokens_are_estimated_and_part_of_the_budget(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        async with housed(tmp_path, openai(server, context=4000)) as house:
            events = await house.ask("What is this?", images=[await added(house)], memory="tokens")
            (context,) = of(events, "context")
            message = context["messages"][-1]
            assert message["images"] == [
                {"id": message["images"][0]["id"], "width": 1024, "height": 1024}
                | {"bytes": message["images"][0]["bytes"], "tokens": TOKENS}
            ]
            assert TOKENS < message["tokens"] < TOKENS + 20
            assert context["estimated"] and context["parts"]["message"] == message["tokens"]
            assert sum(context["parts"].values()) == context["tokens"]
            conversation = house.runs[0].conversation_id
            options = TurnOptions(token_limit=1000)
            events = await house.ask("And now?", conversation_id=conversation, memory="tokens", options=options)
            assert sizes(last_request(server)) == [("And now?", [])]
            assert any(one["content"] == "What is this?" for one in of(events, "context")[0]["left_out"])
            ids = [await added(house) for _ in range(4)]
            events = await house.ask("All?", images=ids, conversation_id=conversation, memory="none")
            assert of(events, "error")[0]["code"] == "context_too_long"


async def test_no_event_and_no_record_has_the_data(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        async with housed(tmp_path, openai(server)) as house:
            events = await house.ask("What is this?", images=[await added(house)])
            sent = last_request(server).body["messages"][-1]["content"][0]["image_url"]["url"].partition(",")[2]
            record = await house.turns.store.record(house.runs[0].id)
            assert sent not in json.dumps(events) and sent not in record
            image_id = of(events, "context")[0]["messages"][-1]["images"][0]["id"]
            assert image_id in record and f"[image {image_id}]" in record, "the recorded request refers to it"
            assert len(record) < 8000
            stored = (await house.turns.store.history(house.runs[0].conversation_id))[0]
            assert [image.id for image in stored.images] == [image_id]


@pytest.mark.parametrize("kind", ["scripted", "local", "said", "listed"])
async def test_backend_that_takes_no_images_refuses_them_by_name(tmp_path: Path, kind: str) -> None:
    with OpenAIServer() as server:
        listed = {"id": server.model, "architecture": {"input_modalities": ["text"]}}
        server.models = [listed] if kind == "listed" else []
        entries = {
            "scripted": scripted("Blind"),
            "local": BackendSettings(name="Blind", kind="local", model=str(tmp_path / "none.gguf"), preload=False),
            "said": openai(server, "Blind", images=False),
            "listed": openai(server, "Blind"),
        }
        seer = BackendSettings(name="Other", kind="langchain", **{"class": "tests.models:Talker"})
        async with housed(tmp_path, entries[kind], seer) as house:
            if kind == "listed":
                await house.health()
            image = await added(house)
            with pytest.raises(ChatError) as error:
                await house.start("What is this?", images=[image])
            assert error.value.code == "invalid_request"
            assert error.value.message == "Blind takes no images. Remove them, or choose Other."
            assert asked_for_replies(server) == [] and await house.turns.store.count("anna") == 0
            assert [one["images"] for one in house.backends.describe("anna")] == [False, None]
            await house.ask("What is this?", images=[image], backend="Other")
            conversation = house.runs[-1].conversation_id
            if kind in ("said", "listed"):
                events = await house.ask("And now?", backend="Blind", conversation_id=conversation, memory="full")
                assert sizes(last_request(server)) == [("What is this?", []), ("And now?", [])]
                assert [one["reason"] for one in of(events, "context")[0]["left_out"]] == ["Blind takes no images"]
                answered = (await house.turns.store.history(conversation))[0]
                with pytest.raises(ChatError, match="Blind takes no images"):
                    await house.start("", backend="Blind", conversation_id=conversation, regenerate=answered.id)


async def test_fallback_that_takes_no_images_does_not_answer(tmp_path: Path) -> None:
    with OpenAIServer(Drop()) as server:
        async with housed(tmp_path, openai(server, fallback="Script"), scripted()) as house:
            assert of(await house.ask("What is this?", images=[await added(house)]), "error")
            assert of(await house.ask("Hello"), "complete")


async def test_edited_message_and_another_reply_keep_the_images(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        async with housed(tmp_path, openai(server)) as house:
            await house.ask("first", images=[await added(house, (40, 30))])
            conversation = house.runs[0].conversation_id
            asked = (await house.turns.store.history(conversation))[0]
            await house.ask("", conversation_id=conversation, regenerate=asked.id)
            assert sizes(last_request(server)) == [("first", [(40, 30)])]
            new = await added(house, (9, 9))
            await house.ask("edited", conversation_id=conversation, edit_of=asked.id, images=[new])
            assert sizes(last_request(server)) == [("edited", [(40, 30), (9, 9)])]


async def test_image_that_is_gone_is_left_out_with_the_reason(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        async with housed(tmp_path, openai(server)) as house:
            await house.ask("first", images=[await added(house)])
            conversation = house.runs[0].conversation_id
            await house.turns.images.delete([conversation])
            events = await house.ask("second", conversation_id=conversation)
            assert sizes(last_request(server)) == [("first", []), ("second", [])]
            assert [one["reason"] for one in of(events, "context")[0]["left_out"]] == ["it is no longer there"]


async def test_addresses_become_images_of_the_conversation(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        async with housed(tmp_path, openai(server)) as house:
            url = data_url(picture("PNG", (40, 30)))
            await house.ask("What is this?", visitor=None, images=[url])
            assert sizes(last_request(server)) == [("What is this?", [(40, 30)])]
            conversation = house.runs[0].conversation_id
            (stored, _) = await house.turns.store.history(conversation)
            assert await house.turns.images.read(None, conversation, stored.images[0].id)
            await house.ask("And now?", visitor=None, conversation_id=conversation)
            assert sizes(last_request(server))[0] == ("What is this?", [(40, 30)])


async def test_images_are_deleted_with_their_conversation(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        async with housed(tmp_path, openai(server)) as house:
            for n in range(2):
                await house.ask(f"turn {n}", images=[await added(house)])
            first, second = (run.conversation_id for run in house.runs)
            await house.turns.conversations.delete(first)
            assert [path.parent.name for path in images_in(tmp_path)] == [second]
            await house.turns.store.delete(second)  # as if the process had died before the files were deleted
            house.turns.images._expire(1e12)
            await house.turns.images.delete(await house.turns.store.missing([first, second]))
            assert images_in(tmp_path) == []


def images_in(folder: Path) -> list[Path]:
    return list((folder / "images").rglob("*.jpg"))


async def test_preview_shows_the_images(tmp_path: Path) -> None:
    with OpenAIServer() as server:
        async with housed(tmp_path, openai(server)) as house:
            await house.ask("first", images=[await added(house)])
            conversation = house.runs[0].conversation_id
            request = TurnRequest("", "anna", conversation, memory="full")
            shown = await preview(house.turns, request)
            assert [len(one.get("images", ())) for one in shown["messages"]] == [0, 1]
            shown = await preview(house.turns, TurnRequest("next", "anna", conversation, memory="full"))
            assert [len(one.get("images", ())) for one in shown["messages"]] == [0, 1, 0, 0]


@tool
def draws() -> list[Any]:
    """Draws a picture."""
    return [{"type": "text", "text": "Here:"}, {"type": "image", "base64": PICTURE, "mime_type": "image/png"}]


async def test_images_in_a_tools_result_are_shown_and_named_to_the_model(tmp_path: Path) -> None:
    with OpenAIServer(Reply([], tools=[Tool("draws")]), Reply()) as server:
        async with housed(tmp_path, openai(server)) as house:
            house.turns.toolbox = Toolbox(ToolSettings(enabled=["tests.test_agent_images:draws"]))
            events = await house.ask("Draw!")
            (end,) = of(events, "tool_end")
            assert end["output"] == "Here:\n[image: shown to the visitor]"
            assert end["attachments"] == [{"kind": "image", "title": "Image", "type": "image/png", "data": PICTURE}]
            assert last_request(server).body["messages"][-1]["content"] == end["output"]
            stored = (await house.turns.store.history(house.runs[0].conversation_id))[-1]
            assert "data:image/png;base64," in parts_html(stored.parts)


@pytest.mark.parametrize(
    ("block", "shown"),
    [
        ({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PICTURE}"}}, True),
        ({"type": "image_url", "image_url": f"data:image/png;base64,{PICTURE}"}, True),
        ({"type": "image", "source_type": "base64", "data": PICTURE}, True),
        ({"type": "image", "source": {"type": "base64", "data": PICTURE}}, True),
        ({"type": "image", "url": "https://example.org/a.png"}, False),
        ({"type": "image", "base64": base64.b64encode(SVG).decode()}, False),
        ({"type": "image", "base64": 5}, False),
        ({"type": "image", "source": "text", "image_url": [1]}, False),
    ],
)
def test_each_form_of_an_image_in_a_result_is_read(block: Any, shown: bool) -> None:
    message = plain_result(ToolMessage([block] * 20, tool_call_id="1"), ToolCall(name="a", args={}, id="1"), 5000)
    assert len(attachments_of(message) or ()) == (MOST_ATTACHMENTS if shown else 0)
    assert message.text.count("not shown here") == (20 - MOST_ATTACHMENTS if shown else 20)


async def test_command_keeps_the_images(tmp_path: Path) -> None:
    with OpenAIServer(Reply()) as server:
        async with housed(tmp_path, openai(server)) as house:
            house.turns.toolbox = Toolbox(ToolSettings(enabled=["calculator"]))
            await house.ask("/calculator 2*3", images=[await added(house, (40, 30))])
            ((text, images),) = sizes(last_request(server))
            assert "6" in text and images == [(40, 30)]
