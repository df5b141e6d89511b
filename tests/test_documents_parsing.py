# ruff: noqa: RUF001
"""Parsing: names, encodings, passages, and harmful files as they occur in practice."""

import os
import string
import time
import zlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from documents import parsing as module
from documents.parsing import ParsedPassage, name_and_kind, parse_pages, parse_text, split_passages
from runs.errors import ChatError
from tests.pdfs import pdf, written

UNICODE = "utf-8", "utf-8-sig", "utf-16", "utf-32"


def read(name: str, data: bytes, characters: int = 2_000_000) -> list[ParsedPassage]:
    name, kind = name_and_kind(name)
    return parse_text(name, kind, data, characters).passages


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
    parsed = parse_text("a.txt", "txt", whole.encode(encoding), 2_000_000)
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
    with pytest.raises(ChatError, match="at most 500 characters"):
        parse_pages("a.pdf", ["x" * 300] * 2, 500)


def test_places_in_a_pdf_are_pages() -> None:
    rows = parse_pages("a.pdf", ["All about whales", "", "Then some dolphins"], 100).passages
    assert rows == [("All about whales", "", "page 1"), ("Then some dolphins", "", "page 3")]


def test_pdf_without_text_is_rejected() -> None:
    with pytest.raises(ChatError, match="If it is a scan"):
        parse_pages("a.pdf", ["", " "], 100)


def test_places_in_markdown_are_headings() -> None:
    text = b"---\nkey: x\n---\nFirst.\n# Title #\nAbout.\n```\n# code\n```\n## Empty\n## Last\nEnd.\n"
    assert read("a.md", text) == [
        ("First.", "", "section 1"),
        ("About.\n```\n# code\n```", "Title", "Title"),
        ("Empty", "Empty", "Empty"),
        ("End.", "Last", "Last"),
    ]


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
    begun = time.thread_time()
    for piece in ("x", "\n", " \n", "# ", "a b. ", "\n# x\n"):
        list(split_passages("md", [piece * 400_000]))
    for text in ("---\na:" + "\na:" * 200_000, "# " + " #" * 400_000, "\n" + " " * 800_000 + "x"):
        list(split_passages("md", [text]))
    assert time.thread_time() - begun < 10
