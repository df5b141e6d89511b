"""The library: which documents are stored, what a search finds, and who finds it."""

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from documents import database, index
from documents import library as module
from documents.library import GUIDE as OWN_GUIDE
from documents.library import DocumentLimits, Library
from runs.errors import ChatError
from tests.conftest import until
from tests.pdfs import SLOW, pdf, written
from tests.scripts import HELD, UNLIKE

GUIDE = (
    "# Title\n\nAbout parrots.\n\n## Install it\n\nType make.\n\n```\n# not a heading\n```\n\n## Empty\n## Last\nEnd.\n"
)


@pytest.fixture
async def library(tmp_path: Path) -> AsyncIterator[Library]:
    (tmp_path / "GUIDE.md").write_text(GUIDE, encoding="utf-8")
    library = Library(tmp_path / "library.db", [tmp_path / "GUIDE.md"])
    await library.open()
    yield library
    await library.close()


async def reopen(library: Library) -> None:
    await library.close()
    await library.open()


async def places(library: Library, words: str, owner: str | None = "anna") -> list[tuple[str, str]]:
    return [(found.document, found.place) for found in await library.search(owner, words)]


async def texts(library: Library, words: str, owner: str | None = "anna") -> list[str]:
    return [found.text for found in await library.search(owner, words)]


async def names(library: Library, owner: str | None = "anna") -> list[str]:
    return [document.name for document in await library.documents(owner)]


async def refused(
    library: Library, name: str, data: bytes, code: str, owner: str = "anna", address: str | None = None
) -> str:
    """The message of the error; what the owner has stays as it is."""
    before = await library.documents(owner)
    with pytest.raises(ChatError) as error:
        await library.add(owner, name, data, address)
    assert error.value.code == code
    assert await library.documents(owner) == before
    return error.value.message


def other_connection(tmp_path: Path) -> "closing[sqlite3.Connection]":
    return closing(sqlite3.connect(tmp_path / "library.db"))


async def test_document_is_found_by_its_words(library: Library) -> None:
    made = await library.add("anna", "notes.txt", b"The cats were sleeping.")
    assert (made.name, made.passages, made.characters) == ("notes.txt", 1, 23)
    assert await library.documents("anna") == [made]
    (found,) = await library.search("anna", "cat sleeps")  # of the same stems
    assert (found.document, found.place, found.text) == ("notes.txt", "section 1", "The cats were sleeping.")
    assert found.score > 0
    assert await library.search("anna", "dog") == []


async def test_last_word_can_be_a_prefix(library: Library) -> None:
    await library.add("anna", "notes.txt", b"An extraordinary day.")
    assert await texts(library, "extraor") == ["An extraordinary day."]
    assert await texts(library, "extraor zebra") == []


@pytest.mark.parametrize("case", HELD)
async def test_every_script_is_found_by_its_words(library: Library, case: str) -> None:
    text, word = HELD[case]
    await library.add("anna", "notes.txt", text.encode())
    assert await texts(library, word) == [text]  # as it was written


@pytest.mark.parametrize("case", UNLIKE)
async def test_similar_words_are_not_found(library: Library, case: str) -> None:
    text, word = UNLIKE[case]
    await library.add("anna", "notes.txt", text.encode())
    assert await library.search("anna", word) == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Ein CAFÉ in Zürich", "cafe zurich"),
        ("灯塔守卫者看见了鲸鱼。", "鲸鱼在哪里唱歌"),  # a sentence without blanks
        ("京都 の寺\n\n東京都 の寺", "東京都"),
    ],
)
async def test_accents_case_and_blanks_make_no_difference(library: Library, text: str, words: str) -> None:
    await library.add("anna", "notes.txt", text.encode())
    assert await texts(library, words) == [text]


EARLIER = """
CREATE TABLE documents (
    id TEXT PRIMARY KEY, owner TEXT, name TEXT NOT NULL, digest TEXT NOT NULL,
    first INTEGER NOT NULL, size INTEGER NOT NULL, characters INTEGER NOT NULL
);
CREATE TABLE uses (owner TEXT PRIMARY KEY, at REAL NOT NULL);
CREATE VIRTUAL TABLE passages USING fts5(
    text, heading, place UNINDEXED, document UNINDEXED, tokenize = 'porter unicode61 remove_diacritics 2'
);
"""
"""The tables of the version before texts were split into terms."""


@pytest.mark.parametrize("waits", [True, False])
async def test_documents_of_an_earlier_version_are_migrated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    with other_connection(tmp_path) as db, db:
        db.executescript(EARLIER)
        for n in range(3):
            first = n * 300 + 1
            rows = [(first + i, f"灯塔守卫者看见了鲸鱼 {n}", "", "section 1", f"d{n}") for i in range(300)]
            db.execute("INSERT INTO documents VALUES (?, 'anna', ?, 'x', ?, 300, 3000)", (f"d{n}", f"{n}.txt", first))
            db.executemany("INSERT INTO passages (rowid, text, heading, place, document) VALUES (?, ?, ?, ?, ?)", rows)
        db.execute("DELETE FROM documents WHERE id = 'd1'")
    monkeypatch.setattr(module, "_MIGRATION_S", 5.0 if waits else 0.0)
    library = Library(tmp_path / "library.db")
    await library.open()
    if not waits:
        await library.remove("anna", "d0")  # before its migration
        await library.add("anna", "new.txt", "看见".encode())
        assert library._migration
        await library._migration
    kept, passages = (["0.txt", "2.txt"], 600) if waits else (["2.txt", "new.txt"], 300)
    assert await names(library) == kept
    assert {one.document for one in await library.search("anna", "看见", 1000)} == set(kept)
    assert len(await library.search("anna", "鲸鱼", 1000)) == passages
    await reopen(library)
    assert library._migration is None or library._migration.done()
    assert len(await library.search("anna", "鲸鱼", 1000)) == passages
    await library.close()


async def test_passage_with_more_words_ranks_higher(library: Library) -> None:
    paragraphs = [f"A red ball. {'x ' * 350}", f"A red house in red. {'y ' * 350}", f"A green house. {'z ' * 350}"]
    await library.add("anna", "things.txt", "\n\n".join(paragraphs).encode())
    assert (await places(library, "red house"))[0] == ("things.txt", "section 2")
    assert len(await library.search("anna", "red house")) == 3
    assert len(await library.search("anna", "red house", most=1)) == 1


@pytest.mark.parametrize("owner", [None, "anna"])
async def test_everyone_finds_the_guide_by_its_headings(library: Library, owner: str | None) -> None:
    headings = {"parrot": "Title", "install": "Install it", "not a heading": "Install it", "empty": "Empty"}
    for words, heading in headings.items():
        assert await places(library, words, owner) == [("GUIDE.md", heading)]
    (guide,) = await library.documents(None)
    assert (guide.name, await library.documents("anna")) == ("GUIDE.md", [])
    with pytest.raises(ChatError, match="not yours"):
        await library.remove("anna", guide.id)


async def test_guide_is_indexed_again_only_after_a_change(library: Library, tmp_path: Path) -> None:
    before = await library.documents(None)
    await reopen(library)
    assert await library.documents(None) == before
    (tmp_path / "GUIDE.md").write_text("About lions.", encoding="utf-8")
    await reopen(library)
    assert await places(library, "parrots lion") == [("GUIDE.md", "section 1")]
    (tmp_path / "GUIDE.md").unlink()
    await reopen(library)
    assert await places(library, "lion") == [("GUIDE.md", "section 1")]


async def test_own_guide_answers_a_question(tmp_path: Path) -> None:
    library = Library(tmp_path / "library.db", OWN_GUIDE)
    assert [document.name for document in await library.documents(None)] == [file.name for file in OWN_GUIDE]
    assert {file for file, _ in await places(library, "which backends are there", None)} & {"README.md", "backends.md"}
    assert "bounds.md" in {file for file, _ in await places(library, "documents of a visitor", None)}
    assert await library.search(None, "sdk_version") == []  # of the front matter, which is for the Space
    await library.close()


async def test_documents_are_private(library: Library) -> None:
    annas, bens = [await library.add(owner, "a.txt", f"a secret of {owner}".encode()) for owner in ("anna", "ben")]
    for owner, found in (("anna", ["a secret of anna"]), ("ben", ["a secret of ben"]), (None, [])):
        assert await texts(library, "secret", owner) == found
    with pytest.raises(ChatError) as error:
        await library.remove("anna", bens.id)
    assert error.value.code == "not_found"
    await library.remove("anna", annas.id)
    assert (await library.documents("anna"), await library.documents("ben")) == ([], [bens])
    assert (await texts(library, "secret", "anna"), await texts(library, "secret", "ben")) == ([], ["a secret of ben"])


async def test_same_name_replaces_a_document(library: Library) -> None:
    for number in range(3):
        await library.add("anna", "a.txt", f"version {number}".encode())
    await library.add("anna", "b.txt", b"another")
    assert await names(library) == ["a.txt", "b.txt"]
    assert await texts(library, "version") == ["version 2"]


async def test_documents_survive_a_restart(library: Library) -> None:
    made = await library.add("anna", "a.txt", b"kept for long")
    await reopen(library)
    assert await library.documents("anna") == [made]
    assert await places(library, "kept") == [("a.txt", "section 1")]


async def test_name_is_never_a_path(tmp_path: Path) -> None:
    library = Library(tmp_path / "folder" / "library.db")
    for name in ("../../x.txt", "/etc/x.txt", "C:\\Users\\anna\\x.txt"):
        assert (await library.add("anna", name, b"text")).name == "x.txt"
    await library.close()
    assert [file for _, _, files in os.walk(tmp_path) for file in files] == ["library.db"]


@pytest.mark.parametrize(
    ("name", "data", "code", "message"),
    [
        ("a.png", b"text", "invalid_request", "allowed are files that end in"),
        ("a.pdf", b"text", "invalid_request", "cannot be read"),
        ("a.txt", b"", "invalid_request", "no text"),
        ("a.txt", b"x" * 2001, "too_large", "at most 0.002 MB"),
        ("a.txt", b"x" * 501, "too_large", "at most 500 characters"),
        ("a.pdf", pdf(*[b""] * 3), "invalid_request", "more than 2 pages"),
    ],
)
async def test_rejected_file_leaves_nothing(library: Library, name: str, data: bytes, code: str, message: str) -> None:
    library.limits = DocumentLimits(file_bytes=2000, pages=2, characters=500)
    assert message in await refused(library, name, data, code)


async def test_number_of_documents_is_limited(library: Library) -> None:
    library.limits = DocumentLimits(documents=2)
    for name in ("a.txt", "b.txt", "b.txt"):
        await library.add("anna", name, b"text")
    message = await refused(library, "c.txt", b"text", "invalid_request")
    assert "at most 2 documents. Remove one first" in message
    assert len(await library.documents("anna")) == 2
    await library.add("ben", "c.txt", b"text")


async def test_total_of_all_owners_is_limited(library: Library) -> None:
    """The guide is not counted."""
    library.limits = DocumentLimits(total_characters=100)
    annas = await library.add("anna", "a.txt", b"a" * 60)
    for owner, name, size in (("ben", "b.txt", 41), ("anna", "b.txt", 41), ("anna", "a.txt", 101)):
        message = await refused(library, name, b"b" * size, "too_large", owner)
        assert "library is full. Tell the operator of this app" in message
    assert (await library.documents("anna"), await library.documents("ben")) == ([annas], [])
    assert await places(library, "a" * 60) == [("a.txt", "section 1")]  # it was not replaced
    bens = await library.add("ben", "b.txt", b"b" * 40)
    await library.add("anna", "a.txt", b"c" * 60)
    await library.remove("ben", bens.id)
    adding = (library.add(owner, "d.txt", b"d" * 40) for owner in ("anna", "ben"))
    added = await asyncio.gather(*adding, return_exceptions=True)
    assert sum(isinstance(one, ChatError) for one in added) == 1


async def test_totals_of_an_owner_and_an_address_are_limited(tmp_path: Path) -> None:
    limits = DocumentLimits(owner_characters=100, address_documents=3, address_characters=150)
    library = Library(tmp_path / "library.db", limits=limits, salt=b"of the tests")
    here, there = "192.0.2.1", "192.0.2.2"

    async def error(owner: str, size: int) -> str:
        return await refused(library, "b.txt", b"x" * size, "too_large", owner, here)

    annas = await library.add("anna", "a.txt", b"a" * 60, here)
    message = await error("anna", 41)
    assert "100 characters" in message and "101. Remove one first" in message and "at most" not in message
    assert "your address" in await error("ben", 91)
    await library.add("anna", "a.txt", b"c" * 100, here)  # replaces the first
    assert "your address" in await error("ben", 51)
    await library.add("ben", "b.txt", b"b" * 20, here)
    await library.add("zoe", "b.txt", b"b" * 20, here)
    assert "your address" in await error("tom", 1)  # three documents
    await library.add("tom", "b.txt", b"b" * 100, there)
    await library.add("tim", "b.txt", b"b" * 100, None)  # of an unknown address
    (bens,) = await library.documents("ben")
    await library.remove("ben", bens.id)
    await library.add("eve", "b.txt", b"b" * 20, here)
    assert annas.id not in [document.id for document in await library.documents("anna")]
    await library.close()
    assert here.encode() not in (tmp_path / "library.db").read_bytes(), "no address is stored"


async def test_pdf_is_found_by_its_pages(library: Library) -> None:
    made = await library.add("anna", "a.pdf", pdf(written("All about whales"), b"", written("Then some dolphins")))
    assert made.passages == 2
    assert await places(library, "dolphin") == [("a.pdf", "page 3")]


async def test_concurrent_uploads_are_all_stored(library: Library) -> None:
    files = [("a.pdf", pdf(written("whales"))), *((f"{n}.txt", b"whales") for n in range(10))]
    made = await asyncio.gather(*(library.add(owner, *file) for owner in ("anna", "ben") for file in files))
    assert len({document.id for document in made}) == 22
    for owner in ("anna", "ben"):
        assert len(await library.documents(owner)) == 11
        assert len(await library.search(owner, "whales", 100)) == 11


async def test_a_text_does_not_wait_for_pdfs(library: Library) -> None:
    adding = [asyncio.create_task(library.add(f"owner {n}", f"{n}.pdf", SLOW)) for n in range(5)]
    await until(lambda: len(library._pdfs._children._running) == 2)
    await library.add("anna", "a.txt", b"text")
    assert not any(task.done() for task in adding) and await names(library) == ["a.txt"]
    for task in adding[1:]:
        task.cancel()
    await library.close()  # which does not wait for a PDF either
    with pytest.raises(ChatError, match="cannot be read"):
        await adding[0]


async def test_broken_database_is_reported_and_retried(tmp_path: Path) -> None:
    path = tmp_path / "library.db"
    path.write_bytes(b"no database" * 1000)
    library = Library(path)
    await library.open()
    for use in (library.search("anna", "x"), library.add("anna", "a.txt", b"x"), library.documents("anna")):
        with pytest.raises(ChatError) as error:
            await use
        assert (error.value.code, error.value.retryable) == ("internal", True)
        assert str(tmp_path) not in error.value.message
    path.unlink()
    await library.add("anna", "a.txt", b"x")
    assert len(await library.search("anna", "x")) == 1
    await library.close()


async def test_locked_database_is_reported(library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_BUSY_S", 0.1)
    await reopen(library)
    with other_connection(tmp_path) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ChatError, match="not available right now"):
            await library.add("anna", "a.txt", b"x")
    await library.add("anna", "a.txt", b"x")


async def test_search_succeeds_if_its_use_cannot_be_stored(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BUSY_S", 0.01)
    monkeypatch.setattr(module, "_PENDING_USES", 3)
    await library.close()
    await library.add("anna", "a.txt", b"whales sing")
    begun = time.time()
    with other_connection(tmp_path) as other:
        other.execute("BEGIN IMMEDIATE")
        for n in range(12):
            await library.search(f"visitor {n}", "whales")
        assert await places(library, "whales") == [("a.txt", "section 1")]
        assert list(library._uses) == ["visitor 10", "visitor 11", "anna"]
    await library.forget_idle(begun)
    assert len(await library.documents("anna")) == 1, "the use was stored later"


async def test_searches_wait_neither_for_a_writer_nor_for_each_other(library: Library, tmp_path: Path) -> None:
    await library.add("anna", "a.txt", b"whales sing")
    with other_connection(tmp_path) as other:
        other.execute("BEGIN IMMEDIATE")
        assert await places(library, "whales") == [("a.txt", "section 1")]
        assert len(await library.documents("anna")) == 1
    together = threading.Barrier(database._READERS)
    await asyncio.gather(*(library._database.read(lambda db: together.wait(20)) for _ in range(database._READERS)))


async def test_slow_search_times_out(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    monkeypatch.setattr(database, "_READ_S", 0.05)
    with pytest.raises(ChatError, match="fewer or rarer words") as error:
        await library._database.read(lambda db: db.execute(endless).fetchone())
    assert error.value.code == "timeout"
    monkeypatch.undo()
    assert await places(library, "parrots") == [("GUIDE.md", "Title")]


async def test_cost_of_a_search_does_not_depend_on_other_owners(library: Library, tmp_path: Path) -> None:
    def steps() -> int:
        counted = list[None]()
        with other_connection(tmp_path) as db:
            db.set_progress_handler(lambda: counted.append(None), 10)
            assert len(index.search(db, index.build_queries("common words of all"), "anna", 5)) == 1
        return len(counted)

    await library.add("anna", "a.txt", b"common words of Anna")
    before = steps()
    for number in range(3):
        await library.add("ben", f"{number}.txt", b"\n\n".join([b"common words of Ben " * 30] * 200))
    assert steps() <= 3 * before


async def test_sqlite_without_full_text_search_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "TABLES", "CREATE VIRTUAL TABLE x USING fts0(text);")
    library = Library(tmp_path / "library.db")
    await library.open()
    with pytest.raises(ChatError, match="FTS5"):
        await library.search(None, "x")


async def test_failed_insert_is_rolled_back(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    await library.add("anna", "a.txt", b"earlier")

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(index, "insert", fail)
        with pytest.raises(ChatError):
            await library.add("anna", "a.txt", b"later")
    assert await places(library, "earlier") == [("a.txt", "section 1")]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Library]:
    """One library for many examples."""
    library = Library(tmp_path_factory.mktemp("library") / "library.db", OWN_GUIDE)
    asyncio.run(library.add("anna", "a.txt", b"AND OR NOT NEAR text heading a secret"))
    yield library
    asyncio.run(library.close())


@given(st.text() | st.text(alphabet='"*^:{}()+-, ANDORTEXtext._\n', max_size=40))
@example("")
@example('"')
@example("text: AND NEAR(a b, 2) NOT {heading}: ^secret*")
@example("\0 \ud800 _ ____ ' '' \" x'")
@example("word " * 10_000)
@example("x" * 100_000)
def test_search_accepts_any_text(shared: Library, words: str) -> None:
    found = asyncio.run(shared.search("anna", words))
    assert len(found) <= 5
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    if not any(c.isalnum() for c in words):
        assert found == []


def test_operators_in_a_query_have_no_effect(shared: Library) -> None:
    for words in ("NOT secret", "nothing AND secret", "heading: secret", "(secret", '"secret', "secret*", "^ secret"):
        assert "a.txt" in [one.document for one in asyncio.run(shared.search("anna", words))]


@settings(max_examples=15)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["x.txt", "y.md"]), st.booleans()), max_size=8))
def test_owners_never_see_each_others_documents(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, str, bool]]
) -> None:
    async def scenario() -> None:
        library = Library(tmp_path_factory.mktemp("library") / "library.db")
        kept: dict[tuple[str, str], str] = {}
        for number, (owner, name, adds) in enumerate(steps):
            if adds:
                kept[owner, name] = text = f"common words of {owner} {name} {number}"
                await library.add(owner, name, text.encode())
            elif (owner, name) in kept:
                (there,) = [one for one in await library.documents(owner) if one.name == name]
                await library.remove(owner, there.id)
                del kept[owner, name]
        for owner in "abc":
            expected = sorted(text for (whose, _), text in kept.items() if whose == owner)
            assert sorted(one.text for one in await library.search(owner, "common words", 100)) == expected
            assert sorted(await names(library, owner)) == sorted(name for whose, name in kept if whose == owner)
        assert await library.search(None, "common words") == []
        await library.close()

    asyncio.run(scenario())


async def test_documents_of_idle_owners_are_removed(tmp_path: Path) -> None:
    library = Library(tmp_path / "library.db")
    await library.open()
    for owner in ("anna", "ben"):
        await library.add(owner, "a.txt", b"whales sing")
    later = time.time()
    await asyncio.sleep(0.01)
    assert await library.search("ben", "whales")
    await library.forget_idle(later)
    assert (await library.documents("anna"), len(await library.documents("ben"))) == ([], 1)
    assert await library.search("anna", "whales") == []
    await library.close()
    with other_connection(tmp_path) as db, db:
        db.execute("DELETE FROM uses")  # earlier versions stored none
    await library.forget_idle(later)
    assert len(await library.documents("ben")) == 1
    await library.close()
