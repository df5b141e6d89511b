"""The deltas of a streamed reply's tool calls, merged into whole calls.

OpenAI's protocol numbers the calls by `index` and gives id and name once. Servers that claim to speak it leave the
index out, give all calls the same one, count the deltas by it, repeat id and name in each delta or make up an id for
each, send arguments as an object, encode them twice, and put whole calls one after another. This module decides which
call a delta belongs to.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from runs.text import valid_text


@dataclass(slots=True)
class _Delta:
    """One entry of `tool_calls`. `arguments` is text, an object, or None."""

    index: str | None
    id: str | None
    name: str
    arguments: str | dict[str, Any] | None
    extra: Any = None
    """`extra_content`, in which Google sends the signature of the thinking before a call."""

    @property
    def blank(self) -> bool:
        """Whether it has nothing of the arguments."""
        return self.arguments is None or (isinstance(self.arguments, str) and not self.arguments.strip())

    @property
    def begins(self) -> bool:
        """Whether its arguments may be the beginning of an object."""
        return isinstance(self.arguments, dict) or (self.arguments or "").lstrip().startswith("{")


@dataclass(slots=True)
class _Call:
    """A call so far. `parsed` holds arguments that came as an object, `text` those that came as text."""

    indexes: set[str] = field(default_factory=set)
    ids: list[str] = field(default_factory=list)
    name: str = ""
    text: str = ""
    grown: str | None = ""
    """The latest piece, as long as each began with the one before: then each may be the whole so far."""
    parsed: dict[str, Any] | None = None
    extra: Any = None
    told_id: str = ""
    """The id under which its arguments are told while they come; empty until they are."""
    told: int = 0
    """Characters of the arguments that have been told."""

    @property
    def blank(self) -> bool:
        return self.parsed is None and not self.text.strip()

    @property
    def empty(self) -> bool:
        """Whether its arguments are `{}`: some servers begin with that, and send the arguments then."""
        return self.parsed == {} or self.text.strip() == "{}"

    @property
    def complete(self) -> bool:
        """Whether its arguments are a whole object."""
        if self.parsed is not None:
            return True
        text = self.text.strip()
        ended = text.endswith("}") or (text.startswith('"') and text.endswith('"'))  # parsed only where it may be whole
        return ended and self.object() is not None

    def object(self) -> dict[str, Any] | None:
        """The arguments, if they are an object: as one, as text in pieces, or as a text that grew."""
        if self.parsed is not None:
            return self.parsed
        found = _object(self.text)
        return _object(self.grown or "") if found is None else found

    def untold(self) -> str:
        """What has come of the arguments and has not been told: an object once, and no `{}`, which may be replaced."""
        if self.told == 0 and self.empty:
            return ""
        if self.parsed is not None:
            return "" if self.told else json.dumps(self.parsed, ensure_ascii=False)
        return (self.grown or self.text)[self.told :]

    def grows_into(self, arguments: str | dict[str, Any] | None) -> bool:
        """Whether these arguments may be all so far and more: some servers send all of them each time."""
        if not self.grown or not isinstance(arguments, str):
            return False
        return len(arguments) > len(self.grown) and arguments.startswith(self.grown)

    def same(self, arguments: str | dict[str, Any] | None) -> bool:
        """Whether these arguments are the call's own once more."""
        given = arguments if isinstance(arguments, dict) else _object(arguments or "")
        return given is not None and given == self.object()


class ToolDeltas:
    """Merges deltas in the order in which they arrive."""

    def __init__(self, names: Collection[str] = ()) -> None:
        """`names` are those of the tools that the model was offered: they tell a name from a piece of one."""
        self._names = names
        self._calls: list[_Call] = []

    def __bool__(self) -> bool:
        return bool(self._calls)

    def add(self, deltas: Any) -> list[dict[str, str]]:
        """Takes a delta's `tool_calls`, and returns what it adds to arguments: {tool, tool_call_id, delta}.

        Raises TypeError where they are no list of objects.
        """
        listed = [deltas] if isinstance(deltas, dict) else list(deltas)
        touched: list[_Call] = []
        for place, one in enumerate(listed):
            delta = _read(one, place if len(listed) > 1 else None)
            call = self._call_of(delta, touched)
            touched.append(call)
            self._merge(call, delta)
        distinct = {id(call): call for call in touched}.values()
        return [piece for call in distinct if (piece := self._told(call))]

    def add_function_call(self, delta: Any) -> list[dict[str, str]]:
        """Takes a delta's `function_call`, as the protocol had it before tools: one call, without an id."""
        return self.add({"index": "function_call", "function": delta})

    def calls(self) -> list[dict[str, Any]]:
        """The whole calls in the protocol's shape, each with an index of its own."""
        found: list[tuple[str | None, str, str, Any]] = []
        names = {call.name for call in self._calls} - {""}
        for call in self._calls:
            name = call.name or (next(iter(names)) if len(names) == 1 else "")
            one = (call.told_id or (call.ids[0] if call.ids else None), name, _arguments(call), call.extra)
            if (call.name or call.ids or not call.blank) and not (one[0] and one in found):
                found.append(one)  # some servers send the same call under several indexes
        return [
            {
                "index": n,
                "id": call_id or (f"call_{uuid4().hex[:9]}" if extra else None),  # what is extra is kept by the id
                "type": "function",
                "function": {"name": name, "arguments": arguments},
                **({"extra_content": extra} if extra else {}),
            }
            for n, (call_id, name, arguments, extra) in enumerate(found)
        ]

    def _told(self, call: _Call) -> dict[str, str] | None:
        """What is new of a call's arguments. One without an id of its own gets one, since they are told by it."""
        if call.blank or not call.name or not (piece := call.untold()):
            return None
        if not call.told_id:
            if call.ids and any(one.told_id == call.ids[0] for one in self._calls):
                return None
            call.told_id = call.ids[0] if call.ids else uuid4().hex[:9]
        call.told += len(piece)
        return {"tool": call.name, "tool_call_id": call.told_id, "delta": valid_text(piece)}

    def _call_of(self, delta: _Delta, touched: list[_Call]) -> _Call:
        """The call that a delta belongs to; a new one where it begins one."""
        candidate = self._candidate(delta)
        twice = candidate in touched and bool(delta.name)  # no server names one call twice in a delta
        if candidate is None or twice or not self._continues(candidate, delta):
            candidate = _Call()
            self._calls.append(candidate)
        return candidate

    def _candidate(self, delta: _Delta) -> _Call | None:
        """The call that a delta continues, if it begins none: by index and id, else by one of them, else the latest."""
        latest = self._calls[-1] if self._calls else None
        with_id = [call for call in self._calls if delta.id in call.ids]
        if delta.index is None:
            return with_id[-1] if with_id else latest
        numbered = [call for call in self._calls if delta.index in call.indexes]
        both = [call for call in numbered if call in with_id]
        if both or numbered:
            return (both or numbered)[-1]
        if delta.name:  # some servers name the call in each delta, and count the deltas
            call = with_id[-1] if with_id else None
            if call is None or call.complete or delta.blank:
                return None
            # others give one id to all calls
            return call if not delta.begins or call.grows_into(delta.arguments) else None
        # a number that is new, without a name: some servers count the arguments of a call anew
        return with_id[-1] if with_id else None if delta.id else latest

    def _continues(self, call: _Call, delta: _Delta) -> bool:
        if delta.id and call.ids and delta.id not in call.ids:
            return self._continues_with_another_id(call, delta)
        if delta.name and call.name and delta.name != call.name:
            return self._is_rest_of_name(call, delta)
        if delta.blank or call.blank or call.empty or call.same(delta.arguments):
            return True
        if isinstance(delta.arguments, dict):
            return not call.complete or (call.parsed is not None and not delta.name)
        return not (call.complete and (delta.arguments or "").lstrip().startswith(("{", '"{')))

    def _continues_with_another_id(self, call: _Call, delta: _Delta) -> bool:
        """Some servers make up an id for each delta, others number all calls alike."""
        if call.complete and not call.empty:
            return False
        if not delta.name:
            return True
        if delta.name != call.name:
            return self._is_rest_of_name(call, delta)
        if delta.blank:
            return False
        return call.blank or call.empty or not delta.begins or call.grows_into(delta.arguments)

    def _is_rest_of_name(self, call: _Call, delta: _Delta) -> bool:
        """Whether a name goes on with the call's, as a piece or as the whole of it."""
        joined = call.name + delta.name
        if not call.blank:
            return False
        if any(name.startswith(joined) for name in self._names):
            return True
        if delta.name in self._names:
            return call.name not in self._names and delta.name.startswith(call.name)
        return call.name not in self._names

    def _merge(self, call: _Call, delta: _Delta) -> None:
        if delta.index is not None:
            call.indexes.add(delta.index)
        if delta.id and delta.id not in call.ids:
            call.ids.append(delta.id)
        if delta.name:
            call.name = self._name(call, delta.name)
        if delta.arguments is not None:
            _merge_arguments(call, delta.arguments)
        call.extra = call.extra or delta.extra

    def _name(self, call: _Call, name: str) -> str:
        """The call's name with what a delta says of it: the same again, a piece, or the whole."""
        joined = call.name + name
        again = name == call.name and name in self._names
        if call.blank and not again and any(one.startswith(joined) for one in self._names):
            return joined
        if name.startswith(call.name):
            return name
        return joined if call.blank and call.name not in self._names else call.name


def _read(delta: Any, place: int | None) -> _Delta:
    """An entry of `tool_calls`; where several stand in one delta without a number, their `place` is one.

    Raises TypeError for something else.
    """
    if not isinstance(delta, dict):
        raise TypeError("a tool call that is no object")
    function: dict[str, Any] = delta["function"] if isinstance(delta.get("function"), dict) else delta
    index = delta.get("index")
    arguments = function.get("arguments")
    if arguments is not None and not isinstance(arguments, str | dict):
        arguments = json.dumps(arguments)
    if index is None and place is not None:
        index = f"place {place}"
    return _Delta(
        None if index is None else str(index),
        str(delta.get("id") or "") or None,
        str(function.get("name") or ""),
        arguments,
        delta.get("extra_content"),
    )


def _merge_arguments(call: _Call, given: str | dict[str, Any]) -> None:
    if not call.blank and call.same(given):  # the whole once more
        return
    if isinstance(given, dict):
        call.parsed, call.text = {**(call.parsed or {}), **given}, ""
    elif call.parsed:
        call.parsed |= _object(given) or {}
    elif call.empty and given.lstrip().startswith("{"):
        call.parsed, call.text, call.grown = None, given, given
    elif call.parsed is None and given:
        call.grown = given if call.grown is not None and given.startswith(call.grown) else None
        call.text += given


def _arguments(call: _Call) -> str:
    """The arguments as the text of a JSON object, where they are one; else as they came."""
    if call.parsed is not None:
        return valid_text(json.dumps(call.parsed, ensure_ascii=False))
    text = valid_text(call.text)
    if call.grown and _object(text) is None and _object(call.grown) is not None:
        text = valid_text(call.grown)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return found if isinstance(found, str) and _object(found) is not None else text  # encoded twice


def _object(text: str) -> dict[str, Any] | None:
    """The JSON object that a text is, also where it is encoded twice; else None."""
    try:
        found = json.loads(text)
        found = json.loads(found) if isinstance(found, str) else found
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None
