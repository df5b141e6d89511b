"""Clients that hold conversations over `POST /stream`, and then compare what is stored with what they have seen."""

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

from bench.model import token

JSON = dict[str, Any]
Happened = Callable[[str], None]
"""Is told of `asked`, `acknowledged`, `ending` (nearly all of a reply has come) and `ended`, as they happen."""

RATE = 60
"""Tokens a second."""
_TOKENS = (20, 60, 400)
_STANDINGS = ("whole", "interrupted")


@dataclass
class Turn:
    """One message as its client has seen it; `expected` is the whole reply, None if no script tells."""

    message: str
    expected: str | None = None
    acknowledged: bool = False
    """By the answer's headers."""
    whole: str | None = None
    """The reply as it ended."""
    seen: str = ""
    written: list[tuple[float, int]] = field(default_factory=list)
    """When the app wrote a piece (by its own clock, so that a late client hides nothing), and what it had then."""
    stored: tuple[str, str] | None = None
    """The reply's text and standing when it was first compared."""

    def take(self, event: JSON) -> None:
        match event["type"]:
            case "token":
                self.seen += event["content"]
                self.written.append((datetime.fromisoformat(event["timestamp"]).timestamp(), len(self.seen)))
            case "complete":
                self.whole = event["content"]
            case "error" | "stopped":
                raise RuntimeError(f"a reply ended with {event}")

    @property
    def ending(self) -> bool:
        return self.expected is not None and len(self.seen) >= len(self.expected) - len(token(0))

    def lost_s(self, killed: float) -> float:
        """How long before the kill the first piece was written that its client has seen and the store has not."""
        kept = len(self.stored[0]) if self.stored else 0
        return max((killed - at for at, length in self.written if length > kept), default=0.0)

    def compare(self, reply: JSON) -> Iterator[str]:
        """What is wrong with the stored reply, in words."""
        text, standing = now = reply["content"], reply["standing"]
        if self.stored is not None:
            if now != self.stored:
                yield "a reply has changed since it was last looked at"
            return
        self.stored = now
        if standing not in _STANDINGS:
            yield f"a reply is {standing}"
        if self.whole is not None and now != (self.whole, "whole"):
            yield f"a whole reply of {len(self.whole)} characters is {standing} with {len(text)}"
        if not (text.startswith(self.seen) or self.seen.startswith(text)):
            yield f"a reply is another than its client has seen: {text[-40:]!r}"
        if self.expected is not None:
            if not self.expected.startswith(text):
                yield f"a reply is another than the model has written: {text[-40:]!r}"
            if standing == "whole" and text != self.expected:
                yield "a cut reply is called whole"


@dataclass
class Talker:
    """Says one thing after another in one conversation; what was cut it asks again. `model` names the backend whose
    replies are not known before, None takes the script.
    """

    name: str
    luck: random.Random
    memory: str
    model: str | None = None
    conversation_id: str | None = None
    turns: list[Turn] = field(default_factory=list)

    async def talk(self, client: httpx.AsyncClient, happened: Happened) -> None:
        """Until the line breaks."""
        while True:
            tokens = self.luck.choice(_TOKENS)
            again = next((turn for turn in self.turns[-2:] if turn.stored and turn.stored[1] == "interrupted"), None)
            await self.say(client, again.message if again else f"N={tokens} R={RATE} {self._next}", happened)

    async def go_on(self, client: httpx.AsyncClient) -> None:
        """One short turn, to its end. Raises RuntimeError if there is none."""
        await self.say(client, f"N=5 R=0 {self._next}", lambda _: None)
        if self.turns[-1].whole is None:
            raise RuntimeError("a reply has no end")

    @property
    def _next(self) -> str:
        return f"{self.name} {len(self.turns)}"

    async def say(self, client: httpx.AsyncClient, message: str, happened: Happened) -> None:
        tokens = int(message.split()[0].removeprefix("N="))
        turn = Turn(message, None if self.model else "".join(map(token, range(tokens))))
        self.turns.append(turn)
        body = {"message": message, "conversation_id": self.conversation_id, "memory": self.memory}
        body |= {"backend": self.model, "max_tokens": tokens} if self.model else {}
        happened("asked")
        async with client.stream("POST", "/stream", json=body) as answer:
            if answer.status_code != 200:
                self.turns.pop()
                raise RuntimeError(f"refused: {(await answer.aread()).decode()[:300]}")
            turn.acknowledged = True
            self.conversation_id = answer.headers["x-conversation-id"]
            happened("acknowledged")
            async for line in answer.aiter_lines():
                if line.startswith("data: "):
                    ended, near = turn.whole, turn.ending
                    turn.take(json.loads(line[6:]))
                    if turn.ending and not near:
                        happened("ending")
                    if turn.whole != ended:
                        happened("ended")

    async def compare(self, client: httpx.AsyncClient) -> list[str]:
        """What is wrong with the stored conversation, in words."""
        if self.conversation_id is None:  # nothing was acknowledged
            self.turns.clear()
            return []
        answer = await client.get(f"/conversations/{self.conversation_id}")
        if answer.status_code != 200:
            return [f"{self.name}: a conversation cannot be read: {answer.text[:300]}"]
        stored = answer.json()["messages"]
        if self.turns and not self.turns[-1].acknowledged and len(stored) < 2 * len(self.turns):
            self.turns.pop()  # it was never acknowledged, and need not have come through
        roles = [message["role"] for message in stored]
        if roles != ["user", "assistant"] * len(self.turns):
            return [f"{self.name}: {len(self.turns)} turns are stored as {len(stored)} messages"]
        wrong = []
        for turn, asked, reply in zip(self.turns, stored[::2], stored[1::2], strict=True):
            if asked["content"] != turn.message or asked["standing"] != "whole":
                wrong.append(f"a message is not the one that was sent: {asked['content'][:60]!r}")
            wrong.extend(turn.compare(reply))
        return [f"{self.name}: {words}" for words in wrong]
