"""The code for clients in docs/api.md and in the README works, exactly as it is written there.

Only the port differs: the app is started as `make run` starts it, with its real local model, and with short replies.
"""

import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser

from tests.app_process import RunningApp
from tests.chromium import open_chromium
from tests.node import NODE, NPM

_ROOT = Path(__file__).parents[1]
_CLIENT = _ROOT / "web" / "client.js"
SECTION = (_ROOT / "docs" / "api.md").read_text().partition("\n## Clients\n")[2]
README = (_ROOT / "README.md").read_text().partition("\n## Use it from a program\n")[2].partition("\n## ")[0]
_BLOCK = re.compile(r"((?:^[^\n]+\n)+)\n```(\w*)\n(.*?)```", re.DOTALL | re.MULTILINE)
_REQUIRED = {name: os.environ.get(f"GLASSBOX_TEST_{name}") == "required" for name in ("NODE", "CURL")}
"""Read here: what begins with GLASSBOX_ is taken out of the environment before the first test."""


@dataclass(frozen=True)
class Block:
    """Code to paste; `said` is the paragraph before it, which names the client and says where the code goes."""

    said: str
    language: str
    code: str

    def __str__(self) -> str:
        return re.split(r"[,*:] ?", self.said.removeprefix("**"))[0].rstrip(".")


BLOCKS = [Block(*found) for found in _BLOCK.findall(SECTION)]
TALKS = [block for block in BLOCKS if "What is my name?" in block.code]
[DOWNLOAD] = [block for block in BLOCKS if block not in TALKS]
FIRST = [Block(*found) for found in _BLOCK.findall(README)]


def test_every_client_has_its_code_and_all_code_is_run() -> None:
    assert len(BLOCKS) == SECTION.count("```") / 2
    assert [block.language for block in FIRST] == ["bash", "python"] and README.count("```") == 4
    texts = " ".join(block.said for block in BLOCKS)
    for client in ("curl", "EventSource", "websockets", "gradio_client", "client.js", "Node", "AG-UI"):
        assert client in texts
    assert len(TALKS) == 7


class House:
    """The running app, and a folder for the pasted code."""

    def __init__(self, app: RunningApp, folder: Path) -> None:
        self.app, self.folder = app, folder
        self.missing = ""
        self.path = app.folder / "bin"
        """The folder with `node` and `npm`, from a package of the tests."""
        self.path.mkdir()
        for name, command in (("node", [NODE]), ("npm", [*NPM, "--no-audit", "--no-fund"])):
            (self.path / name).write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
            (self.path / name).chmod(0o755)

    def here(self, block: Block) -> str:
        return block.code.replace("127.0.0.1:7860", f"127.0.0.1:{self.app.port}")

    def run(self, *command: str | Path) -> str:
        """Runs a command and returns its output."""
        environ = {**os.environ, "PATH": f"{self.path}{os.pathsep}{os.environ['PATH']}"}
        pipe = subprocess.PIPE
        ran = subprocess.run(command, cwd=self.folder, env=environ, stdout=pipe, stderr=pipe, text=True, timeout=120)
        assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-4000:]
        return ran.stdout

    def bash(self, block: Block) -> str:
        if not shutil.which("curl"):
            (pytest.fail if _REQUIRED["CURL"] else pytest.skip)("no curl is installed")
        return self.run("bash", "-c", self.here(block))

    def conversations(self) -> set[str]:
        with closing(sqlite3.connect(f"file:{self.app.data / 'glassbox.db'}?mode=ro", uri=True)) as database:
            return {row[0] for row in database.execute("SELECT id FROM conversations")}

    def exported(self, conversation: str, cookies: dict[str, str]) -> dict[str, Any]:
        answer = httpx.get(f"{self.app.url}conversations/{conversation}", cookies=cookies)
        return dict(answer.raise_for_status().json())


@pytest.fixture(scope="module")
def house(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    cache = getattr(request.config, "cache", None)  # what npm installs is kept between runs
    folder = cache.mkdir("agui-client-1.0.0") if cache else tmp_path_factory.mktemp("pasted")
    with RunningApp(tmp_path_factory.mktemp("app"), "[limits]\nreply_tokens = 60\n") as app:
        yield House(app, folder)


@pytest.fixture(scope="module")
def fetched(house: House) -> House:
    """The app after the documented downloads. If npm's registry cannot be reached, only AG-UI's test is skipped."""
    try:
        house.bash(DOWNLOAD)
    except (AssertionError, subprocess.SubprocessError) as e:
        house.missing = f"the AG-UI client cannot be downloaded: {str(e)[-1000:]}"
    assert (house.folder / "client.mjs").read_text() == _CLIENT.read_text()
    return house


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A browser that is closed with this module: its event loop would disturb other tests."""
    with open_chromium() as browser:
        yield browser


def in_console(browser: Browser, url: str, code: str) -> tuple[str, dict[str, str]]:
    """Pastes code into the console of the page; returns what it logs, and the visitor's cookies."""
    context = browser.new_context()
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(url)
    page.wait_for_selector("#prompt textarea")
    said.clear()
    answer = context.new_cdp_session(page).send(
        "Runtime.evaluate", {"expression": code, "replMode": True, "awaitPromise": True}
    )
    assert "exceptionDetails" not in answer, answer
    cookies = {str(cookie.get("name")): str(cookie.get("value")) for cookie in context.cookies()}
    page.evaluate("0")  # wait for the messages of the console
    context.close()
    return "".join(said), cookies


def paste(request: pytest.FixtureRequest, house: House, block: Block) -> tuple[str, dict[str, str]]:
    """Runs a block where the document says it goes; returns its output, and the cookies it ran with."""
    code = house.here(block)
    file = re.search(r"as `(\w+\.mjs)`", block.said)
    match block.language:
        case "bash":
            return house.bash(block), {}
        case "python":
            (house.folder / "chat.py").write_text(code)
            return house.run(sys.executable, "chat.py"), {}
        case "js" if "the browser's console on the page" in block.said:
            return in_console(request.getfixturevalue("browser"), house.app.url, code)
        case "js" if file:
            request.getfixturevalue("fetched")
            if "@ag-ui/client" in code and house.missing:
                (pytest.fail if _REQUIRED["NODE"] else pytest.skip)(house.missing)
            (house.folder / file[1]).write_text(code)
            return house.run(NODE, file[1]), {}
    pytest.fail(f"it is not clear where this goes: {block.said}")


@pytest.mark.parametrize("block", TALKS, ids=str)
def test_code_for_a_client_holds_a_conversation_of_two_turns(
    house: House, block: Block, request: pytest.FixtureRequest
) -> None:
    before = house.conversations()
    printed, cookies = paste(request, house, block)
    made = [house.exported(conversation, cookies) for conversation in house.conversations() - before]
    found = max(made, key=lambda conversation: len(conversation["messages"]))
    # an AG-UI client without a cookie sends the whole conversation with each request
    assert len(made) == (2 if "@ag-ui/client" in block.code else 1)
    assert [m["role"] for m in found["messages"]] == ["user", "assistant"] * 2
    texts = [m["content"] for m in found["messages"]]
    assert texts[::2] == ["My name is Zoe.", "What is my name?"]
    assert all(text.strip() for text in texts[1::2])
    check(block, printed, texts[1::2])


def check(block: Block, printed: str, replies: list[str]) -> None:
    """Checks the output: the replies, or for curl the events of the first and the rest of the events of the second."""
    if block.language != "bash":
        for reply in replies:
            assert reply.strip() in printed
        return
    first, second, _ = re.split(r"^event: (?:done|stopped)$", printed, flags=re.MULTILINE)
    assert first.startswith("id: 1\nevent: run\n")
    assert re.findall(r"^id: (\d+)$", second, re.MULTILINE)[0] == "4"
    assert re.search(r'\{"status":"(complete|stopped)"\}$', printed)


def test_first_examples_of_the_readme_print_a_run(house: House) -> None:
    curl, socket = FIRST
    printed = house.bash(curl)
    assert printed.startswith("id: 1\nevent: run\n") and re.search(r"^event: (?:done|stopped)$", printed, re.MULTILINE)
    (house.folder / "chat.py").write_text(house.here(socket))
    printed = house.run(sys.executable, "chat.py")
    assert printed.startswith("{'type': 'run', 'seq': 1") and "'type': 'token'" in printed
