"""PDFs for tests: plain, unusual and protected ones."""

import io
import zlib

from pypdf import PdfReader, PdfWriter


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


SLOW = pdf(packed(written("text") * 1000, 1000), coded="/Filter /FlateDecode")
"""A PDF that takes seconds to read."""
