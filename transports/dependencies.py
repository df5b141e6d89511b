"""FastAPI dependencies that the routes share."""

from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from hosting.guard import REQUESTER
from runs.requester import Requester


def current_requester(connection: HTTPConnection) -> Requester:
    """The requester of this connection, whom the guard has identified."""
    requester: Requester = connection.scope[REQUESTER]
    return requester


CurrentRequester = Annotated[Requester, Depends(current_requester)]


def current_visitor(requester: CurrentRequester) -> str | None:
    """The id of the visitor who makes this request; None without a cookie."""
    return requester.visitor


CurrentVisitor = Annotated[str | None, Depends(current_visitor)]
