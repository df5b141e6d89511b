"""Serves files whose names change with their content, so that browsers keep them for ever."""

import hashlib
import mimetypes
import re
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hosting.compression import choose_encoding, compress
from runs.threads import Threads

_HASHED = re.compile(r"-[\w-]{8,}\.\w+$")
"""The end of a name that has a hash of the content."""
_TEXTS = {".css", ".js", ".json", ".map", ".svg"}
_KEPT_BYTES = 16_000_000
_MADE = 16
_FOREVER = "public, max-age=31536000, immutable"
_THREADS = Threads("static files", 2)


class StaticFiles:
    """ASGI app that serves the files of a folder and files that the app makes, each compressed once.

    Only names that end with a hash are served. The compressed files are kept, up to `kept_bytes` of them.
    """

    def __init__(self, folder: Path, kept_bytes: int = _KEPT_BYTES) -> None:
        self._folder, self._kept_bytes = folder, kept_bytes
        self._names = frozenset(file.name for file in folder.iterdir() if _HASHED.search(file.name))
        self._made: OrderedDict[str, bytes] = OrderedDict()
        self._kept: OrderedDict[tuple[str, str | None], bytes] = OrderedDict()
        self._size = 0

    def add(self, stem: str, suffix: str, content: bytes) -> str:
        """Adds a file and returns its name, which begins with `stem`. The oldest of too many is dropped."""
        name = f"{stem}-{hashlib.sha256(content).hexdigest()[:16]}{suffix}"
        self._made[name] = content
        self._made.move_to_end(name)
        if len(self._made) > _MADE:
            self._made.popitem(last=False)
        return name

    def read(self, name: str) -> bytes:
        """Reads a file. Raises KeyError if there is none of this name."""
        if name in self._made:
            return self._made[name]
        if name not in self._names:
            raise KeyError(name)
        return (self._folder / name).read_bytes()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name, headers = str(scope["path_params"]["name"]), Headers(scope=scope)
        if name not in self._made and name not in self._names:
            raise HTTPException(404, "Not Found")
        is_text = Path(name).suffix in _TEXTS
        encoding = choose_encoding(headers.get("accept-encoding", "")) if is_text else None
        tag = f'W/"{name}"'
        unchanged = bool({tag, "*"} & set(_tags(headers.get("if-none-match", ""))))
        content = b"" if unchanged else await self._content(name, encoding)
        response = Response(content, 304 if unchanged else 200)
        response.headers.update({"Cache-Control": _FOREVER, "ETag": tag, "Vary": "Accept-Encoding"})
        if not unchanged:
            response.headers["Content-Type"] = _content_type(name)
            if encoding:
                response.headers["Content-Encoding"] = encoding
        if scope["method"] == "HEAD":
            response.body = b""
        await response(scope, receive, send)

    async def _content(self, name: str, encoding: str | None) -> bytes:
        key = name, encoding
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        content = await _THREADS.run(self._encoded, name, encoding)
        if key not in self._kept:
            self._kept[key] = content
            self._size += len(content)
        while self._size > self._kept_bytes:
            self._size -= len(self._kept.popitem(last=False)[1])
        return content

    def _encoded(self, name: str, encoding: str | None) -> bytes:
        content = self.read(name)
        return compress(content, encoding, kept=True) if encoding else content


def _tags(header: str) -> Iterator[str]:
    """Yields the tags of an `If-None-Match` header, as weak ones."""
    for tag in header.split(","):
        yield f"W/{tag.strip()}" if tag.strip().startswith('"') else tag.strip()


def _content_type(name: str) -> str:
    if name.endswith(".js"):
        return "text/javascript; charset=utf-8"
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return f"{kind}; charset=utf-8" if Path(name).suffix in _TEXTS else kind
