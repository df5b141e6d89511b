"""Metrics for the operator, in Prometheus' text format: runs, tokens, first-token times, queues, errors and memory.

Labels are names from the settings and our own codes, never a visitor's text.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from agent.turns import Turns
from backends import Backend
from runs import events
from runs.live import LiveRun

_RATES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 600)


class Metrics:
    """The metrics of the app, in a registry of its own."""

    def __init__(self, turns: Turns) -> None:
        self._registry = own = CollectorRegistry()
        ProcessCollector(registry=own)
        self._ended = Counter("glassbox_runs", "Runs that have ended.", ["backend", "memory", "outcome"], registry=own)
        self._errors = Counter("glassbox_errors", "Runs that failed.", ["backend", "code"], registry=own)
        self._tokens = Counter("glassbox_tokens", "Tokens read and written.", ["backend", "direction"], registry=own)
        self._first = Histogram(
            "glassbox_first_token_seconds",
            "Seconds to the first token.",
            ["backend"],
            buckets=_SECONDS,
            registry=own,
        )
        self._duration = Histogram(
            "glassbox_run_seconds", "Duration of runs, in seconds.", ["backend"], buckets=_SECONDS, registry=own
        )
        self._rate = Histogram(
            "glassbox_tokens_per_second",
            "Average rate of a run while the model was writing.",
            ["backend"],
            buckets=_RATES,
            registry=own,
        )
        live = Gauge("glassbox_runs_live", "Live runs.", registry=own)
        live.set_function(lambda: sum(1 for _ in turns.runs.live()))
        waiting = Gauge("glassbox_waiting", "Waiting runs, by queue.", ["line"], registry=own)
        waiting.labels("runs").set_function(lambda: len(turns.slots))
        for backend in turns.backends:
            waiting.labels(backend.name).set_function(lambda slots=backend.slots: len(slots))  # type: ignore[misc]
        turns.watchers.append(self.observe)
        turns.summarizer.watchers.append(self.observe_summary)

    def observe(self, run: LiveRun) -> None:
        """Counts a run that has ended."""
        last = run.log.entries[-1].event
        if not isinstance(last, events.Complete | events.Stopped | events.Error):
            return
        outcome = last.reason if isinstance(last, events.Stopped) else "error"
        backend = run.state.backend  # not `run.backend`: a fallback may have answered
        self._ended.labels(backend, run.memory, "complete" if isinstance(last, events.Complete) else outcome).inc()
        for direction, key in (("read", "input_tokens"), ("written", "output_tokens")):
            self._tokens.labels(backend, direction).inc(run.state.usage()[key])  # a failed run costs the same
        if isinstance(last, events.Error):
            self._errors.labels(backend, last.code).inc()
            return
        if (first := last.timing.get("ttft_s")) is not None:
            self._first.labels(backend).observe(first)
        if (rate := last.timing.get("tokens_per_s")) is not None:
            self._rate.labels(backend).observe(rate)
        self._duration.labels(backend).observe(last.timing.get("duration_s") or 0)

    def observe_summary(self, backend: Backend, input_tokens: int, output_tokens: int) -> None:
        """Counts the tokens of a model call that wrote a summary."""
        self._tokens.labels(backend.name, "read").inc(input_tokens)
        self._tokens.labels(backend.name, "written").inc(output_tokens)

    def text(self) -> bytes:
        """Returns all metrics."""
        return generate_latest(self._registry)
