"""The settings: a section for each stage, with types, defaults and a line that explains each."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pet_pipeline.methods import METHODS
from pet_pipeline.setting_types import (
    Count,
    Factors,
    Fraction,
    Names,
    NamesOrNone,
    Positive,
    Section,
    Seeds,
    Steps,
)

EMBEDDED_MODEL = "data/models/minilm-mlm"


class Data(Section):
    """The tables: Parquet, CSV or JSON lines; a file, a folder, a URL, or datasets:NAME:SPLIT"""

    labelled: str = Field("", description='labelled texts; "" for zero-shot')
    pool: str = Field("", description='unlabelled texts; "" for the baseline alone')
    test: str = Field("", description='labelled texts to measure on; "" for none')
    development: str = Field("", description="more labelled texts, used only where a setting says")
    columns: dict[str, str] = Field(
        {}, description="the task's columns by the tables' names: {text = \"message\"}"
    )
    k: Count = Field(0, description="labelled rows drawn per label; 0 takes the table as it is")
    seed: int = Field(13, description="seed of that draw and of the pool's sample")
    pool_rows: Count = Field(0, description="rows sampled from the pool; 0 takes all")
    shard_rows: Positive = Field(5000, description="rows per shard of the pool, the unit of work")


class AdamW(Section):
    """AdamW, linear warm-up and decay"""

    learning_rate: float = Field(0.0, ge=0, description="highest rate; 0 takes learning_rate above")
    batch_size: Positive = Field(16, description="rows per update")
    batch_tokens: Positive = Field(
        6000, description="tokens of an update computed at once; changes dropout, so it counts"
    )
    warmup: Fraction = Field(0.1, description="fraction of the steps with linear warm-up")
    weight_decay: float = Field(0.01, ge=0, description="not on biases and LayerNorm")
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    frozen_embeddings: bool = Field(
        True, description="keep the word embeddings as they are; halves the time on a CPU"
    )


class Optimiser(AdamW):
    """The same for stages that read labelled rows"""

    balanced: bool = Field(
        True, description="labels have equal shares of the labelled rows' batches, also rare ones"
    )


class Search(Section):
    """LM-BFF: templates and label words found on the labelled rows, before the fine-tunes"""

    templates: bool = Field(False, description="search for templates")
    generators: Names = Field(
        ("mlm",), description="where candidates come from: mlm, t5, autoprompt, mine, connectors"
    )
    t5: str = Field("", description="model with sentinels for the generator t5: folder or hub name")
    candidates: Positive = Field(100, description="templates that are compared")
    beam: Positive = Field(8, description="width of the beam search that writes them")
    keep: Positive = Field(4, description="templates that are kept, of the lowest log-loss")
    folds: int = Field(4, ge=2, description="folds of the labelled rows they are compared on")
    steps: Positive = Field(20, description="updates of the longest fine-tunes that compare them")
    label_words: str = Field(
        "none",
        description="none; assignment: the exact best words; amulap: the top words, no search",
    )
    candidates_per_label: Positive = Field(50, description="candidate words per label")
    neighbours: Count = Field(
        0, description="only so many words, nearest to the pattern's own; 0 is no limit"
    )
    words_per_label: Positive = Field(1, description="words per label; amulap does well with 10")
    use: Literal["add", "replace"] = Field(
        "add", description="found patterns join the hand-written ones, or replace them"
    )


class Demonstrations(Section):
    """LM-BFF: in each input, a labelled row of each label as an example"""

    enabled: bool = Field(False, description="true inserts them at {demos}, or at the end")
    draws: Positive = Field(4, description="sets of examples whose scores are averaged")
    filter: float = Field(
        0.5, gt=0, le=1, description="fraction of a label's rows, the most similar, to draw from"
    )
    encoder: str = Field("", description='encoder that compares rows; "" is the model above')
    max_tokens: Positive = Field(256, description="longest input with its examples")


class Adapt(AdamW):
    """The masked language model is trained further on texts; every PVP starts from the result"""

    text: str = Field(
        "",
        description='"pool"; "prompted": the pool in the patterns, with predicted label words; or '
        'a table; "" is off',
    )
    tokens: Positive = Field(1_000_000, description="tokens that are read, texts again if few")
    first: Literal["ensemble", "untuned"] = Field(
        "ensemble", description="of prompted: the models that predict the labels of the pool"
    )
    packed: bool = Field(
        False, description="fill sequences with text after text; else one text per sequence"
    )
    max_tokens: Positive = Field(128, description="longest sequence; not of prompted")
    masked: Fraction = Field(0.15, gt=0, description="fraction of the tokens to be predicted")
    whole_words: bool = Field(False, description="predict all tokens of a word, or none")
    keep: str = Field(
        "",
        description="teacher whose sentence embeddings are kept by a second loss: base (the model "
        'above), or an encoder of the same tokens; "" is off',
    )
    keep_weight: float = Field(4.0, gt=0, description="of that loss, one minus the mean cosine")
    batch_size: Positive = Field(
        32, description="sequences of max_tokens per update, or as many tokens in shorter ones"
    )
    frozen_embeddings: bool = Field(False, description="keep the word embeddings as they are")


def _steps_text() -> str:
    """How many updates each method takes by default, for the settings' comment."""
    groups: dict[int, list[str]] = {}
    for name, method in METHODS.items():
        groups.setdefault(method.steps, []).append(name)
    return "; ".join(f"{steps} for {', '.join(names)}" for steps, names in groups.items())


class Finetune(Optimiser):
    """One model for each pattern and seed, tuned on the labelled rows"""

    method: Literal[
        "full", "bitfit", "layernorm", "head", "lora", "ia3",
        "prompt_tuning", "p_tuning", "p_tuning_v2", "prefix_tuning", "soft",
    ] = Field(
        "full",
        description="what is trained: full, bitfit (biases), layernorm, head, lora, ia3; soft "
        "prompts: prompt_tuning, p_tuning, p_tuning_v2, prefix_tuning, soft (the template's words)",
    )  # fmt: skip
    steps: Steps = Field(
        "auto", description="updates, exactly that many; auto follows the method: " + _steps_text()
    )
    lora_rank: Positive = Field(8, description="width of lora's matrices")
    prompt_length: Count = Field(
        10, description="soft tokens of patterns without {soft}, before all else; not of soft"
    )
    prompt_words: str = Field("", description="words that those start at instead, as many as these")
    prompt_start: Literal["labels", "vocabulary"] = Field(
        "labels", description="start of soft tokens without words: label words, or a sample"
    )
    prompt_from: str = Field(
        "",
        description="a tuned PVP, RUN/gen-0/finetune/NAME/model, whose prompt is the start",
    )
    prompt_encoder: Literal["lstm", "mlp"] = Field("lstm", description="of p_tuning")
    deep: bool = Field(True, description="soft: also vectors that are added in front of each layer")
    freeze: bool = Field(True, description="soft prompts: leave the model as it is")
    model_learning_rate: float = Field(
        0.0, ge=0, description="of the model if freeze is false; 0 follows its size"
    )
    select: Literal["none", "folds", "development"] = Field(
        "none",
        description="learning rate and steps from a grid, by the log-loss on folds of the labelled "
        "rows or on the development table; never on test",
    )
    select_rates: Factors = Field(
        (1.0, 0.3, 3.0), description="the grid's rates, as multiples of the one used otherwise"
    )
    select_steps: Factors = Field(
        (1.0, 2.0), description="the grid's numbers of updates, as multiples of steps"
    )
    select_folds: int = Field(
        4,
        ge=2,
        description="fine-tunes per candidate, with the patterns in turn: one per fold; on the "
        "development table one per pattern, so many at most",
    )
    seeds: Seeds = Field((1,), description="one model for each pattern and each of these")
    max_tokens: Positive = Field(128, description="longest input; longer texts are truncated")
    learning_rate: float = Field(
        0.0,
        ge=0,
        description="highest rate; 0 follows the method: learning_rate above for full, else "
        + ", ".join(f"{n} {m.learning_rate:g}" for n, m in METHODS.items() if m.learning_rate)
        + "; those of no soft prompt are for small models, and scale with learning_rate above",
    )
    mlm_weight: Fraction = Field(0.0, description="a in (1-a)*CE + a*MLM; PET's is 1e-4")
    mlm_texts: Positive = Field(3, description="pool texts for each labelled one in the MLM loss")
    mlm_masked: Fraction = Field(0.15, description="fraction of their tokens that is masked")
    contrast_weight: float = Field(
        0.0, ge=0, description="of the supervised contrastive loss between two views of each row"
    )
    contrast_temperature: float = Field(0.1, gt=0, description="of that loss")
    contrast_view: Literal["dropout", "pattern", "demonstrations"] = Field(
        "dropout",
        description="what differs in the second view: dropout; the pattern; the demonstrations",
    )
    contrast_pattern: str = Field(
        "", description="name of the pattern of the second view, which needs no model of its own"
    )

    prototypes: bool = Field(
        False, description="also learn a vector per label, whose scores join the label words'"
    )
    prototype_size: Positive = Field(128, description="dimensions of these vectors")

    @property
    def updates(self) -> int:
        """The steps, also where they follow the method."""
        return METHODS[self.method].steps if self.steps == "auto" else self.steps


class Annotate(Section):
    """The models score the pool"""

    decoding: Literal["confident", "parallel"] = Field(
        "confident",
        description="label words of several tokens: most confident first, or all at once",
    )


class Calibration(Section):
    """How a model's scores are corrected before they are combined"""

    method: str = Field(
        "none",
        description="none; contextual, pmi: subtract what labels, or words, score without a text",
    )
    prior: Literal["content-free", "pool"] = Field(
        "content-free", description="measured on texts such as N/A, or on rows of the pool"
    )


class Ensemble(Section):
    """The models' scores become one soft label per row"""

    weights: str = Field("uniform", description="uniform, wmean (accuracy before tuning) or fitted")
    fit_on: Literal["folds", "development"] = Field(
        "folds", description="fitted weights: out-of-fold scores, or the development table"
    )
    folds: int = Field(4, ge=2, description="folds of the labelled rows for fitted weights")
    temperature: float = Field(
        0.0,
        ge=0,
        description="of the mean scores; 0 makes the mean confidence the accuracy to be expected",
    )
    temperature_folds: int = Field(
        4,
        ge=0,
        description="fine-tunes without a part of the labelled rows that estimate it; 0: none",
    )


class Ipet(Section):
    """iPET: generations of models on growing training sets"""

    generations: Count = Field(0, description="generations after the first; 0 is PET")
    fraction: float = Field(0.25, gt=0, le=1, description="fraction of other models that label")
    scale: float = Field(5.0, gt=1, description="growth of the training set per generation")
    candidates: Positive = Field(
        100, description="from no labels: most confident rows per label, to draw from"
    )
    first_rows: Positive = Field(10, description="from no labels: size of the first training set")


class Distill(Optimiser):
    """The final classifier, from the soft labels"""

    enabled: bool = Field(True, description="false stops at the ensemble")
    model: str = Field(
        "", description='encoder of the classifier and of the baseline; "" is the model above'
    )
    steps: Count = Field(0, description="updates, exactly that many; 0 follows the pool: passes")
    passes: float = Field(2.0, gt=0, description="times the pool is read, if steps is 0")
    min_steps: Positive = Field(150, description="fewest updates, if steps is 0")
    max_steps: Positive = Field(2000, description="most updates, if steps is 0")
    temperature: float = Field(2.0, gt=0, description="of the soft labels in the loss")
    gold_weight: Fraction = Field(0.3, description="weight of the labelled rows in the loss")
    max_tokens: Positive = Field(128, description="longest input")


class Baseline(Optimiser):
    """The classifier's encoder tuned on the labelled rows alone, to compare with"""

    enabled: bool = Field(True, description="false leaves it out")
    steps: Positive = Field(200, description="updates")
    max_tokens: Positive = Field(128, description="longest input")


class Machine(Section):
    """Where and how fast; of these, only the precision changes results beyond rounding"""

    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto is bfloat16 where the processor has it; a run keeps its first"
    )
    batch_tokens: Positive = Field(
        6000, description="tokens in a batch of inference; fewer if memory is short"
    )
    jobs: Count = Field(
        0,
        description="units at the same time; 0 is one per core for a small model on a CPU "
        "(hidden size up to 512), else 1",
    )
    threads: Count = Field(
        0,
        description="threads per unit; 0 is one for a small model on a CPU, else the cores "
        "divided by jobs",
    )
    checkpoint_seconds: float = Field(
        10.0, ge=0, description="time between checkpoints of the distillation; 0 is every step"
    )


class Settings(Section):
    """Everything a run depends on.

    >>> Settings(task="patterns/support").finetune.seeds
    (1,)
    """

    task: str = Field(
        "",
        description="folder of the task and its patterns; "
        '"" makes one in the run\'s folder from the labelled texts',
    )
    patterns: NamesOrNone = Field(
        (), description="names of the task's patterns to use; [] is all but default = false"
    )
    model: str = Field(
        EMBEDDED_MODEL, description="masked language model: folder, hub name, or NAME@REVISION"
    )
    learning_rate: float = Field(
        0.0,
        ge=0,
        description="of all stages; 0 follows the model's hidden size: 3e-4 up to 512, "
        "3e-5 up to 1023, 1e-5 above",
    )
    output: str = Field(
        "", description='folder of the run; "" is runs/NAME, named like the task or labelled table'
    )
    data: Data = Field(default_factory=Data)
    search: Search = Field(default_factory=Search)
    demonstrations: Demonstrations = Field(default_factory=Demonstrations)
    adapt: Adapt = Field(default_factory=Adapt)
    finetune: Finetune = Field(default_factory=Finetune)
    annotate: Annotate = Field(default_factory=Annotate)
    calibration: Calibration = Field(default_factory=Calibration)
    ensemble: Ensemble = Field(default_factory=Ensemble)
    ipet: Ipet = Field(default_factory=Ipet)
    distill: Distill = Field(default_factory=Distill)
    baseline: Baseline = Field(default_factory=Baseline)
    machine: Machine = Field(default_factory=Machine)


RENAMED = {  # former names of settings, and what to write now
    "revision": 'model = "NAME@REVISION"',
    "pooling": "[calibration]",
    "pooling.calibrate": "calibration.method",
    "pooling.prior": "calibration.prior",
    "search.likely": "search.candidates_per_label",
}
