"""Images over HTTP, the WebSocket and AG-UI, on a running app with a provider's server; and attacks with them."""

import asyncio
import base64
import json
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from runs.live import new_id
from settings import BackendSettings, LimitSettings
from tests.conftest import scripted, until
from tests.house import asked_for_replies
from tests.images import SVG, data_url, huge_png, noise, opened, photo, picture
from tests.live_app import Api, client_of, events_of, events_until_end, live_api, refused, run_on_loop, socket_of
from tests.providers import OpenAIServer

DOCUMENT = Path(__file__).parents[1] / "docs" / "images.md"


@dataclass
class House:
    app: Api
    server: OpenAIServer

    @property
    def given(self) -> list[tuple[int, int]]:
        """The images of the last request for a reply."""
        found = []
        for message in asked_for_replies(self.server)[-1].body["messages"]:
            for part in message["content"] if isinstance(message["content"], list) else ():
                if part["type"] == "image_url":
                    found.append(opened(base64.b64decode(part["image_url"]["url"].partition(",")[2])).size)
        return found


@contextmanager
def serving(data: Path, **limits: int) -> Iterator[House]:
    with OpenAIServer() as server:
        seer = BackendSettings(name="Seer", kind="openai", base_url=server.base_url, model=server.model)
        bounds = LimitSettings(**{"image_bytes": 1_000_000, "body_bytes": 400_000, **limits})
        with live_api(data, backends=[seer, scripted("Script")], limits=bounds) as app:
            yield House(app, server)


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with serving(tmp_path_factory.mktemp("images")) as house:
        yield house


@pytest.fixture
async def anna(house: House) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(house.app) as client:
        yield client


async def added(client: httpx.AsyncClient, data: bytes = picture("PNG", (40, 30))) -> str:
    answer = await client.post("/images", params={"name": "a.png"}, content=data)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def by_post(house: House, client: httpx.AsyncClient, images: list[str]) -> Any:
    return await events_of(client, "POST", "/stream", json={"message": "Hi", "images": images})


async def by_get(house: House, client: httpx.AsyncClient, images: list[str]) -> Any:
    return await events_of(client, "GET", "/stream", params={"query": "Hi", "images": images})


async def by_socket(house: House, client: httpx.AsyncClient, images: list[str]) -> Any:
    async with socket_of(house.app, client) as socket:
        await socket.send(json.dumps({"message": "Hi", "images": images}))
        return await events_until_end(socket)


def says(*parts: Any, thread: str | None = None) -> Any:
    content = [*parts, {"type": "text", "text": "Hi"}]
    message = {"id": "1", "role": "user", "content": content}
    return {"threadId": thread or new_id(), "runId": "r", "messages": [message]}


async def by_agui(house: House, client: httpx.AsyncClient, images: list[str]) -> Any:
    parts = [{"type": "binary", "mimeType": "image/png", "id": one} for one in images]
    if images[0].startswith("data:"):
        parts = [{"type": "binary", "mimeType": "image/png", "data": one.partition(",")[2]} for one in images]
    return await agui_events(house, client, says(*parts))


async def agui_events(house: House, client: httpx.AsyncClient, body: Any) -> Any:
    answer = (await client.post("/agui", json=body)).raise_for_status()
    run = house.app.runs.find(answer.headers["x-run-id"])
    assert run
    await until(lambda: run.ended)
    return [json.loads(entry.json) for entry in run.log.entries]


WAYS = [by_post, by_get, by_socket, by_agui]


@pytest.mark.parametrize("way", WAYS)
async def test_image_is_given_to_the_model_and_is_in_the_export(
    house: House, anna: httpx.AsyncClient, way: Any
) -> None:
    image = await added(anna)
    events = await way(house, anna, [image])
    assert (events[-1]["type"], house.given) == ("complete", [(40, 30)])
    (context,) = [e for e in events if e["type"] == "context"]
    assert context["messages"][-1]["images"][0]["id"] == image
    conversation = events[0]["conversation_id"]
    exported = (await anna.get(f"/conversations/{conversation}")).json()
    assert [one["id"] for one in exported["messages"][0]["images"]] == [image]
    assert "*Image, 40 by 30 pixels*" in (await anna.get(f"/conversations/{conversation}?format=markdown")).text
    for query in ({"conversation_id": conversation}, {}):
        found = await anna.get(f"/images/{image}", params=query)
        assert (found.status_code, found.headers["content-type"]) == (200, "image/jpeg")
        assert opened(found.content).size == (40, 30)
        assert "sandbox" in found.headers["content-security-policy"]
        assert (found.headers["x-content-type-options"], "private" in found.headers["cache-control"]) == (
            "nosniff",
            True,
        )
    again = await anna.post("/conversations", json=exported)
    imported = (await anna.get(f"/conversations/{again.json()['conversation_id']}")).json()
    assert [one["content"] for one in imported["messages"]] == [one["content"] for one in exported["messages"]]
    assert (await anna.delete(f"/conversations/{conversation}")).status_code == 204
    await refused(await anna.get(f"/images/{image}"), 404, "not_found")


@pytest.mark.parametrize("way", [by_post, by_socket, by_agui])
async def test_client_without_a_cookie_sends_the_image_itself(house: House, way: Any) -> None:
    async with client_of(house.app, cookie=False) as anonymous:
        events = await way(house, anonymous, [data_url(picture("PNG", (40, 30)))])
        assert (events[-1]["type"], house.given) == ("complete", [(40, 30)])
        conversation = events[0]["conversation_id"]
        (context,) = [e for e in events if e["type"] == "context"]
        image = context["messages"][-1]["images"][0]["id"]
        found = await anonymous.get(f"/images/{image}", params={"conversation_id": conversation})
        assert opened(found.content).size == (40, 30)
        await refused(await anonymous.get(f"/images/{image}"), 401, "authentication")


async def test_agui_takes_images_of_the_current_form(house: House, anna: httpx.AsyncClient) -> None:
    image = await added(anna)
    data = base64.b64encode(picture("PNG", (9, 9))).decode()
    sources = [
        {"type": "data", "value": data, "mimeType": "image/png"},
        {"type": "url", "value": data_url(picture("PNG", (8, 8)))},
        {"type": "file", "value": image},
    ]
    thread = new_id()
    body = says(*({"type": "image", "source": source} for source in sources), thread=thread)
    await agui_events(house, anna, body)
    assert house.given == [(9, 9), (8, 8), (40, 30)]
    body["messages"] += [{"id": "2", "role": "assistant", "content": "A"}, {"id": "3", "role": "user", "content": "B"}]
    await agui_events(house, anna, body)
    assert len(house.given) == 3, "the thread is known"
    await agui_events(house, anna, {**body, "threadId": new_id()})
    assert house.given == [], "images of earlier messages are not imported"
    other = says({"type": "image", "source": {"type": "url", "value": "https://example.com/a.png"}})
    assert "'image' is not accepted" in await refused(await anna.post("/agui", json=other), 400, "invalid_request")


async def test_record_and_replay_have_the_image_by_reference(house: House, anna: httpx.AsyncClient) -> None:
    image = await added(anna, noise((400, 400)))
    events = await by_post(house, anna, [image])
    run = events[0]["run_id"]
    record = (await anna.get(f"/runs/{run}")).text
    assert image in record and len(record) < 10_000
    contexts = (await anna.get(f"/runs/{run}/context")).json()["contexts"]
    assert contexts[0]["messages"][-1]["images"][0]["id"] == image
    prompt = (await anna.get(f"/runs/{run}/prompt")).json()
    assert f"[image {image}]" in prompt["body"] and len(prompt["body"]) < 10_000


async def test_resume_needs_no_image(house: House, anna: httpx.AsyncClient) -> None:
    events = await by_get(house, anna, [await added(anna)])
    await until(lambda: house.app.runs.find(events[0]["run_id"]).ended)  # type: ignore[union-attr]
    again = await events_of(anna, "GET", "/stream", params={"query": "Hi"}, headers={"Last-Event-ID": "2"})
    assert again == events[2:]


# What is refused


async def test_images_need_a_cookie(house: House) -> None:
    async with client_of(house.app, cookie=False) as anonymous:
        message = await refused(await anonymous.post("/images", content=picture()), 401, "authentication")
        assert "data: address" in message
        await refused(await anonymous.delete(f"/images/{new_id()}"), 401, "authentication")


async def test_image_may_be_larger_than_other_requests_and_not_too_large(house: House, anna: httpx.AsyncClient) -> None:
    large = picture("PNG") + bytes(700_000)
    assert (await anna.post("/images", content=large)).status_code == 201
    await refused(await anna.post("/images", content=large + bytes(400_000)), 413, "too_large")
    assert (await anna.post("/stream", content=large)).status_code == 413


@pytest.mark.parametrize("data", [b"", b"text", SVG, b"<script>alert(1)</script>", huge_png(20_000)])
async def test_other_files_are_refused(house: House, anna: httpx.AsyncClient, data: bytes) -> None:
    message = await refused(await anna.post("/images?name=<b>.png", content=data), 400, "invalid_request")
    assert message.startswith("'<b>.png' cannot be added: ")
    address = data_url(data)
    if len(address) < 100_000:
        sent = await anna.post("/stream", json={"message": "Hi", "images": [address]})
        assert "The image cannot be added" in await refused(sent, 400, "invalid_request")


async def test_too_many_images_are_refused(house: House, anna: httpx.AsyncClient) -> None:
    image = await added(anna)
    for images, status, code in (
        ([image] * 6, 413, "too_large"),
        ([new_id() for _ in range(100)], 413, "too_large"),
        ([image] * 101, 400, "invalid_request"),
        ([data_url(picture())] * 100, 413, "too_large"),
    ):
        await refused(await anna.post("/stream", json={"message": "Hi", "images": images}), status, code)
    assert (await by_post(house, anna, [image] * 5))[-1]["type"] == "complete"
    assert house.given == [(40, 30)], "an image is sent once"


@pytest.mark.parametrize("url", ["data:", "data:image/png,abc", "data:image/png;base64,%%%", "data:image/png;base64,a"])
async def test_unreadable_addresses_are_refused(house: House, anna: httpx.AsyncClient, url: str) -> None:
    for sent in (url, url + "x" * 800_000):
        answer = await anna.post("/stream", json={"message": "Hi", "images": [sent[:390_000]]})
        await refused(answer, 400, "invalid_request")
    assert (await anna.get("/conversations")).json()["conversations"] == []


@pytest.mark.parametrize(
    "images", ["text", 5, [5], [None], {"a": 1}, [["x"]], ["https://example.com/a.png"], ["../x"], [""]]
)
async def test_other_values_are_refused(house: House, anna: httpx.AsyncClient, images: Any) -> None:
    answer = await anna.post("/stream", json={"message": "Hi", "images": images})
    assert answer.status_code in (400, 404) and answer.json()["message"].startswith(
        "images" if answer.status_code == 404 else ""
    )
    async with socket_of(house.app, anna) as socket:
        await socket.send(json.dumps({"message": "Hi", "images": images}))
        (error,) = await events_until_end(socket)
        assert error["code"] in ("invalid_request", "not_found")


@pytest.mark.parametrize("way", [by_post, by_socket])
async def test_images_of_another_visitor_are_not_found(house: House, anna: httpx.AsyncClient, way: Any) -> None:
    sent, unsent = await added(anna), await added(anna)
    conversation = (await by_post(house, anna, [sent]))[0]["conversation_id"]
    for cookie in (True, False):
        async with client_of(house.app, cookie=cookie) as ben:
            for image in (sent, unsent):
                answer = await ben.post("/stream", json={"message": "Hi", "images": [image]})
                await refused(answer, 404, "not_found")
                for query in ({"conversation_id": conversation}, {}):
                    found = await ben.get(f"/images/{image}", params=query)
                    assert found.status_code in (401, 404)
                assert (await ben.delete(f"/images/{image}")).status_code in (401, 404)
            assert (await ben.get("/conversations")).json()["conversations"] == []
    assert (await anna.get(f"/images/{unsent}")).status_code == 200
    assert (await anna.delete(f"/images/{sent}")).status_code == 404, "a message has it"
    assert (await anna.delete(f"/images/{unsent}")).status_code == 204
    await refused(await anna.get(f"/images/{unsent}"), 404, "not_found")


async def test_backend_without_images_refuses_them(house: House, anna: httpx.AsyncClient) -> None:
    body = {"message": "Hi", "images": [await added(anna)], "backend": "Script"}
    message = await refused(await anna.post("/stream", json=body), 400, "invalid_request")
    assert message == "Script takes no images. Remove them, or choose Seer."
    listed = {one["name"]: one["images"] for one in (await anna.get("/backends")).json()}
    assert listed == {"Seer": None, "Script": False}


async def test_page_of_another_site_cannot_add_or_load_an_image(house: House, anna: httpx.AsyncClient) -> None:
    foreign = {"Origin": "https://evil.test"}
    assert (await anna.post("/images", content=picture(), headers=foreign)).status_code == 403
    found = await anna.get(f"/images/{await added(anna)}")
    assert found.headers["cross-origin-resource-policy"] == "same-origin"


async def test_a_kept_photo_has_no_metadata(house: House, anna: httpx.AsyncClient) -> None:
    image = await added(anna, photo())
    found = await anna.get(f"/images/{image}")
    assert b"secret" not in found.content and not opened(found.content).getexif()


async def test_uploads_are_limited(tmp_path: Path) -> None:
    with serving(tmp_path, previews_per_minute=3, images_per_visitor=2) as house:
        async with client_of(house.app) as anna:
            for _ in range(2):
                await added(anna)
            assert "You have 2 images" in await refused(await anna.post("/images", content=picture()), 413, "too_large")
            answer = await anna.post("/images", content=picture())
            assert "Too many images" in await refused(answer, 429, "rate_limited")


async def test_bytes_of_a_day_are_limited(tmp_path: Path) -> None:
    with serving(tmp_path, document_bytes_per_day=1000, visitors_per_address=1) as house:
        async with client_of(house.app) as anna:
            await added(anna)
            answer = await anna.post("/images", content=noise((100, 100)))
            assert "Documents and images of 0.001 MB" in await refused(answer, 429, "rate_limited")
            sent = {"message": "Hi", "images": [data_url(noise((100, 100)))]}
            await refused(await anna.post("/stream", json=sent), 429, "rate_limited")
        assert len(list((tmp_path / "images").rglob("*.jpg"))) == 1


async def test_images_of_clients_that_leave_are_not_kept(tmp_path: Path) -> None:
    with serving(tmp_path) as house:
        async with client_of(house.app) as anna:
            sending = asyncio.create_task(anna.post("/images", content=picture("JPEG", (9000, 5000))))
            await asyncio.sleep(0.2)
            sending.cancel()
            await asyncio.wait({sending})
            run_on_loop(house.app, until(lambda: not house.app.turns.images._reader._children._running))


async def test_hundred_uploads_at_once_delay_no_other_visitor(house: House, anna: httpx.AsyncClient) -> None:
    async with client_of(house.app) as other:
        flood = [asyncio.create_task(anna.post("/images", content=picture("PNG", (900, 900)))) for _ in range(30)]
        events = await by_post(house, other, [])
        assert events[-1]["type"] == "complete"
        assert {answer.status_code for answer in await asyncio.gather(*flood)} <= {201, 409, 429}


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("base64")), reason="curl is not installed")
async def test_documented_command_works(house: House, tmp_path: Path) -> None:
    found = re.search(r"```bash\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert found
    (tmp_path / "photo.png").write_bytes(picture("PNG", (40, 30)))
    command = found[1].replace("http://127.0.0.1:7860/", house.app.url)
    shell = await asyncio.create_subprocess_exec("bash", "-c", command, cwd=tmp_path, stdout=asyncio.subprocess.PIPE)
    output, _ = await asyncio.wait_for(shell.communicate(), 30)
    assert b"event: done" in output and house.given == [(40, 30)]
