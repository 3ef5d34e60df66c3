"""Steps that come much slower than at first are noticed, once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest

from pet_pipeline.pace import FEW, MUCH, SECONDS, Pace


def told(seconds: Iterable[float]) -> list[tuple[int, float]]:
    """The steps after which it was said, with how many times slower they were."""
    pace = Pace()
    said = [pace.step(end) for end in itertools.accumulate(seconds)]
    return [(n, times) for n, times in enumerate(said) if times is not None]


def test_steps_that_become_slow_are_noticed_once_after_some_seconds() -> None:
    ((step, times),) = told([5.0, *[0.5] * 20, *[2.0] * 30])
    assert times == pytest.approx(4)
    assert 21 + FEW // 2 < step <= 21 + SECONDS


@pytest.mark.parametrize(
    "seconds",
    [
        [0.5] * 200,
        [60.0, *[0.5] * 200],  # the first step
        [*[0.5] * 20, 60.0, *[0.5] * 60],  # one that waited, for the disk
        [*[0.5] * 20, *[0.5 * MUCH * 0.99] * 60],  # not much slower
        [*[0.001] * 20, *[0.1] * 90],  # not for long
        [*[0.5] * 20, *[60.0] * (FEW // 2)],  # few
        [*[2.0] * 20, *[0.5] * 200],  # faster
        [0.0] * 99,
        [],
    ],
)
def test_nothing_is_said_otherwise(seconds: list[float]) -> None:
    assert told(seconds) == []
