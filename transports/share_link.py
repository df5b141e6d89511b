"""The public link, for the page to show: its address as text and as a QR code, or why there is none."""

import io
from dataclasses import asdict, dataclass
from typing import Any, Literal

import segno
from fastapi import APIRouter, Response

from runs.errors import ChatError


@dataclass(slots=True)
class ShareLink:
    """`off` if none was asked for. `message` says what a failure means and what to do."""

    state: Literal["off", "making", "ready", "failed"] = "off"
    url: str = ""
    message: str = ""

    def address(self) -> str:
        """The link's address while it leads here, else ""."""
        return self.url if self.state == "ready" else ""


def add_sharing(router: APIRouter, link: ShareLink) -> None:
    """Adds `GET /share` and `/share.svg`."""

    @router.get("/share", include_in_schema=False)
    async def share() -> dict[str, Any]:
        return asdict(link)

    @router.get("/share.svg", include_in_schema=False)
    async def share_code() -> Response:
        if link.state != "ready":
            raise ChatError("not_found", "There is no public link.")
        drawn = io.BytesIO()
        segno.make(link.url, error="m").save(drawn, kind="svg", scale=6, border=2, light="white")
        return Response(drawn.getvalue(), media_type="image/svg+xml", headers={"Cache-Control": "no-cache"})
