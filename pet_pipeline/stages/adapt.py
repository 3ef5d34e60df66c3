"""The masked language model is trained further on texts; every PVP starts from the result."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from pet_pipeline.adapted import AdaptedModel, mlm_card
from pet_pipeline.compute import Compute
from pet_pipeline.config import Ensemble, Settings
from pet_pipeline.errors import at_place
from pet_pipeline.models import HubModel, Pretrained
from pet_pipeline.optimisation import Adaptation
from pet_pipeline.patterns import Task
from pet_pipeline.records import read_record, write_record
from pet_pipeline.run import Run
from pet_pipeline.seeds import seed_from
from pet_pipeline.stages.adapt_texts import (
    PoolInPattern,
    PoolTexts,
    PromptedTexts,
    TableTexts,
    Texts,
)
from pet_pipeline.stages.annotate import annotate
from pet_pipeline.stages.check_adapt import table_columns, table_names, teacher_model
from pet_pipeline.stages.ensemble import ensemble
from pet_pipeline.stages.finetune import finetune
from pet_pipeline.stages.from_settings import (
    adaptation,
    base_model,
    pinned_source,
    precision,
    soft_tokens,
)
from pet_pipeline.stages.results import LOADING, TUNED, Inputs, need_inputs
from pet_pipeline.units import Info, Result, Unit

STAGE = "adapt"
RECORD = "adapted.json"
CARD = "README.md"
MEAN_ROW = 40  # tokens of the rows that costs are counted in, about


def adapt(run: Run, task: Task, inputs: Inputs, settings: Settings) -> Inputs:
    """The same inputs with the adapted model that PVPs start from, if the settings want one."""
    tables = need_inputs(inputs, STAGE).tables
    if not settings.adapt.text or tables.pool is None:
        return inputs
    base = base_model(run, settings)
    unit = AdaptMlm(
        base=base,
        texts=_texts(run, task, inputs, settings),
        teacher=teacher_model(run, settings),
        adaptation=adaptation(settings, base),
        precision=precision(run, settings),
    )
    adapted = run.do(STAGE, {"model": unit})["model"]
    folds_from = base if tables.labelled and _uses_labels(settings) else None
    return replace(inputs, adapted=adapted, folds_from=folds_from)


def read_adapted(result: Result) -> AdaptedModel:
    """What an adapted model knows of itself."""
    return read_record(result.dir / RECORD, AdaptedModel)


@dataclass(frozen=True)
class AdaptMlm(Unit):
    """A masked LM, trained further on texts."""

    base: Pretrained
    texts: Texts
    teacher: Pretrained | None
    adaptation: Adaptation
    precision: str
    new_head: bool = False  # whether a model without a masked-LM head gets one
    version = 2
    resumable = True
    figure = "loss"

    def work(self, out: Path, compute: Compute) -> Info:
        """Write the model as transformers does, its card, and adapted.json."""
        import torch

        from pet_pipeline.adapting import Teacher, adapt_mlm
        from pet_pipeline.corpus import Corpus
        from pet_pipeline.mlm import MaskedLM
        from pet_pipeline.pretrained import load_mlm, load_tokenizer, new_mlm
        from pet_pipeline.training import remove_checkpoint

        compute, seed = compute.at(self.precision), seed_from(STAGE)
        torch.manual_seed(seed)  # of a new head
        if self.new_head:
            model, is_new = new_mlm(self.base, compute)
        else:
            model, is_new = load_mlm(self.base, compute), False
        lm = MaskedLM(model, load_tokenizer(self.base), compute)
        teacher = Teacher.load(self.teacher, compute) if self.teacher else None
        with at_place(str(self.texts)):
            corpus = Corpus.read(
                self.texts.count(),
                lambda: self.texts.chunks(lm.tokenizer, self.adaptation),
                self.adaptation,
                lm.layout,
            )
        adaptation = corpus.plan(self.adaptation)
        adapted = adapt_mlm(lm, corpus, adaptation, seed=seed, teacher=teacher, checkpoints=out)
        lm.model.to("cpu").save_pretrained(out)
        lm.tokenizer.save_pretrained(out)
        card = AdaptedModel(
            base=str(self.base),
            on_hub=isinstance(self.base, HubModel),
            texts=str(self.texts),
            teacher=str(self.teacher) if self.teacher else "",
            new_head=is_new,
            adaptation=adaptation,
            adapted=adapted,
        )
        write_record(out / RECORD, card)
        (out / CARD).write_text(mlm_card(card), "utf-8")
        remove_checkpoint(out)
        return {
            "tokens": adapted.tokens,
            "steps": adaptation.steps,
            "loss": adapted.after.loss,
        }

    def size(self) -> str:
        """The number of updates, and of tokens at most; or how often the texts are read."""
        if self.adaptation.passes:
            return f"{self.adaptation.passes:g} passes"
        return f"{self.adaptation.steps} steps, {self.adaptation.tokens:,} tokens"

    def cost(self) -> float:
        """By the tokens, which a teacher reads too."""
        rows = self.adaptation.tokens / MEAN_ROW
        return LOADING + (TUNED + bool(self.teacher)) * rows


def _texts(run: Run, task: Task, inputs: Inputs, settings: Settings) -> Texts:
    text, pool = settings.adapt.text, inputs.tables.need_pool(STAGE)
    if text == "pool":
        return PoolTexts(pool, task.columns)
    if text != "prompted":
        with at_place("adapt.text"):
            source = pinned_source(run, text)
            columns = table_columns(source, task, settings)
            test = (inputs.tables.test,) if inputs.tables.test else ()
            return TableTexts(source, columns, table_names(task, settings), test)
    return PromptedTexts(
        soft=_predict(run, task, inputs, settings),
        parts=tuple(PoolInPattern(p, inputs.pool(p.name)) for p in task.patterns),
        soft_tokens=soft_tokens(settings),
        max_tokens=settings.finetune.max_tokens,
    )


def _uses_labels(settings: Settings) -> bool:
    """Whether the models that predict label words for the texts know labels of rows."""
    chosen = settings.finetune
    tuned = settings.adapt.first == "ensemble" and chosen.updates > 0
    knows = tuned or chosen.prototypes or settings.demonstrations.enabled
    return settings.adapt.text == "prompted" and knows


def _predict(run: Run, task: Task, inputs: Inputs, settings: Settings) -> Result:
    """The pool's soft labels by a first ensemble, one model per pattern, under adapt/."""
    tuned = settings.finetune
    untuned = settings.adapt.first == "untuned"
    finetuned = {"seeds": tuned.seeds[:1], "select": "none", **({"steps": 0} if untuned else {})}
    settings = settings.model_copy(
        update={
            "finetune": tuned.model_copy(update=finetuned),
            "ensemble": Ensemble(temperature=1.0),  # which label is first does not depend on it
        }
    )
    pool = {
        name: tuple(p for p in parts if p.shard is not None) for name, parts in inputs.parts.items()
    }
    inputs = replace(inputs, parts=pool)
    with run.inside(STAGE):
        models = finetune(run, task, inputs, settings)
        scores = annotate(run, task, models, inputs, settings)
        return ensemble(run, task, scores, inputs, settings)
