"""Proxy variables: the app starts with any of them, reaches itself directly, and everything else through the proxy."""

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest
import requests
from requests.utils import get_environ_proxies

from agent.tools import wikipedia as module
from backends.weights import bundled_weights
from hosting.proxies import on_this_machine, use_proxies
from tests.app_process import RunningApp
from tests.forwarder import Forwarder
from tests.hub import HubServer
from tests.providers import GeminiServer, OpenAIServer
from tests.test_tools_wikipedia import Server as Wikipedia

PROXY = "http://127.0.0.1:9"
NOWHERE = "http://127.0.0.1:1"
VARIABLES = [name for kind in ("http", "https", "all", "no") for name in (f"{kind}_proxy", f"{kind.upper()}_PROXY")]
CONFIG = """
[[backends]]
name = "Local"
kind = "local"
model = "bundled"
[[backends]]
name = "Provider"
kind = "openai"
model = "test-model"
base_url = "http://provider.test/v1"
[[backends]]
name = "Gemini"
kind = "gemini"
model = "test-model"
base_url = "http://gemini.test"
key = "TEST_API_KEY"
[[backends]]
name = "Hub"
kind = "local"
model = "hf:owner/repo/file.gguf"
preload = true
[[backends]]
name = "Here"
kind = "openai"
model = "test-model"
base_url = "http://127.0.0.1:{port}/v1"
"""


# The variables, rewritten


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (PROXY, PROXY),
        ("127.0.0.1:9", PROXY),
        ("HTTP://proxy.test:3128/", "http://proxy.test:3128/"),
        ("https://zoe:pass%40word@proxy.test", "https://zoe:pass%40word@proxy.test"),
        ("http://[::1]:9", "http://[::1]:9"),
        ("socks5://127.0.0.1:9", "socks5h://127.0.0.1:9"),
        ("socks5h://127.0.0.1:9", "socks5h://127.0.0.1:9"),
        ("socks://127.0.0.1:9/", "socks5h://127.0.0.1:9/"),
    ],
)
@pytest.mark.parametrize("name", ["HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_proxy_is_rewritten_for_all_clients(name: str, given: str, expected: str) -> None:
    environ = {name: f" {given} ", "OTHER": "x"}
    assert use_proxies(environ, None, []) == []
    assert environ["OTHER"] == "x"
    assert environ[name.lower()] == environ[name.upper()] == expected
    assert environ["NO_PROXY"] == "localhost,127.0.0.1,::1"
    assert_clients_take(environ)


@pytest.mark.parametrize(
    ("given", "received"),
    [
        ("socks4://127.0.0.1:9", "SOCKS 4 is not supported"),
        ("socks4a://zoe:secret@127.0.0.1:9", "SOCKS 4 is not supported"),
        ("http://[::1", "not the address of a proxy"),
        ("http://zoe:secret@proxy:port", "not the address of a proxy"),
        ("http://proxy:99999", "not the address of a proxy"),
        ("http://", "not the address of a proxy"),
        ("://", "not the address of a proxy"),
        ("ftp://secret:9", "not the address of a proxy"),
        ("http://the secret:9", "not the address of a proxy"),
    ],
)
def test_unusable_proxy_is_reported_and_never_bypassed(given: str, received: str) -> None:
    environ = {"HTTPS_PROXY": given}
    (problem,) = use_proxies(environ, None, [])
    assert problem.startswith("HTTPS_PROXY: ") and received in problem and "secret" not in problem
    assert environ["https_proxy"] == environ["HTTPS_PROXY"] == NOWHERE
    assert_clients_take(environ)


@pytest.mark.parametrize("missing", ["socksio", "socks"])
def test_a_missing_package_for_socks_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hosting.proxies._installed", lambda module: module != missing)
    (problem,) = use_proxies({"ALL_PROXY": "socks5://127.0.0.1:9"}, None, [])
    assert {"socksio": "socksio", "socks": "PySocks"}[missing] in problem and "make setup" in problem


@pytest.mark.parametrize("value", ["", "  "])
def test_an_empty_variable_is_not_set(value: str) -> None:
    environ = {"HTTP_PROXY": value, "no_proxy": value}
    assert use_proxies(environ, None, []) == [] and environ == {}
    environ = {"HTTP_PROXY": PROXY, "http_proxy": value}  # the one in small letters counts
    assert use_proxies(environ, None, []) == [] and environ == {}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("[::1]", ""),
        ("::1", ""),
        ("localhost,127.0.0.1,::1,[::1]", ""),
        ("[::1]:7860, [fe80::1]", "fe80::1"),
        ("10.0.0.0/8,192.168.1.7", "10.0.0.0/8,192.168.1.7"),
        (".example.org *.example.com  example.net:8080", ".example.org,.example.com,example.net:8080"),
        ("https://example.org/x", "example.org"),
    ],
)
def test_no_proxy_is_rewritten_for_all_clients(given: str, kept: str) -> None:
    environ = {"HTTP_PROXY": PROXY, "NO_PROXY": given}
    assert use_proxies(environ, None, []) == []
    assert environ["no_proxy"] == environ["NO_PROXY"] == ",".join(filter(None, ["localhost,127.0.0.1,::1", kept]))
    assert_clients_take(environ)


@pytest.mark.parametrize(
    "entry", ["a:b", "http://x:y", "[::1", "http://[::1", "http://[abc]:3", ";", "::ffff::1", "fd00::/8", "1.2.3.4/99"]
)
def test_invalid_entry_of_no_proxy_is_reported(entry: str) -> None:
    environ = {"HTTP_PROXY": PROXY, "NO_PROXY": f"{entry}, example.org"}
    problems = use_proxies(environ, None, [])
    assert problems and all(problem.startswith("NO_PROXY: ") for problem in problems)
    assert environ["NO_PROXY"].endswith("::1,example.org")
    assert_clients_take(environ)


def test_a_star_turns_every_proxy_off() -> None:
    environ = {"ALL_PROXY": "socks5://127.0.0.1:9", "NO_PROXY": "example.org, *"}
    assert use_proxies(environ, None, []) == []
    assert environ["NO_PROXY"] == "*"


def test_own_addresses_and_excepted_hosts_are_added() -> None:
    environ = {"HTTP_PROXY": PROXY, "NO_PROXY": "10.0.0.0/8"}
    urls = [
        "http://10.1.2.3:8000/v1",
        "http://11.1.2.3/v1",
        "http://127.0.0.2/",
        "http://0.0.0.0:8000",
        "http://a.localhost",
    ]
    assert use_proxies(environ, "192.168.1.5", urls) == []
    added = {"192.168.1.5", "10.1.2.3", "127.0.0.2", "0.0.0.0", "a.localhost"}
    assert set(environ["NO_PROXY"].split(",")) == {"localhost", "127.0.0.1", "::1", "10.0.0.0/8", *added}
    environ = {"HTTP_PROXY": PROXY}
    assert use_proxies(environ, "[::1]", []) == [] and environ["NO_PROXY"] == "localhost,127.0.0.1,::1"


def test_this_machine_is_known_by_its_addresses() -> None:
    here = ["localhost", "LOCALHOST.", "a.localhost", "127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::"]
    assert all(on_this_machine(host) for host in here)
    assert not any(on_this_machine(host) for host in ("localhost.example.org", "10.0.0.1", "provider.test", "", None))


def assert_clients_take(environ: Mapping[str, str]) -> None:
    """No client fails over the variables, and none goes through a proxy to this machine."""
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.delenv(name, raising=False)
        for name, value in environ.items():
            patch.setenv(name, value)
        for module in (httpx, httpx2):
            with module.Client() as client:
                for url in ("http://127.0.0.1:7860/", "http://localhost:7860/", "http://[::1]:7860/"):
                    assert client._transport_for_url(module.URL(url)) is client._transport
        assert get_environ_proxies("http://127.0.0.1:7860/") == {}
        assert requests.Session().trust_env


# The real app


@contextmanager
def started(folder: Path, config: str, environ: Mapping[str, str]) -> Iterator[tuple[httpx.Client, RunningApp]]:
    """The app, and a client of it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in VARIABLES:
            patch.delenv(name, raising=False)
        with RunningApp(folder, config, fresh=True, **environ) as app:
            with httpx.Client(base_url=app.url, timeout=60, trust_env=False) as client:
                yield client, app


def replied(client: httpx.Client, backend: str) -> Any:
    """The last event of a run."""
    with client.stream("POST", "/stream", json={"message": "hello", "backend": backend, "max_tokens": 40}) as answer:
        return [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data: ")][-1]


def ready(client: httpx.Client, backend: str, most: float = 60) -> Any:
    until = time.monotonic() + most
    while True:
        found = next(b for b in client.get("/backends").json() if b["name"] == backend)
        if found["ready"] or time.monotonic() > until:
            return found
        time.sleep(0.2)


@pytest.mark.parametrize(
    ("protocol", "variables"),
    [
        ("http", {"HTTP_PROXY": "http://127.0.0.1:{port}"}),
        ("http", {"http_proxy": "127.0.0.1:{port}", "NO_PROXY": "[::1],::1,10.0.0.0/8,fd00::/8,a:b"}),
        ("socks", {"ALL_PROXY": "socks5://127.0.0.1:{port}"}),
        ("socks", {"all_proxy": "socks://127.0.0.1:{port}/", "NO_PROXY": ""}),
    ],
)
def test_the_app_reaches_itself_directly_and_others_through_the_proxy(
    tmp_path: Path, protocol: str, variables: dict[str, str]
) -> None:
    weights = bundled_weights()
    assert weights
    hub = HubServer({"owner/repo/file.gguf": weights.read_bytes()[:100_000]})
    with OpenAIServer() as openai, GeminiServer() as gemini, OpenAIServer() as here, hub:
        names = {"provider.test": openai.port, "gemini.test": gemini.port, "hub.test": hub.port}
        with Forwarder(names) as forwarder:
            environ = {name: value.format(port=forwarder.port) for name, value in variables.items()}
            environ |= {
                "HF_ENDPOINT": "http://hub.test",
                "HF_HOME": str(tmp_path / "hub"),
                "TEST_API_KEY": "key",
            }
            with started(tmp_path, CONFIG.replace("{port}", str(here.port)), environ) as (client, app):
                assert client.get("/healthz").status_code == 200
                assert client.get("/").status_code == 200
                for backend in ("Local", "Provider", "Gemini", "Here"):
                    assert ready(client, backend)["ready"], (backend, app.output())
                    assert replied(client, backend)["type"] == "complete", backend
                assert "cannot be loaded" in ready(client, "Hub", 0)["reason"], "the file is cut"
                assert "Traceback" not in app.output()
            for host in names:
                assert forwarder.asked_for(host, protocol), host
            assert {target.rpartition(":")[0] for _, target in forwarder.asked} == names.keys()


@pytest.mark.parametrize(
    ("variables", "received"),
    [
        ({"ALL_PROXY": "socks4://127.0.0.1:9"}, "ALL_PROXY: SOCKS 4 is not supported"),
        ({"HTTP_PROXY": "http://[::1", "NO_PROXY": "*"}, "HTTP_PROXY: this is not the address of a proxy"),
    ],
)
def test_the_app_starts_with_an_unusable_proxy_and_says_what_is_wrong(
    tmp_path: Path, variables: dict[str, str], received: str
) -> None:
    config = '[[backends]]\nname = "Script"\nkind = "scripted"\noptions = { speed = 10000 }\n'
    with started(tmp_path, config, variables) as (client, app):
        assert client.get("/").status_code == 200
        assert replied(client, "Script")["type"] == "complete"
        assert received in app.output() and "Traceback" not in app.output()


@pytest.mark.parametrize(("scheme", "protocol"), [("http", "http"), ("socks5", "socks"), ("socks5h", "socks")])
async def test_wikipedia_is_reached_through_the_proxy(
    scheme: str, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Wikipedia()
    with closing(server), Forwarder({"wiki.test": server.http.server_port}) as forwarder:
        monkeypatch.setattr(module, "ADDRESS", "http://wiki.test/w/api.php")
        monkeypatch.setattr(module, "_SECONDS", 60.0)  # the first import may be slow
        environ = {"ALL_PROXY": f"{scheme}://127.0.0.1:{forwarder.port}"}
        assert use_proxies(environ, None, []) == []
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        found = await module.wikipedia.ainvoke({"query": "programs"})
        assert "Ada Lovelace" in found, found
        assert forwarder.asked_for("wiki.test", protocol)
