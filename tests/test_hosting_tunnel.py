"""The public link over a share server on 127.0.0.1, and its failures."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio import networking, tunneling

from bench.ports import free_port
from hosting import tunnel
from hosting.tunnel import TunnelError, open_tunnel
from tests.conftest import until
from tests.live_app import client_of, events_of, launch_app, live_api, refused
from tests.share_server import ENDS, REFUSED, SILENT, ShareServer, share_server


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ShareServer]:
    with share_server(tmp_path, monkeypatch) as found:
        yield found


async def test_public_link_leads_to_the_app_and_has_a_qr_code(server: ShareServer, tmp_path: Path) -> None:
    app = launch_app(tmp_path / "data", share=True)
    sharing = threading.Thread(target=app.share)
    try:
        async with client_of(app) as here:
            assert (await here.get("/share")).json()["state"] == "making"
            await refused(await here.get("/share.svg"), 404, "not_found")
            sharing.start()
            await until(lambda: app.link.state != "making")
            received = (await here.get("/share")).json()
            assert received["state"] == "ready", received
            code = await here.get("/share.svg")
            assert code.headers["content-type"] == "image/svg+xml" and b"<svg" in code.content
            async with httpx.AsyncClient(base_url=received["url"], timeout=30) as far:
                assert "Glassbox" in (await far.get("/")).text
                assert (await events_of(far, "POST", "/stream", json={"message": "hello"}))[-1]["type"] == "complete"
                # forwarding headers count from the tunnel, and from no other program of this machine
                received = {"X-Forwarded-Proto": "https"}
                assert "Secure" in (await far.get("/", headers={**received, "Cookie": ""})).headers["set-cookie"]
                assert "Secure" not in httpx.get(app.url, headers=received).headers["set-cookie"]  # noqa: ASYNC210
            assert (tmp_path / "data" / "share.pem").read_text() == "a certificate"
            process = app._tunnel._process  # type: ignore[union-attr]
            process.kill()
            await until(lambda: app.link.state == "failed")
            assert "has ended" in (await here.get("/share")).json()["message"]
    finally:
        app.close()
        sharing.join(10)
    assert not sharing.is_alive() and process.poll() is not None


async def test_public_link_is_off_by_default(tmp_path: Path) -> None:
    with live_api(tmp_path) as app:
        async with client_of(app) as here:
            assert (await here.get("/share")).json() == {"state": "off", "url": "", "message": ""}


def changed(server: ShareServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tunneling.CHECKSUMS, tunneling.BINARY_URL, "0" * 64)


def offline(server: ShareServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networking, "GRADIO_API_SERVER", f"http://127.0.0.1:{free_port()}/")


def nameless(server: ShareServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(networking, "GRADIO_API_SERVER", "http://share.invalid/")


def no_program(server: ShareServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunneling, "BINARY_URL", f"http://127.0.0.1:{free_port()}/")


def impatient(server: ShareServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.program = SILENT
    monkeypatch.setattr(tunnel, "_TUNNEL_S", 1.0)


def locked(server: ShareServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.program = "#!/no/such/program\n"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (offline, "cannot be reached (ConnectError). Check the network"),
        (nameless, "cannot be reached (ConnectError). Check the network"),
        ({"answer": 503}, "status 503"),
        ({"answer": b"<html>Welcome to the Wi-Fi</html>"}, "Wi-Fi's login page"),
        ({"answer": b"[]"}, "something else answers"),
        (no_program, "the tunnel program cannot be downloaded (ConnectError)"),
        ({"program": 403}, "the tunnel program cannot be downloaded"),
        ({"program": 500}, "the tunnel program cannot be downloaded"),
        (changed, "a proxy or an antivirus changed it. It was not started"),
        (locked, "cannot be started"),
        ({"program": REFUSED}, "login to server failed: i/o deadline reached"),
        ({"program": ENDS}, "cannot open config"),
        (impatient, "did not open (no output)"),
    ],
)
def test_failed_public_link_is_explained_soon(
    server: ShareServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: Any, expected: str
) -> None:
    if callable(given):
        given(server, monkeypatch)
    else:
        for name, value in given.items():
            setattr(server, name, value)
    begun = time.monotonic()
    with pytest.raises(TunnelError) as received:
        open_tunnel(1, "token", tmp_path)
    assert expected in str(received.value) and str(received.value).endswith("The local page still works.")
    assert "\n" not in str(received.value) and time.monotonic() - begun < 10
    if given is changed:
        assert not Path(tunneling.BINARY_PATH).exists(), "it must not be used by the next attempt"
