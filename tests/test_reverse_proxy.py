"""The app behind a real nginx: as documented, and as people set it up without having read that."""

import json
import logging
import tomllib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from gradio_client import Client
from websockets.asyncio.client import connect

from app import App
from bench.ports import free_port
from hosting.identity import COOKIE
from tests.live_app import events_of, events_until_end, live_app
from tests.nginx import HOST, Certificate, documented, documented_nginx, make_certificate, nginx


@dataclass(frozen=True)
class House:
    """The app behind the documented nginx; `public` is where a browser finds it."""

    app: App
    port: int
    certificate: Certificate

    @property
    def public(self) -> str:
        return f"https://{HOST}:{self.port}/demo/"

    @asynccontextmanager
    async def client(self, **headers: str) -> AsyncIterator[httpx.AsyncClient]:
        """A browser's, as far as names and certificates go: `HOST` is looked up as 127.0.0.1."""
        head = {"Host": f"{HOST}:{self.port}", **headers}
        url = f"https://127.0.0.1:{self.port}/demo/"
        verify = self.certificate.trusted()
        async with httpx.AsyncClient(base_url=url, verify=verify, headers=head, timeout=30, trust_env=False) as client:
            yield client


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    certificate, port = make_certificate(folder), free_port()
    with live_app(folder / "data", **tomllib.loads(documented("toml"))) as app:
        with nginx(folder / "nginx", documented_nginx(app.demo.server_port, port, certificate)):
            yield House(app, port, certificate)


async def test_the_documented_nginx_serves_the_page_below_its_prefix(house: House) -> None:
    async with house.client() as client:
        page = await client.get("")
        assert page.status_code == 200
        cookie = page.headers["set-cookie"]
        assert cookie.startswith(COOKIE) and "Path=/demo;" in cookie and "Secure" in cookie
        assert f'"root":"{house.public.rstrip("/")}"' in page.text.replace("\\/", "/")
        for path in (
            "example",
            "docs",
            "client.js",
            "openapi.json",
            "backends",
            "config",
            "theme.css",
            "manifest.json",
        ):
            assert (await client.get(path)).status_code == 200, path
        assert (await client.get("openapi.json")).json()["servers"] == [{"url": "/demo"}]
        bare = await client.get(f"https://127.0.0.1:{house.port}/demo?q=1")
        assert bare.status_code == 301 and bare.headers["location"] == "/demo/?q=1"
        out = await client.get("logout")
        assert (out.status_code, out.headers["location"]) == (302, "./")
        assert (await client.get("docs/")).headers["location"] == "./../docs"


async def test_a_reply_streams_through_nginx_and_can_be_followed_and_exported(house: House) -> None:
    async with house.client(Origin=f"https://{HOST}:{house.port}") as client:
        await client.get("")
        body = {"message": "tour", "backend": "Slow script"}
        async with client.stream("POST", "stream", json=body) as answer:
            assert answer.status_code == 200
            async for line in answer.aiter_lines():
                if line.startswith("data: ") and json.loads(line[6:])["type"] == "token":
                    break
            run = answer.headers["x-run-id"]
            last = json.loads((await client.get(f"runs/{run}")).text.splitlines()[-1])
            assert last["type"] not in ("complete", "stopped", "error"), "a token has come before the reply was whole"
        events = await events_of(client, "GET", f"runs/{run}/events")
        assert events[-1]["type"] == "complete"
        assert (await client.get(f"runs/{run}")).status_code == 200
        exported = (await client.get(f"conversations/{events[0]['conversation_id']}")).json()
        assert exported["messages"][-1]["content"] == events[-1]["content"]


async def test_a_web_socket_works_through_nginx(house: House) -> None:
    async with connect(
        f"wss://{HOST}:{house.port}/demo/ws/chat",
        host="127.0.0.1",
        ssl=house.certificate.trusted(),
        server_hostname=HOST,
        origin=f"https://{HOST}:{house.port}",  # type: ignore[arg-type]
        proxy=None,
    ) as socket:
        await socket.send(json.dumps({"message": "tour"}))
        assert (await events_until_end(socket))[-1]["type"] == "complete"


async def test_documents_and_other_protocols_work_through_nginx(house: House) -> None:
    async with house.client(Origin=f"https://{HOST}:{house.port}") as client:
        await client.get("")
        added = await client.post("documents?name=long.txt", content=b"whales sing " * 50_000)
        assert added.status_code == 201, added.text
        assert [one["name"] for one in (await client.get("documents")).json()] == ["long.txt"]
        message = {"id": "1", "role": "user", "content": "hello"}
        given: dict[str, Any] = {"threadId": "t", "runId": "r", "state": {}, "tools": [], "context": []}
        answer = await client.post("agui", json=given | {"messages": [message], "forwardedProps": {}})
        assert answer.status_code == 200 and "RUN_FINISHED" in answer.text


# Other setups, and wrong ones

PLAIN = """
server {{
    listen 127.0.0.1:{port};
    absolute_redirect off;
    location {location} {{ proxy_pass http://127.0.0.1:{app}{path}; {more} }}
}}
"""


@dataclass(frozen=True)
class Setup:
    """An nginx without TLS; `page` is where the browser finds the page."""

    location: str = "/"
    path: str = ""
    more: str = ""
    page: str = "/"


DEFAULT = Setup()
HOST_ONLY = Setup(more="proxy_set_header Host $host;")
HTTP_HOST = Setup(more="proxy_set_header Host $http_host;")
STRIPPED = Setup("/demo/", "/", "proxy_set_header Host $host;", page="/demo/")
KEPT = Setup("/demo", "", "proxy_set_header Host $host;", page="/demo/")
LOOSE = Setup("/demo", "/", page="/demo/")
DEEP = Setup("/a/b/", "/", page="/a/b/")
FORWARDING = Setup(more="proxy_set_header X-Forwarded-Host $http_host; proxy_set_header X-Forwarded-Proto https;")
PORT_APART = Setup(more="proxy_set_header X-Forwarded-Host $host; proxy_set_header X-Forwarded-Port $server_port;")
STANDARD = Setup(more='proxy_set_header Forwarded "for=192.0.2.7;proto=https;host=\\"$http_host\\"";')


@contextmanager
def behind(folder: Path, setup: Setup, **settings: Any) -> Iterator[str]:
    """The address at which nginx serves the app."""
    port = free_port()
    with live_app(folder / "data", **settings) as app:
        block = PLAIN.format(
            port=port, app=app.demo.server_port, **{k: v for k, v in vars(setup).items() if k != "page"}
        )
        with nginx(folder / "nginx", block):
            yield f"http://127.0.0.1:{port}"


def visit(url: str, setup: Setup) -> httpx.Client:
    """As a browser that knows nginx as HOST."""
    host = f"{HOST}:{httpx.URL(url).port}"
    return httpx.Client(base_url=url + setup.page, headers={"Host": host, "Origin": f"http://{host}"}, timeout=30)


def join(client: httpx.Client) -> httpx.Response:
    """What the page sends first, and the browser with an `Origin`; of the wrong shape, where it gets that far."""
    return client.post("gradio_api/queue/join", json={"session_hash": "abc", "fn_index": 0, "data": []})


@pytest.mark.parametrize(
    ("setup", "settings"),
    [
        (DEFAULT, {"allowed_hosts": [HOST]}),
        (HOST_ONLY, {"allowed_hosts": [HOST]}),
        (HTTP_HOST, {"allowed_hosts": [HOST]}),
        (STRIPPED, {"allowed_hosts": [HOST]}),
        (STRIPPED, {"allowed_hosts": [HOST], "root_path": "/demo/"}),
        (STRIPPED, {"root_path": f"https://{HOST}/demo"}),
        (KEPT, {"allowed_hosts": [HOST], "root_path": "/demo"}),
        (KEPT, {"allowed_hosts": [HOST], "root_path": "demo/"}),
        (LOOSE, {"allowed_hosts": [HOST]}),
        (LOOSE, {"allowed_hosts": [HOST], "root_path": "/demo"}),
        (DEEP, {"allowed_hosts": [HOST], "root_path": "/a/b"}),
        (FORWARDING, {"allowed_hosts": [HOST], "trusted_proxies": ["127.0.0.0/8"]}),
        (PORT_APART, {"allowed_hosts": [HOST], "trusted_proxies": ["127.0.0.1"]}),
        (STANDARD, {"allowed_hosts": [HOST], "trusted_proxies": ["127.0.0.1"]}),
    ],
)
def test_ordinary_setups_work_with_the_documented_settings(
    tmp_path: Path, setup: Setup, settings: dict[str, Any]
) -> None:
    from settings import FileSettings

    checked = FileSettings(**settings)
    given = {"allowed_hosts": checked.allowed_hosts, "root_path": checked.root_path}
    with behind(tmp_path, setup, **given, trusted_proxies=checked.trusted_proxies) as url, visit(url, setup) as client:
        page = client.get("")
        assert page.status_code == 200
        path = "/" if "root_path" not in settings else checked.root_path
        assert f"Path={path};" in page.headers["set-cookie"]
        assert ("Secure" in page.headers["set-cookie"]) is (setup in (FORWARDING, STANDARD))
        assert join(client).status_code in (200, 422, 500)
        assert client.post("conversations", json={"messages": []}).status_code == 200
        assert client.get("logout").headers["location"] == "./"
        bare = client.get(url + (setup.page.rstrip("/") or "/"), follow_redirects=True, headers={"Accept": "text/html"})
        assert bare.status_code == 200 and "gradio_config" in bare.text


def test_the_python_client_works_below_a_prefix(tmp_path: Path) -> None:
    with behind(tmp_path, STRIPPED, root_path="/demo") as url:
        client = Client(f"{url}/demo/", verbose=False)
        assert len(client.predict("hello", api_name="/chat")) > 10


@pytest.mark.parametrize(
    ("setup", "status", "code", "received"),
    [
        (DEFAULT, 403, "authentication", "make it pass on the Host header, or add chat.example.org to allowed_hosts"),
        (HOST_ONLY, 400, "invalid_request", "chat.example.org is not a known name of this server"),
        (HTTP_HOST, 400, "invalid_request", "add chat.example.org to allowed_hosts in glassbox.toml"),
        (FORWARDING, 403, "authentication", "add chat.example.org to allowed_hosts"),
        (KEPT, 400, "invalid_request", "is not a known name"),
    ],
)
def test_a_wrong_setup_is_explained_in_the_answer_and_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, setup: Setup, status: int, code: str, received: str
) -> None:
    caplog.set_level(logging.INFO, "hosting.error_responses")
    with behind(tmp_path, setup) as url, visit(url, setup) as client:
        for _ in range(5):
            answer = join(client)
            assert (answer.status_code, answer.json()["code"]) == (status, code)
            assert received in answer.json()["message"]
        navigated = client.get("", headers={"Accept": "text/html,*/*"})
        if status == 400:
            assert navigated.status_code == 400 and navigated.headers["content-type"].startswith("text/html")
            assert received in navigated.text
        if setup.location == "/":
            assert httpx.get(f"{url}/healthz", headers={"Host": HOST}).status_code == 200, "a probe may use any name"
    lines = [record.getMessage() for record in caplog.records if received in record.getMessage()]
    assert len(lines) == 1, "once a minute"
    ignored = [record for record in caplog.records if "add 127.0.0.1 to trusted_proxies" in record.getMessage()]
    assert len(ignored) == (setup is FORWARDING)


def test_a_prefix_that_nobody_removes_is_explained(tmp_path: Path) -> None:
    with behind(tmp_path, KEPT, allowed_hosts=[HOST]) as url, visit(url, KEPT) as client:
        page = client.get("", headers={"Accept": "text/html,*/*"})
        assert page.status_code == 404 and "set root_path" in page.text
