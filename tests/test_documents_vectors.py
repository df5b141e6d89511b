"""Documents that are found by vectors, too: against servers on this machine, good ones and bad ones."""

import asyncio
import json
import logging
import math
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from backends.embeddings import build_embeddings
from documents import embedder as embedder_module
from documents import library as library_module
from documents import vectors as vectors_module
from documents.embedder import MOST_DIMENSIONS, Embedder
from documents.index import Passage
from documents.library import Library
from documents.rank_fusion import fuse
from documents.vectors import PassageVectors
from settings import DocumentSettings, SettingsError, load_settings
from tests.conftest import until
from tests.live_app import client_of, live_api
from tests.providers import BAD_KEY, BROKEN, Fail, GeminiServer, Hang, OpenAIServer, Raw
from tests.test_documents_library import EARLIER

MEANINGS = [("cat", "kitten", "feline"), ("car", "automobile", "engine"), ("bread", "loaf", "bakery")]
KEY = "sk-of-the-tests"
Open = Callable[..., Awaitable[Library]]


def meaning(text: str) -> list[float]:
    """A vector with a number for each meaning, and one for all texts."""
    words = text.lower()
    return [float(sum(words.count(word) for word in meant)) for meant in MEANINGS] + [0.1]


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        server.embed = meaning
        yield server


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Open]:
    """Opens the library with a model of a server."""
    libraries: list[Library] = []

    async def open_(base_url: str, **more: Any) -> Library:
        settings = DocumentSettings(**{"embeddings": "meanings", "base_url": base_url} | more)
        embedder = Embedder(settings.source, partial(build_embeddings, settings, SecretStr(KEY)))
        made = partial(PassageVectors, embedder=embedder, least=settings.similarity)
        library = Library(tmp_path / "library.db", vectors=made)
        libraries.append(library)
        await library.open()
        return library

    yield open_
    for library in libraries:
        await library.close()


def counted(tmp_path: Path, table: str = "vectors") -> int:
    with closing(sqlite3.connect(tmp_path / "library.db")) as db:
        return int(db.execute(f"SELECT count(*) FROM {table}").fetchone()[0])


async def names(library: Library, text: str, owner: str = "anna") -> list[str]:
    return [found.document for found in await library.find(owner, text, 4)]


async def test_words_and_vectors_are_joined(server: OpenAIServer, opened: Open, tmp_path: Path) -> None:
    library = await opened(server.base_url)
    await library.add("anna", "pets.txt", b"My kitten is asleep.")
    await library.add("anna", "garage.txt", b"The automobile needs oil.")
    await library.add("anna", "notes.txt", b"A word about the feline engine, a cat and nothing else.")
    await library.add("otto", "secret.txt", b"Another kitten, which is not yours.")
    await until(lambda: counted(tmp_path) == 4, 60)
    assert await names(library, "Where is the cat?") == ["notes.txt", "pets.txt"]
    assert await names(library, "car") == ["garage.txt", "notes.txt"]
    assert await names(library, "bread") == [], "nothing is similar, and no word matches"
    assert await names(library, "kitten", "otto") == ["secret.txt"]
    found = await library.search("anna", "automobiles and cars")
    assert [one.document for one in found] == ["garage.txt", "notes.txt"]
    assert found[0].place == "section 1" and found[0].text == "The automobile needs oil."


async def test_a_server_without_base64_and_google(server: OpenAIServer, opened: Open, tmp_path: Path) -> None:
    server.packs = False
    library = await opened(server.base_url)
    await library.add("anna", "pets.txt", b"My kitten is asleep.")
    await until(lambda: counted(tmp_path) == 1, 60)
    assert await names(library, "cat") == ["pets.txt"]
    (request,) = [one for one in server.requests if one.body["input"] == ["My kitten is asleep."]]
    assert request.headers["authorization"] == f"Bearer {KEY}"
    with GeminiServer() as google:
        google.embed = meaning
        other = await opened(google.url, kind="gemini", embeddings="gemini-embedding-001")
        await until(lambda: any("kitten" in json.dumps(one.body) for one in google.requests), 60)
        await until(lambda: counted(tmp_path) == 1, 60)
        assert await names(other, "cat") == ["pets.txt"]
        assert google.requests[0].headers["x-goog-api-key"] == KEY
        await other.close()


@pytest.mark.parametrize(("kind", "make"), [("openai", OpenAIServer), ("gemini", GeminiServer)])
async def test_redirects_get_neither_texts_nor_the_key(
    server: OpenAIServer, opened: Open, caplog: pytest.LogCaptureFixture, kind: str, make: type[Any]
) -> None:
    with make() as redirecting:
        redirecting.embed = Raw("", 307, "text/plain", f"{server.url}/v1/embeddings")
        library = await opened(redirecting.url + ("/v1" if kind == "openai" else ""), kind=kind)
        await library.add("anna", "pets.txt", b"My kitten is asleep.")
        await until(lambda: "failed: " in caplog.text, 60)
        assert redirecting.requests and not server.requests
        await library.close()


async def test_passages_are_sent_in_batches_and_the_upload_does_not_wait(
    server: OpenAIServer, opened: Open, tmp_path: Path
) -> None:
    server.embed = Hang()
    library = await opened(server.base_url)
    begun = time.monotonic()
    added = await library.add("anna", "long.txt", b"\n\n".join(b"%d " % i + b"kitten " * 110 for i in range(40)))
    assert time.monotonic() - begun < 5
    assert await names(library, "kitten") == ["long.txt"] * 4, "it is found by its words meanwhile"
    await library.close()
    server.embed = meaning
    server.requests.clear()
    again = await opened(server.base_url)
    await until(lambda: counted(tmp_path) == added.passages, 60)
    assert [len(one.body["input"]) for one in server.requests] == [16, 16, added.passages - 32]
    await again.remove("anna", added.id)
    assert counted(tmp_path) == 0


async def test_another_model_makes_all_vectors_again(server: OpenAIServer, opened: Open, tmp_path: Path) -> None:
    library = await opened(server.base_url)
    await library.add("anna", "pets.txt", b"My kitten is asleep.")
    await until(lambda: counted(tmp_path) == 1, 60)
    await library.close()
    server.embed = lambda text: [*meaning(text), 0.2]
    other = await opened(server.base_url, embeddings="longer")
    await until(lambda: any(one.body["model"] == "longer" for one in server.requests), 60)
    await until(lambda: counted(tmp_path) == 1, 60)
    assert await names(other, "cat") == ["pets.txt"]


async def test_searches_send_little_and_only_for_owners_of_documents(
    server: OpenAIServer, opened: Open, tmp_path: Path
) -> None:
    library = await opened(server.base_url)
    await library.add("anna", "pets.txt", b"My kitten is asleep.")
    await until(lambda: counted(tmp_path) == 1, 60)
    server.requests.clear()
    assert await names(library, "secret cat", "otto") == [] and await library.search(None, "secret cat") == []
    assert server.requests == []
    await names(library, "cat " * 5000)
    (request,) = server.requests
    assert len(request.body["input"][0]) == 2000


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (BAD_KEY, "AuthenticationError, HTTP 401"),
        (BROKEN, "InternalServerError, HTTP 500"),
        (Raw(), "AttributeError"),
    ],
)
async def test_failures_fall_back_to_words_and_are_logged_once(
    server: OpenAIServer,
    opened: Open,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    answer: Any,
    reason: str,
) -> None:
    monkeypatch.setattr(vectors_module, "_PAUSES_S", (0.05, 0.05))
    server.embed = answer
    library = await opened(server.base_url)
    await library.add("anna", "pets.txt", b"My kitten is asleep.")
    await until(lambda: len(server.requests) >= 3, 60)
    assert await names(library, "kitten") == ["pets.txt"]
    said = [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING]
    assert said == [
        f"the embeddings of openai {server.base_url} meanings failed: {reason}. Documents are searched by words."
    ]
    assert KEY not in caplog.text and "kitten" not in caplog.text
    server.embed = meaning
    await until(lambda: counted(tmp_path) == 1, 60)
    assert await names(library, "cat") == ["pets.txt"], "it works again by itself"


@pytest.mark.parametrize(
    "vector",
    [
        [],
        [0.0, 0.0],
        [math.inf, 1.0],
        [1e300, 1.0],
        [0.1] * (MOST_DIMENSIONS + 1),
        [[0.1]],
        ["a"],
        None,
    ],
)
async def test_answers_that_are_no_vectors_are_refused(vector: Any) -> None:
    with pytest.raises((ValueError, TypeError)):
        embedder_module._packed([vector], 1)
    with pytest.raises(ValueError, match="no vectors"):
        embedder_module._packed([[0.1], [0.2]], 1)


@pytest.mark.parametrize("status", [400, 500])
async def test_rejected_document_does_not_stop_the_others(
    server: OpenAIServer,
    opened: Open,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    status: int,
) -> None:
    monkeypatch.setattr(vectors_module, "_PAUSES_S", (0.05, 0.05))
    server.embed = lambda text: Fail(status, None, "too odd: {model}") if "odd" in text else meaning(text)
    library = await opened(server.base_url)
    await library.add("anna", "odd.txt", b"My kitten is odd.")
    await library.add("anna", "pets.txt", b"My kitten is asleep.")
    await until(lambda: counted(tmp_path) == 1, 60)
    assert caplog.text.count("rejects a document") == 1
    assert [one.body["input"] for one in server.requests] == [
        *[["My kitten is odd."]] * 3,
        ["This is a text."],
        ["My kitten is odd."],
        ["My kitten is asleep."],
    ]
    assert sorted(await names(library, "kitten")) == ["odd.txt", "pets.txt"]


async def test_model_that_rejects_all_texts_gets_them_again(
    server: OpenAIServer,
    opened: Open,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(vectors_module, "_PAUSES_S", (0.05, 0.05))
    server.embed = Fail(400, None, "a wrong key, which Google answers with 400")
    library = await opened(server.base_url)
    await library.add("anna", "pets.txt", b"My kitten is asleep.")
    await until(lambda: len(server.requests) >= 8, 60)
    assert "rejects a document" not in caplog.text
    server.embed = meaning
    await until(lambda: counted(tmp_path) == 1, 60)


async def test_passages_of_earlier_versions_wait_until_they_are_moved(
    server: OpenAIServer, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_module, "_MIGRATION_S", 0.0)
    with closing(sqlite3.connect(tmp_path / "library.db")) as db, db:
        db.executescript(EARLIER)
        db.execute("INSERT INTO documents VALUES ('d', 'anna', 'pets.txt', 'x', 1, 600, 6000)")
        rows = [(i, f"cat {i}", "", "section 1", "d") for i in range(1, 601)]
        db.executemany("INSERT INTO passages (rowid, text, heading, place, document) VALUES (?, ?, ?, ?, ?)", rows)
    library = await opened(server.base_url)
    await until(lambda: counted(tmp_path) == 600, 60)
    sent = [text for one in server.requests for text in one.body["input"]]
    assert sent == [f"cat {i}" for i in range(1, 601)]
    await library.close()


async def test_server_that_hangs_costs_a_search_little(
    server: OpenAIServer, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = await opened(server.base_url)
    await library.add("anna", "pets.txt", b"My kitten is asleep.")
    await until(lambda: counted(tmp_path) == 1, 60)
    monkeypatch.setattr(embedder_module, "_QUERY_S", 0.5)
    server.embed = Hang()
    server.requests.clear()
    begun = time.monotonic()
    found = await asyncio.gather(*(names(library, f"kitten {i}") for i in range(30)))
    assert found == [["pets.txt"]] * 30
    assert await names(library, "kitten") == ["pets.txt"]
    assert time.monotonic() - begun < 10 and len(server.requests) <= 8


async def test_numbers_of_vectors_are_bounded(
    server: OpenAIServer, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vectors_module, "_OWNER_VECTORS", 16)
    monkeypatch.setattr(vectors_module, "_ALL_VECTORS", 48)
    monkeypatch.setattr(vectors_module, "_ROWS", 5)
    long = b"\n\n".join(b"%d " % i + b"kitten " * 110 for i in range(40))
    library = await opened(server.base_url)
    for owner in ("anna", "otto", "emil", "ida"):
        await library.add(owner, "long.txt", long)
    await until(lambda: counted(tmp_path) == 48, 60)
    await asyncio.sleep(0.3)
    assert counted(tmp_path) == 48, "three owners have vectors, of 16 passages each"
    assert await names(library, "cat") == ["long.txt"] * 4
    assert await names(library, "cat", "ida") == []


def test_reciprocal_rank_fusion() -> None:
    a, b, c = (Passage(name, "1", name, 5.0) for name in "abc")
    assert [one.document for one in fuse([[a, b], [b, c]], 4)] == ["b", "a", "c"]
    assert fuse([[a], []], 4)[0].score == pytest.approx(1 / 61)
    assert len(fuse([[a, b, c]], 2)) == 2 and fuse([], 4) == []


async def test_store_is_searched_asynchronously_alone(tmp_path: Path) -> None:
    library = Library(tmp_path / "library.db")
    made = PassageVectors(library._database, Embedder("none", lambda: pytest.fail("not needed")), 0.3)
    assert await made.asimilarity_search("cat", owner="anna") == []
    with pytest.raises(NotImplementedError, match="asimilarity_search"):
        made.similarity_search("cat")
    with pytest.raises(NotImplementedError, match="library"):
        PassageVectors.from_texts([], None)  # type: ignore[arg-type]
    await library.close()


async def test_app_uses_the_model_of_the_settings(server: OpenAIServer, tmp_path: Path) -> None:
    documents = DocumentSettings(embeddings="meanings", base_url=server.base_url)
    with live_api(tmp_path, documents=documents) as app:
        async with client_of(app) as client:
            await client.post("/documents", params={"name": "pets.txt"}, content=b"My kitten is asleep.")
            await until(lambda: counted(tmp_path) == 1, 60)
            answer = await client.post("/context", json={"message": "Where is the cat?", "tools": []})
    assert "My kitten is asleep." in json.dumps(answer.json())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('base_url = "http://h/v1"', "base_url: has no effect without `embeddings`"),
        ('embeddings = "m"', "the variable OPENAI_API_KEY with the key is not set; set it"),
        ('embeddings = "m"\nkind = "gemini"', "the variable GOOGLE_API_KEY with the key is not set; set it"),
        ('embeddings = "m"\nkey = "sk-of-mine"', "never the key"),
        ('embeddings = "m"\nbase_url = "http://a:of-mine@h/"', "not a valid address"),
        ('embeddings = "m"\nsimilarity = 2.0', "similarity"),
        ('embeddings = "m"\nkind = "other"', "'openai' or 'gemini'"),
    ],
)
def test_wrong_settings_stop_the_start(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "glassbox.toml"
    file.write_text(f"[documents]\n{text}\n")
    with pytest.raises(SettingsError) as error:
        load_settings({"config": str(file)}, {})
    assert message in str(error.value)
    assert "of-mine" not in str(error.value)
