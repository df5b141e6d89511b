"""The kind `openai`, over real HTTP and in complete turns."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.messages import HumanMessage

from agent import retries
from agent.tools import Toolbox
from backends import BackendError, Key, ModelOptions
from backends.openai import OpenAIBackend
from backends.openai_chat import CompatibleChat
from memory.options import TurnOptions
from settings import BackendSettings, ToolSettings
from tests import providers
from tests.conftest import until
from tests.grammar import check_run
from tests.house import CANARY, asked_for_replies, housed, of, text_of
from tests.providers import OVERLOADED, Fail, OpenAIServer, ProviderServer, Raw, Reply, Request, Tool, rate_limit
from tests.remote import RemoteContract

SUM = '{"expression": "17*23"}'


class TestOpenAI(RemoteContract):
    kind, server_class = "openai", OpenAIServer

    def address(self, server: ProviderServer) -> str:
        return f"{server.url}/v1"

    def key_sent(self, request: Request) -> str:
        return request.headers["authorization"].removeprefix("Bearer ")

    def roles(self, request: Request) -> list[str]:
        roles = [str(message["role"]) for message in request.body["messages"]]
        assert roles[0] == "system"
        return roles[1:]

    async def test_thinking_may_be_in_another_field(self, tmp_path: Path) -> None:
        with self.server(Reply(["Yes"], thinking=["Hm", ", well"], thinking_field="reasoning")) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                received = await house.ask()
        assert (text_of(received, "reasoning"), received[-1]["content"]) == ("Hm, well", "Yes")

    async def test_a_refusal_is_the_reply(self, tmp_path: Path) -> None:
        with self.server(Reply(["I cannot ", "help."], text_field="refusal")) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                received = await house.ask()
        assert (received[-1]["type"], received[-1]["content"]) == ("complete", "I cannot help.")

    @pytest.mark.parametrize("usage", ["end", "every"])
    async def test_the_final_usage_is_reported_for_every_way_of_counting(self, tmp_path: Path, usage: Any) -> None:
        with self.server(Reply(["a", "b", "c", "d"], usage=usage)) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                received = await house.ask()
        assert received[-1]["usage"] == {"input_tokens": 7, "output_tokens": 4}

    async def test_tokens_are_estimated_without_usage(self, tmp_path: Path) -> None:
        with self.server(Reply(["a", "b", "c" * 1080, "d"], usage="never")) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                received = await house.ask()
        given = of(received, "context")[0]["tokens"]
        usage = {"input_tokens": given, "output_tokens": 273, "estimated": True}
        assert of(received, "model_end")[-1]["usage"] == received[-1]["usage"] == usage
        assert received[-1]["type"] == "complete"
        assert of(received, "state")[-1]["estimated"] is True
        assert of(received, "state")[-1]["tokens_received"] == 273

    async def test_a_call_that_the_model_writes_as_text_is_made(self, tmp_path: Path) -> None:
        text = ["```", "json\n{", '"name": "calculator", "arguments": {"expression": "17*23"}}', "\n```"]
        with self.server(Reply(text), Reply(["It is 391."])) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                house.turns.toolbox = Toolbox(ToolSettings(enabled=["calculator"]))
                events = await house.ask()
        assert (events[-1]["type"], events[-1]["content"]) == ("complete", "It is 391.")
        (call,) = of(events, "tool_end")
        assert (call["tool"], call["output"]) == ("calculator", "391")
        assert asked_for_replies(server)[1].body["messages"][-1]["content"] == "391"

    async def test_a_run_stopped_in_its_second_call_counts_the_input_of_both(self, tmp_path: Path) -> None:
        first = Reply([], tools=[Tool("calculator", ['{"expression": "17*23"}'])], prompt_tokens=350)
        second = Reply(["a " * 60, "b"], prompt_tokens=374, breaks="hang", after=1)
        with self.server(first, second) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                house.turns.toolbox = Toolbox(ToolSettings(enabled=["calculator"]))
                run = await house.start()
                await until(lambda: run.text)
                await run.stop("user")
                received = check_run(run)
        given = [context["tokens"] for context in of(received, "context")]
        written = of(received, "model_end")[0]["usage"]["output_tokens"]
        usage = {"input_tokens": 350 + given[1], "output_tokens": written + 30, "estimated": True}
        assert received[-1]["usage"] == run.state.usage() == usage
        assert of(received, "state")[-1]["tokens_received"] == usage["output_tokens"]

    async def test_tokens_of_an_earlier_attempt_count_in_the_total(self, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.setattr(retries, "_BACKOFF", lambda state: 0.0)
        arguments = ['{"expression": "', "1" * 120, '"}']
        first = Reply([], tools=[Tool("calculator", arguments)], breaks="cut", after=3, pause=0.05)
        with self.server(first, Reply(["a", "b"])) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                house.turns.toolbox = Toolbox(ToolSettings(enabled=["calculator"]))
                received = await house.ask()
        assert len(of(received, "model_start")) == 2
        totals = [e["total_tokens"] for e in of(received, "token")]
        assert totals[0] >= 30 and totals[-1] == received[-1]["usage"]["output_tokens"]

    async def test_a_failed_attempt_adds_nothing_to_the_usage(self, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.setattr(retries, "_BACKOFF", lambda state: 0.0)
        with self.server(OVERLOADED, Reply(["a"])) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                received = await house.ask()
        assert received[-1]["usage"] == {"input_tokens": 7, "output_tokens": 1}

    async def test_a_visitors_options_are_in_the_request(self, tmp_path: Path) -> None:
        options = TurnOptions(system_prompt="Be brief.", temperature=0.3, max_tokens=77)
        with self.server() as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                await house.ask(options=options)
                await house.ask()
        tuned, plain = (request.body for request in asked_for_replies(server))
        assert tuned["messages"] == [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
        ]
        assert (tuned["model"], tuned["temperature"], tuned["max_tokens"]) == ("test-model", 0.3, 77)
        assert (tuned["stream"], tuned["stream_options"]) == (True, {"include_usage": True})
        assert plain["max_tokens"] == 256
        assert "temperature" not in plain
        assert not {"max_completion_tokens", "user", "api_key"} & (tuned.keys() | plain.keys())

    async def test_a_blank_system_prompt_is_not_sent(self, tmp_path: Path) -> None:
        with self.server() as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                await house.ask(options=TurnOptions(system_prompt="  "))
        assert asked_for_replies(server)[0].body["messages"] == [{"role": "user", "content": "Hi"}]

    async def test_openai_gets_max_completion_tokens(self) -> None:
        backend = OpenAIBackend(BackendSettings(name="OpenAI", kind="openai", model="gpt-5"))
        bound = backend.bind(Key(CANARY))
        await bound.wait_ready()
        model = bound.chat_model(ModelOptions(max_tokens=9))
        assert isinstance(model, CompatibleChat)
        assert model.openai_api_base == "https://api.openai.com/v1"
        payload = model._get_request_payload([HumanMessage("Hi")])
        assert payload["max_completion_tokens"] == 9
        assert "max_tokens" not in payload

    async def test_options_reach_the_request(self, tmp_path: Path) -> None:
        options = {"top_p": 0.5, "extra_body": {"think": False}, "default_headers": {"X-Title": "Glassbox"}}
        with self.server() as server:
            async with housed(tmp_path, self.entry(server, options=options), TEST_KEY=CANARY) as house:
                await house.ask()
        (request,) = asked_for_replies(server)
        assert (request.body["top_p"], request.body["think"]) == (0.5, False)
        assert request.headers["x-title"] == "Glassbox"

    async def test_a_keyless_server_gets_no_key_of_the_environment(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_API_KEY", "env-openai")
        with self.server() as server:
            async with housed(tmp_path, self.entry(server, key=None)) as house:
                assert (await house.health()).ready
                assert house.backends.describe("anna")[0]["key"] is None
                assert (await house.ask())[-1]["type"] == "complete"
        probe, request = server.requests
        assert "authorization" not in probe.headers
        assert self.key_sent(request) == "none"

    async def test_the_operators_account_variables_are_not_sent_with_a_visitors_key(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OPENAI_ORG_ID", "env-organization")
        monkeypatch.setenv("OPENAI_PROJECT_ID", "env-project")
        monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Env: env-header")
        with self.server() as server:
            entry = self.entry(server, options={"default_headers": {"X-Title": "Glassbox"}})
            async with housed(tmp_path, entry) as house:
                house.backends.keys.put("anna", "Remote", CANARY)
                assert (await house.ask())[-1]["type"] == "complete"
        (request,) = asked_for_replies(server)
        assert request.headers["x-title"] == "Glassbox"
        assert "env-" not in str(request)

    async def test_a_missing_model_is_reported_with_the_existing_ones(self, tmp_path: Path) -> None:
        names = [f"model-{n}" for n in range(7)]
        listing = Raw(json.dumps({"data": [{"id": name} for name in names]}), type="application/json")
        with self.server(listing=listing) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                health = await house.health()
        assert health.state == "unavailable"
        assert health.reason.endswith("no model 'test-model'; it has model-0, model-1, model-2, model-3, model-4 …")

    @pytest.mark.parametrize(
        "listed",
        [
            {"data": []},
            {"data": [{"id": "test-model:latest"}]},
            {"data": [{"name": "test-model"}]},
            {"models": ["other"]},
            [],
            {"data": [{"id": f"model-{n}"} for n in range(200_000)]},
        ],
        ids=["none", "tagged", "no ids", "no data", "list", "huge"],
    )
    async def test_a_server_with_another_list_is_ready(self, tmp_path: Path, listed: Any) -> None:
        with self.server(listing=Raw(json.dumps(listed), type="application/json")) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                assert (await house.health()).ready

    @pytest.mark.parametrize(
        ("listed", "ready"),
        [(["test-model"], True), (["test-model", "test-model:free"], True), (["test-model:4b"], False)],
    )
    async def test_routers_suffixes_need_not_be_listed(self, tmp_path: Path, listed: list[str], ready: bool) -> None:
        """Ollama's tags are part of its names, so its list has none without a tag."""
        listing = Raw(json.dumps({"data": [{"id": name} for name in listed]}), type="application/json")
        with self.server(listing=listing) as server:
            entry = self.entry(server, model="test-model:fastest")
            async with housed(tmp_path, entry, TEST_KEY=CANARY) as house:
                assert (await house.health()).ready is ready

    async def test_a_newly_added_model_answers_at_once(self, tmp_path: Path) -> None:
        with self.server(listing=Raw(json.dumps({"data": [{"id": "other"}]}), type="application/json")) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                assert (await house.health()).state == "unavailable"
                assert (await house.ask())[-1]["code"] == "backend_unavailable"
                server.listing = None
                assert (await house.ask())[-1]["type"] == "complete"

    @pytest.mark.parametrize(
        "event",
        ["null", "[]", '"x"', '{"choices": [{"index": 0, "delta": {"content": 5}}]}', '{"choices": [null]}'],
    )
    async def test_a_response_of_another_shape_is_unreadable(self, tmp_path: Path, event: str) -> None:
        odd = Raw(f"data: {event}\n\ndata: [DONE]\n\n", type="text/event-stream")
        with self.server(odd) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                received = await house.ask()
        assert received[-1]["code"] == "backend_unavailable"
        assert len(asked_for_replies(server)) == 3

    @pytest.mark.parametrize("arguments", ['{"expression": "1+', "[1, 2]", "nonsense", "5", '"1+1"'])
    async def test_arguments_that_are_not_an_object_are_not_completed(self, tmp_path: Path, arguments: str) -> None:
        asked = Reply([], tools=[Tool("calculator", [arguments[:3], arguments[3:]]), Tool("calculator", [SUM])])
        with self.server(asked, Reply(["It is 391."])) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                house.turns.toolbox = Toolbox(ToolSettings(enabled=["calculator"]))
                received = await house.ask()
        assert (received[-1]["type"], received[-1]["content"]) == ("complete", "It is 391.")
        ends = {e["tool_call_id"]: e for e in of(received, "tool_end")}
        failed, done = (
            ends[e["tool_call_id"]] for e in sorted(of(received, "tool_start"), key=lambda e: len(e["input"]))
        )
        assert failed["error"] == "its arguments are no JSON object"
        assert done["output"].endswith("391")
        *_, call, first, second = asked_for_replies(server)[1].body["messages"]
        ids = [one["id"] for one in call["tool_calls"]]
        assert len(set(ids)) == 2, "the server had given both the same"
        assert {first["tool_call_id"], second["tool_call_id"]} == set(ids)

    async def test_after_a_rejection_of_tools_requests_omit_them(self, tmp_path: Path) -> None:
        with self.server(Fail(400, None, "test-model does not support tools"), Reply()) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                house.turns.toolbox = Toolbox(ToolSettings(enabled=["calculator"]))
                received = [await house.ask(), await house.ask()]
        assert [one[-1]["type"] for one in received] == ["complete"] * 2
        assert ["tools" in request.body for request in asked_for_replies(server)] == [True, False, False]

    async def test_tools_are_tried_again_after_an_hour(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("backends.openai._WITHOUT_S", 0.0)
        with self.server(Fail(400, None, "test-model does not support tools"), Reply()) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                house.turns.toolbox = Toolbox(ToolSettings(enabled=["calculator"]))
                for _ in range(3):
                    await house.ask()
        assert ["tools" in request.body for request in asked_for_replies(server)] == [True, False, False, True]

    @pytest.mark.parametrize("echoed", ["what is a hammer, a tool?", "this model does not support tools"])
    async def test_a_visitors_words_do_not_turn_tools_off(self, tmp_path: Path, echoed: str) -> None:
        with self.server(Fail(400, "content_policy", f"Refused: {echoed}")) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                house.turns.toolbox = Toolbox(ToolSettings(enabled=["calculator"]))
                assert (await house.ask(echoed))[-1]["code"] == "invalid_request"
                server.answers = [Reply()]
                assert (await house.ask())[-1]["type"] == "complete"
        assert "tools" in asked_for_replies(server)[-1].body

    async def test_an_unknown_option_is_named(self, tmp_path: Path) -> None:
        with self.server() as server:
            async with housed(tmp_path, self.entry(server, options={"nonsense": 3}), TEST_KEY=CANARY) as house:
                health = await house.health()
        assert (health.state, health.reason) == (
            "unavailable",
            "its options are not accepted: there is no 'nonsense'",
        )

    @pytest.mark.parametrize("name", ["api_key", "openai_api_key", "base_url", "model"])
    def test_options_with_their_own_setting_are_rejected(self, name: str) -> None:
        with pytest.raises(BackendError, match=name) as refused:
            OpenAIBackend(self.entry(OpenAIServer(), options={name: CANARY}))
        assert CANARY not in str(refused.value)


async def test_rate_limit_and_missing_credit_are_distinguished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate limit with a delay is retried; missing credit is not."""
    monkeypatch.setattr(retries, "_BACKOFF", lambda state: 0.0)
    contract = TestOpenAI()
    answers: Sequence[Fail] = [rate_limit(0.01), rate_limit(0.01), providers.NO_QUOTA]
    with contract.server(*answers) as server:
        async with housed(tmp_path, contract.entry(server), TEST_KEY=CANARY) as house:
            received = await house.ask()
    assert "no credit left" in received[-1]["message"]
    assert len(asked_for_replies(server)) == 3
