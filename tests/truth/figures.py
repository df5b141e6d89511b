"""What each figure of a run has to be: one check for each, which raises AssertionError where the truth is another.

A count is exact, or marked as an estimate and then right within a factor of two. Times and rates are right within 5 %
or 50 ms, besides the time that the machine took to bring what was sent to the visitor.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any

from components.panel import render_panel
from runs.contexts import complete
from runs.events import Context
from tests.truth.provider import Sent
from tests.truth.scripts import TELLS
from tests.truth.tools import TOOK
from tests.truth.watching import Played

FACTOR = 2.0
_MS = 0.003
_FEW = 4
"""Tokens by which an estimate may be off in any case."""


def near(found: float, truth: float, slack: float) -> None:
    off = abs(found - truth)
    assert off <= max(0.05 * truth, slack), f"{found:.3f} s, and it was {truth:.3f} s (± {slack:.3f} s)"


def between(found: float, least: float, most: float, slack: float) -> None:
    """A time that was from `least` to `most`: what begins with a run begins after the message was sent."""
    near(found, min(max(found, least), most), slack)


def estimated(found: float, least: float, most: float) -> None:
    """An estimate of what was from `least` to `most`."""
    assert least / FACTOR - _FEW <= found <= most * FACTOR + _FEW, f"{found}, and it was {least} to {most}"


def counts_so_far(run: Played) -> None:
    """`state.tokens_received`, whenever it is told."""
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
                if piece.kind != "hidden":  # then it is told with the next
                    yield piece.at, before + total
        if sent.ended and sent.told:
            before += sent.told[1]
            yield sent.ended - 0.05, before


def live_rate(run: Played) -> None:
    """`state.tokens_per_second`, the average so far; of hidden thinking nobody knows before it is counted."""
    if any(sent.call.hidden for sent in run.answered):
        return
    for at, state in run.of("state"):
        begun = [sent for sent in run.answered if sent.pieces and sent.pieces[0].at <= at]
        if begun and state["tokens_per_second"]:
            _paced(state["tokens_per_second"], begun, run.slack, at, marked=state["estimated"])


def first_token(run: Played) -> None:
    """`ttft_s`, in `state` and at the end."""
    told = [state["ttft_s"] for _, state in run.of("state")]
    told += [run.last["timing"]["ttft_s"]] if "timing" in run.last else []
    came = [at for at, _ in run.of("token", "reasoning")]
    for found in told:
        if found is not None:
            for at in (came[0], run.visible[0].at):
                between(found, at - run.heard[0], at - run.asked, run.slack)
    if "timing" in run.last:
        assert (told[-1] is None) == (not came)


def duration(run: Played) -> None:
    """`timing.duration_s`"""
    if "timing" in run.last:
        _lasted(run.last["timing"]["duration_s"], run)


def _lasted(found: float, run: Played) -> None:
    """A run lasts until its reply is whole, or it is stopped; then the reply is stored, and its last event is sent."""
    done = {"complete": run.sent[-1].ended, "stopped": run.stopped, "error": run.sent[-1].request.at}[run.last["type"]]
    between(found, (done or run.heard[-1]) - run.heard[0], run.heard[-1] - run.asked, run.slack)


def average_rate(run: Played) -> None:
    """`timing.tokens_per_s`: tokens written over the time of the writing, the first piece's own time known or not."""
    if "timing" not in run.last:
        return
    found, written = run.last["timing"]["tokens_per_s"], [sent for sent in run.answered if sent.pieces]
    if found is not None:
        _paced(found, written, run.slack, run.heard[-1], marked="estimated" in run.last["usage"])
        return
    few = sum(sum(tokens[1:]) for tokens in _written(written, run.heard[-1], known=True)[0]) <= 2
    short = _written(written, run.heard[-1], known=True)[1] <= run.slack * len(written)
    assert few or short, "a rate that could be known"


def _paced(found: float, calls: Sequence[Sent], slack: float, at: float, *, marked: bool) -> None:
    """A rate of what some calls had written at a time."""
    late = slack * len(calls)
    early, shortest = _written(calls, at - slack, known=True)
    latest, longest = _written(calls, at, known=False)
    doubt = FACTOR if marked else 1.0
    least = sum(sum(tokens[1:]) for tokens in early) / doubt / (longest * 1.05 + late)
    most = sum(map(sum, latest)) * doubt / max(1e-9, shortest * 0.95 - late)
    assert least <= found <= most, f"{found} /s, and it was {least:.1f} to {most:.1f} /s"


def _written(calls: Sequence[Sent], until: float, *, known: bool) -> tuple[list[list[int]], float]:
    """The tokens of each piece of some calls, and how long they were written; `known` leaves out hidden thinking that
    nobody was told of.
    """
    found, seconds = [], 0.0
    for sent in calls:
        counted = not known or (sent.ended and sent.call.usage in TELLS)
        pieces = [piece for piece in sent.pieces if piece.at <= until and (counted or piece.kind != "hidden")]
        found.append([piece.tokens for piece in pieces])
        seconds += pieces[-1].at - pieces[0].at if pieces else 0.0
    return found, seconds


def usage(run: Played) -> None:
    """`usage` at the end: the sums of what the provider told, or estimates that are marked."""
    if "usage" not in run.last:
        return
    found = run.last["usage"]
    whole = [sent.told for sent in run.answered if sent.ended and sent.call.usage in TELLS and sent.told]
    if len(whole) == len(run.answered) and run.last["type"] == "complete":
        assert not found.get("estimated"), "every call's usage was told"
    if not found.get("estimated"):
        assert all(sent.call.usage in TELLS and sent.told for sent in run.answered), f"{found} is not marked"
        assert found.items() >= run.told_usage.items()
        return
    visible = sum(p.tokens for s in run.answered for p in s.pieces if s.told or p.kind != "hidden")
    estimated(found["output_tokens"], visible, sum(sent.tokens for sent in run.answered))
    given = [sent.prompt for sent in run.answered]
    contexts = [event["tokens"] for _, event in run.of("context")]
    estimated(found["input_tokens"], sum(given), max(sum(given), sum(contexts)))


def model_calls(run: Played) -> None:
    """`model_end`: one for each request, with the usage that was told and the time that it took."""
    begun, ends = run.of("model_start"), run.of("model_end")
    stopped = run.last["type"] == "stopped"
    assert len(ends) == len(run.sent) or (stopped and len(ends) == len(run.sent) + 1)
    for (start, _), (came, end), sent in zip(begun, ends, run.sent, strict=False):
        if sent.ended is None:
            assert end.get("error")
            continue
        between(end["duration_s"], sent.ended - sent.request.at, came - start, run.slack)
        if end.get("error"):
            continue
        given, written = sent.told if sent.told and sent.call.usage in TELLS else (None, None)
        told = end["usage"] or {}
        assert told.get("estimated") or (told.get("input_tokens"), told.get("output_tokens")) in (
            (given, written),
            (0, 0) if sent.call.usage == "zero" else (given, written),
        )


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
        whole.append(complete(Context(**fields), whole[-1] if whole else None))
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
    _lasted(shown["elapsed_s"], run)
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
