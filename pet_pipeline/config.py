"""Settings: one section a stage; read from TOML, overridden, checked, and written with comments."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import tomlkit
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
)

from pet_pipeline.errors import UserError, nearest, raise_all

EMBEDDED_MODEL = "data/models/minilm-mlm"

Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]


T = TypeVar("T")


def _no_repeats(values: tuple[T, ...]) -> tuple[T, ...]:
    for value in values:
        if values.count(value) > 1:
            raise ValueError(f"{value!r} stands there twice")
    return values


_Several = (
    BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
    AfterValidator(_no_repeats),
    Field(min_length=1),
)
Seeds = Annotated[tuple[int, ...], *_Several]
Generators = Annotated[tuple[Literal["mlm", "t5", "autoprompt", "mine", "seed"], ...], *_Several]


class Section(BaseModel):
    """A group of settings; unknown names and wrong types are refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Data(Section):
    """The tables: Parquet, CSV or JSON lines; a file, a folder, a URL, or datasets:NAME:SPLIT"""

    labelled: str = Field("", description='labelled texts; "" for zero-shot')
    pool: str = Field("", description="unlabelled texts")
    test: str = Field("", description='labelled texts to measure on; "" for none')
    development: str = Field("", description="more labelled texts, used only where a setting says")
    columns: dict[str, str] = Field(
        {}, description="the task's columns by the tables' names: {text = \"message\"}"
    )
    k: Count = Field(0, description="labelled rows drawn per label; 0 takes the table as it is")
    seed: int = Field(13, description="seed of that draw and of the pool's sample")
    pool_rows: Count = Field(0, description="rows sampled from the pool; 0 takes all")
    shard_rows: Positive = Field(5000, description="rows in a shard of the pool, the unit of work")


class Optimiser(Section):
    """AdamW, linear warm-up and decay"""

    learning_rate: float = Field(3e-4, gt=0, description="at its highest")
    batch_size: Positive = Field(16, description="rows an update")
    warmup: Fraction = Field(0.1, description="share of the updates in which the rate rises")
    weight_decay: float = Field(0.01, ge=0, description="not on biases and LayerNorm")
    clip: float = Field(1.0, gt=0, description="largest norm of the gradient")
    frozen_embeddings: bool = Field(
        True, description="word embeddings stay as they are; takes half the time on a CPU"
    )


class Search(Section):
    """LM-BFF: templates and label words found on the labelled rows, before the fine-tunes"""

    templates: bool = Field(False, description="search for templates")
    generators: Generators = Field(
        ("mlm",), description="where candidates come from: mlm, t5, autoprompt, mine, seed"
    )
    t5: str = Field("", description="model with sentinels for the generator t5: folder or hub name")
    candidates: Positive = Field(100, description="templates that are compared")
    beam: Positive = Field(8, description="width of the beam in which they are written")
    keep: Positive = Field(4, description="templates that are kept, of the lowest log-loss")
    folds: int = Field(4, ge=2, description="folds of the labelled rows they are compared on")
    steps: Positive = Field(20, description="updates of the longest fine-tunes that compare them")
    label_words: Literal["none", "assignment", "amulap"] = Field(
        "none",
        description="none; assignment: the exact best words; amulap: the likeliest, no search",
    )
    likely: Positive = Field(50, description="candidate words a label")
    neighbours: Count = Field(
        0, description="only words so near to the pattern's own, by embedding; 0 is no limit"
    )
    words_per_label: Positive = Field(1, description="words a label; amulap does well with 10")
    use: Literal["add", "replace"] = Field(
        "add", description="found patterns join the hand-written ones, or replace them"
    )


class Demonstrations(Section):
    """LM-BFF: in each input, a labelled row of each label stands as an example"""

    enabled: bool = Field(False, description="true puts them where {demos} is, or at the end")
    draws: Positive = Field(4, description="sets of examples whose scores are averaged")
    filter: float = Field(
        0.5, gt=0, le=1, description="share of a label's rows, the most similar, to draw from"
    )
    encoder: str = Field("", description='encoder that compares rows; "" is the model above')
    max_tokens: Positive = Field(256, description="longest input with its examples")


class Finetune(Optimiser):
    """One model for each pattern and seed, tuned on the labelled rows"""

    steps: Count = Field(60, description="updates; exactly that many")
    seeds: Seeds = Field((1,), description="one model for each pattern and each of these")
    max_tokens: Positive = Field(128, description="longest input; longer texts are truncated")
    mlm_weight: Fraction = Field(0.0, description="a in (1-a)*CE + a*MLM; PET's is 1e-4")
    mlm_texts: Positive = Field(3, description="pool texts for each labelled one in the MLM loss")
    mlm_masked: Fraction = Field(0.15, description="share of their tokens that is masked")


class Annotate(Section):
    """The models score the pool"""

    decoding: Literal["confident", "parallel"] = Field(
        "confident",
        description="label words of several tokens: most confident first, or all at once",
    )


class Pooling(Section):
    """How a model's scores are corrected before they are pooled"""

    calibrate: Literal["none", "contextual", "pmi"] = Field(
        "none", description="take away what the labels, or their words, score without a text"
    )
    prior: Literal["content-free", "pool"] = Field(
        "content-free", description="measured on texts such as N/A, or on rows of the pool"
    )


class Ensemble(Section):
    """The models' scores become one soft label a row"""

    weights: Literal["uniform", "wmean", "fitted"] = Field(
        "uniform", description="uniform, wmean (accuracy before tuning) or fitted"
    )
    fit_on: Literal["folds", "development"] = Field(
        "folds", description="fitted weights: out-of-fold scores, or the development table"
    )
    folds: int = Field(4, ge=2, description="folds of the labelled rows for fitted weights")


class Ipet(Section):
    """iPET: generations of models on growing training sets"""

    generations: Count = Field(0, description="generations after the first; 0 is PET")
    fraction: float = Field(0.25, gt=0, le=1, description="share of other models that label")
    scale: float = Field(5.0, gt=1, description="growth of the training set a generation")
    candidates: Positive = Field(
        100, description="from no labels: most likely rows a label, to draw from"
    )
    first_rows: Positive = Field(10, description="from no labels: size of the first training set")


class Distill(Optimiser):
    """The final classifier, from the soft labels"""

    enabled: bool = Field(True, description="false stops at the ensemble")
    model: str = Field("", description='encoder of the classifier; "" is the model above')
    steps: Positive = Field(300, description="updates")
    temperature: float = Field(2.0, gt=0, description="of the soft labels in the loss")
    gold_weight: Fraction = Field(0.3, description="share of the labelled rows in the loss")
    max_tokens: Positive = Field(128, description="longest input")


class Baseline(Optimiser):
    """The same encoder tuned on the labelled rows alone, to compare with"""

    enabled: bool = Field(True, description="false leaves it out")
    steps: Positive = Field(200, description="updates")
    max_tokens: Positive = Field(128, description="longest input")


class Machine(Section):
    """Where and how fast; nothing here changes what is computed"""

    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto is bfloat16 where the processor has it"
    )
    batch_tokens: Positive = Field(6000, description="tokens in a batch; less if memory is short")
    jobs: Positive = Field(1, description="units at the same time")
    threads: Count = Field(0, description="threads a unit; 0 is the cores divided by jobs")
    checkpoint_seconds: float = Field(
        10.0, ge=0, description="time between checkpoints of the distillation; 0 is every step"
    )


class Settings(Section):
    """Everything a run depends on.

    >>> Settings(task="patterns/support").finetune.seeds
    (1,)
    """

    task: str = Field("patterns/support", description="folder of the task and its patterns")
    model: str = Field(EMBEDDED_MODEL, description="masked language model: folder or hub name")
    revision: str = Field("", description='commit of a hub model; "" is the newest')
    output: str = Field("runs/support", description="folder of the run")
    data: Data = Field(default_factory=Data)
    search: Search = Field(default_factory=Search)
    demonstrations: Demonstrations = Field(default_factory=Demonstrations)
    finetune: Finetune = Field(default_factory=Finetune)
    annotate: Annotate = Field(default_factory=Annotate)
    pooling: Pooling = Field(default_factory=Pooling)
    ensemble: Ensemble = Field(default_factory=Ensemble)
    ipet: Ipet = Field(default_factory=Ipet)
    distill: Distill = Field(default_factory=Distill)
    baseline: Baseline = Field(default_factory=Baseline)
    machine: Machine = Field(default_factory=Machine)


def read_settings(
    file: Path | None = None,
    overrides: Sequence[str] = (),
    over: Mapping[str, Any] | None = None,
) -> Settings:
    """Settings of a TOML file, with nested values and `section.key=value` overrides on top.

    Raises `UserError` with all unknown names and wrong values at once.
    """
    raw: dict[str, Any] = {}
    if file is not None:
        _merge(raw, _read(file))
    _merge(raw, over or {})
    problems = []
    for text in overrides:
        try:
            _override(raw, text)
        except ValueError as error:
            problems.append(str(error))
    raise_all(problems)
    return check_settings(raw, place=str(file) if file else "settings")


def check_settings(raw: Mapping[str, Any], *, place: str = "settings") -> Settings:
    """Settings of nested plain values; raises `UserError` with every problem."""
    try:
        return Settings.model_validate(raw)
    except ValidationError as error:
        raise_all(f"{place}: {_problem(dict(e))}" for e in error.errors())
        raise


def write_settings(settings: Settings) -> str:
    """Settings as TOML: every one, with a line that explains it."""
    document = tomlkit.document()
    for name, value in _simple(settings):
        _add(document, settings, name, value)
    for name in type(settings).model_fields:
        section = getattr(settings, name)
        if isinstance(section, Section):
            table = tomlkit.table()
            table.add(tomlkit.comment((type(section).__doc__ or "").strip()))
            for key, value in _simple(section):
                _add(table, section, key, value)
            document.add(tomlkit.nl())
            document.add(name, table)
    return tomlkit.dumps(document)


def _simple(section: Section) -> Iterator[tuple[str, Any]]:
    for name in type(section).model_fields:
        value = getattr(section, name)
        if not isinstance(value, Section):
            yield name, value


def _add(container: Any, section: Section, name: str, value: Any) -> None:
    if isinstance(value, dict):
        inline = tomlkit.inline_table()
        inline.update(value)
        item: Any = inline
    else:
        item = tomlkit.item(list(value) if isinstance(value, tuple) else value)
    item.comment(type(section).model_fields[name].description or "")
    container.add(name, item)


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8-sig"))  # some editors put a mark first
    except (FileNotFoundError, NotADirectoryError):
        near = sorted(str(p) for p in file.parent.glob("*.toml"))
        raise UserError(f"{file}: no such settings file{nearest(str(file), near)}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: {error}") from None
    except IsADirectoryError:
        raise UserError(f"{file}: a folder; a settings file is needed, such as my.toml") from None


def _override(raw: dict[str, Any], text: str) -> None:
    """Put one `section.key=value` into nested values; the value is TOML, or else a string."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ValueError(f"--set {text}: no '='; write section.key=value")
    try:
        parsed: Any = tomllib.loads(f"x = {value}")["x"]
    except tomllib.TOMLDecodeError:
        parsed = value
    *sections, key = name.strip().split(".")
    for section in sections:
        inner = raw.get(section)
        raw[section] = dict(inner) if isinstance(inner, Mapping) else {}
        raw = raw[section]
    _merge(raw, {key: parsed})


def _merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if key == "columns" or not (isinstance(value, Mapping) and isinstance(into.get(key), dict)):
            into[key] = dict(value) if isinstance(value, Mapping) else value
        else:
            _merge(into[key], value)


def _problem(error: dict[str, Any]) -> str:
    *sections, name = [str(part) for part in error["loc"]]
    place = ".".join([*sections, name])
    if error["type"] == "extra_forbidden":
        return f"{place}: no such setting{nearest(name, _names(sections))}"
    if error["type"] in ("model_type", "model_attributes_type"):
        return f"{place}: a section is needed, [{place}]; found {error['input']!r}"
    if error["type"] == "tuple_type":
        return f"{place}: a list is needed, [...]; found {error['input']!r}"
    return f"{place}: {_lower(error['msg'])}; found {error['input']!r}"


def _names(sections: list[str]) -> list[str]:
    model: type[BaseModel] = Settings
    for section in sections:
        annotation = model.model_fields[section].annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
    return list(model.model_fields)


def _lower(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return message[:1].lower() + message[1:]
