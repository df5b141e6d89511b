import asyncio
import gzip
from collections.abc import AsyncIterator, Mapping
from typing import Any

import brotli
import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from hosting.compression import CompressionMiddleware, choose_encoding, compress

TEXT = "A sentence that is repeated. " * 200


@pytest.mark.parametrize(
    ("accepted", "expected"),
    [
        ("", None),
        ("gzip, deflate, br, zstd", "br"),
        ("gzip", "gzip"),
        ("GZIP;Q=0.5", "gzip"),
        ("br;q=0.2, gzip;q=0.8", "gzip"),
        ("br;q=0, gzip", "gzip"),
        ("br;q=0.0, gzip;q=0", None),
        ("identity", None),
        ("identity, gzip;q=0.5", None),
        ("identity;q=0.5, gzip", "gzip"),
        ("*", "br"),
        ("*;q=0", None),
        ("*;q=0, gzip", "gzip"),
        ("br;q=0, *", "gzip"),
        ("gzip;q=high", None),
        ("zstd, deflate", None),
        (",;,", None),
    ],
)
def test_encoding_is_the_best_that_the_client_accepts(accepted: str, expected: str | None) -> None:
    assert choose_encoding(accepted) == expected


@pytest.mark.parametrize("kept", [False, True])
def test_compressed_bodies_are_equal_after_decompression(kept: bool) -> None:
    body = TEXT.encode()
    assert gzip.decompress(compress(body, "gzip", kept=kept)) == body
    assert brotli.decompress(compress(body, "br", kept=kept)) == body
    assert compress(body, "gzip", kept=kept) == compress(body, "gzip", kept=kept), "without the time of day"


def client(response: Any) -> httpx.AsyncClient:
    """A client of an app that answers everything with a response."""

    async def answer(request: Request) -> Response:
        return response

    app: Any = CompressionMiddleware(Starlette(routes=[Route("/", answer)]))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here")


async def get(response: Any, accepted: str = "gzip, br", method: str = "GET") -> httpx.Response:
    async with client(response) as http:
        return await http.request(method, "/", headers={"Accept-Encoding": accepted})


@pytest.mark.parametrize("accepted", ["br", "gzip"])
@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "text/css", "image/svg+xml", "application/ld+json"])
async def test_texts_are_compressed(accepted: str, kind: str) -> None:
    answer = await get(Response(TEXT, media_type=kind, headers={"ETag": '"one"'}), accepted)
    assert answer.text == TEXT
    assert answer.headers["content-encoding"] == accepted
    assert answer.headers["vary"] == "Accept-Encoding"
    assert answer.headers["etag"] == 'W/"one"'
    assert int(answer.headers["content-length"]) < len(TEXT) / 4


async def test_large_texts_are_compressed_in_a_thread() -> None:
    answer = await get(JSONResponse([TEXT] * 100))
    assert answer.headers["content-encoding"] == "br" and answer.json() == [TEXT] * 100


@pytest.mark.parametrize("accepted", ["", "identity", "*;q=0", "br;q=0, gzip;q=0"])
async def test_text_stays_as_it_is_where_no_encoding_is_accepted(accepted: str) -> None:
    answer = await get(PlainTextResponse(TEXT), accepted)
    assert answer.text == TEXT and "content-encoding" not in answer.headers
    assert answer.headers["vary"] == "Accept-Encoding"


@pytest.mark.parametrize("text", ["short", "x" * 4_000_001])
async def test_short_and_huge_texts_stay_as_they_are(text: str) -> None:
    answer = await get(PlainTextResponse(text))
    assert answer.text == text and "content-encoding" not in answer.headers


@pytest.mark.parametrize(
    ("kind", "headers"),
    [
        ("image/png", {}),
        ("application/octet-stream", {}),
        ("application/x-ndjson", {}),
        ("text/event-stream", {}),
        ("text/plain", {"Cache-Control": "no-transform"}),
        ("text/plain", {"Content-Encoding": "identity"}),
    ],
)
async def test_other_responses_stay_as_they_are(kind: str, headers: Mapping[str, str]) -> None:
    answer = await get(Response(TEXT, media_type=kind, headers=headers))
    assert answer.text == TEXT and "vary" not in answer.headers
    assert answer.headers["content-length"] == str(len(TEXT))


async def test_answer_to_head_has_no_body_and_no_encoding() -> None:
    answer = await get(PlainTextResponse(TEXT), method="HEAD")
    assert answer.content == b"" and "content-encoding" not in answer.headers


@pytest.mark.parametrize("kind", ["text/event-stream", "application/x-ndjson", "text/plain"])
async def test_streams_are_neither_compressed_nor_delayed(kind: str) -> None:
    read = asyncio.Event()

    async def pieces() -> AsyncIterator[str]:
        yield TEXT
        await asyncio.wait_for(read.wait(), 10)
        yield "the end"

    app: Any = CompressionMiddleware(StreamingResponse(pieces(), media_type=kind))
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)
        if message.get("body") == TEXT.encode():
            read.set()  # the rest comes only after this has been sent

    async def receive() -> Any:
        await asyncio.Event().wait()

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/",
        "headers": [(b"accept-encoding", b"gzip, br")],
        "asgi": {"spec_version": "2.4"},
    }
    await app(scope, receive, send)
    assert b"".join(message.get("body", b"") for message in sent) == (TEXT + "the end").encode()
    assert b"content-encoding" not in dict(sent[0]["headers"])
