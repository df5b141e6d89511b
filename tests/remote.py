"""The contract of all kinds with a remote provider, over real HTTP and in complete turns."""

import asyncio
import json
import logging
import os
import random
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from agent import retries
from backends import chat_model as remote_module
from bench.ports import free_port
from logs import log_formatter
from memory.options import TurnOptions
from runs.errors import ChatError
from settings import BackendSettings
from tests import providers
from tests.conftest import until
from tests.grammar import check_run
from tests.house import CANARY, asked_for_replies, closed_within, housed, of, text_of
from tests.providers import Drop, Hang, ProviderServer, Raw, Reply, Request, Tool, rate_limit


@dataclass(frozen=True)
class Failure:
    """A server's response, the end of the run, and the number of requests."""

    answer: Any
    code: str
    said: str
    content: str = ""
    retryable: bool = True
    asked: int = 1


APART = 0.03
"""Seconds between pieces that must all have been seen before something breaks."""
UNREADABLE = "an unreadable reply"
FAILURES: dict[str, Failure] = {
    "cut": Failure(Reply(breaks="cut", after=2, pause=APART), "backend_unavailable", "broke off", "Hello there"),
    "cut at once": Failure(Reply(breaks="cut", after=0), "backend_unavailable", "broke off", asked=3),
    "reset": Failure(Reply(breaks="reset", after=1, pause=APART), "backend_unavailable", "broke off", "Hello"),
    "no answer": Failure(Drop(), "backend_unavailable", "broke off", asked=3),
    "polite end": Failure(Reply(breaks="eof", after=2), "backend_unavailable", "broke off", "Hello there"),
    "garbage": Failure(Reply(breaks="garbage", after=1), "backend_unavailable", UNREADABLE, "Hello"),
    "a page": Failure(Raw(), "backend_unavailable", UNREADABLE, asked=3),
    "no JSON": Failure(Raw("{", type="application/json"), "backend_unavailable", UNREADABLE, asked=3),
    "401": Failure(providers.BAD_KEY, "authentication", "rejected the key", retryable=False),
    "403": Failure(providers.FORBIDDEN, "authentication", "rejected the key", retryable=False),
    "404": Failure(providers.NO_MODEL, "backend_unavailable", "does not know this model", retryable=False),
    "quota": Failure(providers.NO_QUOTA, "rate_limited", "no credit left", retryable=False),
    "too long": Failure(providers.TOO_LONG, "context_too_long", "too long for", retryable=False),
    "400": Failure(providers.NO_IMAGES, "invalid_request", "HTTP 400", retryable=False),
    "413": Failure(Raw("Request Entity Too Large", 413), "context_too_long", "too long for", retryable=False),
    "500": Failure(providers.BROKEN, "backend_unavailable", "HTTP 500", asked=3),
    "502 as a page": Failure(Raw(status=502), "backend_unavailable", "HTTP 502", asked=3),
    "503": Failure(providers.OVERLOADED, "backend_unavailable", "HTTP 503", asked=3),
    "error in the stream": Failure(
        Reply(breaks=providers.BROKEN, after=1), "backend_unavailable", "try again|Retry", "Hello"
    ),
    "error as the stream": Failure(
        Reply(breaks=providers.BROKEN, after=0), "backend_unavailable", "try again|Retry", asked=3
    ),
    "too long in the stream": Failure(
        Reply(breaks=providers.TOO_LONG, after=0), "context_too_long", "too long for", retryable=False
    ),
    "filter": Failure(
        Reply(finish="content_filter"), "invalid_request", "rephrase the message", "Hello there!", retryable=False
    ),
}


class RemoteContract(ABC):
    """The tests of every kind with a remote provider; subclasses name the kind."""

    kind: ClassVar[str]
    server_class: ClassVar[type[ProviderServer]]

    def server(self, *answers: Any, listing: Any = None) -> ProviderServer:
        server = self.server_class(*answers)
        server.listing = listing
        return server

    def address(self, server: ProviderServer) -> str:
        return server.url

    def entry(self, server: ProviderServer, **more: Any) -> BackendSettings:
        about = {"name": "Remote", "kind": self.kind, "model": server.model, "key": "TEST_KEY", "timeout": 5.0}
        settings = {**about, "base_url": self.address(server), **more}
        return BackendSettings(**{name: value for name, value in settings.items() if value is not None})

    @abstractmethod
    def key_sent(self, request: Request) -> str: ...

    @abstractmethod
    def roles(self, request: Request) -> list[str]:
        """Returns the roles of a request without the system prompt."""

    @pytest.fixture(autouse=True)
    def _at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(retries, "_BACKOFF", lambda state: 0.0)

    @pytest.fixture(autouse=True)
    def _cleared_log(self, caplog: pytest.LogCaptureFixture) -> Any:
        """The log as the app writes it contains no key."""
        caplog.handler.setFormatter(log_formatter("text"))
        caplog.set_level(logging.DEBUG)
        caplog.set_level(logging.INFO, "aiosqlite")
        yield
        assert CANARY not in caplog.text

    async def test_a_reply_streams_with_the_providers_own_count(self, tmp_path: Path) -> None:
        with self.server(Reply(["Hello", ", ", "wörld"], pause=APART)) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                received = await house.ask()
                stored = await house.turns.store.history(house.runs[0].conversation_id)
        assert [e["content"] for e in of(received, "token")] == ["Hello", ", ", "wörld"]
        assert (received[-1]["type"], received[-1]["content"]) == ("complete", "Hello, wörld")
        assert received[-1]["usage"] == {"input_tokens": 7, "output_tokens": 3}
        assert of(received, "model_end")[-1]["usage"] == received[-1]["usage"]
        assert received[-1]["timing"]["ttft_s"] >= APART
        assert [(m.role, m.text, m.standing, m.note) for m in stored] == [
            ("user", "Hi", "whole", None),
            ("assistant", "Hello, wörld", "whole", None),
        ]

    async def test_each_calls_request_is_kept_as_it_was_sent(self, tmp_path: Path) -> None:
        call = Reply([], tools=[Tool("calculator", ['{"expression": "6*7"}'])])
        with self.server(providers.OVERLOADED, call, Reply()) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                events = await house.ask("What is 6*7? \N{EM DASH}")
                kept = house.runs[0].requests
                bodies = [kept.body(n) for n in range(len(of(events, "context")))]
        assert [json.loads(body or "") for body in bodies] == [request.body for request in asked_for_replies(server)]
        assert len(bodies) == 3 and "tool" in str(bodies[2])
        assert CANARY not in str(bodies) and kept.body(99) is None

    async def test_an_empty_reply_is_reported(self, tmp_path: Path) -> None:
        with self.server(Reply([], thinking=["Hm"])) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                received = await house.ask()
                stored = await house.turns.store.history(house.runs[0].conversation_id)
        assert (received[-1]["type"], received[-1]["content"]) == ("complete", "")
        assert stored[-1].note == "The model ended its reply without a word."

    async def test_thinking_precedes_the_reply_and_is_not_in_it(self, tmp_path: Path) -> None:
        with self.server(Reply(["Yes", "."], thinking=["Hm", ", well"])) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                received = await house.ask()
        assert [e["content"] for e in of(received, "reasoning")] == ["Hm", ", well"]
        usage = {"input_tokens": 7, "output_tokens": 4, "reasoning_tokens": 2}
        assert (received[-1]["content"], received[-1]["usage"]) == ("Yes.", usage)
        phases = list(dict.fromkeys(e["phase"] for e in of(received, "status")))
        assert phases == ["queued", "waiting", "thinking", "streaming"]

    async def test_thinking_in_tags_is_separated_wherever_they_are_split(self, tmp_path: Path) -> None:
        with self.server(Reply(["<thi", "nk>Hm", ", well</th", "ink>\n\nYes", "."])) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                received = await house.ask()
        assert (text_of(received, "reasoning"), received[-1]["content"]) == ("Hm, well", "Yes.")

    @pytest.mark.parametrize("name", FAILURES)
    async def test_a_failure_is_reported_and_keeps_the_reply_so_far(self, tmp_path: Path, name: str) -> None:
        failure = FAILURES[name]
        with self.server(failure.answer) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                received = await house.ask()
                stored = await house.turns.store.history(house.runs[0].conversation_id)
        last = received[-1]
        assert (last["type"], last["code"], last["retryable"]) == ("error", failure.code, failure.retryable)
        assert any(words in last["message"] for words in failure.said.split("|")), last["message"]
        assert last["content"] == failure.content
        assert (stored[-1].text, stored[-1].standing) == (failure.content, "failed")
        assert stored[-1].note == last["message"]
        assert len(asked_for_replies(server)) == failure.asked
        again = [e for e in of(received, "status") if "Retrying" in e["content"]]
        assert [e["phase"] for e in again] == ["waiting"] * (failure.asked - 1)

    async def test_a_closed_port_is_reported_after_three_attempts(self, tmp_path: Path) -> None:
        with self.server() as server:
            entry = self.entry(server, base_url=f"http://127.0.0.1:{free_port()}")
        async with housed(tmp_path, entry, TEST_KEY=CANARY) as house:
            received = await house.ask()
            assert (received[-1]["code"], received[-1]["retryable"]) == ("backend_unavailable", True)
            assert "cannot be reached" in received[-1]["message"]
            assert len(of(received, "model_start")) == 3
            assert house.backends.describe("anna")[0]["state"] == "unreachable"

    async def test_an_echoed_key_is_shown_nowhere(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with self.server(providers.BAD_KEY, listing=providers.BAD_KEY) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                await house.ask()
                (listed,) = house.backends.describe("anna")
                logging.getLogger("of the tests").error("refused %s", CANARY)
                left = await house.left_behind()
        assert self.key_sent(server.requests[0]) == CANARY
        assert (listed["state"], listed["key"]) == ("key_refused", "everybody's")
        assert "rejected the key" in left
        assert CANARY not in left
        assert "refused [key]" in caplog.text

    async def test_a_short_rate_limit_is_awaited_and_reported(self, tmp_path: Path) -> None:
        with self.server(rate_limit(1), Reply()) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                received = await house.ask()
        assert (received[-1]["type"], received[-1]["content"]) == ("complete", "Hello there!")
        first, second = asked_for_replies(server)
        assert second.at - first.at >= 1
        (again,) = (e["content"] for e in of(received, "status") if "Retrying" in e["content"])
        assert again == "Rate limited. Retrying: 2 of 3 in 1.0 s"

    async def test_a_long_rate_limit_is_not_awaited(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with self.server(rate_limit(99), Reply()) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                received = await house.ask()
                assert (received[-1]["code"], received[-1]["retryable"]) == ("rate_limited", True)
                assert received[-1]["retry_after"] == 99
                assert "in 99 s" in received[-1]["message"]
                (listed,) = house.backends.describe("anna")
                assert (listed["state"], listed["ready"]) == ("rate_limited", False)
                assert listed["until"] == pytest.approx(time.time() + 99, abs=5)
                received = await house.ask("Again")
                assert received[-1]["code"] == "rate_limited"
                assert 90 < received[-1]["retry_after"] <= 99
                assert len(asked_for_replies(server)) == 1, "the provider is left alone until then"

                passed = SimpleNamespace(time=time.time, monotonic=lambda: time.monotonic() + 100)
                monkeypatch.setattr(remote_module, "time", passed)
                assert house.backends.describe("anna")[0]["state"] == "ready"
                assert (await house.ask("Now"))[-1]["type"] == "complete"
                assert house.backends.describe("anna")[0]["until"] is None

    @pytest.mark.parametrize(
        ("answer", "content"),
        [(Hang(), ""), (Reply(breaks="hang", after=1), "Hello")],
        ids=["no answer", "one piece"],
    )
    async def test_a_silent_provider_times_out(self, tmp_path: Path, answer: Any, content: str) -> None:
        with self.server(answer) as server:
            async with housed(tmp_path, self.entry(server, timeout=0.4), TEST_KEY=CANARY) as house:
                begun = time.monotonic()
                received = await house.ask()
                assert time.monotonic() - begun < 3
                assert (received[-1]["type"], received[-1]["code"], received[-1]["retryable"]) == (
                    "error",
                    "timeout",
                    True,
                )
                assert received[-1]["content"] == content
                await until(lambda: server.disconnects and not server.open_streams, 1)
        assert len(asked_for_replies(server)) == 1

    async def test_a_slow_provider_does_not_time_out(self, tmp_path: Path) -> None:
        with self.server(Reply(["word "] * 4, pause=0.2)) as server:
            async with housed(tmp_path, self.entry(server, timeout=0.5), TEST_KEY=CANARY) as house:
                received = await house.ask()
        assert (received[-1]["type"], received[-1]["content"]) == ("complete", "word " * 4)

    async def test_single_bytes_become_complete_characters(self, tmp_path: Path) -> None:
        text = ["Grüße ", "世界", "🎉", " e\u0301"]
        with self.server(Reply(text, thinking=["思考"], drip=5, pause=0.0002)) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                received = await house.ask()
        assert [e["content"] for e in of(received, "token")] == text
        assert text_of(received, "reasoning") == "思考"

    async def test_a_reply_cut_at_the_longest_reply_is_reported(self, tmp_path: Path) -> None:
        with self.server(Reply(finish="length"), Reply(finish="length"), Reply()) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                received = [await house.ask(options=TurnOptions(max_tokens=most)) for most in (3, 4, 4)]
                notes = [(await house.turns.store.history(run.conversation_id))[-1].note for run in house.runs]
        assert [one[-1]["type"] for one in received] == ["complete"] * 3
        by_itself = "Cut by Remote: it writes no longer reply, or has no more room for it."
        assert notes == ["Cut at the max reply length, 3 tokens.", by_itself, None]
        for one, note in zip(received, notes, strict=True):
            assert note in [e["content"] for e in of(one, "status")] or note is None, "each follower receives it, too"
            assert of(one, "model_end")[-1].get("cut") == (True if note else None)

    async def test_a_reply_that_the_provider_fails_is_retried(self, tmp_path: Path) -> None:
        with self.server(Reply([""], finish="error"), Reply()) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                received = await house.ask()
        assert (received[-1]["type"], received[-1]["content"]) == ("complete", "Hello there!")
        assert any("Retrying: 2" in e["content"] for e in of(received, "status"))

    async def test_a_reply_that_the_provider_fails_midway_is_an_error(self, tmp_path: Path) -> None:
        with self.server(Reply(finish="error")) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                received = await house.ask()
        assert (received[-1]["code"], received[-1]["content"]) == ("backend_unavailable", "Hello there!")

    @pytest.mark.parametrize("status", [301, 302, 307, 308])
    async def test_redirects_are_not_followed(self, tmp_path: Path, status: int) -> None:
        with self.server() as other:
            away = Raw("", status, location=f"{other.url}/v1beta/models/test-model:streamGenerateContent?alt=sse")
            with self.server(away, listing=away) as server:
                async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                    await house.health()
                    received = await house.ask()
        assert (received[-1]["code"], received[-1]["retryable"]) == ("backend_unavailable", False)
        assert "`base_url`" in received[-1]["message"]
        assert other.requests == []

    async def test_each_of_many_stops_ends_the_connection(self, tmp_path: Path) -> None:
        choice, stops = random.Random(3), 0
        with self.server(Reply(), Reply(["word "] * 5000, pause=0.004)) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                await house.ask()  # from now on its model is there
                async with asyncio.timeout(30):
                    while stops < 20:
                        run = await house.start()
                        await asyncio.sleep(choice.uniform(0, 0.08))
                        stops += server.open_streams
                        stopping = asyncio.create_task(run.stop("user"))
                        await closed_within(server, 0.5)
                        await asyncio.wait_for(stopping, 2)
                        assert check_run(run)[-1]["reason"] == "user"
                await until(lambda: len(server.disconnects) == len(asked_for_replies(server)) - 1, 0.5)
                await until(lambda: asyncio.all_tasks() == {asyncio.current_task()}, 0.5)

    async def test_roles_alternate_even_after_a_failed_turn(self, tmp_path: Path) -> None:
        with self.server(Reply(["One"]), providers.BAD_KEY, Reply(["Three"])) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                await house.ask("first", memory="full")
                at = house.runs[0].conversation_id
                await house.ask("second", conversation_id=at, memory="full")
                await house.ask("third", conversation_id=at, memory="full")
        third = asked_for_replies(server)[-1]
        assert self.roles(third) == ["user", "assistant", "user"]
        sent = json.dumps(third.body)
        assert [words in sent for words in ("first", "One", "second", "third")] == [True, True, False, True]

    async def test_the_key_is_in_one_header_and_nowhere_else(self, tmp_path: Path) -> None:
        with self.server() as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                await house.health()
                await house.ask()
        assert {request.method for request in server.requests} == {"GET", "POST"}
        assert len(asked_for_replies(server)) == 1
        for request in server.requests:
            assert self.key_sent(request) == CANARY
            assert [CANARY in value for value in request.headers.values()].count(True) == 1
            assert CANARY not in request.path
            assert CANARY not in json.dumps(request.body)

    async def test_variables_of_the_sdks_have_no_effect(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        nowhere = f"http://127.0.0.1:{free_port()}"
        variables = {
            "OPENAI_API_KEY": "env-openai",
            "OPENAI_API_BASE": nowhere,
            "OPENAI_BASE_URL": nowhere,
            "OPENAI_PROXY": nowhere,
            "GOOGLE_API_KEY": "env-google",
            "GEMINI_API_KEY": "env-gemini",
            "GOOGLE_GENAI_USE_VERTEXAI": "true",
            "GOOGLE_GENAI_USE_ENTERPRISE": "true",
            "GOOGLE_CLOUD_PROJECT": "env-project",
            "GOOGLE_CLOUD_LOCATION": "env-location",
            "GOOGLE_GEMINI_BASE_URL": nowhere,
        }
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        before = dict(os.environ)
        with self.server() as server:
            async with housed(tmp_path, self.entry(server)) as house:
                house.backends.keys.put("anna", "Remote", CANARY)
                assert (await house.health()).ready
                received = await house.ask()
                with pytest.raises(ChatError) as refused:
                    await house.start(visitor="ben")
                assert CANARY not in await house.left_behind()
        assert received[-1]["type"] == "complete"
        assert refused.value.code == "missing_key"
        assert {self.key_sent(request) for request in server.requests} == {CANARY}
        assert "env-" not in "".join(map(str, server.requests))
        assert dict(os.environ) == before

    async def test_each_visitor_uses_their_own_key(self, tmp_path: Path) -> None:
        def answer(request: Request) -> Reply:
            return Reply(["for ", self.key_sent(request)[-4:]], pause=0.05)

        visitors = ["anna", "ben", "cleo", None]
        with self.server(answer) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY + "-all") as house:
                for visitor in ("anna", "ben"):
                    house.backends.keys.put(visitor, "Remote", f"{CANARY}-{visitor}")
                before = dict(os.environ)
                received = await asyncio.gather(*(house.ask(visitor=visitor) for visitor in visitors))
                assert dict(os.environ) == before
                whose = [house.backends.describe(visitor)[0]["key"] for visitor in visitors]
                left = await house.left_behind()
        assert [t[-1]["content"] for t in received] == ["for anna", "for -ben", "for -all", "for -all"]
        assert whose == ["yours", "yours", "everybody's", "everybody's"]
        assert CANARY not in left

    @pytest.mark.parametrize(
        ("listing", "state", "reason"),
        [
            (None, "ready", ""),
            (Raw(), "ready", ""),
            (providers.BAD_KEY, "key_refused", "the server's key"),
            (providers.FORBIDDEN, "key_refused", "the server's key"),
            (providers.OVERLOADED, "unreachable", "HTTP 503"),
            (rate_limit(7), "rate_limited", "too many requests"),
            (Drop(), "unreachable", "broke off"),
            (Hang(), "unreachable", "did not answer"),
        ],
        ids=["truth", "page", "401", "403", "503", "429", "drop", "hang"],
    )
    async def test_a_probe_sets_the_health(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, listing: Any, state: str, reason: str
    ) -> None:
        monkeypatch.setattr(remote_module, "PROBE_TIMEOUT_S", 0.3 if isinstance(listing, Hang) else 3.0)
        with self.server(listing=listing) as server:
            async with housed(tmp_path, self.entry(server), TEST_KEY=CANARY) as house:
                begun = time.monotonic()
                health = await house.health()
                assert time.monotonic() - begun < 2
                assert (health.state, health.ready) == (state, state == "ready")
                assert reason in health.reason
                assert CANARY not in health.reason
                if state == "rate_limited":
                    assert health.until == pytest.approx(time.time() + 7, abs=2)
                house.backends.describe("anna")
                await asyncio.sleep(0.02)
                await until(lambda: not server.open_streams, 1)
        assert [request.method for request in server.requests] == ["GET"], "fresh news is not asked for again"

    async def test_a_probe_of_a_closed_port_reports_unreachable(self, tmp_path: Path) -> None:
        with self.server() as server:
            entry = self.entry(server, base_url=f"http://127.0.0.1:{free_port()}")
        async with housed(tmp_path, entry, TEST_KEY=CANARY) as house:
            health = await house.health()
        assert health.state == "unreachable"
        assert "cannot be reached" in health.reason

    async def test_a_model_that_the_server_lacks_is_unavailable(self, tmp_path: Path) -> None:
        with self.server() as server:
            async with housed(tmp_path, self.entry(server, model="other"), TEST_KEY=CANARY) as house:
                health = await house.health()
                assert health.state == "unavailable"
                assert "'other'" in health.reason

    async def test_without_a_key_the_provider_is_not_requested(self, tmp_path: Path) -> None:
        with self.server() as server:
            async with housed(tmp_path, self.entry(server)) as house:
                (listed,) = house.backends.describe("anna")
                assert (listed["state"], listed["key"]) == ("key_missing", "missing")
                assert "TEST_KEY" in listed["reason"]
                with pytest.raises(ChatError) as refused:
                    await house.start()
                assert refused.value.code == "missing_key"
        assert server.requests == []

    async def test_options_that_the_class_rejects_are_reported(self, tmp_path: Path) -> None:
        with self.server() as server:
            entry = self.entry(server, options={"temperature": "hot"})
            async with housed(tmp_path, entry, TEST_KEY=CANARY) as house:
                received = await house.ask()
                assert received[-1]["code"] == "backend_unavailable"
                assert "its options are not accepted" in received[-1]["message"]
                assert CANARY not in received[-1]["message"]
        assert asked_for_replies(server) == []
