"""The examples start as they are, and answer."""

import asyncio
import json
import shutil
from pathlib import Path

import httpx
import pytest

from settings import load_settings
from tests.app_process import RunningApp
from tests.grammar import check
from tests.live_app import events_of

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.mark.parametrize("folder", sorted(EXAMPLES.iterdir()), ids=lambda folder: folder.name)
def test_the_settings_of_an_example_are_valid(folder: Path) -> None:
    settings = load_settings({"config": str(folder / "glassbox.toml")}, {})
    assert settings.page.title != "Glassbox" and settings.folder == folder


async def test_the_librarian_answers(tmp_path: Path) -> None:
    folder = tmp_path / "librarian"
    shutil.copytree(EXAMPLES / "librarian", folder, ignore=shutil.ignore_patterns("__pycache__"))
    with RunningApp(folder, (folder / "glassbox.toml").read_text()) as app:
        async with httpx.AsyncClient(base_url=app.url, trust_env=False, timeout=30) as client:
            page = (await client.get("/")).text
            assert "<title>The librarian</title>" in page and "Ask the librarian." in page
            async with client.stream("POST", "/stream", json={"message": "How old do whales get?"}) as response:
                run_id, asked = response.headers["X-Run-Id"], {}
                async for line in response.aiter_lines():
                    if line.startswith("data: ") and '"type":"approval"' in line:
                        asked = json.loads(line[6:])
                        break
            assert asked["input"] == {"question": "May I quote from: Whales?", "answer": ""}
            answer = {"tool_call_id": asked["tool_call_id"], "approved": True}
            assert (await client.post(f"/runs/{run_id}/approve", json=answer)).status_code == 200
            events = await events_of(client, "GET", f"/runs/{run_id}/events")
    check(events)
    assert "more than two hundred years" in events[-1]["content"] and "*Whales*" in events[-1]["content"]


async def test_the_clock_and_notes_server_is_used(tmp_path: Path) -> None:
    folder = tmp_path / "clock-and-notes"
    shutil.copytree(EXAMPLES / "clock-and-notes", folder, ignore=shutil.ignore_patterns("__pycache__"))
    scripted = '[[backends]]\nname = "Script"\nkind = "scripted"\n'  # first, so that no weights are loaded
    text = (folder / "glassbox.toml").read_text().replace("[[backends]]", f"{scripted}\n[[backends]]", 1)
    with RunningApp(folder, text) as app:
        async with httpx.AsyncClient(base_url=app.url, trust_env=False, timeout=60) as client:
            async with asyncio.timeout(60):
                while (await client.get("/tool-servers")).json()[0]["state"] != "ready":  # noqa: ASYNC110
                    await asyncio.sleep(0.2)
            tools = {one["name"]: one["approval"] for one in (await client.get("/tools")).json()}
            assert tools == {"time_in": False, "write_note": False, "read_notes": False, "erase_notes": True}
            events = await events_of(client, "POST", "/stream", json={"message": "/time_in Asia/Tokyo"})
    check(events)
    (end,) = [event for event in events if event["type"] == "tool_end"]
    assert end["output"].endswith("in Asia/Tokyo")
