"""Requests of complete turns, checked by `StrictServer`, and the results that tools may return."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from pydantic import BaseModel

from agent import retries
from agent.tool_results import text_of_result
from agent.tools import Toolbox
from backends.openai_request import REASONING, apply_shape
from backends.request_shape import RequestShape
from memory.modes import MODES
from settings import BackendSettings, ToolSettings
from tests.house import House, asked_for_replies, housed, of
from tests.providers import GeminiServer, OpenAIServer, Reply, Tool
from tests.strict_server import StrictServer


class Place(BaseModel):
    """An object as a tool result."""

    city: str
    size: float


PICTURE = {"type": "image", "base64": "aGVsbG8=", "mime_type": "image/png"}
RESULTS: dict[str, tuple[Any, str]] = {
    "text": ("as it is", "as it is"),
    "empty text": ("", "[no output]"),
    "nothing": (None, "null"),
    "number": (391, "391"),
    "not a number": (float("nan"), "NaN"),
    "object": ({"a": [1, "b"]}, '{"a": [1, "b"]}'),
    "list": ([1, 2], "[1, 2]"),
    "empty list": ([], "[no output]|[]"),
    "bytes": (b"\x00\xff", "b'\\x00\\xff'"),
    "model": (Place(city="Bern", size=1.5), "city='Bern' size=1.5"),
    "blocks": ([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}], "one\ntwo"),
    "strings": (["one", "two"], '["one", "two"]|one\ntwo'),
    "image": ([PICTURE], "[image: not shown here]"),
    "text and image": (
        [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}],
        "see\n[image: not shown here]",
    ),
    "empty block": ([{"type": "text", "text": ""}], "[no output]"),
    "json block": ([{"type": "json", "json": {"a": 1}}], '{"a": 1}'),
    "file": ([{"type": "file", "url": "https://example.org/a.pdf"}], "[file: not shown here]"),
    "half a pair": ("\ud83d", "\ufffd"),
    "message": (ToolMessage([{"type": "text", "text": "own"}], tool_call_id="another"), "own"),
}
"""What a tool returns, and the text that is sent and shown ("|" between the forms that are right)."""

returned: list[Any] = [None]


@tool
def gives(text: str) -> Any:
    """Returns the value that the test sets."""
    return returned[0]


@tool(response_format="content_and_artifact")
def with_artifact(text: str) -> Any:
    """Returns content and an artifact."""
    return [{"type": "text", "text": "shown"}, PICTURE], {"kept": b"\x00"}


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_BACKOFF", lambda state: 0.0)


def entry(server: Any, kind: str = "openai", **more: Any) -> BackendSettings:
    address = f"{server.url}/v1" if kind == "openai" else server.url
    about = {"name": "Strict", "kind": kind, "model": server.model, "base_url": address, "timeout": 5.0}
    return BackendSettings(**{**about, **more})


@asynccontextmanager
async def strict(folder: Path, server: StrictServer, **more: Any) -> AsyncIterator[House]:
    """A `House` whose requests are all accepted."""
    async with housed(folder, entry(server, **more)) as house:
        names = [f"tests.test_strict_requests:{name}" for name in ("gives", "with_artifact")]
        house.turns.toolbox = Toolbox(ToolSettings(enabled=["calculator", *names]))
        yield house
    assert server.refused == []


def called(*tools: Tool, **more: Any) -> Reply:
    return Reply([], tools=tools, **more)


GIVES = Tool("gives", ['{"text": "a"}'])


@pytest.mark.parametrize("name", RESULTS)
async def test_a_tools_result_is_sent_and_shown_as_text(tmp_path: Path, name: str) -> None:
    returned[0], expected = RESULTS[name]
    with StrictServer(called(GIVES), Reply(["Fine."])) as server:
        async with strict(tmp_path, server) as house:
            received = await house.ask()
    assert (received[-1]["type"], received[-1]["content"]) == ("complete", "Fine.")
    (end,) = of(received, "tool_end")
    assert end["output"] in expected.split("|")
    sent = asked_for_replies(server)[1].body["messages"][-1]
    assert (sent["role"], sent["content"]) == ("tool", end["output"])


@pytest.mark.parametrize("name", RESULTS)
async def test_gemini_is_sent_the_same_text(tmp_path: Path, name: str) -> None:
    returned[0], expected = RESULTS[name]
    with GeminiServer(called(GIVES), Reply(["Fine."])) as server:
        async with housed(tmp_path, entry(server, "gemini", key="TEST_KEY"), TEST_KEY="k-0123456") as house:
            house.turns.toolbox = Toolbox(ToolSettings(enabled=["tests.test_strict_requests:gives"]))
            received = await house.ask()
    assert (received[-1]["type"], received[-1]["content"]) == ("complete", "Fine.")
    (part,) = asked_for_replies(server)[1].body["contents"][-1]["parts"]
    assert part["functionResponse"]["response"] == {"output": of(received, "tool_end")[0]["output"]}
    assert of(received, "tool_end")[0]["output"] in expected.split("|")


async def test_an_artifact_is_not_sent(tmp_path: Path) -> None:
    with StrictServer(called(Tool("with_artifact", ['{"text": "a"}'])), Reply(["Fine."])) as server:
        async with strict(tmp_path, server) as house:
            received = await house.ask()
    assert of(received, "tool_end")[0]["output"] == "shown\n[image: not shown here]"
    assert asked_for_replies(server)[1].body["messages"][-1]["content"] == "shown\n[image: not shown here]"


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
@pytest.mark.parametrize("text", [(), ("I will look. ",)])
async def test_thinking_is_returned_with_the_tool_calls(tmp_path: Path, field: Any, text: Any) -> None:
    call = Reply(text, thinking=["Hm", ", well"], tools=[GIVES], thinking_field=field)
    returned[0] = "seen"
    with StrictServer(call, Reply(["Fine."], thinking=["Ah"], thinking_field=field), thinking=field) as server:
        async with strict(tmp_path, server) as house:
            received = await house.ask()
            assert (received[-1]["type"], received[-1]["content"].split()[-1]) == ("complete", "Fine.")
            later = await house.ask("And now?", conversation_id=received[0]["conversation_id"])
    assert later[-1]["type"] == "complete"
    first, second, third = (request.body["messages"] for request in asked_for_replies(server))
    assert second[-2][field] == "Hm, well"
    assert second[-2]["content"] == "".join(text)
    assert of(received, "context")[1]["messages"][-2]["reasoning"] == "Hm, well", "the panel shows what is sent"
    assert not [message for message in first + third if field in message]
    assert third[-3]["content"].endswith('called with {"text": "a"}]\nseen'), "without its thinking the call is a text"


OPENROUTER = [
    {"type": "reasoning.text", "text": "Let", "format": "anthropic-claude-v1", "index": 0},
    {"type": "reasoning.text", "text": " me see.", "format": "anthropic-claude-v1", "index": 0},
    {"type": "reasoning.text", "signature": "Et8B", "format": "anthropic-claude-v1", "index": 0},
    {"type": "reasoning.encrypted", "data": "AA==", "id": "a", "index": 0},
    {"type": "reasoning.encrypted", "data": "BB==", "id": "b", "index": 1},
]
LITELLM = [
    {"type": "thinking", "thinking": "Let", "signature": None},
    {"type": "thinking", "thinking": " me"},
    {"type": "thinking", "thinking": " see."},
    {"type": "thinking", "thinking": "", "signature": "Et8B"},
    {"type": "redacted_thinking", "data": "AA=="},
    {"type": "redacted_thinking", "data": "BB=="},
    {"type": "thinking", "thinking": "More", "signature": "Uy7C"},
]


@pytest.mark.parametrize(
    ("field", "fragments", "blocks"),
    [
        (
            "reasoning_details",
            OPENROUTER,
            [{**OPENROUTER[0], "text": "Let me see.", "signature": "Et8B"}, *OPENROUTER[3:]],
        ),
        (
            "thinking_blocks",
            LITELLM,
            [{"type": "thinking", "thinking": "Let me see.", "signature": "Et8B"}, *LITELLM[4:]],
        ),
    ],
)
async def test_signed_thinking_blocks_are_returned_unchanged(
    tmp_path: Path, field: str, fragments: list[Any], blocks: list[Any]
) -> None:
    class Signing(OpenAIServer):
        def _deltas(self, reply: Reply) -> list[Any]:
            signed = [{"content": "", field: [one]} for one in fragments] if reply.tools else []
            return [*signed, *super()._deltas(reply)]

    returned[0] = "seen"
    with Signing(called(GIVES), Reply(["Fine."])) as server:
        async with housed(tmp_path, entry(server)) as house:
            house.turns.toolbox = Toolbox(ToolSettings(enabled=["tests.test_strict_requests:gives"]))
            assert (await house.ask())[-1]["content"] == "Fine."
    assert asked_for_replies(server)[1].body["messages"][-2][field] == blocks


async def test_thought_signatures_are_returned_with_their_calls(tmp_path: Path) -> None:
    """Google's OpenAI-compatible API rejects tool results without them."""
    signature = {"google": {"thought_signature": "c2lnbmVk"}}

    class Signing(OpenAIServer):
        def _deltas(self, reply: Reply) -> list[Any]:
            deltas = super()._deltas(reply)
            for call in (call for delta in deltas for call in delta.get("tool_calls", ()) if "id" in call):
                call["extra_content"] = signature
            return deltas

    returned[0] = "seen"
    with Signing(called(GIVES), Reply(["Fine."])) as server:
        async with housed(tmp_path, entry(server)) as house:
            house.turns.toolbox = Toolbox(ToolSettings(enabled=["tests.test_strict_requests:gives"]))
            assert (await house.ask())[-1]["content"] == "Fine."
    (call,) = asked_for_replies(server)[1].body["messages"][-2]["tool_calls"]
    assert call["extra_content"] == signature


async def test_a_signature_is_returned_with_a_repeated_id(tmp_path: Path) -> None:
    class Signing(StrictServer):
        def check(self, body: Any) -> None:
            pass

        def _deltas(self, reply: Reply) -> list[Any]:
            deltas = super()._deltas(reply)
            for call in (call for delta in deltas for call in delta.get("tool_calls", ()) if "id" in call):
                call["extra_content"] = {"google": {"thought_signature": reply.tools[0].arguments[0]}}
            return deltas

    returned[0] = "seen"
    rounds = [called(Tool("gives", [f'{{"text": "{n}"}}'], "call_0")) for n in range(2)]
    with Signing(*rounds, Reply(["Fine."])) as server:
        async with housed(tmp_path, entry(server)) as house:
            house.turns.toolbox = Toolbox(ToolSettings(enabled=["tests.test_strict_requests:gives"]))
            assert (await house.ask())[-1]["content"] == "Fine."
    calls = [m["tool_calls"][0] for m in asked_for_replies(server)[2].body["messages"] if m.get("tool_calls")]
    assert len({call["id"] for call in calls}) == 2
    assert [json.loads(call["extra_content"]["google"]["thought_signature"])["text"] for call in calls] == ["0", "1"]


async def test_half_a_character_in_arguments_is_accepted(tmp_path: Path) -> None:
    returned[0] = "seen"
    half = Tool("gives", ['{"text": "\\ud83d", "\\ude00": ["\\ud83d"]}'], "a")
    with StrictServer(called(half), Reply(["Fine."])) as server:
        async with strict(tmp_path, server) as house:
            received = await house.ask()
    assert received[-1]["content"] == "Fine."
    assert "\ufffd" in json.dumps(asked_for_replies(server)[1].body, ensure_ascii=False)


async def test_a_server_that_sent_no_thinking_gets_none(tmp_path: Path) -> None:
    with StrictServer(called(GIVES), Reply(["Fine."])) as server:
        async with strict(tmp_path, server) as house:
            assert (await house.ask())[-1]["type"] == "complete"
    assert asked_for_replies(server)[1].body["messages"][-2].keys() == {"role", "content", "tool_calls"}


async def test_malformed_calls_are_returned_as_valid_ones(tmp_path: Path) -> None:
    returned[0] = "seen"
    odd = called(
        Tool("gives", ['{"text": "a"}'], "a"),
        Tool("gives", ['{"text": "another"}'], "a"),
        Tool("gives", ['{"text": NaN}'], None),
        Tool("functions.gives now", ['{"text": "a"}'], "b"),
        Tool("gives", ["[1]"], "c"),
    )
    with StrictServer(odd, called(Tool("gives", ['{"text": "b"}'], "a")), Reply(["Fine."])) as server:
        async with strict(tmp_path, server) as house:
            received = await house.ask()
    assert (received[-1]["type"], received[-1]["content"]) == ("complete", "Fine.")
    assert len(asked_for_replies(server)) == 3
    assert len({e["tool_call_id"] for e in of(received, "tool_start")}) == 6


@tool("gives.it all")
def oddly_named(text: str) -> str:
    """A tool with a name that OpenAI rejects."""
    return "seen"


async def test_a_tool_with_an_invalid_name_gets_a_valid_one(tmp_path: Path) -> None:
    with StrictServer(called(Tool("gives_it_all", ['{"text": "a"}'])), Reply(["Fine."])) as server:
        async with strict(tmp_path, server) as house:
            house.turns.toolbox = Toolbox(ToolSettings(enabled=["tests.test_strict_requests:oddly_named"]))
            received = await house.ask()
    assert received[-1]["content"] == "Fine."
    assert of(received, "tool_end")[0]["output"] == "seen"


async def test_ids_that_we_make_are_accepted_by_mistral(tmp_path: Path) -> None:
    returned[0] = "seen"
    calls = called(Tool("gives", ['{"text": "a"}'], None), Tool("gives", ['{"text": "b"}'], None))
    with StrictServer(calls, Reply(["Fine."]), mistral=True) as server:
        async with strict(tmp_path, server) as house:
            assert (await house.ask())[-1]["content"] == "Fine."


@pytest.mark.parametrize("mode", MODES)
async def test_a_strict_server_accepts_every_memory_mode(tmp_path: Path, mode: str) -> None:
    """The history has tools, an empty reply, a failure, an import that starts with an assistant, and a command."""
    returned[0] = "seen"
    said = [
        ("assistant", "Welcome!"),
        ("system", "Be brief."),
        ("user", "Hello"),
        ("user", "Are you there?"),
        ("tool", "a result"),
        ("assistant", "Yes."),
        ("assistant", "I am."),
        ("system", "Be kind."),
    ]
    with StrictServer(Reply(["Fine."])) as server:
        async with strict(tmp_path, server) as house:
            conversation = await house.turns.store.create("anna", said)  # type: ignore[arg-type]
            for answers in (
                [called(GIVES), Reply(["Fine."])],
                [Reply([])],
                [Reply(["Half"], breaks="cut", after=1, pause=0.03)],
                [Reply(["Fine."])],
            ):
                server.answers = answers
                await house.ask("What about gives?", conversation_id=conversation, memory=mode)
            await house.ask("/gives a", conversation_id=conversation, memory=mode)
            received = await house.ask("And now?", conversation_id=conversation, memory=mode)
    assert received[-1]["type"] == "complete"


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
BLOCKS = st.fixed_dictionaries(
    {
        "type": st.sampled_from(
            ["text", "image", "image_url", "json", "file", "document", "search_result", "audio", "x"]
        )
    },
    optional={
        "text": st.text(max_size=10),
        "json": JSON_VALUES,
        "content": st.text(max_size=5) | JSON_VALUES,
        "base64": st.just("AA=="),
        "resource": JSON_VALUES,
    },
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(result=JSON_VALUES | st.lists(BLOCKS | st.text(max_size=5), max_size=4) | st.binary(max_size=5))
async def test_any_result_of_a_tool_is_accepted(tmp_path: Path, result: Any) -> None:
    returned[0] = result
    with StrictServer(called(GIVES), Reply(["Fine."])) as server:
        async with strict(tmp_path, server) as house:
            received = await house.ask()
    assert (received[-1]["type"], received[-1]["content"]) == ("complete", "Fine.")
    sent = asked_for_replies(server)[1].body["messages"][-1]
    assert sent["content"] == of(received, "tool_end")[0]["output"]


@given(content=JSON_VALUES | st.lists(BLOCKS | JSON_VALUES, max_size=4))
def test_any_content_becomes_text_that_can_be_encoded(content: Any) -> None:
    text_of_result(content).encode()


def test_calls_without_result_and_results_without_call_are_not_sent() -> None:
    calls = [{"name": "a", "args": {}, "id": one, "type": "tool_call"} for one in ("1", "2")]
    messages = [
        SystemMessage("s"),
        HumanMessage("u"),
        AIMessage("", tool_calls=calls, additional_kwargs={REASONING: {"reasoning": "hm"}}),
        ToolMessage("of nobody", tool_call_id="3"),
        ToolMessage("second", tool_call_id="2"),
    ]
    from langchain_openai.chat_models.base import _convert_message_to_dict

    payload = {"model": "m", "messages": [_convert_message_to_dict(one) for one in messages]}
    sent = apply_shape(payload, messages, RequestShape())["messages"]
    assert [(one["tool_call_id"], one["content"]) for one in sent[3:]] == [("1", "[no result]"), ("2", "second")]
    assert sent[2]["reasoning"] == "hm"
    server = StrictServer(thinking="reasoning")
    server.check({"model": "m", "messages": sent})


def test_the_strict_server_rejects_langchains_requests() -> None:
    """The checks of `StrictServer` can fail: they do for the library's own requests."""
    server, call = StrictServer(), {"id": "1", "type": "function", "function": {"name": "a", "arguments": "{}"}}
    user = {"role": "user", "content": "Hi"}
    asked = {"role": "assistant", "content": "", "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "1", "content": "seen"}
    server.check({"messages": [user, asked, result]})
    for broken in (
        [user, {**asked, "content": None}, result],
        [user, {**asked, "name": "agent"}, result],
        [user, asked],
        [user, user],
        [user, asked, {**result, "content": [{"type": "text", "text": "seen"}]}],
        [user, {**asked, "tool_calls": [{**call, "function": {"name": "a b", "arguments": "{}"}}]}, result],
    ):
        with pytest.raises(AssertionError):
            server.check({"messages": broken})


@pytest.mark.parametrize("mistral", [False, True])
async def test_calls_of_earlier_turns_are_returned_in_the_protocols_form(tmp_path: Path, mistral: bool) -> None:
    returned[0] = "seen"
    gives = Tool("gives", ['{"text": "a"}'], "abcdefghi")
    answers = called(gives), Reply(["Fine."]), called(gives), Reply(["Again."])
    with StrictServer(*answers, mistral=mistral) as server:
        async with strict(tmp_path, server) as house:
            received = await house.ask()
            later = await house.ask("And now?", conversation_id=received[0]["conversation_id"])
    assert (later[-1]["type"], later[-1]["content"]) == ("complete", "Again.")
    messages = asked_for_replies(server)[3].body["messages"]
    roles = ["user", "assistant", "tool", "assistant", "user", "assistant", "tool"]
    assert [m["role"] for m in messages[1:]] == roles
    assert [m["content"] for m in messages if m["role"] == "tool"] == ["seen", "seen"]


async def test_gemini_gets_calls_of_earlier_turns_without_signatures(tmp_path: Path) -> None:
    returned[0] = "seen"
    answers = called(GIVES), Reply(["Fine."]), called(GIVES), Reply(["Again."])
    with GeminiServer(*answers) as server:
        server.signed = True
        key = {"key": "TEST_KEY"}
        async with housed(tmp_path, entry(server, "gemini", **key), TEST_KEY="AIza-canary-000000000000") as house:
            house.turns.toolbox = Toolbox(ToolSettings(enabled=["tests.test_strict_requests:gives"]))
            received = await house.ask()
            later = await house.ask("And now?", conversation_id=received[0]["conversation_id"])
    assert (later[-1]["type"], later[-1]["content"]) == ("complete", "Again.")
    parts = [part for content in asked_for_replies(server)[3].body["contents"] for part in content["parts"]]
    assert sum("functionResponse" in part for part in parts) == 2
