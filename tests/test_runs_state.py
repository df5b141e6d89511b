from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runs import events
from runs.events import Entry, Event
from runs.fold import apply
from runs.reply import ReplyText
from runs.state import AgentState, digest

RUN = events.Run("c", "b", "m")


def fold_at(*timed: tuple[float, Event]) -> AgentState:
    state = AgentState()
    for seq, (at, event) in enumerate(timed, 1):
        state = apply(state, Entry(seq, "r", at, event))
    return state


def tokens(times: Iterable[float]) -> list[tuple[float, Event]]:
    return [(at, events.Token("x", n)) for n, at in enumerate(times, 1)]


def test_ttft_is_from_the_start_to_the_first_chunk() -> None:
    state = fold_at((10.0, RUN), (10.75, events.Reasoning("hm")), (11.5, events.Token("x", 2)))
    assert state.ttft_s == 0.75
    assert fold_at((10.0, RUN)).ttft_s is None


@given(st.floats(5, 200), st.integers(20, 400))
def test_a_steady_stream_shows_its_rate(per_s: float, count: int) -> None:
    state = fold_at((0.0, RUN), *tokens(1 + i / per_s for i in range(count)))
    now = 1 + (count - 1) / per_s
    assert state.average() == pytest.approx(per_s)
    assert state.rate(now) == pytest.approx(per_s, rel=0.25)


def test_output_in_one_burst_has_no_rate() -> None:
    state = fold_at((0.0, RUN), (1.0, events.Reasoning("hm " * 400)), (1.00008, events.Token("x " * 400, 300)))
    assert state.average() is None
    assert fold_at((0.0, RUN), (1.0, events.Token("x" * 400, 100))).rate(1.01) == 0, "nobody knows how long it took"


def test_current_rate_falls_without_output() -> None:
    state = fold_at((0.0, RUN), *tokens(i / 50 for i in range(200)))
    assert state.rate(4.0) > 40
    assert state.rate(8.0) < 5
    assert state.rate(60.0) < 0.01


def test_rates_before_the_first_token_are_zero() -> None:
    state = fold_at((0.0, RUN))
    assert state.rate(3.0) == 0
    assert state.average() is None


def test_chunks_are_estimates_until_the_provider_counts() -> None:
    pieces = [*tokens([1.0, 2.0]), (2.5, events.Reasoning("hm"))]
    state = fold_at((0.0, RUN), *pieces)
    assert (state.tokens, state.estimated) == (3, True)
    usage = {"input_tokens": 40, "output_tokens": 7}
    counted = fold_at((0.0, RUN), *pieces, (3.0, events.ModelEnd("m", usage, 1.0)))
    assert (counted.tokens, counted.estimated, counted.input_tokens) == (7, False, 40)
    assert counted.usage() == usage


def test_counts_of_several_model_calls_add_up() -> None:
    first, second = {"input_tokens": 10, "output_tokens": 3}, {"input_tokens": 20, "output_tokens": 5}
    timed = (1.0, events.ModelEnd("a", first, 1.0)), (2.0, events.ModelEnd("b", second, 1.0))
    assert fold_at((0.0, RUN), *timed).usage() == {"input_tokens": 30, "output_tokens": 8}


def test_a_call_without_usage_leaves_the_estimate() -> None:
    context = events.Context([], [], 12, 100)
    timed = (0.5, context), *tokens([1.0, 2.0]), (3.0, events.ModelEnd("m", None, 1.0))
    state = fold_at((0.0, RUN), *timed)
    assert (state.tokens, state.estimated) == (2, True)
    assert state.usage() == {"input_tokens": 12, "output_tokens": 2, "estimated": True}


@pytest.mark.parametrize("ended", [False, True])
def test_stop_before_any_output_counts_the_input(ended: bool) -> None:
    first = {"input_tokens": 350, "output_tokens": 20}
    timed: list[tuple[float, Event]] = [(0.0, RUN), (0.5, events.ModelEnd("a", first, 1.0))]
    timed += [(1.0, events.Context([], [], 374, 1000)), (1.1, events.ModelStart("b", None, "model"))]
    if ended:
        timed.append((2.0, events.ModelEnd("b", None, 1.0, "cancelled")))
        timed.append((2.0, events.Stopped("", "user", {}, {})))
    assert fold_at(*timed).usage() == {"input_tokens": 724, "output_tokens": 20, "estimated": True}


def test_rejected_call_counts_nothing() -> None:
    timed: list[tuple[float, Event]] = [(0.0, RUN), (1.0, events.Context([], [], 374, 1000))]
    timed += [(1.1, events.ModelStart("b", None, "model")), (2.0, events.ModelEnd("b", None, 1.0, "refused"))]
    assert fold_at(*timed).usage() == {"input_tokens": 0, "output_tokens": 0}


def test_direct_tool_result_is_not_model_output() -> None:
    usage = {"input_tokens": 10, "output_tokens": 3}
    timed: list[tuple[float, Event]] = [(0.0, RUN), (1.0, events.ModelStart("m", None, "model"))]
    timed += [(2.0, events.ModelEnd("m", usage, 1.0)), (3.0, events.Token("x" * 400, 103))]
    assert fold_at(*timed).usage() == usage


def test_steps_open_and_end_by_id() -> None:
    timed = [
        (0.0, RUN),
        (1.0, events.ChainStart("agent", "c", None, [])),
        (2.0, events.ModelStart("m", "c", "model")),
        (3.0, events.ToolStart("clock", "t", {})),
        (4.0, events.ToolEnd("clock", "t", "", 1.0, "broken")),
        (5.0, events.ModelEnd("m", None, 3.0)),
    ]
    state = fold_at(*timed)
    assert [(s.kind, s.name, s.start, s.end, s.error) for s in state.steps] == [
        ("chain", "agent", 1.0, None, None),
        ("model", "model", 2.0, 5.0, None),
        ("tool", "clock", 3.0, 4.0, "broken"),
    ]
    assert [s.id for s in state.open_steps] == ["c"]
    assert state.tools == ("clock",)


def test_the_current_step_names_an_open_tool() -> None:
    calling = fold_at(
        (0.0, RUN), (1.0, events.Status("tool", "Calling clock")), (1.0, events.ToolStart("clock", "t", {}))
    )
    assert calling.current_step == "Calling clock"
    assert fold_at((0.0, RUN), (1.0, events.Status("waiting", "Waiting"))).current_step == "Waiting"


def test_phase_spans_have_their_start() -> None:
    timed = [
        (1.0, events.Status("queued", "…")),
        (2.0, events.Status("waiting", "a")),
        (3.0, events.Status("waiting", "b")),
    ]
    state = fold_at((0.5, RUN), *timed, (4.0, events.Complete("", {}, {})))
    assert [(s.phase, s.start) for s in state.phase_spans] == [("queued", 0.5), ("waiting", 2.0), ("complete", 4.0)]
    assert (state.phase_started, state.ended, state.current_step) == (4.0, 4.0, None)


@pytest.mark.parametrize(
    ("last", "phase"),
    [
        (events.Complete("", {}, {}), "complete"),
        (events.Stopped("", "limit", {}, {}), "stopped"),
        (events.Error("internal", "oh", True, ""), "error"),
    ],
)
def test_the_last_event_sets_the_phase(last: Event, phase: str) -> None:
    state = fold_at((0.0, RUN), (2.0, last))
    assert (state.phase, state.ended) == (phase, 2.0)
    assert state.status_text


def test_digests_are_ignored_by_the_fold() -> None:
    state = fold_at((0.0, RUN), *tokens([1.0]))
    assert apply(state, Entry(9, "r", 2.0, digest(state, 2.0))) == state


def test_digest_size_is_bounded() -> None:
    many = [(1.0, events.ToolStart(f"{'tool' * 40}{n}", str(n), {})) for n in range(50)]
    state = fold_at((0.0, RUN), *many, (2.0, events.Status("waiting", "ö" * 5000)))
    assert len(Entry(1, "r", 3.0, digest(state, 3.0)).json.encode()) <= 2048


@pytest.mark.parametrize("size", [1, 7, 900, 5000])
def test_long_output_keeps_its_beginning_and_end(size: int) -> None:
    text = "".join(f"{n} " for n in range(4000))
    chunks = [text[at : at + size] for at in range(0, len(text), size)]
    sent = [(1.0, events.ToolStart("count", "t", {})), *((2.0, events.ToolOutput("count", "t", one)) for one in chunks)]
    (step,) = fold_at((0.0, RUN), *sent).steps
    assert step.output == f"{text[:2000]}\n[… cut here …]\n{text[-2000:]}"


def test_retracted_tokens_are_a_thought_since_the_call_began() -> None:
    call = events.ModelStart("m", None, "Chat")
    before = [(10.0, RUN), (11.0, call), (12.0, events.Token("Hm", 1)), (13.0, events.Token(".", 2))]
    state = fold_at(*before, (13.0, events.Reasoning("Hm.", retracts=True)), (14.0, events.Token("Yes", 3)))
    assert [(one.text, one.start, one.end) for one in state.thoughts] == [("Hm.", 11.0, 14.0)]
    assert (state.tokens, state.ttft_s) == (3, 2.0), "none of them is counted twice"


@given(st.lists(st.sampled_from(["token", "call", "thought", "retracts"]), max_size=12))
def test_reply_text_excludes_retracted_tokens(kinds: list[str]) -> None:
    reply, expected, call = ReplyText(), list[str](), 0
    for number, kind in enumerate(kinds):
        match kind:
            case "token":
                reply.add(events.Token(f"{number} ", number))
                expected.append(f"{number} ")
            case "call":
                reply.add(events.ModelStart(str(number), None, "Chat"))
                call = len(expected)
            case _:
                reply.add(events.Reasoning("hm", retracts=kind == "retracts" or None))
                expected = expected[:call] if kind == "retracts" else expected
    assert str(reply) == "".join(expected)
