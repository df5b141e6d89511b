"""Clients that hold conversations over `POST /stream`, and then compare what is stored with what they received."""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

from bench.model import token

RATE = 60
"""Tokens a second."""
_TOKENS = (20, 60, 400)

OnMoment = Callable[[str], None]
"""A callback for `asked`, `acknowledged`, `ending` (nearly all of a reply has come) and `ended`."""


@dataclass
class Turn:
    """A message and its reply as the client received it; `expected` is the whole reply if a script defines it."""

    message: str
    expected: str | None = None
    acknowledged: bool = False
    """By the headers of the response."""
    complete: str | None = None
    """The reply as it ended."""
    seen: str = ""
    written: list[tuple[float, int]] = field(default_factory=list)
    """When the app wrote each chunk, by its own clock, so that a slow client hides nothing, and the length so far."""
    stored: tuple[str, str] | None = None
    """The reply's text and standing when it was first compared."""

    def receive(self, event: dict[str, Any]) -> None:
        """Adds an event. Raises RuntimeError for a failed reply."""
        match event["type"]:
            case "token":
                self.seen += event["content"]
                self.written.append((datetime.fromisoformat(event["timestamp"]).timestamp(), len(self.seen)))
            case "complete":
                self.complete = event["content"]
            case "error" | "stopped":
                raise RuntimeError(f"a reply ended with {event}")

    @property
    def ending(self) -> bool:
        """True if only the last token is missing."""
        return self.expected is not None and len(self.seen) >= len(self.expected) - len(token(0))

    @property
    def cut(self) -> bool:
        """True if the reply was stored as interrupted."""
        return self.stored is not None and self.stored[1] == "interrupted"

    def lost_s(self, killed: float) -> float:
        """Returns how long before the kill the first chunk was written that the client has and the store has not."""
        kept = len(self.stored[0]) if self.stored else 0
        return max((killed - at for at, length in self.written if length > kept), default=0.0)

    def compare(self, reply: dict[str, Any]) -> Iterator[str]:
        """Yields the differences of the stored reply, in words."""
        text, standing = now = reply["content"], reply["standing"]
        if self.stored is not None:
            if now != self.stored:
                yield "a reply has changed since it was last compared"
            return
        self.stored = now
        if standing not in ("whole", "interrupted"):
            yield f"a reply is {standing}"
        if self.complete is not None and now != (self.complete, "whole"):
            yield f"a complete reply of {len(self.complete)} characters is {standing} with {len(text)}"
        if not (text.startswith(self.seen) or self.seen.startswith(text)):
            yield f"a reply differs from what its client received: {text[-40:]!r}"
        if self.expected is not None:
            if not self.expected.startswith(text):
                yield f"a reply differs from what the model has written: {text[-40:]!r}"
            if standing == "whole" and text != self.expected:
                yield "a cut reply is stored as whole"


@dataclass
class Talker:
    """A client that sends one message after another in one conversation, and repeats those whose reply was cut.

    `model` names a backend whose replies are not known before; None means the script.
    """

    name: str
    luck: random.Random
    memory: str
    model: str | None = None
    conversation_id: str | None = None
    turns: list[Turn] = field(default_factory=list)

    async def talk(self, client: httpx.AsyncClient, on_moment: OnMoment) -> None:
        """Sends messages until the connection breaks."""
        while True:
            tokens = self.luck.choice(_TOKENS)
            again = next((turn for turn in self.turns[-2:] if turn.cut), None)
            await self.say(client, again.message if again else f"N={tokens} R={RATE} {self._next}", on_moment)

    async def continue_briefly(self, client: httpx.AsyncClient) -> None:
        """Completes one short turn. Raises RuntimeError if its reply has no end."""
        await self.say(client, f"N=5 R=0 {self._next}", lambda _: None)
        if self.turns[-1].complete is None:
            raise RuntimeError("a reply has no end")

    @property
    def _next(self) -> str:
        return f"{self.name} {len(self.turns)}"

    async def say(self, client: httpx.AsyncClient, message: str, on_moment: OnMoment) -> None:
        """Sends a message and reads its reply. Raises RuntimeError."""
        tokens = int(message.split()[0].removeprefix("N="))
        turn = Turn(message, None if self.model else "".join(map(token, range(tokens))))
        self.turns.append(turn)
        body: dict[str, Any] = {"message": message, "conversation_id": self.conversation_id, "memory": self.memory}
        body |= {"backend": self.model, "max_tokens": tokens} if self.model else {}
        on_moment("asked")
        async with client.stream("POST", "/stream", json=body) as response:
            if response.status_code != 200:
                self.turns.pop()
                raise RuntimeError(f"refused: {(await response.aread()).decode()[:300]}")
            turn.acknowledged = True
            self.conversation_id = response.headers["x-conversation-id"]
            on_moment("acknowledged")
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    complete, ending = turn.complete, turn.ending
                    turn.receive(json.loads(line[6:]))
                    if turn.ending and not ending:
                        on_moment("ending")
                    if turn.complete != complete:
                        on_moment("ended")

    async def compare(self, client: httpx.AsyncClient) -> list[str]:
        """Returns the differences of the stored conversation, in words."""
        if self.conversation_id is None:  # nothing was acknowledged
            self.turns.clear()
            return []
        response = await client.get(f"/conversations/{self.conversation_id}")
        if response.status_code != 200:
            return [f"{self.name}: a conversation cannot be read: {response.text[:300]}"]
        stored = response.json()["messages"]
        if self.turns and not self.turns[-1].acknowledged and len(stored) < 2 * len(self.turns):
            self.turns.pop()  # it was never acknowledged, and may not have arrived
        if [message["role"] for message in stored] != ["user", "assistant"] * len(self.turns):
            return [f"{self.name}: {len(self.turns)} turns are stored as {len(stored)} messages"]
        wrong = []
        for turn, asked, reply in zip(self.turns, stored[::2], stored[1::2], strict=True):
            if asked["content"] != turn.message or asked["standing"] != "whole":
                wrong.append(f"a message is not the one that was sent: {asked['content'][:60]!r}")
            wrong.extend(turn.compare(reply))
        return [f"{self.name}: {words}" for words in wrong]
