"""The routes of images: a visitor adds one, names it in a message, and sees it again in the conversation."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from agent.turns import Turns
from runs.errors import ChatError
from runs.events import JSON
from runs.images import TYPE
from transports.dependencies import CurrentRequester, CurrentVisitor
from transports.disconnects import while_connected
from transports.schemas import Id

_HEADERS = {
    "Cache-Control": "private, max-age=31536000, immutable",
    "Content-Security-Policy": "default-src 'none'; sandbox",
}


def add_images(router: APIRouter, turns: Turns) -> None:
    """Adds `POST /images` and `GET|DELETE /images/{image_id}`. A new image belongs to a visitor's cookie."""

    @router.post("/images", status_code=201, tags=["conversations"])
    async def add_image(
        request: Request, requester: CurrentRequester, name: Annotated[str, Query(max_length=400)] = ""
    ) -> JSON:
        """Adds an image for a message of the next hour. The body is the file itself: PNG, JPEG, WebP or GIF."""
        _owner(requester.visitor)
        return (await while_connected(request, turns.visitor_images.add(requester, name, await request.body()))).wire()

    @router.get(
        "/images/{image_id}",
        response_class=Response,
        responses={200: {"content": {TYPE: {}}}},
        tags=["conversations"],
    )
    async def image(
        image_id: Id, visitor: CurrentVisitor, conversation_id: Annotated[Id | None, Query()] = None
    ) -> Response:
        """An image as it was kept: of a conversation, or without one of the visitor's own."""
        if conversation_id:
            conversation = await turns.store.conversation(conversation_id, visitor)
            jpeg = await turns.images.read(conversation.owner, conversation.id, image_id)
        else:
            jpeg = await turns.images.read_own(_owner(visitor), image_id)
        return Response(jpeg, media_type=TYPE, headers=_HEADERS)

    @router.delete("/images/{image_id}", status_code=204, tags=["conversations"])
    async def remove_image(image_id: Id, visitor: CurrentVisitor) -> None:
        """Removes an image that no message has. Those of messages are deleted with their conversation."""
        await turns.images.remove(_owner(visitor), image_id)


def _owner(visitor: str | None) -> str:
    if visitor is None:
        way_out = "Open the page first, and send its cookie; or send a data: address with the message"
        raise ChatError("authentication", f"Images belong to a visitor. {way_out}.")
    return visitor
