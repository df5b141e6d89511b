"""Options that a memory mode of one's own declares for visitors: what is declared, checked, sent and kept."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import pytest
from pydantic import Field

from agent.mcp.forms import checked_answer
from memory.messages import Message
from memory.mode_options import MOST_OPTIONS, chosen_options, declared_options
from memory.modes import MODES, Candidates, ModeLimits
from memory.own_modes import add_mode, own_mode
from tests.conftest import scripted
from tests.live_app import Api, client_of, events_of, events_until_end, live_api, refused, socket_of

Seen = list[dict[str, Any]]
DEFAULTS = {"share": 0.5, "turns": 2, "quoted": False, "order": "new"}
GIVEN = {"turns": 3, "quoted": True, "order": "old", "share": 1}
Share = Annotated[float, Field(ge=0, le=1, title="Share of the turns", description="The others are left out.")]
Turns = Annotated[int, Field(ge=1, le=9)]


@pytest.fixture
def seen() -> Iterator[Seen]:
    """The options with which a mode was called that is offered for the test, as is another one with one option."""
    known, calls = dict(MODES), Seen()

    def choose(
        past: Candidates,
        limits: ModeLimits,
        *,
        share: Share = 0.5,
        turns: Turns = 2,
        quoted: bool = False,
        order: Literal["new", "old"] = "new",
    ) -> list[Message]:
        calls.append({"share": share, "turns": turns, "quoted": quoted, "order": order})
        return list(past.messages)

    def other(past: Candidates, limits: ModeLimits, *, loud: bool = True, turns: Turns = 1) -> list[Message]:
        calls.append({"loud": loud, "turns": turns})
        return []

    add_mode(own_mode("mine", "Mine: some", choose))
    add_mode(own_mode("other", "Other: none", other))
    yield calls
    MODES.clear()
    MODES.update(known)


@pytest.fixture
def app(tmp_path: Path, seen: Seen) -> Iterator[Api]:
    with live_api(tmp_path, backends=[scripted("Script")]) as app:
        yield app


@pytest.fixture
async def anna(app: Api) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(app) as client:
        yield client


def test_options_are_declared_by_annotations(seen: Seen) -> None:
    share, turns, quoted, order = (option.listed() for option in MODES["mine"].options)
    assert share == {
        "name": "share",
        "title": "Share of the turns",
        "type": "number",
        "required": True,
        "about": "The others are left out.",
        "min": 0,
        "max": 1,
        "default": 0.5,
    }
    assert (turns["title"], turns["type"], turns["min"], turns["max"], turns["default"]) == (
        "Turns",
        "integer",
        1,
        9,
        2,
    )
    assert (quoted["type"], quoted["default"]) == ("boolean", False)
    assert [one["value"] for one in order["options"]] == ["new", "old"]
    assert checked_answer([share, turns, quoted, order], GIVEN) == GIVEN, "they are fields of a form"


def test_functions_without_options_are_as_before() -> None:
    assert declared_options(lambda past, limits: past.messages) == ()
    assert declared_options(max) == ()


def many() -> Any:
    """A function with too many options."""
    scope = dict[str, Any]()
    exec(f"def choose(past, limits, *, {', '.join(f'o{i}: bool = True' for i in range(MOST_OPTIONS + 1))}): ...", scope)
    return scope["choose"]


def declared(annotation: Any, default: Any) -> Any:
    """A function with one option."""
    scope: dict[str, Any] = {"kind": annotation, "value": default}
    exec("def choose(past, limits, *, one: kind = value): ...", scope)
    return scope["choose"]


@pytest.mark.parametrize(
    ("choose", "message"),
    [
        (many(), "options: found 11, allowed: at most 10"),
        (declared(int, 1), "options: 'one' cannot be shown; allowed: bool, Literal of texts, or Annotated[int, Field("),
        (declared(Annotated[int, Field(ge=1)], 1), "options: 'one' cannot be shown"),
        (declared(str, "a"), "options: 'one' cannot be shown"),
        (declared(Literal[1, 2], 1), "options: 'one' has other choices than 1 to 50 texts"),
        (declared(Literal[tuple(map(str, range(51)))], "1"), "options: 'one' has other choices than 1 to 50 texts"),
        (declared(Annotated[bool, Field(title="t" * 201)], True), "a text of more than 200 characters"),
        (declared(Annotated[int, Field(ge=0, le=2**60)], 1), "a limit beyond 2^53"),
        (
            declared(Annotated[int, Field(ge=1, le=3)], 4),
            "the default of 'one': found '4', allowed: a whole number of 1",
        ),
        (declared(bool, 1), "the default of 'one': found '1', allowed: true or false"),
        (lambda past, limits, *, one: [], "options: 'one' needs an annotation and a default, such as one: bool = True"),
    ],
)
def test_declarations_that_cannot_be_shown(choose: Any, message: str) -> None:
    with pytest.raises(ValueError, match="options") as error:
        own_mode("mine", "Mine: some", choose)
    assert message in str(error.value)


async def test_options_are_listed(anna: httpx.AsyncClient) -> None:
    listed = {one["name"]: one["options"] for one in (await anna.get("/memory-modes")).json()}
    assert [one["name"] for one in listed["mine"]] == list(DEFAULTS)
    assert listed["tokens"] == []


async def test_every_route_takes_them(app: Api, anna: httpx.AsyncClient, seen: Seen) -> None:
    sent = {"message": "Hi", "memory": "mine", "mode_options": GIVEN}
    query = {"query": "Hello", "memory": "mine", "mode_options": json.dumps(GIVEN)}
    assert (await events_of(anna, "POST", "/stream", json=sent))[-1]["type"] == "complete"
    assert (await events_of(anna, "GET", "/stream", params=query))[-1]["type"] == "complete"
    async with socket_of(app, anna) as socket:
        await socket.send(json.dumps(sent))
        assert (await events_until_end(socket))[-1]["type"] == "complete"
    agui = {"threadId": "t", "runId": "r", "state": {}, "tools": [], "context": []}
    agui |= {"messages": [{"id": "1", "role": "user", "content": "Hi"}]}
    agui |= {"forwardedProps": {"memory": "mine", "mode_options": GIVEN}}
    assert "RUN_FINISHED" in (await anna.post("/agui", json=agui, timeout=60)).text
    shown = (await anna.post("/context", json={"message": "Hi", "memory": "mine", "mode_options": {"turns": 4}})).json()
    assert shown["mode_options"] == DEFAULTS | {"turns": 4}
    assert seen == [*[DEFAULTS | GIVEN] * 4, DEFAULTS | {"turns": 4}]


async def test_a_batch_gives_each_mode_its_own(anna: httpx.AsyncClient, seen: Seen) -> None:
    sent = {"prompts": ["Hi"], "memory": ["mine", "other", "none"], "mode_options": {"turns": 5, "loud": False}}
    received = await events_of(anna, "POST", "/batch", json=sent)
    assert received[-1]["type"] == "batch_done" and not [e for e in received if e["type"] == "error"]
    assert sorted(seen, key=len) == [{"loud": False, "turns": 5}, DEFAULTS | {"turns": 5}]
    message = await refused(await anna.post("/batch", json=sent | {"mode_options": {"x": 1}}), 400, "invalid_request")
    assert message == ("mode_options: found 'x', allowed in the memory mode mine: 'share', 'turns', 'quoted', 'order'.")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"turns": 10}, "mode_options, turns: found '10', allowed: a whole number of 1 to 9."),
        ({"turns": 2.5}, "mode_options, turns: found '2.5', allowed: a whole number of 1 to 9."),
        ({"turns": True}, "mode_options, turns: found 'True', allowed: a whole number of 1 to 9."),
        ({"share": "0.5"}, "mode_options, share: found '0.5', allowed: 0 to 1."),
        ({"share": 1e999}, "mode_options, share: found 'inf', allowed: 0 to 1."),
        ({"quoted": 1}, "mode_options, quoted: found '1', allowed: true or false."),
        ({"order": "x" * 500}, f"mode_options, order: found '{'x' * 60}', allowed: 'new', 'old'."),
        ({"order": [[]]}, "mode_options, order: found '[[]]', allowed: 'new', 'old'."),
        ({"no": 1}, "mode_options: found 'no', allowed in the memory mode mine: 'share', 'turns', 'quoted', 'order'."),
        ({str(i): 1 for i in range(11)}, "body.mode_options: Dictionary should have at most 10 items"),
        ([1], "body.mode_options: Input should be a valid dictionary"),
    ],
)
async def test_values_that_do_not_fit(anna: httpx.AsyncClient, given: Any, message: str) -> None:
    body = json.dumps({"message": "Hi", "memory": "mine", "mode_options": given})
    answer = await anna.post("/stream", content=body, headers={"Content-Type": "application/json"})
    assert (await refused(answer, 400, "invalid_request")).startswith(message)


async def test_another_mode_has_none_of_them(anna: httpx.AsyncClient) -> None:
    answer = await anna.post("/stream", json={"message": "Hi", "memory": "tokens", "mode_options": {"turns": 2}})
    message = await refused(answer, 400, "invalid_request")
    assert message == "mode_options: found 'turns', allowed in the memory mode tokens: none."


async def test_they_are_kept_with_the_conversation(anna: httpx.AsyncClient, seen: Seen) -> None:
    async def send(**more: Any) -> str:
        events = await events_of(anna, "POST", "/stream", json={"message": "Hi", **more})
        assert events[-1]["type"] == "complete"
        return str(events[0]["conversation_id"])

    here = await send(memory="mine", mode_options={"turns": 3})
    await send(conversation_id=here)
    await send(conversation_id=here, mode_options={"quoted": True})
    await send(conversation_id=here)
    await send(conversation_id=here, memory="other")
    await send(conversation_id=here, memory="mine")
    both = DEFAULTS | {"turns": 3, "quoted": True}
    assert seen == [DEFAULTS | {"turns": 3}] * 2 + [both] * 2 + [{"loud": True, "turns": 1}, DEFAULTS]


async def test_what_an_operator_has_changed_since_is_not_kept(app: Api, anna: httpx.AsyncClient, seen: Seen) -> None:
    sent = {"message": "Hi", "memory": "mine", "mode_options": {"turns": 9, "order": "old"}}
    here = (await events_of(anna, "POST", "/stream", json=sent))[0]["conversation_id"]
    del MODES["mine"]

    def narrower(
        past: Candidates, limits: ModeLimits, *, turns: Annotated[int, Field(ge=1, le=5)] = 1
    ) -> list[Message]:
        seen.append({"turns": turns})
        return []

    add_mode(own_mode("mine", "Mine: some", narrower))
    assert (await events_of(anna, "POST", "/stream", json={"message": "Hi", "conversation_id": here}))[-1][
        "type"
    ] == "complete"
    assert seen[-1] == {"turns": 1}
    del MODES["mine"]
    again = await events_of(anna, "POST", "/stream", json={"message": "Hi", "conversation_id": here})
    assert (again[0]["memory"], again[-1]["type"]) == ("tokens", "complete")


def test_what_a_page_sends_is_the_choice_of_the_mode_without_defaults(seen: Seen) -> None:
    options = MODES["mine"].options
    assert chosen_options("mine", options, {"mine": {"turns": 2, "quoted": True}, "other": {"x": 1}}) == {
        "quoted": True
    }
    for nothing in ({}, None, [], "x", {"mine": None}, {"mine": {"turns": 2}}):
        assert chosen_options("mine", options, nothing) is None
