"""The costs of a conversation and of a visitor's day."""

from dataclasses import dataclass

from runs.events import JSON

TOTAL_COSTS = ("conversation_cost_usd", "day_cost_usd")
"""The totals in the `usage` of a run's last event."""


@dataclass(frozen=True, slots=True)
class Costs:
    """US dollars that a conversation, and its visitor since midnight UTC, had cost when a run began."""

    conversation: float = 0.0
    day: float = 0.0

    def with_run(self, usage: JSON) -> JSON:
        """Returns the usage of a run with the totals that include it; without a cost of its own, as it is."""
        if (own := usage.get("cost_usd")) is None:
            return usage
        totals = self.conversation + own, self.day + own
        return usage | {name: round(total, 8) for name, total in zip(TOTAL_COSTS, totals, strict=True)}
