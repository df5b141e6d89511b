"""A page without a browser: its handlers are called and iterated as Gradio does, with fake requests and events."""

import html
import re
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import pytest

from agent.turns import Turns
from components.handlers import Handlers
from components.page_state import PageState, Updates
from hosting.identity import COOKIE, Identity


def shown_text(markup: str) -> str:
    """Returns the text of a drawn message."""
    return html.unescape(re.sub(r"<[^>]*>", "", markup.replace("<br>", "\n")))


def words(text: str) -> str:
    """Returns a text without the marks of Markdown, which disappear once they are closed."""
    return re.sub(r"[\W_]+", "", text)


PARAMETERS = (4, 2000, 200, 3)
"""The values of the memory parameters' fields."""


@dataclass
class Request:
    """The attributes of a gr.Request that the handlers read."""

    cookies: dict[str, str] = field(default_factory=dict)
    client: Any = None
    query_params: dict[str, str] = field(default_factory=dict)


@dataclass
class Data:
    """The attributes of the Chatbot's event data that the handlers read."""

    index: int
    value: Any = ""


@dataclass
class Chosen:
    """The attribute of a gr.EventData that the handlers read."""

    _data: Any


def drawn_text(messages: list[Any]) -> str:
    """The text of messages of a Chatbot; only the note of a reply that has nothing else."""
    texts = [content["text"] for m in messages for content in m["content"]]
    own = [
        text for text in texts if not text.startswith(("<div class='parts ", "<div class='failure'", "<p class='note'"))
    ]
    return "\n".join(map(shown_text, own or texts[-1:]))


class Page:
    """An open page. It calls the handlers in the order of the listeners, and keeps the values of the components."""

    def __init__(self, handlers: Handlers, cookie: str | None) -> None:
        self.handlers = handlers
        self.request: Any = Request({COOKIE: cookie} if cookie else {})
        self.state = PageState()
        self.chat: list[Any] = []
        self.prompt = ""
        self.options: tuple[Any, ...] = (None, None, None, True, [], *PARAMETERS, True, {}, False, None)
        """The values of `FIELDS` after the memory mode."""
        self.lives: list[str] = []
        self.panels: list[dict[str, Any]] = []

    @property
    def visitor(self) -> str | None:
        return self.handlers.identity.visitor(self.request.cookies)

    @property
    def empty(self) -> PageState:
        return PageState(self.visitor)

    @property
    def texts(self) -> list[str]:
        """The texts of the drawn messages, without the parts of a reply."""
        return [drawn_text([m]) for m in self.chat]

    def apply(self, updates: Updates) -> None:
        """Keeps the values of the components, and changes the prompt as web/prompt.js does."""
        self.state, self.chat = updates["page"], updates.get("chat", self.chat)
        draft = updates.get("draft", {})
        if draft.get("accepted") is not None:
            self.prompt = self.prompt[draft["accepted"] :]
        elif draft.get("back") is not None:
            self.prompt = draft["back"] + self.prompt

    async def load(self, **query: str) -> Updates:
        self.request.query_params = query
        updates = await self.handlers.loader.on_load(self.request)
        self.apply(updates)
        return updates

    async def open(self, conversation_id: Any) -> Updates:
        updates = await self.handlers.loader.on_open(self.state, self.request, Chosen({"id": conversation_id}))  # type: ignore[arg-type]
        self.apply(updates)
        return updates

    async def begin(self, prompt: str, backend: str = "Script", memory: str = "tokens") -> None:
        self.prompt = prompt
        self.apply(await self.handlers.on_send(prompt, self.state, self.request, backend, memory, *self.options))

    async def follow(self) -> None:
        self.lives, self.panels = [], []
        async with aclosing(self.handlers.follower.follow(self.state, self.request)) as updates:  # type: ignore[type-var]
            async for live, panel in updates:
                if isinstance(panel, dict) and "phase" in panel:
                    self.lives.append(drawn_text(live) if isinstance(live, list) else "")
                    self.panels.append(panel)
        if "page" in (finished := await self.handlers.follower.finish(self.state, self.request)):
            self.apply(finished)

    async def send(self, prompt: str, **more: str) -> None:
        await self.begin(prompt, **more)
        await self.follow()


@pytest.fixture
def identity() -> Identity:
    return Identity("of the tests")


@pytest.fixture
def handlers(turns: Turns, identity: Identity) -> Handlers:
    return Handlers(turns, identity)


def cookie(identity: Identity) -> str:
    return identity.new_cookie().split(";")[0].removeprefix(f"{COOKIE}=")


@pytest.fixture
def page(handlers: Handlers, identity: Identity) -> Page:
    return Page(handlers, cookie(identity))
