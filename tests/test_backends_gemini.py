"""The kind `gemini`, over real HTTP and in complete turns, including the contract that it shares with `openai`."""

import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest

from agent.tools import Toolbox
from backends.base import BackendError
from backends.gemini import GeminiBackend
from backends.keys import Key
from memory.options import TurnOptions
from settings import ToolSettings
from tests import providers
from tests.conftest import until
from tests.house import CANARY, asked_for_replies, housed, of, text_of
from tests.providers import SIGNATURE, GeminiServer, Hang, Raw, Reply, Request, Stream, Tool
from tests.remote import RemoteContract


def stream(*chunks: Any) -> Raw:
    """Returns a response in Google's format."""
    return Raw("".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks), type="text/event-stream")


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, "index": 0, **more}]}


class TestGemini(RemoteContract):
    kind, server_class = "gemini", GeminiServer

    def key_sent(self, request: Request) -> str:
        return request.headers["x-goog-api-key"]

    def roles(self, request: Request) -> list[str]:
        return ["assistant" if content["role"] == "model" else content["role"] for content in request.body["contents"]]

    async def test_a_visitors_options_are_in_the_request(self, tmp_path: Path) -> None:
        options = TurnOptions(system_prompt="Be brief.", temperature=0.3, max_tokens=77)
        with self.server() as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                await house.ask(options=options)
                await house.ask()
        tuned, plain = (request.body for request in asked_for_replies(server))
        assert tuned["systemInstruction"]["parts"] == [{"text": "Be brief."}]
        assert tuned["contents"] == [{"role": "user", "parts": [{"text": "Hi"}]}]
        assert (tuned["generationConfig"]["temperature"], tuned["generationConfig"]["maxOutputTokens"]) == (0.3, 77)
        assert [*tuned["generationConfig"]["thinkingConfig"].values()] == [True], "it includes the thoughts"
        assert plain["generationConfig"]["maxOutputTokens"] == 256
        assert {request.path for request in asked_for_replies(server)} == {
            "/v1beta/models/test-model:streamGenerateContent?alt=sse"
        }

    async def test_an_unset_temperature_is_not_sent(self, tmp_path: Path) -> None:
        with self.server() as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                await house.ask()
        assert "temperature" not in asked_for_replies(server)[0].body["generationConfig"]

    async def test_a_blank_system_prompt_is_not_sent(self, tmp_path: Path) -> None:
        with self.server() as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                await house.ask(options=TurnOptions(system_prompt="  "))
        assert "systemInstruction" not in asked_for_replies(server)[0].body

    async def test_options_reach_the_request(self, tmp_path: Path) -> None:
        options = {"top_p": 0.5, "include_thoughts": False, "additional_headers": {"X-Title": "Glassbox"}}
        with self.server() as server:
            async with housed(tmp_path, self.entry(server, options=options), TEST_KEY=CANARY) as house:
                await house.ask()
        (request,) = asked_for_replies(server)
        assert request.body["generationConfig"]["topP"] == 0.5
        assert True not in request.body["generationConfig"].get("thinkingConfig", {}).values()
        assert request.headers["x-title"] == "Glassbox"

    async def test_thinking_and_text_in_one_chunk_are_separated(self, tmp_path: Path) -> None:
        parts = [{"text": "Hm.", "thought": True}, {"text": "Yes"}]
        both = {"candidates": [{"content": {"role": "model", "parts": parts}, "index": 0}]}
        with self.server(stream(both, said(".", finishReason="STOP"))) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                received = await house.ask()
        assert (received[-1]["type"], received[-1]["content"], text_of(received, "reasoning")) == (
            "complete",
            "Yes.",
            "Hm.",
        )

    async def test_an_invalid_key_is_rejected(self, tmp_path: Path) -> None:
        bad = providers.BAD_GEMINI_KEY
        with self.server(bad, listing=bad) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                received = await house.ask()
                assert house.backends.describe("anna")[0]["state"] == "key_refused"
                assert (await house.health()).state == "key_refused"
        assert (received[-1]["code"], received[-1]["retryable"]) == ("authentication", False)
        assert len(asked_for_replies(server)) == 1

    @pytest.mark.parametrize("reason", ["SAFETY", "RECITATION", "PROHIBITED_CONTENT", "BLOCKLIST", "SPII"])
    async def test_a_reply_that_ends_early_gives_the_reason(self, tmp_path: Path, reason: str) -> None:
        with self.server(stream(said("So far"), said("", finishReason=reason))) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                received = await house.ask()
                assert house.backends.describe("anna")[0]["state"] == "ready"
        assert (received[-1]["code"], received[-1]["content"]) == ("invalid_request", "So far")
        assert "blocked" in received[-1]["message"]
        assert reason.lower() in received[-1]["message"]

    @pytest.mark.parametrize("reason", ["SAFETY", "OTHER"])
    async def test_a_blocked_prompt_gives_the_reason(self, tmp_path: Path, reason: str) -> None:
        usage = {"promptTokenCount": 7, "totalTokenCount": 7}
        with self.server(stream({"promptFeedback": {"blockReason": reason}, "usageMetadata": usage})) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                received = await house.ask()
        assert (received[-1]["type"], received[-1]["code"], received[-1]["retryable"]) == (
            "error",
            "invalid_request",
            False,
        )
        assert f"blocked this reply ({reason.lower()})" in received[-1]["message"]
        assert len(asked_for_replies(server)) == 1

    async def test_a_model_without_thinking_is_retried_without_it(self, tmp_path: Path) -> None:
        refused = providers.Fail(400, gemini="Thinking is not enabled for models/test-model")
        with self.server(refused, Reply()) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                received = [await house.ask(), await house.ask()]
        assert [one[-1]["type"] for one in received] == ["complete"] * 2
        asked = ["thinkingConfig" in request.body["generationConfig"] for request in asked_for_replies(server)]
        assert asked == [True, False, False]

    async def test_the_models_name_may_have_its_prefix(self, tmp_path: Path) -> None:
        with self.server() as server:
            async with housed(tmp_path, self.entry(server, model="models/test-model"), TEST_KEY=CANARY) as house:
                assert (await house.health()).ready
                assert (await house.ask())[-1]["type"] == "complete"

    async def test_an_unknown_option_is_named(self, tmp_path: Path) -> None:
        with self.server() as server:
            async with housed(tmp_path, self.entry(server, options={"nonsense": 3}), TEST_KEY=CANARY) as house:
                assert (await house.health()).reason == "its options are not accepted: there is no 'nonsense'"

    async def test_a_rate_limit_with_a_delay_in_the_body_is_respected(self, tmp_path: Path) -> None:
        error = {
            "code": 429,
            "message": "You exceeded your current quota, please check your plan and billing details.",
            "status": "RESOURCE_EXHAUSTED",
            "details": [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "0.3s"}],
        }
        answer = Raw(json.dumps({"error": error}), 429, "application/json")
        with self.server(answer, Reply()) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                received = await house.ask()
        assert received[-1]["type"] == "complete"
        first, second = asked_for_replies(server)
        assert second.at - first.at >= 0.3
        assert [e["phase"] for e in of(received, "status") if "Retrying: 2 of 3" in e["content"]] == ["waiting"]

    async def test_the_provider_lists_its_models(self, tmp_path: Path) -> None:
        with self.server() as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                assert (await house.health()).ready
        assert [request.path for request in server.requests] == ["/v1beta/models?pageSize=1000"]

    def test_the_default_address_is_googles(self, tmp_path: Path) -> None:
        backend = GeminiBackend(self.entry(GeminiServer(), base_url=None), Key(CANARY))
        assert backend._address.startswith("https://")
        assert backend.settings.key_name == "TEST_KEY"
        assert self.entry(GeminiServer(), key=None).key_name == "GOOGLE_API_KEY"

    @pytest.mark.parametrize("name", ["api_key", "google_api_key", "base_url", "model"])
    def test_options_with_their_own_setting_are_rejected(self, name: str) -> None:
        with pytest.raises(BackendError, match=name) as refused:
            GeminiBackend(self.entry(GeminiServer(), options={name: CANARY}))
        assert CANARY not in str(refused.value)

    async def test_google_counts_each_text_once(self, tmp_path: Path) -> None:
        with self.server() as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                first = await house.start("one two three")
                await until(lambda: first.ended)
                received = await house.ask("four", conversation_id=first.conversation_id)
        counted = [r for r in server.requests if r.path.endswith(":countTokens")]
        texts = [r.body["contents"][0]["parts"][0]["text"] for r in counted]
        assert len(texts) == len(set(texts))
        (context,) = of(received, "context")
        assert not context["estimated"]
        sizes = {message["content"]: message["tokens"] for message in context["messages"]}
        assert sizes == {text: len(text.split()) for text in sizes}
        assert "one two three" in sizes
        assert context["tokens"] == sum(sizes.values())
        assert all(CANARY in r.headers["x-goog-api-key"] and CANARY not in str(r.body) for r in counted)

    @pytest.mark.parametrize("counts", [Hang(), providers.BROKEN, Raw(), providers.NO_MODEL])
    async def test_tokens_are_estimated_if_counting_fails(self, tmp_path: Path, counts: Any) -> None:
        with self.server() as server:
            server.counts = counts  # type: ignore[attr-defined]
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                begun = time.monotonic()
                received = await house.ask()
                assert of(received, "context")[0]["estimated"]
                asked = len([r for r in server.requests if r.path.endswith(":countTokens")])
                await house.ask()
                assert time.monotonic() - begun < 8, "only the first turn waits for it"
        assert len([r for r in server.requests if r.path.endswith(":countTokens")]) == asked
        assert received[-1]["type"] == "complete"

    @pytest.mark.parametrize("model", ["gemini-3.8-flash", "family-latest"])
    @pytest.mark.parametrize("ids", [("one", "two"), ("same", "same"), (None, None)])
    async def test_signatures_are_returned_with_tool_calls(
        self, tmp_path: Path, model: str, ids: tuple[str | None, str | None]
    ) -> None:
        """This server answers 400 without them, as Google's does since Gemini 3."""
        calls = [Tool("calculator", ['{"expression": "17*23"}'], ids[0]), Tool("clock", id=ids[1])]
        again = Tool("calculator", ['{"expression": "391*2"}'], "three")
        with self.server(Reply([], ["Hm"], calls), Reply(["First, "], tools=[again]), Reply(["782"])) as server:
            assert isinstance(server, GeminiServer)
            server.signed = True
            async with housed(tmp_path, self.entry(server, model=model), TEST_KEY=CANARY) as house:
                house.turns.toolbox = Toolbox(ToolSettings(enabled=["calculator", "clock"]))
                received = await house.ask("What is twice 17*23?")
                server.answers = [Reply(["Yes."])]
                later = await house.ask("Sure?", conversation_id=received[0]["conversation_id"])
        assert [e["tool"] for e in of(received, "tool_end") if not e.get("error")] == [
            "calculator",
            "clock",
            "calculator",
        ]
        assert (received[-1]["type"], received[-1]["content"]) == ("complete", "First, \n\n782")
        assert later[-1]["type"] == "complete"
        second, third, last = (signatures(request) for request in asked_for_replies(server)[1:])
        assert (second, third, last) == ([SIGNATURE, b""], [SIGNATURE, b"", SIGNATURE], [])

    async def test_a_later_turn_has_earlier_tool_calls_as_text(self, tmp_path: Path) -> None:
        """The calls are from another backend, an import, or the model itself."""
        tour = {"role": "assistant", "content": "The calculator says 391."}, {"role": "tool", "content": "391"}
        with self.server() as server:
            assert isinstance(server, GeminiServer)
            server.signed = True
            async with housed(tmp_path, self.entry(server, model="gemini-3.8-flash"), TEST_KEY=CANARY) as house:
                earlier = [("user", "What is 17*23?"), *((one["role"], one["content"]) for one in tour)]
                received = await house.ask("And 391*2?", earlier=earlier)
        assert received[-1]["type"] == "complete"
        (request,) = asked_for_replies(server)
        assert "functionCall" not in json.dumps(request.body["contents"])
        assert "The calculator says 391." in json.dumps(request.body["contents"])

    @pytest.mark.parametrize(("level", "ends"), [(None, "complete"), ("low", "complete"), ("minimal", "error")])
    async def test_a_thinking_level_of_the_settings_is_sent(self, tmp_path: Path, level: str | None, ends: str) -> None:
        options = {"thinking_level": level} if level else {}
        with self.server() as server:
            assert isinstance(server, GeminiServer)
            server.signed = True
            entry = self.entry(server, model="gemini-3.8-flash", options=options)
            async with housed(tmp_path, entry, TEST_KEY=CANARY) as house:
                received = await house.ask()
        (request,) = asked_for_replies(server)
        thinking = request.body["generationConfig"]["thinkingConfig"]
        sent = thinking.get("thinkingLevel") or thinking.get("thinking_level")
        assert (sent and sent.lower(), received[-1]["type"]) == (level, ends)
        assert ends == "complete" or "change it there" in received[-1]["message"]


def signatures(request: Request) -> list[bytes]:
    """Returns the signatures of the tool calls in a request."""
    calls = [part for content in request.body["contents"] for part in content["parts"] if "functionCall" in part]
    return [base64.urlsafe_b64decode(call.get("thoughtSignature", "")) for call in calls]


def gemini_event(text: str, finish: str | None = None) -> dict[str, Any]:
    candidate = {"content": {"parts": [{"text": text}], "role": "model"}, "index": 0}
    usage = {"promptTokenCount": 7, "candidatesTokenCount": 5, "totalTokenCount": 12}
    return {"candidates": [candidate | ({"finishReason": finish} if finish else {})], "usageMetadata": usage}


@pytest.mark.parametrize("line", ["end", "eof", "hang", "cut", "reset"])
async def test_a_finish_reason_ends_the_reply_even_if_the_connection_fails(tmp_path: Path, line: Any) -> None:
    contract = TestGemini()
    stream = Stream([gemini_event("Hello"), gemini_event("!", "STOP"), 0.05], line)
    with contract.server(stream) as server:
        async with housed(tmp_path, contract.entry(server, timeout=8), TEST_KEY=CANARY) as house:
            begun = time.monotonic()
            received = await house.ask()
            assert time.monotonic() - begun < 6
    assert (received[-1]["type"], received[-1]["content"]) == ("complete", "Hello!")
    assert received[-1]["usage"] == {"input_tokens": 7, "output_tokens": 5}


@pytest.mark.parametrize("size", [0, 1])
async def test_only_cr_and_lf_end_a_line(tmp_path: Path, size: int) -> None:
    contract, text = TestGemini(), "a\u2028b\u2029c\u0085d 😀"
    body = f"data: {json.dumps(gemini_event(text, 'STOP'), ensure_ascii=False)}\n\n".encode()
    stream = Stream([body[at : at + size] for at in range(0, len(body), size)] if size else [body])
    with contract.server(stream) as server:
        async with housed(tmp_path, contract.entry(server), TEST_KEY=CANARY) as house:
            received = await house.ask()
    assert (received[-1]["type"], received[-1]["content"]) == ("complete", text)


async def test_a_character_in_two_chunks_is_one(tmp_path: Path) -> None:
    contract = TestGemini()
    pieces = [
        json.dumps(gemini_event(mark)).replace(mark, half) for mark, half in (("@1", r"a\ud83d"), ("@2", r"\ude00"))
    ]
    stream = Stream([*(f"data: {piece}\n\n" for piece in pieces), gemini_event("!", "STOP")])
    with contract.server(stream) as server:
        async with housed(tmp_path, contract.entry(server), TEST_KEY=CANARY) as house:
            received = await house.ask()
    assert (received[-1]["type"], received[-1]["content"]) == ("complete", "a😀!")
