"""The tool calls of a live run on which somebody outside may act: end one alone, or answer its approval."""

import asyncio
from dataclasses import dataclass

from runs.errors import ChatError
from runs.events import JSON


@dataclass(frozen=True, slots=True)
class ApprovalAnswer:
    """What a person answered to an approval; `input` takes the place of what the model wanted, None leaves it."""

    approved: bool
    input: JSON | None = None


class ToolCalls:
    """The open calls of one run, by `tool_call_id`. Used on the run's own loop."""

    def __init__(self) -> None:
        self._working: dict[str, asyncio.Task[object]] = {}
        self._asked: dict[str, asyncio.Future[ApprovalAnswer]] = {}
        self.cancelled: set[str] = set()
        """Those that somebody ended alone."""
        self.invalid: set[str] = set()
        """Those whose arguments are no JSON object, as when a reply is cut: what they ask for is not guessed."""

    @property
    def only_await_approval(self) -> bool:
        """Whether all that is open waits for a person."""
        return bool(self._asked) and self._working.keys() <= self._asked.keys()

    @property
    def any_open(self) -> bool:
        """Whether any is open."""
        return bool(self._working)

    @property
    def awaiting_approval(self) -> list[str]:
        """The calls that wait for an answer, oldest first."""
        return list(self._asked)

    def begin(self, call_id: str, work: "asyncio.Task[object]") -> None:
        self._working[call_id] = work

    def end(self, call_id: str) -> None:
        self._working.pop(call_id, None)

    def cancel(self, call_id: str) -> None:
        """Ends one call alone; the run goes on with that as its result. Raises ChatError `busy` if it is not open."""
        if call_id not in self._working:
            raise ChatError("busy", "This tool call is no longer open: it has ended already.")
        self.cancelled.add(call_id)
        self._working[call_id].cancel()

    async def wait_for_answer(self, call_id: str) -> ApprovalAnswer:
        """Waits for a person, as long as the run may."""
        self._asked[call_id] = asyncio.get_running_loop().create_future()
        try:
            return await self._asked[call_id]
        finally:
            del self._asked[call_id]

    def answer(self, call_id: str, answer: ApprovalAnswer) -> None:
        """Raises ChatError `busy` if the call does not wait for an answer, or no longer."""
        waiting = self._asked.get(call_id)
        if waiting is None or waiting.done():
            raise ChatError("busy", "This tool call waits for no approval: it has been answered, or the run has ended.")
        waiting.set_result(answer)
