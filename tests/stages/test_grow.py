"""iPET's draws: by the paper's numbers, without replacement, and never endless."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pet_pipeline.config import Ipet
from pet_pipeline.patterns import Pattern
from pet_pipeline.run import Result
from pet_pipeline.stages.grow import choose_teachers, draw, new_rows
from pet_pipeline.stages.results import Model, Scores

CANDIDATES = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 99), st.floats(0, 1)), unique_by=lambda c: c[:2]
)


def scores(name: str) -> Scores:
    pattern = Pattern(name, (), (), ())
    return Scores(Model(name, pattern, 1, Path(), Result(Path(), name, {})), (), {})


@given(CANDIDATES, st.integers(0, 50), st.integers(0, 99))
def test_draws_are_of_the_candidates_each_once(
    candidates: list[tuple[int, int, float]], size: int, seed: int
) -> None:
    drawn = draw(candidates, size, np.random.default_rng(seed))
    assert len(drawn) == len(set(drawn)) == min(size, len(candidates))
    assert set(drawn) <= set(candidates)


def test_likelier_rows_are_drawn_more_often() -> None:
    candidates = [(0, 0, 0.75), (0, 1, 0.25)]
    rng = np.random.default_rng(0)
    first = Counter(draw(candidates, 1, rng)[0][1] for _ in range(4000))
    assert first[0] / 4000 == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize(
    ("labelled", "generation", "expected"),
    [
        ({"a": 5, "b": 5}, 1, {"a": 20, "b": 20}),
        ({"a": 5, "b": 5}, 2, {"a": 120, "b": 120}),
        ({"a": 1, "b": 3}, 1, {"a": 4, "b": 12}),
        (None, 1, {"a": 5, "b": 5}),
        (None, 3, {"a": 125, "b": 125}),
    ],
)
def test_growth_by_the_paper(
    labelled: dict[str, int] | None, generation: int, expected: dict[str, int]
) -> None:
    assert new_rows(labelled, ["a", "b"], Ipet(), generation) == expected


@pytest.mark.parametrize(("models", "teachers"), [(1, 1), (2, 1), (3, 1), (4, 1), (7, 2), (18, 4)])
def test_a_quarter_of_the_other_models_teaches(models: int, teachers: int) -> None:
    everyone = [scores(f"m{n}") for n in range(models)]
    chosen = choose_teachers("m0", everyone, Ipet(), 1)
    assert len(chosen) == teachers
    assert models == 1 or "m0" not in {s.model.name for s in chosen}
    assert chosen == choose_teachers("m0", everyone, Ipet(), 1)
