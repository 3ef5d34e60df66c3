"""A reader has what decides how a model scores rows, and keeps one model at a time."""

from __future__ import annotations

from planning import Make, planned
from testing import CPU

from pet_pipeline.stages import readers
from pet_pipeline.stages.annotate import Annotate


def test_a_reader_keeps_the_last_model_and_nothing_of_another_ones_use(finished: Make) -> None:
    units = planned(finished())
    found = {}
    for name in ("it_was-1", "just-1"):
        unit = units[f"gen-0/annotate/{name}-00000"].unit
        assert isinstance(unit, Annotate)
        found[name] = unit.reader
    one = found["it_was-1"].load(CPU)
    one.decoding, one.prior = "parallel", None
    again = found["it_was-1"].load(CPU)
    assert again is one
    assert again.decoding == "confident"
    other = found["just-1"].load(CPU)
    assert other.encoder.pattern.name == "just"
    assert found["it_was-1"].load(CPU) is not one
    readers.release()
    assert readers._load.cache_info().currsize == 0
