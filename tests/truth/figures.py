"""What each figure of a run has to be: one check for each, which raises AssertionError where the truth is another.
Those of times and rates are in `tests/truth/times.py`.
"""

import json
import time
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any

from components.panel import render_panel
from runs.contexts import complete_context
from runs.events import Context
from tests.truth.bounds import between, estimated, near
from tests.truth.scripts import TELLS
from tests.truth.times import average_rate, duration, first_token, lasted, live_rate
from tests.truth.tools import TOOK
from tests.truth.watching import Played

_MS = 0.003


def counts_so_far(run: Played) -> None:
    """`state.tokens_received`, whenever it is sent."""
    moments = sorted((piece.at, piece.tokens, piece.kind != "hidden") for s in run.answered for piece in s.pieces)
    exact = list(_exact(run))
    for at, state in run.of("state"):
        found, early = state["tokens_received"], at - run.slack
        if state["estimated"]:
            least = sum(tokens for sent, tokens, shown in moments if sent <= early and shown)
            estimated(found, least, sum(tokens for sent, tokens, _ in moments if sent <= at))
        else:
            known = [total for sent, total in exact if sent <= at]
            later = [total for sent, total in exact if early <= sent <= at]
            assert found in {known[-1], *later, *[t for s, t in exact if s <= early][-1:]}, f"{found} of {known}"


def _exact(run: Played) -> Iterator[tuple[float, int]]:
    """When which total of tokens was known for certain."""
    yield run.asked, 0
    before = 0
    for sent in run.answered:
        if sent.call.usage == "every":
            totals = accumulate(piece.tokens for piece in sent.pieces)
            for piece, total in zip(sent.pieces, totals, strict=True):
                if piece.kind != "hidden":  # then it is sent with the next
                    yield piece.at, before + total
        if sent.ended and sent.received:
            before += sent.received[1]
            yield sent.ended - 0.05, before


def usage(run: Played) -> None:
    """`usage` at the end: the sums of what the provider reported, or estimates that are marked."""
    if "usage" not in run.last:
        return
    found = run.last["usage"]
    if run.last["type"] == "complete" and all(sent.known for sent in run.answered):
        assert not found.get("estimated"), "every call's usage was reported"
    if not found.get("estimated"):
        assert all(sent.call.usage in TELLS and sent.received for sent in run.answered), f"{found} is not marked"
        assert found.items() >= run.reported_usage.items()
        return
    visible = sum(p.tokens for s in run.answered for p in s.pieces if s.known or p.kind != "hidden")
    estimated(found["output_tokens"], visible, sum(sent.tokens for sent in run.answered))
    given = [sent.prompt for sent in run.answered]
    contexts = [event["tokens"] for _, event in run.of("context")]
    estimated(found["input_tokens"], sum(given), max(sum(given), sum(contexts)))


def model_calls(run: Played) -> None:
    """`model_end`: one for each request, with the usage that was reported and the time that it took."""
    begun, ends = run.of("model_start"), run.of("model_end")
    stopped = run.last["type"] == "stopped"
    assert len(ends) == len(run.sent) or (stopped and len(ends) == len(run.sent) + 1)
    for (start, _), (came, end), sent in zip(begun, ends, run.sent, strict=False):
        if sent.doubtful:
            continue
        if sent.ended is None:
            assert end.get("error")
            continue
        between(end["duration_s"], sent.ended - sent.request.at, came - start, run.slack)
        if end.get("error"):
            continue
        received = end["usage"]
        assert bool(received.get("estimated")) == (sent.call.usage not in TELLS)
        if not received.get("estimated"):
            assert (received["input_tokens"], received["output_tokens"]) == sent.received


def tool_calls(run: Played) -> None:
    """`tool_end.duration_s`: from its start to its end, an approval's time included."""
    begun = {event["tool_call_id"]: (at, event) for at, event in run.of("tool_start")}
    for came, end in run.of("tool_end"):
        at, start = begun[end["tool_call_id"]]
        took = TOOK.get(str(start["input"].get("note")), (0.0, 0.0))
        waited = run.approved.get(end["tool_call_id"], at) - at
        between(end["duration_s"], waited + took[1] - took[0], came - at, run.slack)


def contexts(run: Played) -> None:
    """`context`: exactly what each request brought, and a sum that is one."""
    whole: list[Context] = []
    for _, event in run.of("context"):
        fields = {name: event.get(name) for name in ("messages", "left_out", "tokens", "limit", "parts", "tools")}
        whole.append(complete_context(Context(**fields), whole[-1] if whole else None))
    assert len(whole) == len(run.sent) or (run.last["type"] == "stopped" and len(whole) == len(run.sent) + 1)
    for context, sent in zip(whole, run.sent, strict=False):
        assert [_said(m) for m in context.messages] == [_received(m) for m in sent.request.body["messages"]]
        offered = [tool["name"] for tool in context.tools or ()]
        assert offered == [tool["function"]["name"] for tool in sent.request.body.get("tools", ())]
        listed = sum(one["tokens"] for one in (*context.messages, *(context.tools or ())))
        assert 0 <= context.tokens - listed <= 8, "a template adds a few tokens"
        assert context.tokens == sum((context.parts or {}).values())


def _said(message: dict[str, Any]) -> tuple[Any, ...]:
    calls = [(call["name"], call["args"]) for call in message.get("tool_calls", ())]
    return message["role"], message["content"], calls


def _received(message: dict[str, Any]) -> tuple[Any, ...]:
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    made = [(call["name"], json.loads(call["arguments"])) for call in calls]
    return message["role"], message["content"] or "", made


def panel(run: Played) -> None:
    """What the page's panel shows at the end is what the last event says, and bars are as long as the steps took."""
    state = run.state
    shown = render_panel(state, whole=True, now=time.time())
    assert (shown["live"], shown["rate"]) == (False, None)
    lasted(shown["elapsed_s"], run)
    if "timing" in run.last:
        timing, used = run.last["timing"], run.last["usage"]
        assert _same(shown["ttft_s"], timing["ttft_s"])
        assert _same(shown["average"], timing["tokens_per_s"])
        assert shown["tokens"] == used["output_tokens"]
        assert shown["input_tokens"] in (None, used["input_tokens"])
        assert (shown["estimated"] or shown.get("input_estimated", False)) == bool(used.get("estimated"))
    bars = [step["end"] - step["start"] for step in shown["steps"] if step["kind"] == "tool"]
    ends = {event["tool_call_id"]: event["duration_s"] for _, event in run.of("tool_end")}
    starts = [event["tool_call_id"] for _, event in run.of("tool_start")]
    for bar, call in zip(bars, starts, strict=True):
        near(bar, ends[call], run.slack)


def _same(one: float | None, other: float | None) -> bool:
    """Whether two figures of one run say the same; the times of its events are rounded."""
    if one is None or other is None:
        return one is other
    return abs(one - other) <= max(0.05 * other, _MS)


def answering(run: Played) -> None:
    """The backend that answered is the one that the panel names."""
    if any(sent.pieces for sent in run.answered):
        shown = render_panel(run.state, whole=True)
        assert shown["backend"] == ("Second" if run.script.fallback else "Direct")


FIGURES: dict[str, Callable[[Played], None]] = {
    check.__name__: check
    for check in (
        counts_so_far,
        live_rate,
        first_token,
        duration,
        average_rate,
        usage,
        model_calls,
        tool_calls,
        contexts,
        panel,
        answering,
    )
}
