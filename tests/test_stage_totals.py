"""A stage in a line, and a run's time by stage."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pet_pipeline.stage_totals import StageTotal, times_line


def total(*infos: dict[str, object], figure: str = "mean_confidence") -> StageTotal:
    made = StageTotal("gen-0/ensemble", seconds=75.0)
    for info in infos:
        made.add(figure, info)
    return made


def test_a_stage_has_a_line_with_its_units_its_time_and_its_figure() -> None:
    assert total({"mean_confidence": 0.75}).line("").split() == (
        ["gen-0/ensemble", "1", "unit", "1", "min", "15", "s", "mean", "confidence", "0.750"]
    )
    two = total({"mean_confidence": 0.5}, {"mean_confidence": 0.75, "rows": 3}, {})
    line = two.line("about 3 min left in all")
    assert line.split("  ")[-2:] == ["mean confidence 0.625", "about 3 min left in all"]
    assert "3 units" in line


def test_a_stage_without_a_figure_has_none() -> None:
    for made in (total({"rows": 3}), total({"text": "a"}, figure="text"), total({}, figure="")):
        assert made.line("").split() == ["gen-0/ensemble", "1", "unit", "1", "min", "15", "s"]


STAGES = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(0, 1e4), max_size=8)


@given(STAGES, st.floats(0, 1e4))
def test_the_longest_stages_are_named_first_and_short_ones_together(
    seconds: dict[str, float], more: float
) -> None:
    whole = sum(seconds.values()) + more
    line = times_line([StageTotal(name, 1, s) for name, s in seconds.items()], whole)
    _, _, parts = line.partition(": ")
    named = [part.split()[0] for part in parts.split(", ") if part and not part.startswith("the")]
    assert [seconds[name] for name in named] == sorted((seconds[n] for n in named), reverse=True)
    assert all(seconds[name] >= 0.019 * whole for name in named)
    assert all(seconds[name] <= 0.021 * whole for name in seconds if name not in named)
