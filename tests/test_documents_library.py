"""The library: what is taken in, what is found, and by whom."""

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
from documents.library import DocumentLimits, Library
from documents.parsing import ParsedFile
from runs.errors import ChatError
from tests.conftest import until
from tests.scripts import HELD, UNLIKE
from tests.test_documents_parsing import packed, pdf, written

README = Path(__file__).parent.parent / "README.md"
GUIDE = (
    "# Title\n\nAbout parrots.\n\n## Install it\n\nType make.\n\n```\n# not a heading\n```\n\n## Empty\n## Last\nEnd.\n"
)


@pytest.fixture
async def library(tmp_path: Path) -> AsyncIterator[Library]:
    (tmp_path / "GUIDE.md").write_text(GUIDE, encoding="utf-8")
    library = Library(tmp_path / "folder" / "library.db", tmp_path / "GUIDE.md")
    await library.open()
    yield library
    await library.close()


async def places(library: Library, words: str, owner: str | None = "anna") -> list[tuple[str, str]]:
    return [(found.document, found.place) for found in await library.search(owner, words)]


async def refused(library: Library, name: str, data: bytes, code: str = "invalid_request") -> str:
    with pytest.raises(ChatError) as error:
        await library.add("anna", name, data)
    assert error.value.code == code
    assert await library.documents("anna") == []
    return error.value.message


async def test_a_document_is_found_by_its_words(library: Library) -> None:
    made = await library.add("anna", "notes.txt", b"The cats were sleeping.")
    assert (made.name, made.passages, made.characters) == ("notes.txt", 1, 23)
    assert await library.documents("anna") == [made]
    (found,) = await library.search("anna", "cat sleeps")  # of the same stems
    assert (found.document, found.place, found.text) == ("notes.txt", "section 1", "The cats were sleeping.")
    assert found.score > 0
    assert await library.search("anna", "dog") == []


async def test_the_last_word_may_be_a_beginning(library: Library) -> None:
    await library.add("anna", "notes.txt", b"An extraordinary day.")
    assert await places(library, "extraor") == [("notes.txt", "section 1")]
    assert await places(library, "extraor zebra") == []


async def test_accents_and_case_make_no_difference(library: Library) -> None:
    await library.add("anna", "notes.txt", "Ein CAFÉ in Zürich".encode())
    assert await places(library, "cafe zurich") == [("notes.txt", "section 1")]


@pytest.mark.parametrize("case", HELD)
async def test_every_script_is_found_by_its_words(library: Library, case: str) -> None:
    text, word = HELD[case]
    await library.add("anna", "notes.txt", text.encode())
    (found,) = await library.search("anna", word)
    assert found.text == text  # as it was written


@pytest.mark.parametrize("case", UNLIKE)
async def test_what_only_looks_alike_is_not_found(library: Library, case: str) -> None:
    text, word = UNLIKE[case]
    await library.add("anna", "notes.txt", text.encode())
    assert await library.search("anna", word) == []


async def test_a_sentence_without_blanks_finds_what_has_its_words(library: Library) -> None:
    await library.add("anna", "a.txt", "灯塔守卫者看见了鲸鱼。".encode())
    await library.add("anna", "b.txt", "\n\n".join(["京都 の寺", "東京都 の寺"]).encode())
    assert await places(library, "鲸鱼在哪里唱歌") == [("a.txt", "section 1")]
    assert [one.text for one in await library.search("anna", "東京都")] == ["京都 の寺\n\n東京都 の寺"]


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
"""The tables of the version before texts were cut into segments."""


@pytest.mark.parametrize("waits", [True, False])
async def test_documents_of_an_earlier_version_are_found_in_every_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    with closing(sqlite3.connect(tmp_path / "library.db")) as db, db:
        db.executescript(EARLIER)
        for n in range(3):
            rows = [(n * 300 + i + 1, f"灯塔守卫者看见了鲸鱼 {n}", "", "section 1", f"d{n}") for i in range(300)]
            db.execute(
                "INSERT INTO documents VALUES (?, 'anna', ?, 'x', ?, 300, 3000)", (f"d{n}", f"{n}.txt", n * 300 + 1)
            )
            db.executemany("INSERT INTO passages (rowid, text, heading, place, document) VALUES (?, ?, ?, ?, ?)", rows)
        db.execute("DELETE FROM documents WHERE id = 'd1'")
    monkeypatch.setattr(module, "_MOVING_S", 5.0 if waits else 0.0)
    library = Library(tmp_path / "library.db")
    await library.open()
    if not waits:
        await library.remove("anna", "d0")  # before it has been indexed anew
        await library.add("anna", "new.txt", "看见".encode())
        assert library._moving
        await library._moving
    names = ["2.txt", "new.txt"] if not waits else ["0.txt", "2.txt"]
    assert [one.name for one in await library.documents("anna")] == names
    assert {one.document for one in await library.search("anna", "看见", 1000)} == set(names)
    assert len(await library.search("anna", "鲸鱼", 1000)) == (300 if not waits else 600)
    await library.close()
    await library.open()
    assert library._moving is None or library._moving.done()
    assert len(await library.search("anna", "鲸鱼", 1000)) == (300 if not waits else 600)
    await library.close()


async def test_the_passage_with_more_of_the_words_comes_first(library: Library) -> None:
    text = "\n\n".join(
        [f"A red ball. {'x ' * 350}", f"A red house in red. {'y ' * 350}", f"A green house. {'z ' * 350}"]
    )
    await library.add("anna", "things.txt", text.encode())
    assert (await places(library, "red house"))[0] == ("things.txt", "section 2")
    assert len(await library.search("anna", "red house")) == 3
    assert len(await library.search("anna", "red house", most=1)) == 1


async def test_the_guide_is_found_by_all_and_its_headings_are_the_places(library: Library) -> None:
    (guide,) = await library.documents(None)
    assert guide.name == "GUIDE.md"
    for owner in (None, "anna"):
        assert await places(library, "parrot", owner) == [("GUIDE.md", "Title")]
    assert await places(library, "install") == [("GUIDE.md", "Install it")]  # a heading, too, is searched
    assert await places(library, "not a heading") == [("GUIDE.md", "Install it")]
    assert await places(library, "empty") == [("GUIDE.md", "Empty")]
    assert await library.documents("anna") == []
    with pytest.raises(ChatError, match="not yours"):
        await library.remove("anna", guide.id)


async def test_the_guide_is_indexed_anew_only_when_it_has_changed(library: Library, tmp_path: Path) -> None:
    before = await library.documents(None)
    await library.close()
    await library.open()
    assert await library.documents(None) == before
    (tmp_path / "GUIDE.md").write_text("About lions.", encoding="utf-8")
    await library.close()
    await library.open()
    assert await places(library, "parrots lion") == [("GUIDE.md", "section 1")]
    (tmp_path / "GUIDE.md").unlink()
    await library.close()
    await library.open()
    assert await places(library, "lion") == [("GUIDE.md", "section 1")]


async def test_the_projects_own_guide_answers_a_question(tmp_path: Path) -> None:
    library = Library(tmp_path / "library.db", README)
    assert ("README.md", "Backends") in await places(library, "which backends are there", None)
    assert await library.search(None, "sdk_version") == []  # which the file says of itself, for the place it runs at
    await library.close()


async def test_nobody_finds_or_removes_what_is_anothers(library: Library) -> None:
    annas = await library.add("anna", "a.txt", b"a secret of hers")
    bens = await library.add("ben", "a.txt", b"a secret of his")
    assert [found.text for found in await library.search("anna", "secret")] == ["a secret of hers"]
    assert [found.text for found in await library.search("ben", "secret")] == ["a secret of his"]
    assert await library.search(None, "secret") == []
    with pytest.raises(ChatError) as error:
        await library.remove("anna", bens.id)
    assert error.value.code == "not_found"
    await library.remove("anna", annas.id)
    assert (await library.documents("anna"), await library.documents("ben")) == ([], [bens])
    assert await library.search("anna", "secret") == []
    assert len(await library.search("ben", "secret")) == 1


async def test_the_same_name_again_replaces(library: Library) -> None:
    for number in range(3):
        await library.add("anna", "a.txt", f"version {number}".encode())
    await library.add("anna", "b.txt", b"another")
    assert [document.name for document in await library.documents("anna")] == ["a.txt", "b.txt"]
    assert [found.text for found in await library.search("anna", "version")] == ["version 2"]


async def test_what_was_added_is_there_after_a_restart(library: Library, tmp_path: Path) -> None:
    made = await library.add("anna", "a.txt", b"kept for long")
    await library.close()
    later = Library(tmp_path / "folder" / "library.db")
    await later.open()
    assert await later.documents("anna") == [made]
    assert await places(later, "kept") == [("a.txt", "section 1")]
    await later.close()


async def test_a_name_is_never_a_path(library: Library, tmp_path: Path) -> None:
    for name in ("../../x.txt", "/etc/x.txt", "C:\\Users\\anna\\x.txt"):
        assert (await library.add("anna", name, b"text")).name == "x.txt"
    await library.close()
    files = [file for _, _, files in os.walk(tmp_path) for file in files]
    assert sorted(files) == ["GUIDE.md", "library.db"]


async def test_what_cannot_be_read_leaves_nothing(library: Library) -> None:
    assert "allowed are files that end in" in await refused(library, "a.png", b"text")
    assert "cannot be read" in await refused(library, "a.pdf", b"text")
    assert "no text" in await refused(library, "a.txt", b"")


async def test_what_is_too_much_is_refused(tmp_path: Path) -> None:
    library = Library(
        tmp_path / "library.db", limits=DocumentLimits(file_bytes=2000, pages=2, characters=500, documents=2)
    )
    assert "at most 0.002 MB" in await refused(library, "a.txt", b"x" * 2001, "too_large")
    assert "at most 500 characters" in await refused(library, "a.txt", b"x" * 501, "too_large")
    assert "more than 2 pages" in await refused(library, "a.pdf", pdf(*[b""] * 3))
    for name in ("a.txt", "b.txt", "b.txt"):
        await library.add("anna", name, b"text")
    with pytest.raises(ChatError, match=r"at most 2 documents are kept for you\. Remove one first"):
        await library.add("anna", "c.txt", b"text")
    assert len(await library.documents("anna")) == 2
    await library.add("ben", "c.txt", b"text")
    await library.close()


async def test_what_all_owners_have_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "GUIDE.md").write_text("A guide. " * 50, encoding="utf-8")  # which is not counted
    library = Library(tmp_path / "library.db", tmp_path / "GUIDE.md", DocumentLimits(total_characters=100))
    annas = await library.add("anna", "a.txt", b"a" * 60)
    for owner, name, size in (("ben", "b.txt", 41), ("anna", "b.txt", 41), ("anna", "a.txt", 101)):
        with pytest.raises(ChatError, match=r"library is full\. Tell whoever runs this app") as error:
            await library.add(owner, name, b"b" * size)
        assert error.value.code == "too_large"
    assert (await library.documents("anna"), await library.documents("ben")) == ([annas], [])
    assert await places(library, "a" * 60) == [("a.txt", "section 1")]  # the one that was not replaced
    bens = await library.add("ben", "b.txt", b"b" * 40)
    await library.add("anna", "a.txt", b"c" * 60)
    await library.remove("ben", bens.id)
    added = await asyncio.gather(
        *(library.add(owner, "d.txt", b"d" * 40) for owner in ("anna", "ben")), return_exceptions=True
    )
    assert sum(isinstance(one, ChatError) for one in added) == 1
    await library.close()


async def test_what_one_owner_and_one_address_have_is_bounded(tmp_path: Path) -> None:
    limits = DocumentLimits(owner_characters=100, address_documents=3, address_characters=150)
    library = Library(tmp_path / "library.db", limits=limits, salt=b"of the tests")
    here, there = "192.0.2.1", "192.0.2.2"

    async def refused(owner: str, name: str, size: int, address: str | None) -> str:
        with pytest.raises(ChatError) as error:
            await library.add(owner, name, b"x" * size, address)
        assert error.value.code == "too_large"
        return error.value.message

    annas = await library.add("anna", "a.txt", b"a" * 60, here)
    assert "at most" not in (told := await refused("anna", "b.txt", 41, here)) and "100 characters" in told
    assert "101. Remove one first" in told
    assert "your address" in await refused("ben", "b.txt", 91, here)
    await library.add("anna", "a.txt", b"c" * 100, here)  # in place of the first
    assert "your address" in await refused("ben", "b.txt", 51, here)
    await library.add("ben", "b.txt", b"b" * 20, here)
    await library.add("zoe", "b.txt", b"b" * 20, here)
    assert "your address" in await refused("tom", "b.txt", 1, here)  # three documents
    await library.add("tom", "b.txt", b"b" * 100, there)
    await library.add("tim", "b.txt", b"b" * 100, None)  # whose address is not known
    (bens,) = await library.documents("ben")
    await library.remove("ben", bens.id)
    await library.add("eve", "b.txt", b"b" * 20, here)
    assert annas.id not in [document.id for document in await library.documents("anna")]
    await library.close()
    assert here.encode() not in (tmp_path / "library.db").read_bytes(), "no address is stored"


async def test_a_pdf_is_found_by_its_pages(library: Library) -> None:
    made = await library.add("anna", "a.pdf", pdf(written("All about whales"), b"", written("Then some dolphins")))
    assert made.passages == 2
    assert await places(library, "dolphin") == [("a.pdf", "page 3")]


async def test_many_at_once_are_all_taken(library: Library) -> None:
    files = [("a.pdf", pdf(written("whales"))), *((f"{n}.txt", b"whales") for n in range(10))]
    made = await asyncio.gather(*(library.add(owner, *file) for owner in ("anna", "ben") for file in files))
    assert len({document.id for document in made}) == 22
    for owner in ("anna", "ben"):
        assert len(await library.documents(owner)) == 11
        assert len(await library.search(owner, "whales", 100)) == 11


async def test_few_pdfs_are_read_at_once_and_no_text_waits_for_one(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = list[str](), threading.Event()

    def read(name: str, kind: str, *_: object) -> ParsedFile:
        if kind == "pdf":
            begun.append(name)
            go_on.wait(10)
        return ParsedFile([("text", "", "section 1")], None)

    monkeypatch.setattr(module, "parse_file", read)
    adding = [asyncio.create_task(library.add("anna", f"{n}.pdf", b"")) for n in range(5)]
    await until(lambda: len(begun) == 2)
    await library.add("anna", "a.txt", b"")
    assert len(begun) == 2
    go_on.set()
    await asyncio.gather(*adding)
    assert len(begun) == 5


async def test_a_database_that_fails_is_told_and_tried_again(tmp_path: Path) -> None:
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


async def test_a_locked_database_is_told(library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "_BUSY_S", 0.1)
    await library.close()
    await library.open()
    with closing(sqlite3.connect(tmp_path / "folder" / "library.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ChatError, match="cannot be used at the moment"):
            await library.add("anna", "a.txt", b"x")
    await library.add("anna", "a.txt", b"x")


async def test_a_search_whose_use_cannot_be_noted_is_answered_and_few_uses_wait(
    library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_BUSY_S", 0.01)
    monkeypatch.setattr(module, "_NOTED", 3)
    await library.close()
    await library.add("anna", "a.txt", b"whales sing")
    begun = time.time()
    with closing(sqlite3.connect(tmp_path / "folder" / "library.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        for n in range(12):
            await library.search(f"visitor {n}", "whales")
        assert await places(library, "whales") == [("a.txt", "section 1")]
        assert list(library._used) == ["visitor 10", "visitor 11", "anna"]
    await library.forget_idle(begun)
    assert len(await library.documents("anna")) == 1, "the use was noted later"


async def test_searches_wait_neither_for_a_writer_nor_for_each_other(library: Library, tmp_path: Path) -> None:
    await library.add("anna", "a.txt", b"whales sing")
    with closing(sqlite3.connect(tmp_path / "folder" / "library.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        assert await places(library, "whales") == [("a.txt", "section 1")]
        assert len(await library.documents("anna")) == 1
    together = threading.Barrier(database._READERS)
    await asyncio.gather(*(library._index.read(lambda db: together.wait(20)) for _ in range(database._READERS)))


async def test_a_search_that_takes_too_long_is_refused_and_the_next_one_is_not(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n"
    monkeypatch.setattr(database, "_READ_S", 0.05)
    with pytest.raises(ChatError, match="fewer or rarer words") as error:
        await library._index.read(lambda db: db.execute(endless).fetchone())
    assert error.value.code == "timeout"
    monkeypatch.undo()
    assert await places(library, "parrots") == [("GUIDE.md", "Title")]


async def test_a_search_costs_nothing_for_what_others_have(library: Library, tmp_path: Path) -> None:
    def steps() -> int:
        counted = list[None]()
        with closing(sqlite3.connect(tmp_path / "folder" / "library.db")) as db:
            db.set_progress_handler(lambda: counted.append(None), 10)
            assert len(index.search(db, index.queries_of("common words of all"), "anna", 5)) == 1
        return len(counted)

    await library.add("anna", "a.txt", b"common words of Anna")
    before = steps()
    for number in range(3):
        await library.add("ben", f"{number}.txt", b"\n\n".join([b"common words of Ben " * 30] * 200))
    assert steps() <= 3 * before


async def test_a_pdf_that_is_being_read_does_not_hold_up_the_end(library: Library) -> None:
    slow = pdf(packed(written("text") * 1000, 1000), coded="/Filter /FlateDecode")
    adding = asyncio.create_task(library.add("anna", "a.pdf", slow))
    await until(lambda: library._children)
    await library.close()
    with pytest.raises(ChatError, match="cannot be read"):
        await adding
    assert not library._children


async def test_an_sqlite_without_full_text_search_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "TABLES", "CREATE VIRTUAL TABLE x USING fts0(text);")
    library = Library(tmp_path / "library.db")
    await library.open()
    with pytest.raises(ChatError, match="FTS5"):
        await library.search(None, "x")


async def test_a_failed_insert_leaves_nothing(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
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
    library = Library(tmp_path_factory.mktemp("library") / "library.db", README)
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
def test_no_text_makes_a_search_fail(shared: Library, words: str) -> None:
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
                text = f"common words of {owner} {name} {number}"
                await library.add(owner, name, text.encode())
                kept[owner, name] = text
            elif (owner, name) in kept:
                (there,) = [one for one in await library.documents(owner) if one.name == name]
                await library.remove(owner, there.id)
                del kept[owner, name]
        for owner in "abc":
            texts = sorted(text for (whose, _), text in kept.items() if whose == owner)
            assert sorted(one.text for one in await library.search(owner, "common words", 100)) == texts
            names = sorted(name for whose, name in kept if whose == owner)
            assert sorted(one.name for one in await library.documents(owner)) == names
        assert await library.search(None, "common words") == []
        await library.close()

    asyncio.run(scenario())


async def test_documents_of_those_who_have_gone_are_removed(tmp_path: Path) -> None:
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
    with closing(sqlite3.connect(tmp_path / "library.db")) as db, db:
        db.execute("DELETE FROM uses")  # as from before uses were noted
    await library.forget_idle(later)
    assert len(await library.documents("ben")) == 1
    await library.close()
