"""The tunnel of the public link: Gradio's share server and tunnel program, with failures reported soon and clearly.

Gradio's own client waits for half a minute even if the program has already ended, and prints to the terminal.
"""

import json
import os
import subprocess
import threading
from contextlib import redirect_stdout, suppress
from pathlib import Path

import httpx
from gradio import networking, tunneling
from gradio.exceptions import ChecksumMismatchError

_REQUEST_S, _TUNNEL_S = 6.0, 20.0
"""Timeouts of a request to the share server and of opening the tunnel, in seconds."""
_LOCAL = "The local page still works."
"""The end of each message."""


class TunnelError(Exception):
    """There is no public link. The message tells people why, and what to do."""


class OpenTunnel(tunneling.Tunnel):
    """A running tunnel; `url` is its public address."""

    def _read_url_from_tunnel_stream(self) -> str:
        process, output = self._process, list[str]()
        timeout = threading.Timer(_TUNNEL_S, process.kill)
        timeout.start()
        try:
            assert process.stdout
            for raw in process.stdout:
                line = raw.decode("utf-8", "replace").strip()
                output.append(line)
                if "start proxy success: " in line:
                    threading.Thread(target=process.stdout.read, daemon=True).start()  # else the program blocks
                    return line.partition("start proxy success: ")[2]
                if "login to server failed" in line:
                    break
        finally:
            timeout.cancel()
        process.kill()
        raise TunnelError(
            f"the tunnel to Gradio's share server did not open ({output[-1][-200:] if output else 'no output'}). "
            f"Try again in a while; a firewall that allows only web pages can be the cause. {_LOCAL}"
        )

    @property
    def _process(self) -> "subprocess.Popen[bytes]":
        assert self.proc is not None
        process: subprocess.Popen[bytes] = self.proc
        return process

    def wait(self) -> None:
        """Waits until the tunnel ends."""
        if self.proc:
            self._process.wait()

    def close(self) -> None:
        """Ends the tunnel."""
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            self.kill()  # type: ignore[no-untyped-call]


def open_tunnel(port: int, token: str, folder: Path) -> OpenTunnel:
    """Opens a tunnel to this port of 127.0.0.1; the server's certificate is kept in `folder`. Raises TunnelError."""
    host, server_port, certificate = _server(folder)
    _download_program()
    tunnel = OpenTunnel(host, server_port, "127.0.0.1", port, token, certificate)
    try:
        tunnel.start_tunnel()
    except OSError as e:
        blocked = f"the tunnel program {tunneling.BINARY_PATH} cannot be started ({e.strerror})"
        raise TunnelError(f"{blocked}: an antivirus may have blocked it. Allow it, and try again. {_LOCAL}") from None
    return tunnel


def _server(folder: Path) -> tuple[str, int, str | None]:
    """The host and port of the share server, and the file of its certificate."""
    if configured := networking.GRADIO_SHARE_SERVER_ADDRESS:
        host, _, configured_port = configured.partition(":")
        return host, int(configured_port), None
    try:
        response = httpx.get(networking.GRADIO_API_SERVER, timeout=_REQUEST_S)
        server = response.raise_for_status().json()[0]
        host, port, certificate = str(server["host"]), int(server["port"]), str(server["root_ca"])
    except httpx.HTTPStatusError as e:
        status = e.response.status_code
        raise TunnelError(f"Gradio's share server has a problem (status {status}). Try again later. {_LOCAL}") from e
    except httpx.HTTPError as e:
        why = "did not answer" if isinstance(e, httpx.TimeoutException) else "cannot be reached"
        check = "Check the network, and that no firewall blocks it"
        raise TunnelError(f"Gradio's share server {why} ({type(e).__name__}). {check}. {_LOCAL}") from e
    except (json.JSONDecodeError, LookupError, TypeError, ValueError) as e:
        other = "something else answers in place of Gradio's share server, such as a Wi-Fi's login page"
        raise TunnelError(f"{other}. Open a web page in the browser first, then try again. {_LOCAL}") from e
    file = folder / "share.pem"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file.write_text(certificate)
    except OSError as e:
        raise TunnelError(f"{file} cannot be written ({e.strerror}). Set GLASSBOX_DATA. {_LOCAL}") from e
    return host, port, str(file)


def _download_program() -> None:
    """Downloads the tunnel program unless this machine has it."""
    program = Path(tunneling.BINARY_PATH)
    existed = program.exists()
    try:
        tunneling.Tunnel.download_binary()  # type: ignore[no-untyped-call]
    except ChecksumMismatchError as e:
        with suppress(OSError):
            program.unlink()
        changed = (
            "the downloaded tunnel program is not the one that Gradio published: a proxy or an antivirus changed it"
        )
        raise TunnelError(f"{changed}. It was not started. Try again from another network. {_LOCAL}") from e
    except (httpx.HTTPError, OSError) as e:
        by_hand = f"Or download {tunneling.BINARY_URL} by hand and save it as {program}"
        raise TunnelError(
            f"the tunnel program cannot be downloaded ({type(e).__name__}). Check the network. {by_hand}. {_LOCAL}"
        ) from e
    if not existed and not program.exists():
        raise TunnelError(
            f"the tunnel program was removed after its download: allow {program} in the antivirus. {_LOCAL}"
        )
