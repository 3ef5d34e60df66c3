"""One model for each pattern and seed, tuned on the labelled rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pet_pipeline.compute import Compute
from pet_pipeline.config import Settings
from pet_pipeline.demonstrations import Rows
from pet_pipeline.encoded import Encoded, read_encoded
from pet_pipeline.keys import content_key
from pet_pipeline.metrics import METRICS
from pet_pipeline.optimisation import Method, PrototypeSettings, Tuning
from pet_pipeline.patterns import Pattern, Task
from pet_pipeline.records import write_records
from pet_pipeline.run import Run
from pet_pipeline.seeds import seed_from
from pet_pipeline.soft_tokens import SoftTokenWords
from pet_pipeline.stages.demonstrate import Examples, demonstrate, examples_of, say_room
from pet_pipeline.stages.from_settings import (
    base_model,
    precision,
    prototype_settings,
    tuning_method,
    view_pattern,
)
from pet_pipeline.stages.results import (
    ENCODED,
    LOADING,
    MODEL,
    TUNED,
    Base,
    FoundPattern,
    Inputs,
    Model,
    base_of,
    need_inputs,
    training_rows,
)
from pet_pipeline.stages.selected import is_open, tuning_of
from pet_pipeline.units import Info, Result, Unit

if TYPE_CHECKING:
    from pet_pipeline.pvp import Pvp

PROMPT = "prompt.json"  # the soft tokens of a PVP, to be read
UNTUNED_SEED = 0  # untuned models do not differ by seed
UNTUNED_DRAWS = 4  # of demonstrations, for the accuracy before tuning; tuning has no such number


def finetune(
    run: Run,
    task: Task,
    inputs: Inputs,
    settings: Settings,
    *,
    generation: int = 0,
    added: dict[str, Result] | None = None,
) -> list[Model]:
    """The models of a generation; untuned ones if there are no labels, or no steps.

    added: by model, the rows that `grow` labelled for it
    """
    units = fine_tunes(run, task, inputs, settings, generation=generation, added=added)
    results = run.do(f"gen-{generation}/finetune", units)
    return [
        Model(name, unit.pattern, unit.seed, unit.base, results[name], unit.tuning is not None)
        for name, unit in units.items()
    ]


def fine_tunes(
    run: Run,
    task: Task,
    inputs: Inputs,
    settings: Settings,
    *,
    generation: int,
    added: dict[str, Result] | None,
) -> dict[str, FineTune]:
    """The units of a generation's fine-tunes, by the name of the model."""
    tables, added = need_inputs(inputs, "finetune").tables, added or {}
    base, computed = base_model(run, settings), precision(run, settings)
    examples = examples_of(run, task, tables, settings)
    has_rows = bool(tables.labelled or added)
    tuned = has_rows and settings.finetune.updates > 0
    prototypes = prototype_settings(settings) if has_rows else None
    how = tuning_of(inputs, settings, base) if tuned else None
    method = tuning_method(settings, base)
    seeds = settings.finetune.seeds if tuned else (UNTUNED_SEED,)
    return {
        (name := f"{pattern.name}-{seed}"): FineTune(
            base=inputs.adapted or base,
            pattern=pattern,
            labelled=tables.labelled,
            added=added.get(name),
            tuning=how,
            method=method if tuned or method.prompt else Method(),
            texts=inputs.pool(pattern.name) if how and how.mlm else (),
            view=view_pattern(task, settings) if tuned else None,
            examples=examples,
            max_tokens=settings.finetune.max_tokens,
            seed=seed,
            generation=generation if tuned or prototypes else 0,
            precision=computed,
            prototypes=prototypes,
        )
        for pattern in task.patterns
        for seed in seeds
    }


@dataclass(frozen=True)
class FineTune(Unit):
    """What is tuned of one PVP on labelled rows; nothing if there are none."""

    base: Base
    pattern: Pattern
    labelled: Result | None
    added: Result | None  # rows that other models labelled
    tuning: Tuning | None
    method: Method
    texts: tuple[Result, ...]  # the pool in the pattern, for the MLM loss
    view: Pattern | None  # of the second view, for contrast
    examples: Examples | None
    max_tokens: int
    seed: int
    generation: int
    precision: str
    prototypes: PrototypeSettings | None
    version = 5
    figure = "loss"

    def work(self, out: Path, compute: Compute) -> Info:
        """Write model/: as transformers does, or only what was trained of the base."""
        compute = compute.at(self.precision)
        rows, gold = self.training_rows()
        own = range(self.n_labelled)
        what = f"fine-tune {self.pattern.name}-{self.seed}"
        seed = self._start_seed
        pvp = self.load(compute)
        ready = demonstrate(pvp, self.examples, rows, own, draws=UNTUNED_DRAWS, compute=compute)
        info: Info = {"rows": len(rows)}
        if self.examples:
            info["demonstrations"] = say_room(pvp, ready, seed, what)
        if own:
            scores = pvp.scores(ready.take(own), seed=seed, what=what)
            info |= untuned_accuracy(scores.argmax(1).tolist(), gold[: len(own)], self.pattern)
        if rows:
            loss = self.tune(pvp, ready, gold, seed, what)
            info |= {"loss": loss} if self.tuning else {}
        if pvp.trained:
            info["trainable"] = sum(p.numel() for p in pvp.trained.parameters.values())
            if pvp.trained.prompt:
                write_records(out / PROMPT, self._soft_words(pvp))
        if (rows and self.tuning) or pvp.trained:
            base = base_of(self.base)
            pvp.save(out / MODEL, {"base": str(base), "base_key": content_key(base)})
        elif pvp.prototypes:
            pvp.save_prototypes(out / MODEL)
        return info

    def size(self) -> str:
        """The way of tuning, if it is not the default one, and the number of updates."""
        if self.tuning is None:
            return ""
        steps = f"{self.tuning.steps} steps"
        if is_open(self.tuning):
            steps = "steps by the selection"
        return steps if self.method.name == "full" else f"{self.method.name}, {steps}"

    def cost(self) -> float:
        """By the rows of the steps."""
        if self.tuning is None:
            return LOADING
        rows = self.tuning.optimisation.batch_size
        texts = rows * self.tuning.mlm.texts if self.tuning.mlm else 0
        views = 2 if self.tuning.contrast else 1
        return LOADING + TUNED * self.tuning.steps * (rows * views + texts)

    @property
    def n_labelled(self) -> int:
        """Rows of the labelled table; they come first."""
        return int(self.labelled.info["rows"]) if self.labelled else 0

    def training_rows(self) -> tuple[list[dict[str, Any]], list[int]]:
        """The labelled and the added rows, and their label numbers."""
        tables = [table for table in (self.labelled, self.added) if table]
        return training_rows(tables, self.pattern.labels)

    def _soft_words(self, pvp: Pvp) -> list[SoftTokenWords]:
        """The tokens of a PVP's soft prompt, to be read."""
        from pet_pipeline.nearest_words import nearest_words
        from pet_pipeline.prompt_start import start_ids

        assert self.method.prompt
        assert pvp.trained
        assert pvp.trained.prompt
        nearest = nearest_words(pvp.lm, pvp.trained.prompt)
        if self.method.prompt.source:
            starts = [""] * len(nearest)
        else:
            ids = start_ids(pvp.encoder, self.method.prompt.start, self._start_seed)
            starts = [pvp.lm.tokenizer.decode([n]).strip() for n in ids]
        return [SoftTokenWords(*pair) for pair in zip(starts, nearest, strict=True)]

    @property
    def _start_seed(self) -> int:
        """Of what a method starts at."""
        return seed_from("finetune", self.pattern.name, self.seed, self.generation)

    def load(self, compute: Compute) -> Pvp:
        """The model before it is tuned."""
        from pet_pipeline.pvp import Pvp

        return Pvp.load(
            base_of(self.base),
            self.pattern,
            max_tokens=self.max_tokens,
            method=self.method,
            view=self.view,
            seed=self._start_seed,
            compute=compute,
        )

    def tune(self, pvp: Pvp, rows: Rows, gold: Sequence[int], seed: int, what: str) -> float:
        """Tune a model in place on some of the rows; returns its loss, 0 without a tuning."""
        loss = 0.0
        if self.tuning:
            texts = read_texts(self.texts, self.tuning, self.seed)
            loss = pvp.tune(rows, gold, self.tuning, seed=seed, texts=texts, what=what)
        if self.prototypes:
            pvp.learn_prototypes(rows, gold, self.prototypes, seed=seed)
        return loss


def untuned_accuracy(predicted: Sequence[int], gold: Sequence[int], pattern: Pattern) -> Info:
    """The accuracy on the labelled rows before tuning."""
    accuracy = METRICS["accuracy"](gold, predicted)
    return {"untuned_accuracy": accuracy, **in_sample_note("untuned_accuracy", pattern)}


def in_sample_note(figure: str, pattern: Pattern) -> Info:
    """A remark on a figure that was measured on labelled rows, if a search saw these rows."""
    if not isinstance(pattern, FoundPattern):
        return {}
    return {"note": f"{figure} is in-sample: the search saw these rows"}


def read_texts(shards: Sequence[Result], tuning: Tuning, seed: int) -> list[Encoded]:
    """Pool texts for the MLM loss: of shards in random order, no more than the steps can use."""
    if not shards or tuning.mlm is None:
        return []
    needed = tuning.steps * tuning.optimisation.batch_size * tuning.mlm.texts
    texts: list[Encoded] = []
    for n in np.random.default_rng(seed_from("texts", seed)).permutation(len(shards)):
        if len(texts) < needed:
            texts += read_encoded(shards[n].dir / ENCODED)[1]
    return texts
