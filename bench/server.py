"""The measured servers: our app, a plain Gradio chat, and a minimal SSE server."""

import json
import tempfile
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.model import earlier_messages, scripted_entry
from bench.process import AppProcess, ServerProcess
from components.page_state import INITIAL_MESSAGES


@dataclass(frozen=True)
class Site:
    """A kind of page, with the CSS selectors of its parts."""

    name: str
    prompt: str = ""
    replies: str = ""
    stop: str = ""
    initial_messages: int = 10_000
    """Earlier messages that the page draws when it opens."""
    tool_calls: str = ""
    runs: int = 64
    """The most live runs of our app."""


OURS = Site("ours", "#prompt textarea", "#chat [data-testid=bot], #live-reply", "#stop", INITIAL_MESSAGES, ".parts")
VANILLA = Site("vanilla", "textarea[data-testid=textbox]", "[data-testid=bot]", "[data-testid=stop-button]")
MINIMAL = Site("minimal")
"""It has no page: clients use HTTP alone."""


class _Peer(ServerProcess):
    def __init__(self, folder: Path, arguments: Sequence[str]) -> None:
        super().__init__(folder)
        self._arguments = arguments

    def command(self) -> Sequence[str]:
        return ["-m", "bench.peers", *self._arguments, "--port", str(self.port)]


class Server:
    """A site's server with a conversation of `history` messages; it runs until the `with` block is left."""

    def __init__(self, site: Site, history: int) -> None:
        self.site, self.history = site, history
        folder = Path(tempfile.mkdtemp(prefix="server-"))
        self.log = folder / "model.jsonl"
        """The log of the scripted model."""
        self.process: ServerProcess
        if site.name == "ours":
            more = f'[tools]\nenabled = ["bench.app_tools:marks"]\n[limits]\nruns = {site.runs}\n'
            self.process = AppProcess(folder, scripted_entry(str(self.log)) + more)
        else:
            self.process = _Peer(folder, [site.name, "--log", str(self.log), "--history", str(history)])
        self.url = self.process.url

    def __enter__(self) -> "Server":
        self.process.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.process.__exit__()

    def address(self) -> str:
        """The address of a page with the earlier messages; each call imports them as a new conversation."""
        if self.site.name != "ours" or not self.history:
            return self.url
        body = json.dumps({"messages": earlier_messages(self.history)}).encode()
        request = urllib.request.Request(self.url + "conversations", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            created: dict[str, Any] = json.load(answer)
        return f"{self.url}?conversation={created['conversation_id']}"


def measured(site: Site, history: int, measure: Callable[[Server], dict[str, Any]]) -> dict[str, Any]:
    """Measures a server; a failure is a row with `error`."""
    try:
        with Server(site, history) as server:
            return measure(server)
    except Exception as e:
        return {"error": f"{type(e).__name__}: {e}".strip()}
