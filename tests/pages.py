"""A page without a browser: its callbacks, called and iterated as Gradio would, with a stand-in for its request."""

import html
import re
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
import pytest

from agent.turns import Turns
from backends import OPTION_NAMES
from components.handlers import Handlers
from components.page_state import PageState
from hosting.identity import COOKIE, Identity


def shown_text(markup: str) -> str:
    """The text of a drawn message."""
    return html.unescape(re.sub(r"<[^>]*>", "", markup.replace("<br>", "\n")))


def words(text: str) -> str:
    """A text without the marks of Markdown, which go once they are closed."""
    return re.sub(r"[\W_]+", "", text)


PARAMETERS = (4, 2000, 200, 3)
"""What the fields of the memory modes' parameters hold."""


@dataclass
class Request:
    """What the handlers read of a gr.Request."""

    cookies: dict[str, str] = field(default_factory=dict)
    client: Any = None
    query_params: dict[str, str] = field(default_factory=dict)


@dataclass
class Data:
    """What the handlers read of the Chatbot's event data."""

    index: int
    value: Any = ""


@dataclass
class Chosen:
    """What the handlers read of a gr.EventData."""

    _data: Any


class Page:
    """One open page: calls the listeners in their order and keeps what they give to the components."""

    def __init__(self, handlers: Handlers, cookie: str | None) -> None:
        self.handlers = handlers
        self.request: Any = Request({COOKIE: cookie} if cookie else {})
        self.state = PageState()
        self.chat: list[Any] = []
        self.prompt = ""
        self.options: tuple[Any, ...] = (None, None, None, [], *PARAMETERS)
        """What the fields of the options hold: system prompt, temperature, longest reply, tools, parameters."""
        self.lives: list[str] = []
        self.panels: list[dict[str, Any]] = []

    @property
    def empty(self) -> PageState:
        return PageState(self.handlers._visitor(self.request))

    @property
    def texts(self) -> list[str]:
        """The texts of the drawn messages, without the parts that stand before a reply."""
        drawn = ([part["text"] for part in m["content"]] for m in self.chat)
        return [shown_text(next(t for t in texts if not t.startswith("<div class='parts'>"))) for texts in drawn]

    def takes(self, updates: tuple[Any, ...]) -> None:
        self.state, draft, self.chat = updates[:3]
        if draft.get("accepted") is not None:  # as web/prompt.js does
            self.prompt = self.prompt[draft["accepted"] :]
        elif draft.get("back") is not None:
            self.prompt = draft["back"] + self.prompt

    async def load(self, **query: str) -> tuple[Any, ...]:
        self.request.query_params = query
        updates = await self.handlers.loader.on_load(self.request)
        self.state, self.chat = updates[:2]
        return updates

    async def open(self, conversation_id: Any) -> tuple[Any, ...]:
        updates = await self.handlers.loader.on_open(self.state, self.request, Chosen({"id": conversation_id}))  # type: ignore[arg-type]
        self.state, self.chat = updates[:2]
        return updates

    async def begin(self, prompt: str, backend: str = "Script", memory: str = "tokens") -> None:
        self.prompt = prompt
        send = self.handlers.on_send(prompt, self.state, self.request, backend, memory, *self.options)
        self.takes(await send)

    async def follow(self) -> None:
        self.lives, self.panels = [], []
        async with aclosing(self.handlers.follower.follow(self.state, self.request)) as updates:  # type: ignore[type-var]
            async for live, panel in updates:
                if isinstance(panel, dict) and "phase" in panel:
                    drawn = live[0]["content"][0]["text"] if isinstance(live, list) and live else ""
                    self.lives.append(shown_text(drawn))
                    self.panels.append(panel)
        updates = await self.handlers.follower.finish(self.state, self.request)
        if updates[0] != gr.skip():
            self.state = updates[0]
        if self.lives:
            self.chat = updates[1]

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


@dataclass
class Named:
    """What the handlers read of an event of `web/turns.js`."""

    _data: Any


def fields(updates: tuple[Any, ...]) -> dict[str, Any]:
    """The options' updates by their place in `OptionsPane.drawn`; the parameters come after them where a page loads."""
    loaded = isinstance(updates[0], PageState)
    names = (*OPTION_NAMES, "tools", "key_row", "key", "forget_key")
    return dict(zip(names, updates[-11:-4] if loaded else updates[-7:], strict=True))
