"""The learning rate and the steps that a selection decided, and what it was decided by."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from pet_pipeline.config import Settings
from pet_pipeline.errors import UserError
from pet_pipeline.models import Pretrained
from pet_pipeline.optimisation import Tuning
from pet_pipeline.records import read_record
from pet_pipeline.search.selection import LogLoss
from pet_pipeline.stages.from_settings import tuning
from pet_pipeline.stages.results import Inputs
from pet_pipeline.units import Result

SELECTION = "selection.json"
BY_SELECTION = "selected"  # in keys, for a value that a selection decides


@dataclass(frozen=True)
class RankedTuning:
    """A candidate and how it did on rows that its models were not tuned on."""

    learning_rate: float
    steps: int
    log_loss: LogLoss  # in nats, after a correction for label biases and for the scale
    accuracy: float


@dataclass(frozen=True)
class Selection:
    """All candidates, in the order of the grid, and which of them is taken."""

    split: str  # "folds" or "development"
    rows: int
    patterns: list[str]
    candidates: list[RankedTuning]
    selected: int  # its number
    lead: LogLoss  # the first candidate's loss less the selected one's, row by row

    @property
    def verdict(self) -> str:
        """In words, what is taken, and whether it is better than the first by more than chance."""
        best = self.candidates[self.selected]
        taken = f"Learning rate {best.learning_rate:g} and {best.steps} steps are taken"
        if self.selected == 0:
            return f"{taken}: no other candidate has a lower log-loss than the first."
        clear = self.lead.mean > 2 * self.lead.standard_error
        return (
            f"{taken}: ahead of the first candidate by {self.lead.mean:.3f} "
            f"± {self.lead.standard_error:.3f} nats (paired, {self.rows} rows), "
            f"{'more than chance' if clear else 'within noise'}."
        )


@dataclass(frozen=True)
class SelectedTuning(Tuning):
    """A tuning whose learning rate and steps a selection decides; in keys it counts by that.

    So a plan can be made, and keys be known, before the selection was run; until then it has the
    rate and the steps of the settings.
    """

    selected_by: Result | None = None

    def in_key(self) -> dict[str, Any]:
        """The selection, and all values but the two that it decides."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        rates = vars(self.optimisation) | {"learning_rate": BY_SELECTION}
        return values | {"optimisation": rates, "steps": BY_SELECTION}


def tuning_of(inputs: Inputs, settings: Settings, model: Pretrained) -> Tuning:
    """How a PVP is tuned: as the settings say, or with what was selected.

    Raises `UserError` if the settings ask for a selection and there was none.
    """
    if settings.finetune.select != "none" and inputs.selected is None:
        raise UserError(
            f"finetune: finetune.select = {settings.finetune.select!r}, and nothing was selected; "
            "call inputs = select(run, task, inputs, settings) first"
        )
    return with_selected(tuning(settings, model), inputs.selected)


def with_selected(how: Tuning, selected: Result | None) -> Tuning:
    """A tuning with the learning rate and the steps of a selection; as it is without one."""
    if selected is None:
        return how
    rate = selected.info.get("learning_rate", how.optimisation.learning_rate)
    return SelectedTuning(
        **vars(how)
        | {
            "optimisation": replace(how.optimisation, learning_rate=rate),
            "steps": selected.info.get("steps", how.steps),
            "selected_by": selected,
        }
    )


def is_open(how: Tuning) -> bool:
    """Whether the learning rate and the steps are still to be selected."""
    return isinstance(how, SelectedTuning) and not (how.selected_by and how.selected_by.info)


def read_selection(result: Result) -> Selection:
    """What a selection made of its candidates."""
    return read_record(result.dir / SELECTION, Selection)
