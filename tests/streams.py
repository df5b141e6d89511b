"""Streams as OpenAI-compatible servers send them, and turns with such a server."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.house import CANARY, Events, House, housed
from tests.providers import OpenAIServer
from tests.test_backends_openai import TestOpenAI as Contract

DONE = "data: [DONE]\n\n"
USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
COUNTED = {"input_tokens": 7, "output_tokens": 5}


def delta(text: str = "", finish: Any = None, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text, **more}, "finish_reason": finish}]}


def without_delta(finish: Any, **more: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "finish_reason": finish, **more}]}


def usage(**more: Any) -> dict[str, Any]:
    return {"choices": [], "usage": USAGE, **more}


HELLO = [delta(role="assistant"), delta("Hel"), delta("lo")]
STOP = delta("", "stop")


@asynccontextmanager
async def asked(folder: Path, *answers: Any, **entry: Any) -> AsyncIterator[tuple[House, OpenAIServer]]:
    contract = Contract()
    with contract.server(*answers) as server:
        assert isinstance(server, OpenAIServer)
        async with housed(folder, contract.entry(server, **entry), TEST_KEY=CANARY) as house:
            yield house, server


async def received_from(folder: Path, *answers: Any, **entry: Any) -> Events:
    async with asked(folder, *answers, **entry) as (house, _):
        return await house.ask()


def halves(field: str, *pieces: str) -> list[str]:
    """Returns events with the texts unchanged in JSON, including escapes."""
    start = f'{{"choices":[{{"index":0,"delta":{{"{field}":"'
    return [f'data: {start}{piece}"}}}}]}}\n\n' for piece in pieces]


def call(**fields: Any) -> dict[str, Any]:
    function = {name: fields.pop(name) for name in ("name", "arguments") if name in fields}
    return {**fields, "function": function}


def calls(*deltas: Any) -> list[Any]:
    return [delta(tool_calls=list(one) if isinstance(one, tuple) else [one]) for one in deltas]


SUM = '{"expression": "17*23"}'
NAME, HALF, REST = "calculator", SUM[:9], SUM[9:]
more = partial(call, index=0)
first = partial(more, id="a", name=NAME)
ONE_CALL = {
    "as OpenAI": calls(first(type="function", arguments=""), more(arguments=HALF), more(arguments=REST)),
    "all repeated": calls(*(first(type="function", arguments=part) for part in (SUM[:5], SUM[5:9], REST))),
    "names repeated, no ids": calls(*(more(name=NAME, arguments=char) for char in SUM)),
    "only names": calls(*(call(name=NAME, arguments=char) for char in SUM)),
    "no index": calls(call(id="a", name=NAME, arguments=""), call(arguments=HALF), call(arguments=REST)),
    "null index": calls(call(index=None, id="a", name=NAME), call(index=None, id=None, name=None, arguments=SUM)),
    "an id for each delta": calls(first(arguments=HALF), more(id="b", arguments=REST)),
    "an id and a name for each delta": calls(first(arguments=HALF), more(id="b", name=NAME, arguments=REST)),
    "empty ids and names": calls(more(id="", name=NAME, arguments=HALF), more(id="", name="", arguments=REST)),
    "a later id": calls(more(name=NAME, arguments=HALF), more(id="a", arguments=REST)),
    "a later name": calls(more(id="a", arguments=HALF), more(name=NAME, arguments=REST)),
    "a name in parts": calls(more(id="a", name="calc"), more(name="ulator"), more(arguments=SUM)),
    "a name in parts, no index": calls(call(id="a", name="calc"), call(name="ulator"), call(arguments=SUM)),
    "a growing name": calls(more(id="a", name="calc"), more(name=NAME, arguments=SUM)),
    "growing arguments": calls(*(first(arguments=SUM[:n]) for n in (5, 12, len(SUM)))),
    "an object": calls(first(arguments=json.loads(SUM))),
    "an object, twice": calls(*[first(arguments=json.loads(SUM))] * 2),
    "an object at the end": calls(first(arguments=HALF), more(arguments=json.loads(SUM))),
    "null arguments first": calls(first(arguments=None), more(arguments=SUM)),
    "an empty object as text first": calls(first(arguments="{}"), more(arguments=SUM)),
    "an empty object first": calls(first(arguments={}), more(arguments=SUM)),
    "encoded twice": calls(first(arguments=json.dumps(SUM))),
    "an empty delta last": calls(first(arguments=SUM), first(arguments="")),
    "repeated": calls(*[first(arguments=SUM)] * 2),
    "under several indexes": calls(*(call(index=n, id="a", name=NAME, arguments=SUM) for n in range(3))),
    "another index for the arguments": calls(call(index=2, id="a", name=NAME), call(index=1, arguments=SUM)),
    "index as text": calls(call(index="0", id="a", name=NAME), call(index="0", arguments=SUM)),
    "without function": calls({"index": 0, "id": "a", "name": NAME, "arguments": SUM}),
    "no list": [delta(tool_calls=call(id="a", name=NAME, arguments=SUM))],
    "function_call": [delta(function_call={"name": NAME, "arguments": ""}), delta(function_call={"arguments": SUM})],
    "in the message": [without_delta("tool_calls", message={"tool_calls": [call(id="a", name=NAME, arguments=SUM)]})],
    "in deltas and the message": [
        *calls(first(arguments=SUM)),
        without_delta("tool_calls", message={"tool_calls": [call(id="a", name=NAME, arguments=SUM)]}),
    ],
}
"""One call of the calculator, in the deltas of different servers."""
