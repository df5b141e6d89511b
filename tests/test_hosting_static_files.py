from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from hosting.static_files import StaticFiles

SCRIPT = "export const answer = 42;\n" * 100


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "index-DphvyggB.js").write_text(SCRIPT)
    (tmp_path / "font-Ab_d-f12.woff2").write_bytes(b"\0" * 3000)
    (tmp_path / "secret.js").write_text("no hash")
    return tmp_path


def client(files: StaticFiles) -> httpx.AsyncClient:
    app: Any = Starlette(routes=[Route("/assets/{name}", files, methods=["GET"])])
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here/assets/")


@pytest.mark.parametrize(
    ("accepted", "encoding"), [("gzip, br", "br"), ("gzip", "gzip"), ("identity", None), ("*;q=0", None)]
)
async def test_files_are_compressed_as_accepted_and_kept_for_ever(
    folder: Path, accepted: str, encoding: str | None
) -> None:
    async with client(StaticFiles(folder)) as http:
        for _ in range(2):
            answer = await http.get("index-DphvyggB.js", headers={"Accept-Encoding": accepted})
            assert answer.status_code == 200 and answer.text == SCRIPT
            assert answer.headers.get("content-encoding") == encoding
            assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
            assert answer.headers["vary"] == "Accept-Encoding"
            assert answer.headers["content-type"] == "text/javascript; charset=utf-8"


async def test_unchanged_file_is_not_sent_again(folder: Path) -> None:
    async with client(StaticFiles(folder)) as http:
        tag = (await http.get("index-DphvyggB.js")).headers["etag"]
        for tags in (tag, f'"other", {tag}', tag.removeprefix("W/"), "*"):
            answer = await http.get("index-DphvyggB.js", headers={"If-None-Match": tags})
            assert (answer.status_code, answer.content) == (304, b"")
            assert answer.headers["etag"] == tag and "immutable" in answer.headers["cache-control"]
        assert (await http.get("index-DphvyggB.js", headers={"If-None-Match": '"other"'})).text == SCRIPT


async def test_head_has_the_headers_only(folder: Path) -> None:
    async with client(StaticFiles(folder)) as http:
        got, head = await http.get("index-DphvyggB.js"), await http.head("index-DphvyggB.js")
    assert head.content == b"" and head.headers == got.headers


async def test_binary_files_stay_as_they_are(folder: Path) -> None:
    async with client(StaticFiles(folder)) as http:
        answer = await http.get("font-Ab_d-f12.woff2", headers={"Accept-Encoding": "br"})
    assert answer.content == b"\0" * 3000 and "content-encoding" not in answer.headers


@pytest.mark.parametrize("name", ["secret.js", "none-12345678.js", "..%2fsecret.js", "%2e%2e"])
async def test_only_names_with_a_hash_are_served(folder: Path, name: str) -> None:
    async with client(StaticFiles(folder)) as http:
        assert (await http.get(name)).status_code == 404


async def test_made_file_is_named_by_its_content(folder: Path) -> None:
    files = StaticFiles(folder)
    name = files.add("page", ".css", b"body {}")
    assert files.add("page", ".css", b"body {}") == name != files.add("page", ".css", b"html {}")
    assert name.startswith("page-") and name.endswith(".css") and files.read(name) == b"body {}"
    async with client(files) as http:
        assert (await http.get(name)).text == "body {}"


def test_few_made_files_are_kept(folder: Path) -> None:
    files = StaticFiles(folder)
    names = [files.add("page", ".js", str(number).encode()) for number in range(17)]
    with pytest.raises(KeyError):
        files.read(names[0])
    assert files.read(names[1]) == b"1"


async def test_compressed_files_are_kept_up_to_a_size(folder: Path) -> None:
    files = StaticFiles(folder, kept_bytes=7000)
    names = [files.add("page", ".bin", bytes([number]) * 3000) for number in range(4)]
    async with client(files) as http:
        for name in (*names, names[0]):
            assert len((await http.get(name)).content) == 3000
    assert files._size == 6000 and [name for name, _ in files._kept] == [names[3], names[0]]
