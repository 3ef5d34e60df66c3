"""What a report says, read from the results of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pet_pipeline.adapted import AdaptedModel
from pet_pipeline.config import Settings
from pet_pipeline.metrics import Measured, metric_title, proportion
from pet_pipeline.models import Pretrained
from pet_pipeline.patterns import Task
from pet_pipeline.soft_tokens import SoftTokenWords
from pet_pipeline.stages.check_patterns import CheckedPattern, read_checked
from pet_pipeline.stages.ensemble import EnsembleSummary, read_ensemble
from pet_pipeline.stages.evaluate import Metrics, System
from pet_pipeline.stages.search_templates import TemplateRanking
from pet_pipeline.stages.search_words import WordsRecord
from pet_pipeline.stages.selected import Selection
from pet_pipeline.units import Result, read_record


@dataclass(frozen=True)
class AddedRows:
    """The rows that iPET added to the training set of one model."""

    rows: int
    mean_confidence: float
    by_label: dict[str, int]
    short: str  # labels with fewer rows than asked for; empty if there are none

    @classmethod
    def of(cls, result: Result) -> AddedRows:
        """What `grow` says of a training set."""
        info = result.info
        return cls(info["rows"], info["mean_confidence"], info["added"], info.get("short", ""))


@dataclass(frozen=True)
class GenerationData:
    """A generation's ensemble, and by model the rows that were added before it."""

    ensemble: EnsembleSummary
    added: dict[str, AddedRows]

    @classmethod
    def of(cls, soft: Result, added: Mapping[str, Result]) -> GenerationData:
        """The generation that made some soft labels."""
        return cls(
            read_ensemble(soft), {name: AddedRows.of(result) for name, result in added.items()}
        )


@dataclass(frozen=True)
class HeldOut:
    """How often models are right on labelled rows that they were tuned without."""

    tuned_on: int  # labelled rows, on average
    rows: int  # that were left out in turn
    untuned: Measured  # accuracy before the tuning
    accuracy: Measured

    @classmethod
    def of(cls, folds: Mapping[int, Sequence[Result]], n_labelled: int) -> HeldOut | None:
        """What `crossfit` says of its folds, by their number; None without any rows."""
        infos = [[r.info for r in results if r.info.get("rows")] for results in folds.values()]
        by_model = [info for fold in infos for info in fold]
        scored = sum(info["rows"] for info in by_model)
        if not scored:
            return None
        rows = sum(fold[0]["rows"] for fold in infos if fold)  # however many models scored them

        def mean(figure: str) -> Measured:
            right = sum(info["rows"] * info[figure] for info in by_model) / scored
            return proportion(round(right * rows), rows)

        return cls(
            tuned_on=n_labelled - round(scored / len(by_model)),
            rows=rows,
            untuned=mean("untuned_accuracy"),
            accuracy=mean("accuracy"),
        )


@dataclass(frozen=True)
class ReadPrompt:
    """The soft prompt of a model, to be read."""

    model: str
    tokens: list[SoftTokenWords]


@dataclass(frozen=True)
class StageTime:
    """How long the units of a stage worked."""

    stage: str
    units: int
    seconds: float  # the sum


@dataclass(frozen=True)
class RunRecords:
    """Folders of a run's units by stage; how long they took is recorded and never counts."""

    folders: dict[str, tuple[Path, ...]]

    def in_key(self) -> list[str]:
        """The names of the stages."""
        return list(self.folders)

    def times(self) -> list[StageTime]:
        """How long each stage took."""
        return [
            StageTime(
                stage,
                len(folders),
                sum((read_record(folder) or {}).get("seconds", 0.0) for folder in folders),
            )
            for stage, folders in self.folders.items()
        ]


@dataclass(frozen=True)
class ReportData:
    """Everything that the page and the model card show."""

    task: Task
    settings: Settings
    base: Pretrained
    student: Pretrained  # the encoder of the classifier
    learning_rate: float  # of the fine-tunes
    updates: int  # of a fine-tune
    selection: Selection | None  # of these two; None: by the settings
    rows: dict[str, int]  # by table
    labelled: dict[str, int]  # labelled rows by label
    patterns: list[CheckedPattern]  # in the task's order; empty without a pool
    generations: list[GenerationData]
    metrics: Metrics | None
    searched: TemplateRanking | None
    found_words: list[WordsRecord]  # by pattern
    versions: dict[str, str]  # of Python and of packages
    folder: str  # of the run, as commands name it
    classifier: bool  # whether there is one
    steps: int  # of its distillation
    warnings: list[str]  # about the tables
    held_out: HeldOut | None
    prompts: list[ReadPrompt]
    adapted: AdaptedModel | None
    times: list[StageTime]

    @property
    def ensemble(self) -> EnsembleSummary | None:
        """The ensemble of the last generation; None without a pool."""
        return self.generations[-1].ensemble if self.generations else None

    @property
    def tuned(self) -> bool:
        """Whether the models of the last generation were tuned at all."""
        rows = self.labelled or (self.generations and self.generations[-1].added)
        return bool(rows and self.settings.finetune.updates)

    @property
    def best(self) -> System | None:
        """The system that the run is for, if it was measured."""
        return self.metrics.best if self.metrics else None

    @property
    def first_mean(self) -> System | None:
        """The mean PVP of the first generation, tuned on the labelled rows alone."""
        systems = self.metrics.systems if self.metrics else []
        return next((s for s in systems if s.kind == "mean" and s.generation == 0), None)

    @property
    def first_accuracy(self) -> Measured | None:
        """The mean PVP's accuracy on the test rows, tuned on all labelled rows and no others."""
        if self.metrics is None or self.first_mean is None:
            return None
        rows = self.metrics.test_rows
        return proportion(round(self.first_mean.accuracy * rows), rows)

    @property
    def metric(self) -> str:
        """The task's metric for display."""
        return metric_title(self.task.metric, self.task.labels)

    @property
    def templates(self) -> list[tuple[str, str]]:
        """Name and template of each pattern."""
        columns = {column: "{" + column + "}" for column in self.task.columns}
        return [(pattern.name, pattern.render(columns)) for pattern in self.task.patterns]

    def system(self, kind: str) -> System | None:
        """The last measured system of a kind: ensemble, classifier, baseline, mean."""
        return self.metrics.system(kind) if self.metrics else None


def checked_patterns(results: Iterable[Result], task: Task) -> list[CheckedPattern]:
    """What is known of each pattern of the task, in its order; empty if none was checked."""
    checked = {pattern.name: pattern for result in results for pattern in read_checked(result)}
    return [checked[pattern.name] for pattern in task.patterns if checked]


def versions_of(result: Result) -> dict[str, str]:
    """The versions of Python and of packages that a result was made with."""
    made_by = (read_record(result.dir) or {}).get("made_by", {})
    return {name: version for name, version in made_by.items() if isinstance(version, str)}
