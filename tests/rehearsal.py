"""A Hugging Face Space, rehearsed: `python -m tests.rehearsal` builds one as the Hub would and talks to it.

A fresh environment with `requirements.txt` alone, user 1000, a read-only application folder, port 7860, a Space's
variables, and the weights from a Hub on 127.0.0.1, fetched before the start as `preload_from_hub` of the card says. It
prints how long it takes from `python app.py` to the embedded model's first reply.

Source: the Hub's documentation, "Spaces Overview", "Spaces Configuration Reference", "Docker Spaces" (user 1000).
"""

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import yaml

from backends.weights import bundled_weights
from tests.hub import HubServer
from tests.live_app import events_of

ROOT = Path(__file__).parent.parent
_USER = 1000
_PORT = 7860
_START_S, _END_S = 120, 5
_BECOME = [] if os.geteuid() else ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups"]


def card() -> dict[str, object]:
    """The head of the README, which is a Space's configuration."""
    return dict(yaml.safe_load(ROOT.joinpath("README.md").read_text().split("---")[1]))


def usable_python() -> str | None:
    """One that the user can start, and that can start itself again: ours may stand in a home that is closed to them."""
    again = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import ssl'], check=True)"
    named = (shutil.which(name, path="/usr/local/bin:/usr/bin") for name in ("python3.11", "python3"))
    for python in filter(None, (sys.executable, *named)):
        if subprocess.run([*_BECOME, python, "-c", again], capture_output=True, cwd="/").returncode == 0:
            return python
    return None


def free_port() -> int:
    """The Space's own, or another where that is taken."""
    for port in (_PORT, 0):
        with socket.socket() as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listening.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(listening.getsockname()[1])
    raise RuntimeError("no port is free")


def build(folder: Path) -> tuple[Path, Path]:
    """The application, and a Python that has what it requires."""
    app, environment = folder / "app", folder / "venv"
    app.mkdir()
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", "HEAD"], check=True, capture_output=True)
    subprocess.run(["tar", "-x", "-C", str(app)], input=archive.stdout, check=True)
    found = usable_python()
    if found is None:
        _BECOME.clear()
        print(f"Space rehearsal: user {_USER} can start no Python here: it runs as the present user", flush=True)
    subprocess.run([found or sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / "bin" / "python"
    pip = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check"]
    # the file names all packages, so none has to be looked for; whether they fit together is checked afterwards
    subprocess.run([*pip, "install", "--no-compile", "--no-deps", "-r", str(app / "requirements.txt")], check=True)
    subprocess.run([*pip, "check"], check=True)
    # on a Space, pip compiles everything; what a start imports is enough here
    compiling = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run([str(python), "-c", "import app"], cwd=app, env=compiling | {"HOME": str(folder)}, check=True)
    subprocess.run(["chmod", "-R", "a-w,a+rX", str(app)], check=True)
    return app, python


def preload(python: Path, environment: dict[str, str]) -> None:
    """What the card names, into the Hub's cache of the home."""
    for line in card()["preload_from_hub"]:  # type: ignore[attr-defined]
        repo, _, files = line.partition(" ")
        command = [str(python.parent / "hf"), "download", repo, *files.split(",")]
        subprocess.run([*_BECOME, *command], env=environment, check=True, stdout=subprocess.DEVNULL)


async def talk(url: str, begun: float, server: "subprocess.Popen[bytes]") -> None:
    """As a visitor of the Space does, through its proxy."""
    proxied = {"X-Forwarded-For": "203.0.113.5", "X-Forwarded-Proto": "https"}
    async with httpx.AsyncClient(base_url=url, headers=proxied, timeout=60) as visitor:
        while True:
            try:
                page = await visitor.get("/")
                break
            except httpx.TransportError:
                if server.poll() is not None or time.monotonic() - begun > _START_S:
                    raise
                await asyncio.sleep(0.1)
        shown = time.monotonic() - begun
        assert page.status_code == 200 and "Glassbox" in page.text
        assert (
            "Partitioned" in page.headers["set-cookie"] and "huggingface.co" in page.headers["content-security-policy"]
        )
        cookie = {"Cookie": page.headers["set-cookie"].partition(";")[0]}
        events = await events_of(visitor, "POST", "/stream", json={"message": "Say hello."}, headers=cookie)
        replied = time.monotonic() - begun
        kinds = [event["type"] for event in events]
        assert kinds[-1] == "complete" and events[-1]["content"].strip(), events[-1]
        limits = (await visitor.get("/limits", headers=cookie)).json()
        assert (
            limits["limits"]["messages_per_day"] and limits["left"]["day"] == limits["limits"]["messages_per_day"] - 1
        )
        first = events[kinds.index("token")]["timestamp"]
    print(f"Space rehearsal: the page after {shown:.1f} s, the first reply whole after {replied:.1f} s", end=" ")
    print(f"({events[-1]['usage']['output_tokens']} tokens, the first at {first})")


def rehearse(folder: Path) -> None:
    weights = bundled_weights()
    assert weights, "the weights package is not installed"
    begun = time.monotonic()
    app, python = build(folder)
    print(f"Space rehearsal: built in {time.monotonic() - begun:.0f} s", flush=True)
    home = folder / "home"
    home.mkdir()
    if _BECOME:
        os.chown(home, _USER, _USER)
    port = free_port()
    named = re.match(r"(\S+) (\S+)", str(card()["preload_from_hub"][0]))  # type: ignore[index]
    assert named
    with HubServer({f"{named[1]}/{named[2]}": weights.read_bytes()}, piece=1 << 20) as hub:
        environment = {
            "PATH": f"{python.parent}:{os.environ['PATH']}",
            "HOME": str(home),
            "HF_ENDPOINT": hub.url,
            "SPACE_ID": "someone/glassbox",
            "SPACE_HOST": "someone-glassbox.hf.space",
            "SYSTEM": "spaces",
            "GRADIO_SERVER_NAME": "0.0.0.0",
            "GRADIO_SERVER_PORT": str(port),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        preload(python, environment)
        begun = time.monotonic()
        server = subprocess.Popen([*_BECOME, str(python), "app.py"], cwd=app, env=environment)
        try:
            asyncio.run(talk(f"http://127.0.0.1:{port}", begun, server))
        finally:
            asked = time.monotonic()
            server.send_signal(signal.SIGTERM)
            try:
                server.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
        ended = time.monotonic() - asked
    assert server.returncode == 0 and ended < _END_S, f"it ended with {server.returncode} after {ended:.1f} s"
    kept = {path.name for path in (home / "glassbox-data").iterdir()}
    assert {"glassbox.db", "secret"} <= kept, kept
    print(f"Space rehearsal: ended {ended:.1f} s after SIGTERM")


def main() -> None:
    folder = Path(tempfile.mkdtemp(prefix="space-"))
    folder.chmod(0o755)
    try:
        rehearse(folder)
    finally:
        subprocess.run(["chmod", "-R", "u+w", str(folder)], check=False)
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
