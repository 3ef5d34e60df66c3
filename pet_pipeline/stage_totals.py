"""What a run says of its stages: a line for each that is finished, and where the time went."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pet_pipeline.progress import duration

SMALL_SHARE = 0.02  # of a run's time; shorter stages are named together


@dataclass
class StageTotal:
    """The units of a stage that one run has finished, and the seconds that it was at work.

    figures: by name, what sums up the stage, of each unit that has it
    """

    stage: str
    units: int = 0
    seconds: float = 0.0
    figures: dict[str, list[float]] = field(default_factory=dict)

    def add(self, figure: str, info: Mapping[str, Any]) -> None:
        """Count a finished unit; figure: the entry of its info that sums it up."""
        self.units += 1
        if isinstance(info.get(figure), int | float):
            self.figures.setdefault(figure, []).append(info[figure])

    def line(self, left: str) -> str:
        """The stage in one line; left: what is said of the time that is left in all."""
        units = "1 unit" if self.units == 1 else f"{self.units} units"
        parts = [f"{self.stage:<22} {units:>10} {duration(self.seconds):>12}", *self._figures()]
        return "  ".join([*parts, *([left] if left else [])])

    def _figures(self) -> Iterable[str]:
        for name, values in self.figures.items():
            mean = "mean " if len(values) > 1 and not name.startswith("mean") else ""
            yield f"{mean}{name.replace('_', ' ')} {sum(values) / len(values):.3f}"


def times_line(totals: Iterable[StageTotal], seconds: float) -> str:
    """Where the seconds of a run went, the longest stage first.

    >>> times_line([StageTotal("encode", 12, 1.0), StageTotal("distill", 1, 80.0)], 90)
    'took 1 min 30 s: distill 1 min 20 s, the rest 10.0 s'
    """
    ordered = sorted(totals, key=lambda total: -total.seconds)
    large = [total for total in ordered if total.seconds >= SMALL_SHARE * seconds]
    parts = [f"{total.stage} {duration(total.seconds)}" for total in large]
    rest = seconds - sum(total.seconds for total in large)
    if rest >= SMALL_SHARE * seconds:
        parts.append(f"the rest {duration(rest)}")
    return f"took {duration(seconds)}" + (f": {', '.join(parts)}" if large else "")
