"""What a report says, read from the results of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pet_pipeline.config import Settings
from pet_pipeline.metrics import metric_title
from pet_pipeline.models import Pretrained
from pet_pipeline.patterns import Task
from pet_pipeline.stages.check_patterns import CheckedPattern, read_checked
from pet_pipeline.stages.ensemble import EnsembleSummary, read_ensemble
from pet_pipeline.stages.evaluate import Metrics, System
from pet_pipeline.stages.search_templates import TemplateRanking
from pet_pipeline.stages.search_words import WordsRecord
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
class ReportData:
    """Everything that the page and the model card show."""

    task: Task
    settings: Settings
    base: Pretrained
    student: Pretrained  # the encoder of the classifier
    learning_rate: float  # of the fine-tunes
    rows: dict[str, int]  # by table
    labelled: dict[str, int]  # labelled rows by label
    patterns: list[CheckedPattern]  # in the task's order
    generations: list[GenerationData]
    metrics: Metrics | None
    searched: TemplateRanking | None
    found_words: list[WordsRecord]  # by pattern
    versions: dict[str, str]  # of Python and of packages

    @property
    def ensemble(self) -> EnsembleSummary:
        """The ensemble of the last generation."""
        return self.generations[-1].ensemble

    @property
    def tuned(self) -> bool:
        """Whether the models of the last generation were tuned at all."""
        rows = self.labelled or self.generations[-1].added
        return bool(rows and self.settings.finetune.steps)

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
    """What is known of each pattern of the task, in its order."""
    checked = {pattern.name: pattern for result in results for pattern in read_checked(result)}
    return [checked[pattern.name] for pattern in task.patterns]


def versions_of(result: Result) -> dict[str, str]:
    """The versions of Python and of packages that a result was made with."""
    made_by = (read_record(result.dir) or {}).get("made_by", {})
    return {name: version for name, version in made_by.items() if isinstance(version, str)}
