"""What the times and the rates of a run have to be."""

from collections.abc import Sequence

from tests.truth.bounds import FACTOR, between
from tests.truth.provider import Sent
from tests.truth.watching import Played


def live_rate(run: Played) -> None:
    """`state.tokens_per_second`, the average so far; of hidden thinking nobody knows before it is counted."""
    if any(sent.call.hidden for sent in run.answered):
        return
    for at, state in run.of("state"):
        begun = [sent for sent in run.answered if sent.pieces and sent.pieces[0].at <= at]
        if rate := state["tokens_per_second"]:
            _paced(rate, begun, run.slack, at, marked=state["estimated"])
        else:
            _unknowable(begun, run.slack, at - run.slack)


def first_token(run: Played) -> None:
    """`ttft_s`, in `state` and at the end."""
    received = [state["ttft_s"] for _, state in run.of("state")]
    received += [run.last["timing"]["ttft_s"]] if "timing" in run.last else []
    came = [at for at, _ in run.of("token", "reasoning")]
    for found in received:
        if found is not None:
            for at in (came[0], run.visible[0].at):
                between(found, at - run.heard[0], at - run.asked, run.slack)
    if "timing" in run.last:
        assert (received[-1] is None) == (not came)


def duration(run: Played) -> None:
    """`timing.duration_s`"""
    if "timing" in run.last:
        lasted(run.last["timing"]["duration_s"], run)


def lasted(found: float, run: Played) -> None:
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
    _unknowable(written, run.slack, run.heard[-1])


def _unknowable(calls: Sequence[Sent], slack: float, at: float) -> None:
    """A time at which nobody could tell the rate: too little had been written."""
    written, seconds = _written(calls, at, known=True)
    few = sum(sum(tokens[1:]) for tokens in written) <= 2
    assert few or seconds <= slack * len(calls), "a rate that could be known"


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
    nobody was received of.
    """
    found, seconds = [], 0.0
    for sent in calls:
        all_of_it = not known or sent.known
        pieces = [piece for piece in sent.pieces if piece.at <= until and (all_of_it or piece.kind != "hidden")]
        found.append([piece.tokens for piece in pieces])
        seconds += pieces[-1].at - pieces[0].at if pieces else 0.0
    return found, seconds
