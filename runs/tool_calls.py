"""The open tool calls of a live run: each can be cancelled alone, or wait for an approval."""

import asyncio
from dataclasses import dataclass

from runs.errors import ChatError
from runs.events import JSON


@dataclass(frozen=True, slots=True)
class ApprovalAnswer:
    """A person's answer to an approval; `input` replaces the model's own arguments, None keeps them."""

    approved: bool
    input: JSON | None = None


class ToolCalls:
    """The open calls of one run, by `tool_call_id`. Use it on the run's own loop."""

    def __init__(self) -> None:
        self._open: dict[str, asyncio.Task[object]] = {}
        self._waiting: dict[str, asyncio.Future[ApprovalAnswer]] = {}
        self._asking: dict[str, float] = {}
        """When each call that asks a question began to, on the loop's clock."""
        self._asked_s: dict[str, float] = {}
        """Seconds for which each open call has waited for answers to its questions."""
        self.cancelled: set[str] = set()
        """Calls that a person cancelled alone."""
        self.invalid: set[str] = set()
        """Calls whose arguments are not a JSON object, as in a cut reply. They are never run."""

    @property
    def only_await_approval(self) -> bool:
        """True if every open call waits for an approval."""
        return bool(self._waiting) and self._open.keys() <= self._waiting.keys() | self._asking.keys()

    @property
    def any_open(self) -> bool:
        """True if any call is open."""
        return bool(self._open)

    @property
    def awaiting_approval(self) -> list[str]:
        """The calls that wait for an approval, oldest first."""
        return list(self._waiting)

    def begin(self, call_id: str, work: "asyncio.Task[object]") -> None:
        """Registers a call and the task that runs it."""
        self._open[call_id] = work

    def end(self, call_id: str) -> None:
        """Removes a call that has ended."""
        self._open.pop(call_id, None)
        self._asked_s.pop(call_id, None)

    def cancel(self, call_id: str) -> None:
        """Cancels one call; the run continues with that as its result. Raises ChatError `busy` if it is not open."""
        if call_id not in self._open:
            raise ChatError("busy", "This tool call is no longer open: it has ended already.")
        self.cancelled.add(call_id)
        self._open[call_id].cancel()

    async def wait_for_answer(self, call_id: str) -> ApprovalAnswer:
        """Waits for a person's answer, without a timeout of its own."""
        self._waiting[call_id] = asyncio.get_running_loop().create_future()
        try:
            return await self._waiting[call_id]
        finally:
            del self._waiting[call_id]

    async def wait_for_question(self, call_id: str, question_id: str) -> ApprovalAnswer:
        """Waits for the answer to a question that an open call asks. The call's timeout does not run meanwhile."""
        loop = asyncio.get_running_loop()
        self._asking[call_id] = loop.time()
        try:
            return await self.wait_for_answer(question_id)
        finally:
            since = self._asking.pop(call_id)
            self._asked_s[call_id] = self._asked_s.get(call_id, 0.0) + loop.time() - since

    def asked_s(self, call_id: str) -> float:
        """The seconds for which a call has waited for answers to its questions so far."""
        now = asyncio.get_running_loop().time()
        return self._asked_s.get(call_id, 0.0) + now - self._asking.get(call_id, now)

    def answer(self, call_id: str, answer: ApprovalAnswer) -> None:
        """Answers an approval. Raises ChatError `busy` if the call does not wait for one."""
        waiting = self._waiting.get(call_id)
        if waiting is None or waiting.done():
            raise ChatError("busy", "This tool call waits for no approval: it has been answered, or the run has ended.")
        waiting.set_result(answer)
