"""The public link: Gradio's share server and tunnel program, and why there is none, in a sentence and soon.

Gradio's own client waits for half a minute where the program has ended already, and prints what it did.
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

_ANSWER_S, _TUNNEL_S = 6.0, 20.0
_GOES_ON = "The local page goes on."


class TunnelError(Exception):
    """Why there is no link, and what to do; for people."""


class OpenTunnel(tunneling.Tunnel):
    """A running tunnel; `url` is where it leads from."""

    def _read_url_from_tunnel_stream(self) -> str:
        process, said = self._process, []
        late = threading.Timer(_TUNNEL_S, process.kill)
        late.start()
        try:
            assert process.stdout
            for raw in process.stdout:
                line = raw.decode("utf-8", "replace").strip()
                said.append(line)
                if "start proxy success: " in line:
                    threading.Thread(target=process.stdout.read, daemon=True).start()  # or it waits for a reader
                    return line.partition("start proxy success: ")[2]
                if "login to server failed" in line:
                    break
        finally:
            late.cancel()
        process.kill()
        raise TunnelError(
            f"the tunnel to Gradio's share server did not open ({said[-1][-200:] if said else 'it said nothing'}). "
            f"Try again in a while; a firewall that lets only web pages through does this, too. {_GOES_ON}"
        )

    @property
    def _process(self) -> "subprocess.Popen[bytes]":
        assert self.proc is not None
        found: subprocess.Popen[bytes] = self.proc
        return found

    def wait(self) -> None:
        """Until the tunnel ends."""
        if self.proc:
            self._process.wait()

    def close(self) -> None:
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            self.kill()  # type: ignore[no-untyped-call]


def open_tunnel(port: int, token: str, folder: Path) -> OpenTunnel:
    """Opens a tunnel to this port of 127.0.0.1. `folder` keeps the server's certificate. Raises TunnelError."""
    host, server_port, certificate = _server(folder)
    _fetch_program()
    tunnel = OpenTunnel(host, server_port, "127.0.0.1", port, token, certificate)
    try:
        tunnel.start_tunnel()
    except OSError as e:
        blocked = f"the tunnel program {tunneling.BINARY_PATH} cannot be started ({e.strerror})"
        raise TunnelError(f"{blocked}: an antivirus may have blocked it. Allow it, and try again. {_GOES_ON}") from None
    return tunnel


def _server(folder: Path) -> tuple[str, int, str | None]:
    """Host and port of the share server, and the file of its certificate."""
    if given := networking.GRADIO_SHARE_SERVER_ADDRESS:
        named, _, numbered = given.partition(":")
        return named, int(numbered), None
    try:
        answer = httpx.get(networking.GRADIO_API_SERVER, timeout=_ANSWER_S)
        told = answer.raise_for_status().json()[0]
        host, port, certificate = str(told["host"]), int(told["port"]), str(told["root_ca"])
    except httpx.HTTPStatusError as e:
        status = e.response.status_code
        raise TunnelError(
            f"Gradio's share server is not well (it answered {status}). Try again later. {_GOES_ON}"
        ) from e
    except httpx.HTTPError as e:
        why = "did not answer" if isinstance(e, httpx.TimeoutException) else "cannot be reached"
        check = "Check the network, and that no firewall is in the way"
        raise TunnelError(f"Gradio's share server {why} ({type(e).__name__}). {check}. {_GOES_ON}") from e
    except (json.JSONDecodeError, LookupError, TypeError, ValueError) as e:
        odd = "something else answers in place of Gradio's share server, such as a Wi-Fi's login page"
        raise TunnelError(f"{odd}. Open a web page in the browser first, then try again. {_GOES_ON}") from e
    kept = folder / "share.pem"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kept.write_text(certificate)
    except OSError as e:
        raise TunnelError(f"{kept} cannot be written ({e.strerror}). Set GLASSBOX_DATA. {_GOES_ON}") from e
    return host, port, str(kept)


def _fetch_program() -> None:
    """Gets the tunnel program, once on this machine."""
    program, there = Path(tunneling.BINARY_PATH), Path(tunneling.BINARY_PATH).exists()
    try:
        tunneling.Tunnel.download_binary()  # type: ignore[no-untyped-call]
    except ChecksumMismatchError as e:
        with suppress(OSError):
            program.unlink()
        changed = "what came for the tunnel program is not what Gradio published: a proxy or an antivirus changed it"
        raise TunnelError(f"{changed}. It was not started. Try again from another network. {_GOES_ON}") from e
    except (httpx.HTTPError, OSError) as e:
        by_hand = f"Or get it by hand from {tunneling.BINARY_URL}, as {program}"
        raise TunnelError(
            f"the tunnel program cannot be downloaded ({type(e).__name__}). Check the network. {by_hand}. {_GOES_ON}"
        ) from e
    if not there and not program.exists():
        raise TunnelError(f"the tunnel program was removed as it came: allow {program} in the antivirus. {_GOES_ON}")
