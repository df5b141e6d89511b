"""The library: what is taken in, what is found, and by whom; files that are made to do harm, as real files."""

import asyncio
import importlib.util
import io
import os
import signal
import sqlite3
import string
import subprocess
import sys
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pypdf import PdfReader, PdfWriter

from agent.tools import library as module
from agent.tools.library import Library, Limits
from runs.errors import ChatError

README = Path(__file__).parent.parent / "README.md"
GUIDE = (
    "# Title\n\nAbout parrots.\n\n## Install it\n\nType make.\n\n```\n# not a heading\n```\n\n## Empty\n## Last\nEnd.\n"
)


def pdf(*contents: bytes, coded: str = "", kids: str = "", more: str = "") -> bytes:
    """A PDF with a page for each content stream; `kids` and `more` objects, one a line, make strange ones."""
    pages = [(10 + 2 * i, 11 + 2 * i) for i in range(len(contents))]
    listed = kids or " ".join(f"{page} 0 R" for page, _ in pages)
    objects = [
        b"1 0 obj <</Type /Catalog /Pages 2 0 R>> endobj",
        f"2 0 obj <</Type /Pages /Kids [{listed}] /Count {len(contents)}>> endobj".encode(),
        b"3 0 obj <</Type /Font /Subtype /Type1 /BaseFont /Helvetica>> endobj",
        *more.encode().splitlines(),
    ]
    for (page, stream), content in zip(pages, contents, strict=True):
        parts = f"/Parent 2 0 R /Resources <</Font <</F 3 0 R>>>> /Contents {stream} 0 R"
        objects.append(f"{page} 0 obj <</Type /Page /MediaBox [0 0 600 800] {parts}>> endobj".encode())
        head = f"{stream} 0 obj <</Length {len(content)} {coded}>> stream\n".encode()
        objects.append(head + content + b"\nendstream endobj")
    body, table = b"%PDF-1.4\n", b"xref\n0 1\n0000000000 65535 f \n"
    for one in objects:
        table += b"%d 1\n%010d 00000 n \n" % (int(one.split()[0]), len(body))
        body += one + b"\n"
    return body + table + b"trailer <</Root 1 0 R /Size 10000>>\nstartxref\n%d\n%%%%EOF\n" % len(body)


def written(text: str) -> bytes:
    """A content stream that shows a text."""
    return f"BT /F 12 Tf 72 700 Td ({text}) Tj ET".encode()


def packed(piece: bytes, times: int) -> bytes:
    """The piece many times over, deflated, without ever being whole in memory."""
    packer = zlib.compressobj(1)
    return b"".join(packer.compress(piece) for _ in range(times)) + packer.flush()


def locked_pdf(user: str, owner: str) -> bytes:
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf(written("behind a lock")))))
    writer.encrypt(user, owner)
    writer.write(file := io.BytesIO())
    return file.getvalue()


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


@pytest.mark.parametrize(
    ("given_name", "kept"),
    [
        ("../../x.txt", "x.txt"),
        ("C:\\Users\\anna\\x.MD", "x.MD"),
        ("/etc/passwd.txt", "passwd.txt"),
        ("a\0b\n\u202ec.txt", "abc.txt"),
        ("x" * 300 + ".txt", "x" * 96 + ".txt"),
        ("Ünï 1.2.txt", "Ünï 1.2.txt"),
        ("\ud800.txt", ".txt"),
    ],
)
async def test_a_name_is_cleaned_and_never_a_path(library: Library, tmp_path: Path, given_name: str, kept: str) -> None:
    assert (await library.add("anna", given_name, b"text")).name == kept
    await library.close()
    files = [file for _, _, files in os.walk(tmp_path) for file in files]
    assert sorted(files) == ["GUIDE.md", "library.db"]


@pytest.mark.parametrize(
    "name", ["photo.png", "txt", "", "archive.tar.gz", "evil.txt/", "x.pdf\\..", "a" * 300, "x.txt.exe"]
)
async def test_another_kind_is_refused_by_its_name(library: Library, name: str) -> None:
    assert "allowed are files that end in .txt, .md, .pdf" in await refused(library, name, b"text")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.txt", pdf(written("text"))),
        ("a.md", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256))),
        ("a.txt", os.urandom(1).ljust(1000, b"\0")),
        ("a.txt", "no mark of its order".encode("utf-16-le")),
        ("a.txt", zlib.compress(bytes(range(256)) * 20)),
        ("a.pdf", b"just text"),
        ("a.pdf", b""),
    ],
)
async def test_a_content_that_is_not_what_the_name_says_is_refused(library: Library, name: str, data: bytes) -> None:
    message = await refused(library, name, data)
    assert f"{name!r} cannot be read" in message
    assert "holds something else" in message


@pytest.mark.parametrize(
    "data",
    [
        "naïve “test”".encode(),
        "naïve “test”".encode("utf-8-sig"),
        "naïve “test”".encode("utf-16"),
        "naïve “test”".encode("cp1252"),
    ],
)
async def test_the_usual_encodings_are_read(library: Library, data: bytes) -> None:
    await library.add("anna", "a.txt", data)
    assert [found.text for found in await library.search("anna", "naïve")] == ["naïve “test”"]


@pytest.mark.parametrize("data", [b"", b" \r\n\t\n", b"\xef\xbb\xbf", b"---\ntitle: x\n---\n"])
async def test_an_empty_text_is_refused(library: Library, data: bytes) -> None:
    assert await refused(library, "a.md", data) == "'a.md' has no text that could be searched."


async def test_what_is_too_much_is_refused(tmp_path: Path) -> None:
    library = Library(tmp_path / "library.db", limits=Limits(file_bytes=2000, pages=2, characters=500, documents=2))
    assert "at most 0.002 MB" in await refused(library, "a.txt", b"x" * 2001, "too_large")
    assert "at most 500 characters" in await refused(library, "a.txt", b"x" * 501, "too_large")
    assert "more than 2 pages" in await refused(library, "a.pdf", pdf(*[b""] * 3))
    assert "more than 500 characters" in await refused(library, "a.pdf", pdf(written("x" * 501)))
    for name in ("a.txt", "b.txt", "b.txt"):
        await library.add("anna", name, b"text")
    with pytest.raises(ChatError, match=r"at most 2 documents are kept for you\. Remove one first"):
        await library.add("anna", "c.txt", b"text")
    assert len(await library.documents("anna")) == 2
    await library.add("ben", "c.txt", b"text")
    await library.close()


async def test_a_pdf_is_found_by_its_pages(library: Library) -> None:
    made = await library.add("anna", "a.pdf", pdf(written("All about whales"), b"", written("Then some dolphins")))
    assert made.passages == 2
    assert await places(library, "dolphin") == [("a.pdf", "page 3")]


async def test_a_pdf_without_text_is_refused(library: Library) -> None:
    assert "If it is a scan" in await refused(library, "a.pdf", pdf(b"0 0 m 9 9 l S"))


async def test_a_pdf_that_only_its_owner_may_change_is_read(library: Library) -> None:
    await library.add("anna", "a.pdf", locked_pdf("", "secret"))
    assert await places(library, "lock") == [("a.pdf", "page 1")]


WIDE = " ".join(["901 0 R"] * 40)
DEEP = "\n".join(
    f"{n} 0 obj <</Type /Pages /Parent 2 0 R /Kids [{' '.join([f'{n + 1} 0 R'] * 12)}] /Count 9>> endobj"
    for n in range(901, 920)
)
CHAIN = "\n".join(f"{n} 0 obj <</Type /Pages /Kids [{n + 1} 0 R] /Count 9>> endobj" for n in range(901, 9000))
HARMFUL = {
    "a password": (lambda: locked_pdf("secret", "secret"), "protected by a password"),
    "cut off": (lambda: pdf(written("text"))[:60], "damaged"),
    "garbage": (lambda: b"%PDF-1.7\n" + b"\xff\0<<>>[[((" * 5000, "damaged"),
    "its pages in a circle": (lambda: pdf(kids="2 0 R"), "leads in circles|damaged"),
    "pages of pages of pages": (lambda: pdf(kids=WIDE, more=DEEP), "too large or leads in circles"),
    "a chain of pages": (lambda: pdf(kids="901 0 R", more=CHAIN), "too large or leads in circles|damaged"),
    "300 MB of zeros": (lambda: pdf(packed(bytes(1_000_000), 300), coded="/Filter /FlateDecode"), "too large"),
    "bombs in a bomb": (
        lambda: pdf(zlib.compress(packed(bytes(1_000_000), 300)), coded="/Filter [/FlateDecode /FlateDecode]"),
        "too large",
    ),
}


@pytest.mark.parametrize("harm", HARMFUL)
async def test_a_harmful_pdf_is_refused_in_time(library: Library, harm: str) -> None:
    make, why = HARMFUL[harm]
    begun = time.monotonic()
    message = await refused(library, "a.pdf", make())
    assert time.monotonic() - begun < 30
    assert message.startswith("'a.pdf' cannot be read: ")
    assert any(reason in message for reason in why.split("|")), message


async def test_a_pdf_that_takes_too_long_is_given_up(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PDF_S", 1.5)
    slow = pdf(packed(written("text") * 1000, 1000), coded="/Filter /FlateDecode")
    assert "takes too much time" in await refused(library, "a.pdf", slow)


def limited(work: str) -> "subprocess.CompletedProcess[bytes]":
    """Does a work under the limits that hold where PDFs are read, with less time."""
    load = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("child", {str(module._CHILD)!r})
child = importlib.util.module_from_spec(spec)
spec.loader.exec_module(child)
child._SECONDS = 1
child._limit()
"""
    return subprocess.run([sys.executable, "-c", load + work], capture_output=True, timeout=60)


@pytest.mark.skipif(importlib.util.find_spec("resource") is None, reason="this system has no such limits")
def test_time_and_memory_of_the_reading_process_are_limited() -> None:
    assert limited("while True: pass").returncode == -signal.SIGKILL
    assert b"MemoryError" in limited("bytearray(2_000_000_000)").stderr
    assert limited("bytearray(100_000_000)").returncode == 0


async def test_a_reading_process_that_dies_or_cannot_start_is_told(
    library: Library, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    child = tmp_path / "child.py"
    monkeypatch.setattr(module, "_CHILD", child)
    assert "takes too much time or memory" in await refused(library, "a.pdf", pdf(written("text")))  # no such script
    child.write_text("print('no answer')")
    assert "no PDF can be read here" in await refused(library, "a.pdf", pdf(written("text")))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    assert "no PDF can be read here" in await refused(library, "a.pdf", pdf(written("text")))


async def test_many_at_once_are_all_taken(library: Library) -> None:
    files = [("a.pdf", pdf(written("whales"))), *((f"{n}.txt", b"whales") for n in range(10))]
    made = await asyncio.gather(*(library.add(owner, *file) for owner in ("anna", "ben") for file in files))
    assert len({document.id for document in made}) == 22
    for owner in ("anna", "ben"):
        assert len(await library.documents(owner)) == 11
        assert len(await library.search(owner, "whales", 100)) == 11


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
    monkeypatch.setattr(module, "_BUSY_S", 0.1)
    await library.close()
    await library.open()
    with closing(sqlite3.connect(tmp_path / "folder" / "library.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(ChatError, match="cannot be used at the moment"):
            await library.add("anna", "a.txt", b"x")
    await library.add("anna", "a.txt", b"x")


async def test_an_sqlite_without_full_text_search_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_TABLES", "CREATE VIRTUAL TABLE x USING fts0(text);")
    library = Library(tmp_path / "library.db")
    await library.open()
    with pytest.raises(ChatError, match="FTS5"):
        await library.search(None, "x")


async def test_a_failed_insert_leaves_nothing(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    await library.add("anna", "a.txt", b"earlier")

    def fail(*_: object) -> None:
        raise sqlite3.OperationalError("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_insert", fail)
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


@given(st.text(alphabet=string.ascii_letters + " \n.#`", max_size=5000))
@example("x" * 5000)
@example("\n\n".join(["word " * 30] * 40))
def test_a_text_is_split_without_loss(text: str) -> None:
    for kind in ("txt", "md", "pdf"):
        rows = list(module._rows(kind, [text]))
        assert all(0 < len(part) <= module._PASSAGE + 2 and place for part, _, place in rows)
        if kind != "md":  # whose headings are its places
            assert "".join("".join(part for part, _, _ in rows).split()) == "".join(text.split())


def test_a_long_text_is_split_at_paragraphs_and_sentences() -> None:
    paragraphs = [f"Paragraph {n}. " + "It has some words. " * 20 for n in range(6)]
    parts = [part for part, _, _ in module._rows("txt", ["\n\n".join(paragraphs)])]
    assert [part.count("Paragraph") for part in parts] == [2, 2, 2]
    parts = [part for part, _, _ in module._rows("txt", ["A sentence of words. " * 100])]
    assert all(part.endswith("words.") for part in parts)


def test_a_large_text_is_split_soon() -> None:
    begun = time.monotonic()
    for piece in ("x", "\n", " \n", "# ", "a b. ", "\n# x\n"):
        list(module._rows("md", [piece * 400_000]))
    for text in ("---\na:" + "\na:" * 200_000, "# " + " #" * 400_000, "\n" + " " * 800_000 + "x"):
        list(module._rows("md", [text]))
    assert time.monotonic() - begun < 10
