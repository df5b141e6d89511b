"""The merger of tool call deltas into complete calls.

OpenAI's protocol numbers the calls by `index` and sends id and name once. Other servers omit the index, use one index
for all calls, count the deltas by it, repeat id and name in each delta, invent an id for each delta, send arguments as
an object, encode them twice, or send complete calls one after another. This module decides which call a delta belongs
to.
"""

from collections.abc import Collection
from typing import Any
from uuid import uuid4

from backends.streamed_call import CallDelta, StreamedCall
from runs.text import valid_text


class ToolDeltas:
    """The tool calls of one reply, merged from deltas in order of arrival."""

    def __init__(self, names: Collection[str] = ()) -> None:
        """`names` are the names of the tools in the request: they distinguish a name from a part of one."""
        self._names = names
        self._calls: list[StreamedCall] = []

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, deltas: Any) -> list[dict[str, str]]:
        """Merges a delta's `tool_calls`; returns the new parts of arguments as {tool, tool_call_id, delta}.

        Raises TypeError for anything else than a list of objects.
        """
        entries = [deltas] if isinstance(deltas, dict) else list(deltas)
        touched: list[StreamedCall] = []
        for position, one in enumerate(entries):
            delta = CallDelta.read(one, position if len(entries) > 1 else None)
            call = self._call_of(delta, touched)
            touched.append(call)
            self._merge(call, delta)
        distinct = {id(call): call for call in touched}.values()
        return [new for call in distinct if (new := self._unsent_delta(call))]

    def add_function_call(self, delta: Any) -> list[dict[str, str]]:
        """Merges a delta's `function_call`, the protocol's older form: one call without an id."""
        return self.add({"index": "function_call", "function": delta})

    def calls(self) -> list[dict[str, Any]]:
        """Returns the complete calls in the protocol's shape, each with its own index."""
        found: list[tuple[str | None, str, str, Any]] = []
        names = {call.name for call in self._calls} - {""}
        for call in self._calls:
            name = call.name or (next(iter(names)) if len(names) == 1 else "")
            one = (call.sent_id or (call.ids[0] if call.ids else None), name, call.arguments(), call.extra)
            if (call.name or call.ids or not call.blank) and not (one[0] and one in found):
                found.append(one)  # some servers send the same call under several indexes
        return [
            {
                "index": n,
                "id": call_id or (f"call_{uuid4().hex[:9]}" if extra else None),  # `extra` is kept by the id
                "type": "function",
                "function": {"name": name, "arguments": arguments},
                **({"extra_content": extra} if extra else {}),
            }
            for n, (call_id, name, arguments, extra) in enumerate(found)
        ]

    def _unsent_delta(self, call: StreamedCall) -> dict[str, str] | None:
        """The new part of a call's arguments, for `add`; a call without an id gets one."""
        if call.blank or not call.name or not (text := call.unsent()):
            return None
        if not call.sent_id:
            if call.ids and any(one.sent_id == call.ids[0] for one in self._calls):
                return None
            call.sent_id = call.ids[0] if call.ids else uuid4().hex[:9]
        call.sent += len(text)
        return {"tool": call.name, "tool_call_id": call.sent_id, "delta": valid_text(text)}

    def _call_of(self, delta: CallDelta, touched: list[StreamedCall]) -> StreamedCall:
        """The call that a delta belongs to; a new one if the delta starts one."""
        candidate = self._candidate(delta)
        twice = candidate in touched and bool(delta.name)  # no server names a call twice in one delta
        if candidate is None or twice or not self._continues(candidate, delta):
            candidate = StreamedCall()
            self._calls.append(candidate)
        return candidate

    def _candidate(self, delta: CallDelta) -> StreamedCall | None:
        """The call that a delta may continue: by index and id, by one of them, or the latest."""
        latest = self._calls[-1] if self._calls else None
        with_id = [call for call in self._calls if delta.id in call.ids]
        if delta.index is None:
            return with_id[-1] if with_id else latest
        numbered = [call for call in self._calls if delta.index in call.indexes]
        both = [call for call in numbered if call in with_id]
        if both or numbered:
            return (both or numbered)[-1]
        if delta.name:  # some servers name the call in each delta and count the deltas
            call = with_id[-1] if with_id else None
            if call is None or call.complete or delta.blank:
                return None
            # others use one id for all calls
            return call if not delta.starts or call.grows_into(delta.arguments) else None
        # a new index without a name: some servers restart the index for a call's arguments
        return with_id[-1] if with_id else None if delta.id else latest

    def _continues(self, call: StreamedCall, delta: CallDelta) -> bool:
        if delta.id and call.ids and delta.id not in call.ids:
            return self._continues_with_another_id(call, delta)
        if delta.name and call.name and delta.name != call.name:
            return self._is_rest_of_name(call, delta)
        if delta.blank or call.blank or call.empty or call.equals(delta.arguments):
            return True
        if isinstance(delta.arguments, dict):
            return not call.complete or (call.parsed is not None and not delta.name)
        return not (call.complete and (delta.arguments or "").lstrip().startswith(("{", '"{')))

    def _continues_with_another_id(self, call: StreamedCall, delta: CallDelta) -> bool:
        """True if a delta with another id continues the call: some servers invent an id for each delta."""
        if call.complete and not call.empty:
            return False
        if not delta.name:
            return True
        if delta.name != call.name:
            return self._is_rest_of_name(call, delta)
        if delta.blank:
            return False
        return call.blank or call.empty or not delta.starts or call.grows_into(delta.arguments)

    def _is_rest_of_name(self, call: StreamedCall, delta: CallDelta) -> bool:
        """True if a name continues the call's name, as its next part or as the whole name."""
        joined = call.name + delta.name
        if not call.blank:
            return False
        if any(name.startswith(joined) for name in self._names):
            return True
        if delta.name in self._names:
            return call.name not in self._names and delta.name.startswith(call.name)
        return call.name not in self._names

    def _merge(self, call: StreamedCall, delta: CallDelta) -> None:
        if delta.index is not None:
            call.indexes.add(delta.index)
        if delta.id and delta.id not in call.ids:
            call.ids.append(delta.id)
        if delta.name:
            call.name = self._name(call, delta.name)
        if delta.arguments is not None:
            call.merge(delta.arguments)
        call.extra = call.extra or delta.extra

    def _name(self, call: StreamedCall, name: str) -> str:
        """The call's name, merged with a delta's, which may be the same, a part, or the whole."""
        joined = call.name + name
        again = name == call.name and name in self._names
        if call.blank and not again and any(one.startswith(joined) for one in self._names):
            return joined
        if name.startswith(call.name):
            return name
        return joined if call.blank and call.name not in self._names else call.name
