"""How long a run will still take: the costs of its units, and the seconds of those finished."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping

KNOWN = 0.02  # of all costs, that must be done before their time says something of the rest


class Estimate:
    """Costs of the units to do, by stage and name; costs and seconds of those that are finished."""

    def __init__(self, jobs: int = 1) -> None:
        self.jobs = jobs
        self._costs: dict[str, dict[str, float]] = defaultdict(dict)
        self._done: dict[str, tuple[float, float]] = {}  # stage -> costs, seconds

    def expect(self, stage: str, costs: Mapping[str, float]) -> None:
        """The costs of a stage's units, by name; they replace what was expected of these."""
        self._costs[stage] |= costs

    def finish(self, stage: str, name: str, seconds: float) -> None:
        """Count a unit, and the seconds that it took."""
        cost = self._costs[stage].pop(name, 0.0)
        costs, total = self._done.get(stage, (0.0, 0.0))
        self._done[stage] = costs + cost, total + seconds

    def seconds_left(self) -> float | None:
        """Seconds until all is done; None as long as nothing is known of them.

        Units of a stage that has begun take as long as those it has finished, by their costs;
        others as long as all that was finished.
        """
        left = sum(sum(costs.values()) for costs in self._costs.values())
        done = sum(cost for cost, _ in self._done.values())
        if not left:
            return 0.0
        if not done or done < KNOWN * (done + left):
            return None
        overall = sum(seconds for _, seconds in self._done.values()) / done
        return sum(
            sum(costs.values()) * self._rate(stage, overall) / min(self.jobs, len(costs))
            for stage, costs in self._costs.items()
            if costs
        )

    def _rate(self, stage: str, overall: float) -> float:
        """Seconds per cost."""
        cost, seconds = self._done.get(stage, (0.0, 0.0))
        return seconds / cost if cost else overall
