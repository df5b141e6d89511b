# ruff: noqa: RUF001
"""Parsing: names, encodings, passages, and harmful files as they occur in practice."""

import importlib.util
import io
import os
import signal
import string
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pypdf import PdfReader, PdfWriter

from documents import parsing as module
from documents.parsing import ParsedPassage, name_and_kind, parse_file, split_passages
from runs.errors import ChatError


def pdf(*contents: bytes, coded: str = "", kids: str = "", more: str = "") -> bytes:
    """A PDF with a page for each content stream; `kids` and `more`, objects one a line, make unusual PDFs."""
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
    """A content stream with a text."""
    return f"BT /F 12 Tf 72 700 Td ({text}) Tj ET".encode()


def packed(piece: bytes, times: int) -> bytes:
    """A repeated piece, deflated, which is never in memory as a whole."""
    packer = zlib.compressobj(1)
    return b"".join(packer.compress(piece) for _ in range(times)) + packer.flush()


def locked_pdf(user: str, owner: str) -> bytes:
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf(written("behind a lock")))))
    writer.encrypt(user, owner)
    writer.write(file := io.BytesIO())
    return file.getvalue()


UNICODE = "utf-8", "utf-8-sig", "utf-16", "utf-32"


def read(name: str, data: bytes, pages: int = 500, characters: int = 2_000_000) -> list[ParsedPassage]:
    name, kind = name_and_kind(name)
    return parse_file(name, kind, data, pages, characters).passages


def refused(name: str, data: bytes, code: str = "invalid_request", **most: int) -> str:
    with pytest.raises(ChatError) as error:
        read(name, data, **most)
    assert error.value.code == code
    return error.value.message


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
def test_name_is_cleaned_and_never_a_path(given_name: str, kept: str) -> None:
    assert name_and_kind(given_name) == (kept, kept.rpartition(".")[2].lower())


@pytest.mark.parametrize(
    "name", ["photo.png", "txt", "", "archive.tar.gz", "evil.txt/", "x.pdf\\..", "a" * 300, "x.txt.exe"]
)
def test_unknown_kind_is_rejected(name: str) -> None:
    assert "allowed are files that end in .txt, .md, .pdf" in refused(name, b"text")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.txt", pdf(written("text"))),
        ("a.md", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256))),
        ("a.txt", os.urandom(1).ljust(1000, b"\0")),
        ("a.txt", b"PK\x03\x04" + bytes(range(256)) * 4),
        ("a.txt", zlib.compress(bytes(range(256)) * 20)),
        ("a.pdf", b"just text"),
        ("a.pdf", b""),
    ],
)
def test_content_that_does_not_match_the_name_is_rejected(name: str, data: bytes) -> None:
    message = refused(name, data)
    assert f"{name!r} cannot be read" in message
    assert "holds something else" in message


TEXTS = {
    "灯塔守卫者看见了鲸鱼。它们在海里唱歌，一直唱到天亮。": ["gbk", "gb18030", "utf-16-le", "utf-16-be", "utf-32-le"],
    "燈塔守衛者看見了鯨魚。牠們在海裡唱歌，一直唱到天亮。": ["big5", "utf-16-be"],
    "灯台守は鯨を見た。鯨たちは夜明けまで歌い続けた。": ["shift_jis", "euc_jp", "iso2022_jp", "utf-16-le"],
    "등대지기가 고래를 보았다. 고래들은 새벽까지 노래했다.": ["euc_kr", "cp949", "utf-16-le"],
    "Смотритель маяка увидел китов. Они пели до рассвета.": [
        "windows-1251",
        "koi8-r",
        "iso8859-5",
        "cp866",
        "utf-16-le",
    ],
    "Der Leuchtturmwärter hörte große Wale für eine Nacht.": ["windows-1252", "iso8859-1", "iso8859-15", "utf-16-le"],
    "Latarnik zobaczył wieloryby, które śpiewały aż do świtu.": ["windows-1250", "iso8859-2"],
    "Ο φαροφύλακας είδε τις φάλαινες μέχρι την αυγή.": ["windows-1253", "iso8859-7"],
    "שומר המגדלור ראה את הלווייתנים עד עלות השחר.": ["windows-1255", "iso8859-8"],
    "رأى حارس المنارة الحيتان وغنت في البحر حتى الفجر.": ["windows-1256", "iso8859-6"],
    "naïve “test”": ["windows-1252", "utf-16-le", "utf-16-be", "utf-32-be"],
}


@pytest.mark.parametrize(("text", "encoding"), [(text, one) for text in TEXTS for one in [*TEXTS[text], *UNICODE]])
@pytest.mark.parametrize("more", ["alone", "in a long text", "behind much ASCII"])
def test_encoding_is_detected_and_returned(text: str, encoding: str, more: str) -> None:
    whole = {"alone": text, "in a long text": f"{text}\n" * 3000, "behind much ASCII": "a line\n" * 30_000 + text}[more]
    parsed = parse_file("a.txt", "txt", whole.encode(encoding), 1, 2_000_000)
    assert "\n".join(row[0] for row in parsed.passages).split() == whole.split()
    assert parsed.encoding
    assert whole.encode(parsed.encoding).decode(encoding).replace("\ufeff", "") == whole


@pytest.mark.parametrize("data", ["Café".encode("gbk"), bytes(range(128, 256)) * 20, "señor".encode("euc_jp")])
def test_unknown_encoding_is_rejected_with_advice(data: bytes) -> None:
    assert refused("a.txt", data).endswith("Save it as UTF-8 and add it again.")


DAMAGED = [
    "Über die Grüße freut sich Jürgen größtenteils. " * 20,
    "El niño comió piñas y añadió más azúcar en la mañana. " * 20,
    "Où est passé l’été ? " * 300,
    *(text * 20 for text in TEXTS),
]


@pytest.mark.parametrize("bad", [b"\xff", b"\x80", b"\xe9", b"\xc3", b"\x1b$\xff"])
@pytest.mark.parametrize("text", DAMAGED)
def test_damaged_utf8_is_never_decoded_in_another_encoding(text: str, bad: bytes) -> None:
    data = text.encode()
    middle = len(text[: len(text) // 2].encode())
    for damaged in (data + bad, data[:middle] + bad + b" " + data[middle:], bad + b" " + data):
        assert refused("a.txt", damaged).endswith("Save it as UTF-8 and add it again.")


def test_encoding_is_detected_quickly() -> None:
    begun = time.process_time()
    for line in ("word " * 10 + "\n", "Смотритель ", "x" * 100):
        read("a.txt", (line * (1_900_000 // len(line)) + " увидел китов.").encode("windows-1251"))
    assert time.process_time() - begun < 10


def test_line_ends_and_control_characters_are_normalized() -> None:
    assert [text for text, _, _ in read("a.txt", b"one\r\n\r\ntwo\rthree\x1b" + b"." * 99)] == [
        "one\n\ntwo\nthree\u241b" + "." * 99
    ]


@pytest.mark.parametrize("data", [b"", b" \r\n\t\n", b"\xef\xbb\xbf", b"---\ntitle: x\n---\n"])
def test_empty_text_is_rejected(data: bytes) -> None:
    assert refused("a.md", data) == "'a.md' has no text that could be searched."


def test_file_that_is_too_long_is_rejected() -> None:
    assert "at most 500 characters" in refused("a.txt", b"x" * 501, "too_large", characters=500)
    assert "more than 2 pages" in refused("a.pdf", pdf(*[b""] * 3), pages=2)
    assert "more than 500 characters" in refused("a.pdf", pdf(written("x" * 501)), characters=500)


def test_places_in_a_pdf_are_pages() -> None:
    rows = read("a.pdf", pdf(written("All about whales"), b"", written("Then some dolphins")))
    assert rows == [("All about whales", "", "page 1"), ("Then some dolphins", "", "page 3")]


def test_places_in_markdown_are_headings() -> None:
    text = b"---\nkey: x\n---\nFirst.\n# Title #\nAbout.\n```\n# code\n```\n## Empty\n## Last\nEnd.\n"
    assert read("a.md", text) == [
        ("First.", "", "section 1"),
        ("About.\n```\n# code\n```", "Title", "Title"),
        ("Empty", "Empty", "Empty"),
        ("End.", "Last", "Last"),
    ]


def test_pdf_without_text_is_rejected() -> None:
    assert "If it is a scan" in refused("a.pdf", pdf(b"0 0 m 9 9 l S"))


def test_pdf_with_an_owner_password_is_read() -> None:
    assert read("a.pdf", locked_pdf("", "secret")) == [("behind a lock", "", "page 1")]


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
    "circular pages": (lambda: pdf(kids="2 0 R"), "circular|damaged"),
    "deeply nested pages": (lambda: pdf(kids=WIDE, more=DEEP), "too large or circular"),
    "a chain of pages": (lambda: pdf(kids="901 0 R", more=CHAIN), "too large or circular|damaged"),
    "300 MB of zeros": (lambda: pdf(packed(bytes(1_000_000), 300), coded="/Filter /FlateDecode"), "too large"),
    "bombs in a bomb": (
        lambda: pdf(zlib.compress(packed(bytes(1_000_000), 300)), coded="/Filter [/FlateDecode /FlateDecode]"),
        "too large",
    ),
}


@pytest.mark.parametrize("harm", HARMFUL)
def test_harmful_pdf_is_rejected_in_time(harm: str) -> None:
    make, why = HARMFUL[harm]
    begun = time.monotonic()
    message = refused("a.pdf", make())
    assert time.monotonic() - begun < 30
    assert message.startswith("'a.pdf' cannot be read: ")
    assert any(reason in message for reason in why.split("|")), message


def test_slow_pdf_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_PDF_S", 1.5)
    slow = pdf(packed(written("text") * 1000, 1000), coded="/Filter /FlateDecode")
    assert "takes too much time" in refused("a.pdf", slow)


def limited(code: str) -> "subprocess.CompletedProcess[bytes]":
    """Runs code under the limits of the process that reads PDFs, with less time."""
    load = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("child", {str(module._CHILD)!r})
child = importlib.util.module_from_spec(spec)
spec.loader.exec_module(child)
child._SECONDS = 1
child._limit()
"""
    return subprocess.run([sys.executable, "-c", load + code], capture_output=True, timeout=60)


@pytest.mark.skipif(importlib.util.find_spec("resource") is None, reason="this system has no such limits")
def test_time_and_memory_of_the_child_are_limited() -> None:
    assert limited("while True: pass").returncode == -signal.SIGKILL
    assert b"MemoryError" in limited("bytearray(2_000_000_000)").stderr
    assert limited("bytearray(100_000_000)").returncode == 0
    done = limited("import os; print(os.getpriority(os.PRIO_PROCESS, 0), os.sched_getscheduler(0) == os.SCHED_IDLE)")
    assert done.stdout.split() == [b"19", b"True"]


def test_failure_of_the_child_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    child = tmp_path / "child.py"
    monkeypatch.setattr(module, "_CHILD", child)
    assert "takes too much time or memory" in refused("a.pdf", pdf(written("text")))  # no such script
    child.write_text("print('no answer')")
    assert "cannot read PDFs at the moment" in refused("a.pdf", pdf(written("text")))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "nothing"))
    assert "cannot read PDFs at the moment" in refused("a.pdf", pdf(written("text")))


@given(st.text(alphabet=string.ascii_letters + " \n.#`", max_size=5000))
@example("x" * 5000)
@example("\n\n".join(["word " * 30] * 40))
def test_text_is_split_without_loss(text: str) -> None:
    for kind in ("txt", "md", "pdf"):
        rows = list(split_passages(kind, [text]))
        assert all(0 < len(part) <= module._PASSAGE + 2 and place for part, _, place in rows)
        if kind != "md":  # whose headings are its places
            assert "".join("".join(part for part, _, _ in rows).split()) == "".join(text.split())


def test_long_text_is_split_at_paragraphs_and_sentences() -> None:
    paragraphs = [f"Paragraph {n}. " + "It has some words. " * 20 for n in range(6)]
    parts = [part for part, _, _ in split_passages("txt", ["\n\n".join(paragraphs)])]
    assert [part.count("Paragraph") for part in parts] == [2, 2, 2]
    parts = [part for part, _, _ in split_passages("txt", ["A sentence of words. " * 100])]
    assert all(part.endswith("words.") for part in parts)


def test_large_text_is_split_quickly() -> None:
    begun = time.monotonic()
    for piece in ("x", "\n", " \n", "# ", "a b. ", "\n# x\n"):
        list(split_passages("md", [piece * 400_000]))
    for text in ("---\na:" + "\na:" * 200_000, "# " + " #" * 400_000, "\n" + " " * 800_000 + "x"):
        list(split_passages("md", [text]))
    assert time.monotonic() - begun < 10
