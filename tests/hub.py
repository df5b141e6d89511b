"""Enough of the Hugging Face Hub on 127.0.0.1 to download a file from, with `HF_ENDPOINT` set to its `url`.

Source: the client library's guides "Download files" and "Environment variables" and its own reading of the answers.
"""

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

from tests.server import Request, Server, Wire

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_test"
"""What opens gated repositories."""


class HubServer(Server):
    """`files` by `owner/repo/path`; a repository is what has files, and its only revision is `main`."""

    def __init__(self, files: Mapping[str, bytes], gated: Collection[str] = (), piece: int = 65536) -> None:
        super().__init__()
        self.files, self.gated, self.piece = files, gated, piece
        self.pause = 0.0
        """Seconds before each `piece` bytes."""
        self.cut_at: int | None = None
        """The next download's connection ends where the file has so many bytes."""

    async def respond(self, request: Request, wire: Wire) -> None:
        repo, _, rest = request.path.partition("?")[0].removeprefix("/").partition("/resolve/")
        revision, _, path = rest.partition("/")
        authorized = "authorization" in request.headers
        if not any(name.startswith(f"{repo}/") for name in self.files):
            await self._refuse(404 if authorized else 401, "RepoNotFound", "Repository not found", request, wire)
        elif repo in self.gated and request.headers.get("authorization") != f"Bearer {TOKEN}":
            message = f"Access to model {repo} is restricted."
            await self._refuse(403 if authorized else 401, "GatedRepo", message, request, wire)
        elif revision not in ("main", COMMIT):
            await self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}", request, wire)
        elif (data := self.files.get(f"{repo}/{path}")) is None:
            await self._refuse(404, "EntryNotFound", "Entry not found", request, wire)
        else:
            await self._file(data, request, wire)

    async def _file(self, data: bytes, request: Request, wire: Wire) -> None:
        begin = int(request.headers.get("range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        headers: dict[str, Any] = {
            "ETag": f'"{hashlib.sha256(data).hexdigest()}"',
            "X-Repo-Commit": COMMIT,
            "Accept-Ranges": "bytes",
            "Content-Type": "application/octet-stream",
            "Content-Length": len(data) - begin,
        }
        if begin:
            headers["Content-Range"] = f"bytes {begin}-{len(data) - 1}/{len(data)}"
        await wire.head(206 if begin else 200, headers)
        if request.method == "HEAD":
            return
        end, self.cut_at = self.cut_at, None
        await wire.send(data[begin:end], self.pause, self.piece)
        if end is not None:
            wire.cut()

    async def _refuse(self, status: int, code: str, message: str, request: Request, wire: Wire) -> None:
        received = {"X-Error-Code": code, "X-Error-Message": message, "X-Repo-Commit": COMMIT}
        if request.method == "HEAD":
            await wire.head(status, {**received, "Content-Length": 0})
        else:
            await wire.json({"error": message}, status, received)
