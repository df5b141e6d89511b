"""The tool `wikipedia`, against a server on 127.0.0.1 that imitates the MediaWiki API."""

import asyncio
import json
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from agent.tools import wikipedia as module
from agent.tools.streaming import output_listener
from agent.tools.wikipedia import wikipedia
from bench.ports import free_port

pytestmark = pytest.mark.filterwarnings("ignore:`langchain-community`:DeprecationWarning")

PAGES = {
    "Ada Lovelace": ("1", "Ada Lovelace wrote the first program.\n"),
    "Charles Babbage": ("2", "Charles Babbage " + "built engines. " * 200),
}
SEVERAL = "Ada"
"""The title of a disambiguation page."""


def api(asked: dict[str, str]) -> Any:
    """Returns the real API's answer to each of the package's four kinds of request, shortened."""
    if "srsearch" in asked:
        if asked["srsearch"] == "refused":
            return {"error": {"code": "x", "info": "Their error, at https://secret.example/"}}
        if asked["srsearch"] == "strange":
            return ["nothing", "as expected"]
        found = [] if asked["srsearch"] == "nothing" else [SEVERAL, *PAGES]
        return {"query": {"search": [{"ns": 0, "title": title} for title in found]}}
    title = asked["titles"]
    number, text = PAGES.get(title, ("3", ""))
    page: dict[str, Any] = {"pageid": int(number), "title": title, "fullurl": f"https://there/{title}"}
    if asked["prop"] == "info|pageprops" and title == SEVERAL:
        page["pageprops"] = {"disambiguation": ""}
    if "revisions" in asked["prop"]:
        page["revisions"] = [{"*": "<ul><li><a>Ada Lovelace</a></li></ul>", "revid": 1, "parentid": 0}]
    if "extracts" in asked["prop"]:
        page["extract"] = text
    return {"query": {"pages": {number: page}}}


Answer = Callable[[dict[str, str]], Any]


class Server:
    """A server that answers with what `answer` returns; a number is an HTTP status, None is no answer."""

    def __init__(self) -> None:
        self.answer: Answer = api
        self.asked: list[dict[str, str]] = []
        self.ended = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
                outer.asked.append(asked)
                answer = outer.answer(asked)
                if answer is None:
                    outer.ended.wait(20)
                    return
                body = json.dumps(answer).encode()
                self.send_response(answer if isinstance(answer, int) else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.http.server_address[1]}/w/api.php"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self.ended.set()
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server()
    monkeypatch.setattr(module, "ADDRESS", server.address)
    monkeypatch.setattr(module, "_SECONDS", 60.0)  # the first import may be slow
    yield server
    server.close()


async def test_pages_are_yielded_as_they_are_found(server: Server) -> None:
    received: list[str] = []

    async def tell(text: str) -> None:
        received.append(text)

    second = threading.Event()

    def answer(asked: dict[str, str]) -> Any:
        if asked.get("titles") == "Charles Babbage":
            second.wait(20)
        return api(asked)

    server.answer = answer
    with output_listener(tell), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # from the parser, which the package leaves to be guessed
        looking = asyncio.create_task(wikipedia.ainvoke({"query": "programs"}))
        while not received:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert received == ["Ada Lovelace\nAda Lovelace wrote the first program.\n\n"]
        second.set()
        result = await looking
    assert result == "".join(received)
    assert "Charles Babbage\nCharles Babbage built engines." in result
    assert result.endswith("…\n\n") and len(result) < 1700


async def test_searches_are_not_cached(server: Server) -> None:
    for _ in range(2):
        await wikipedia.ainvoke({"query": "programs"})
    searched = [asked for asked in server.asked if "srsearch" in asked]
    assert [(asked["srsearch"], asked["srlimit"]) for asked in searched] == [("programs", "3")] * 2


async def test_no_results_is_a_sentence(server: Server) -> None:
    assert await wikipedia.ainvoke({"query": "nothing"}) == "Wikipedia has no page about this."


@pytest.mark.parametrize("query", ["refused", "strange"])
async def test_malformed_response_is_a_sentence(server: Server, query: str) -> None:
    with pytest.raises(ValueError, match=r"^Wikipedia's answer cannot be understood\. Try other words\.$"):
        await wikipedia.ainvoke({"query": query})


@pytest.mark.parametrize("status", [403, 429, 500])
async def test_http_error_names_the_status(server: Server, status: int) -> None:
    server.answer = lambda asked: status
    with pytest.raises(OSError, match=rf"^Wikipedia has answered HTTP {status}\. Try again later\.$"):
        await wikipedia.ainvoke({"query": "programs"})


async def test_missing_network_is_a_sentence(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ADDRESS", f"http://127.0.0.1:{free_port()}/w/api.php")
    with pytest.raises(OSError, match=r"^Wikipedia cannot be reached from here\.$"):
        await wikipedia.ainvoke({"query": "programs"})


async def test_hanging_server_times_out(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    await wikipedia.ainvoke({"query": "programs"})  # imports everything
    monkeypatch.setattr(module, "_SECONDS", 0.3)
    server.answer = lambda asked: None
    begun = time.monotonic()
    with pytest.raises(OSError, match=r"^Wikipedia cannot be reached from here\.$"):
        await wikipedia.ainvoke({"query": "programs"})
    assert time.monotonic() - begun < 5
    server.ended.set()


async def test_an_empty_query_is_refused(server: Server) -> None:
    with pytest.raises(ValueError, match="what to look up"):
        await wikipedia.ainvoke({"query": " "})
    assert server.asked == []
