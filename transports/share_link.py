"""The public link: its address as text and as a QR code, or why there is none."""

import io
from dataclasses import asdict, dataclass
from typing import Any, Literal

import segno
from fastapi import APIRouter, Response

from runs.errors import ChatError


@dataclass(slots=True)
class ShareLink:
    """The state of the public link; `off` if the settings ask for none. `message` explains a failure."""

    state: Literal["off", "making", "ready", "failed"] = "off"
    url: str = ""
    message: str = ""

    def address(self) -> str:
        """The address of the link while it is ready, else ""."""
        return self.url if self.state == "ready" else ""


def add_share_link(router: APIRouter, link: ShareLink) -> None:
    """Adds `GET /share` and `/share.svg`."""

    @router.get("/share", include_in_schema=False)
    async def share() -> dict[str, Any]:
        return asdict(link)

    @router.get("/share.svg", include_in_schema=False)
    async def share_code() -> Response:
        if link.state != "ready":
            raise ChatError("not_found", "There is no public link.")
        image = io.BytesIO()
        segno.make(link.url, error="m").save(image, kind="svg", scale=6, border=2, light="white")
        return Response(image.getvalue(), media_type="image/svg+xml", headers={"Cache-Control": "no-cache"})
