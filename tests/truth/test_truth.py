"""Scripts played on the running app, and each figure of it compared with the truth."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from agent import retries
from settings import BackendSettings, MemorySettings, ToolSettings
from tests.live_app import live_app
from tests.truth.bounds import between
from tests.truth.figures import FIGURES, contexts
from tests.truth.provider import BROKEN, Provider
from tests.truth.scripts import NAMED, SCRIPTS, Call, Script, Tool
from tests.truth.watching import OPERATOR, Played, Visitor

_AT_ONCE = 3
"""Runs that go on at the same time."""


def _backend(provider: Provider, name: str, model: str, **more: str) -> BackendSettings:
    return BackendSettings(name=name, kind="openai", model=model, base_url=provider.base_url, context=60_000, **more)


@pytest.fixture(scope="module")
def visitor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:
    with pytest.MonkeyPatch.context() as patch, Provider() as provider:
        patch.setattr(retries, "_BACKOFF", lambda state: 0.02)
        backends = [
            _backend(provider, "Direct", provider.model),
            _backend(provider, "First", BROKEN, fallback="Second"),
            _backend(provider, "Second", provider.model),
        ]
        tools = ToolSettings(enabled=["tests.truth.tools:nap", "tests.truth.tools:ask"], approval=["ask"])
        more = {"memory": MemorySettings(default="full"), "metrics_token": SecretStr(OPERATOR)}
        with live_app(tmp_path_factory.mktemp("truth"), backends=backends, tools=tools, **more) as app:
            yield Visitor(app, provider)


@pytest.fixture(scope="module")
def played(visitor: Visitor) -> dict[str, Played]:
    """The named scripts, played a few at a time."""
    runs: dict[str, Played] = {}

    async def play(names: Iterator[str]) -> None:
        for name in names:
            runs[name] = await visitor.play(NAMED[name])

    async def play_all() -> None:
        names = iter(NAMED)
        await visitor.play(Script((Call(1),)))  # what the first run takes longer for
        async with asyncio.TaskGroup() as group:
            for _ in range(_AT_ONCE):
                group.create_task(play(names))

    asyncio.run(play_all())
    return runs


def check_all(runs: Sequence[Played]) -> None:
    """Fails with all that is wrong in the figures of some runs."""
    wrong = []
    for run in runs:
        for name, figure in FIGURES.items():
            try:
                figure(run)
            except AssertionError as e:
                wrong.append(f"{name} of {run.script}:\n{e}")
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.parametrize("figure", FIGURES)
@pytest.mark.parametrize("name", NAMED)
def test_a_figure_is_true(played: dict[str, Played], name: str, figure: str) -> None:
    FIGURES[figure](played[name])


@settings(
    max_examples=12,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
@given(st.lists(SCRIPTS, min_size=_AT_ONCE, max_size=_AT_ONCE))
async def test_every_figure_of_any_script_is_true(visitor: Visitor, scripts: Sequence[Script]) -> None:
    check_all(await asyncio.gather(*map(visitor.play, scripts)))


async def test_every_figure_of_a_batch_is_true(visitor: Visitor) -> None:
    names = ("many tokens in three pieces", "hidden thinking", "a slow tool", "no usage")
    check_all(await visitor.play_batch([NAMED[name] for name in names]))
    check_all(await visitor.play_batch([NAMED["a fallback"]] * 2))


@pytest.mark.parametrize("memory", ["none", "window", "tokens", "full"])
async def test_all_that_was_said_is_given_or_listed_as_left_out(visitor: Visitor, memory: str) -> None:
    """What tools said in earlier turns, too. A preview says what is then given."""
    scripts = [Script((Call(2, tools=(Tool(0.02),)), Call(2))), Script((Call(2),)), Script((Call(2),))]
    said: list[str] = []
    more: dict[str, Any] = {"memory": memory, "window_turns": 1}
    async with visitor.client() as client:
        for script in scripts:
            looked = await client.post(
                "/context", json={"message": f"Play script {len(visitor.provider.sent)}.", **more}
            )
            run = await visitor.play(script, **more)
            contexts(run)
            (first, *_) = (event for _, event in run.of("context"))
            assert all(looked.json()[name] == first[name] for name in ("messages", "left_out", "tokens", "parts"))
            given = "\n".join(str(m["content"]) for m in run.sent[0].request.body["messages"])
            left_out = [str(message["content"]) for message in first["left_out"]]
            assert [one for one in said if one not in given and not any(one in text for text in left_out)] == []
            said += [run.message, run.last["content"], *(event["output"] for _, event in run.of("tool_end"))]
            more["conversation_id"] = run.received[0]["conversation_id"]


async def test_an_operators_figures_are_true(visitor: Visitor) -> None:
    """Also those of a run that failed after a call that was paid for."""
    names = ("three calls", "a fallback", "stopped in the second call", "an error in the second call")
    before = await visitor.metrics()
    runs = await asyncio.gather(*(visitor.play(NAMED[name]) for name in names))
    after = await visitor.metrics()
    ended = 'glassbox_runs_total{{backend="{}",memory="full",outcome="{}"}}'.format
    written = 'glassbox_tokens_total{{backend="{}",direction="{}"}}'.format

    def grown(name: str) -> float:
        return after.get(name, 0.0) - before.get(name, 0.0)

    for backend, outcomes in (("Direct", ("complete", "user", "error")), ("Second", ("complete",))):
        assert [grown(ended(backend, outcome)) for outcome in outcomes] == [1.0] * len(outcomes)
        here = [run for run in runs if run.script.fallback == (backend == "Second")]
        paid = [run.last.get("usage") or run.reported_usage for run in here]
        for direction, key in (("read", "input_tokens"), ("written", "output_tokens")):
            assert grown(written(backend, direction)) == sum(usage[key] for usage in paid)


async def test_the_fallback_is_named_wherever_a_backend_is(visitor: Visitor) -> None:
    run = await visitor.play(NAMED["a fallback"])
    async with visitor.client() as client:
        export = await client.get(f"/conversations/{run.received[0]['conversation_id']}")
        context = await client.get(f"/runs/{run.received[0]['run_id']}/context")
    assert export.json()["messages"][-1]["backend"] == "Second"
    assert context.json()["backend"] == "Second"


async def test_the_dropdowns_first_token_is_the_models_own(visitor: Visitor) -> None:
    """Without the time that a tool took, and of the backend that answered."""
    calls = Call(0, tools=(Tool(0.4), Tool(0.2, "ask"))), Call(3)
    run = await visitor.play(Script(calls, fallback=True, approval=0.5))
    tools = max(at for at, _ in run.of("tool_end")) - min(at for at, _ in run.of("tool_start"))
    asked = max(at for at, status in run.of("status") if status["phase"] == "queued")
    async with visitor.client() as client:
        listed = {one["name"]: one["ttft_s"] for one in (await client.get("/backends")).json()}
    assert listed["First"] is None
    least = run.visible[0].at - run.answered[0].request.at - tools
    between(listed["Second"], least, run.of("token")[0][0] - asked - tools, run.slack)
