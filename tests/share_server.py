"""A share server on 127.0.0.1: what Gradio's own client asks, the tunnel program that it downloads, and the tunnel.

Sources: `gradio/networking.py` and `gradio/tunneling.py` of 6.31. The program here takes Gradio's arguments and says
what frpc says; it relays TCP from a port of its own, so that what it names really leads to the app.
"""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from gradio import networking, tunneling

RELAY = """#!{python}
import socket, sys, threading
said = sys.argv
assert said[1] == "http" and said[said.index("--server_addr") + 1] == "127.0.0.1:7", said
local = int(said[said.index("-l") + 1])
listening = socket.create_server(("127.0.0.1", 0))
def copy(source, target):
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    for one in (source, target):
        try: one.shutdown(socket.SHUT_RDWR)
        except OSError: pass
print("2026/01/01 [I] login to server success", flush=True)
print(f"2026/01/01 [I] start proxy success: http://127.0.0.1:{{listening.getsockname()[1]}}", flush=True)
while True:
    near, _ = listening.accept()
    far = socket.create_connection(("127.0.0.1", local))
    for pair in ((near, far), (far, near)):
        threading.Thread(target=copy, args=pair, daemon=True).start()
"""
REFUSED = "#!{python}\nprint('2026/01/01 [W] login to server failed: i/o deadline reached', flush=True)\n"
ENDS = "#!{python}\nprint('cannot open config')\n"
SILENT = "#!{python}\nimport time\ntime.sleep(60)\n"


@dataclass
class ShareServer:
    """`answers` of the API and `program` are served as they are; a status instead refuses."""

    url: str = ""
    answer: bytes | int = b""
    program: str | int = RELAY
    asked: list[str] = field(default_factory=list)


@contextmanager
def share_server(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[ShareServer]:
    """Gradio's client is led to it."""
    received = ShareServer(answer=json.dumps([{"host": "127.0.0.1", "port": 7, "root_ca": "a certificate"}]).encode())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            received.asked.append(self.path)
            given = received.answer if self.path == "/tunnel-request" else received.program
            self.send_response(given if isinstance(given, int) else 200)
            self.end_headers()
            if not isinstance(given, int):
                text = given.format(python=sys.executable).encode() if isinstance(given, str) else given
                self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    received.url = f"http://127.0.0.1:{server.server_port}"
    patch.setattr(networking, "GRADIO_API_SERVER", f"{received.url}/tunnel-request")
    patch.setattr(networking, "GRADIO_SHARE_SERVER_ADDRESS", None)
    patch.setattr(tunneling, "BINARY_URL", f"{received.url}/frpc")
    patch.setattr(tunneling, "BINARY_FOLDER", folder / "frpc")
    patch.setattr(tunneling, "BINARY_PATH", str(folder / "frpc" / "frpc_v0.3"))
    try:
        yield received
    finally:
        server.shutdown()
        server.server_close()
