"""Read tasks and patterns from their files, and report everything that is wrong in them.

All checks here need neither data nor a model.
"""

from __future__ import annotations

import re
import string
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pet_pipeline.errors import UserError, listed, nearest, raise_all

SLOTS = ("mask", "sep", "demos", "soft")
RESERVED = ("id", "label")  # besides the slots, names that no column may have
MOST_SOFT = 1000  # trainable tokens of one field
SPECS = ("strip_punct", "lower_first", "keep")
METRIC_NAMES = ("accuracy", "f1", "f1_macro", "mcc")  # those of metrics.py, which needs sklearn
TASK_FILE = "task.toml"
SENTENCE_PUNCTUATION = re.compile(  # in the Unicode name of a character of category Po
    r"\b(FULL STOP|COMMA|COLON|SEMICOLON|(QUESTION|EXCLAMATION) MARK|INTERROBANG|ELLIPSIS"
    r"|DANDA|SHAD|KHAN|(SIGN|LITTLE) SECTION)\b"  # Indic scripts, Tibetan, Khmer, Burmese
)


@dataclass(frozen=True)
class Field:
    """One `{name:spec,spec}` of a template."""

    name: str
    specs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pattern:
    """A cloze template, and for each label the words that may fill its mask: a PVP.

    >>> parts = (Field("text"), " It was ", Field("mask"), ".")
    >>> pattern = Pattern("it_was", parts, ("bad", "good"), (("terrible",), ("great",)))
    >>> pattern.render({"text": "Nice."})
    'Nice. It was {mask}.'
    """

    name: str
    parts: tuple[str | Field, ...]
    labels: tuple[str, ...]
    words: tuple[tuple[str, ...], ...]  # one group per label

    @property
    def has_soft(self) -> bool:
        """Whether it has `{soft}` fields."""
        return any(isinstance(part, Field) and part.name == "soft" for part in self.parts)

    def render(self, row: Mapping[str, str]) -> str:
        """The template filled in for a person to read, with the slots as they are written.

        Raises `KeyError` if the row lacks a column.
        """
        return "".join(
            part
            if isinstance(part, str)
            else _written(part)
            if part.name in SLOTS
            else fill(part, row)
            for part in self.parts
        )


@dataclass(frozen=True)
class Task:
    """A classification task and its patterns.

    others: those with `default = false`, which a run takes only if they are chosen by name
    """

    name: str
    columns: tuple[str, ...]
    labels: tuple[str, ...]
    metric: str
    patterns: tuple[Pattern, ...]
    others: tuple[Pattern, ...] = ()


def load_task(folder: Path | str) -> Task:
    """The task of a folder: `task.toml`, and one pattern for every other `*.toml`.

    Raises `UserError` with every problem of every file.
    """
    folder = Path(folder)
    task_file = folder / TASK_FILE
    raw = _read_task(task_file)
    task_problems = [*_check_task(raw)]
    raise_all(f"{task_file}: {problem}" for problem in task_problems)
    columns, labels = tuple(raw["columns"]), tuple(raw["labels"])
    problems: list[str] = []
    patterns: dict[bool, list[Pattern]] = {True: [], False: []}  # by whether they are default
    files = sorted(file for file in folder.glob("*.toml") if file.name != TASK_FILE)
    for file in files:
        try:
            pattern, default = _load_pattern(file, columns, labels, raw.get("verbalizer", {}))
            patterns[default].append(pattern)
        except UserError as error:
            problems += [f"{file}: {problem}" for problem in error.problems]
    if not files:
        problems.append(f"{folder}: no pattern; add a file with template = '... {{mask}} ...'")
    raise_all(problems)
    metric = raw.get("metric", "accuracy")
    name = folder.resolve().name
    return Task(name, columns, labels, metric, tuple(patterns[True]), tuple(patterns[False]))


def all_patterns(task: Task) -> tuple[Pattern, ...]:
    """The patterns of a task in the order of its files, also those that are not default."""
    return tuple(sorted((*task.patterns, *task.others), key=lambda pattern: f"{pattern.name}.toml"))


def choose_patterns(task: Task, names: Sequence[str]) -> Task:
    """The task with the named patterns; without names, with those that are default.

    Raises `UserError` about unknown names, or if no pattern is default and none is named.
    """
    known = [pattern.name for pattern in all_patterns(task)]
    raise_all(
        f"patterns: {name!r} is not a pattern of the task {task.name}{nearest(name, known)}"
        for name in names
        if name not in known
    )
    named = tuple(pattern for pattern in all_patterns(task) if pattern.name in names)
    if not named and not task.patterns:
        raise UserError(
            f"patterns: not set, and every pattern of the task {task.name} has default = false; "
            f"choose from {listed(known)}"
        )
    chosen = named or task.patterns
    others = tuple(pattern for pattern in all_patterns(task) if pattern not in chosen)
    return replace(task, patterns=chosen, others=others)


def fill(field: Field, row: Mapping[str, str]) -> str:
    """A row's text as a column field inserts it into the template.

    strip_punct removes final spaces and final sentence punctuation of any script (. ! ? , ; : …),
    no symbols, quotes or brackets: "C++" and "100%" stay. Raises `KeyError` without the column.

    >>> fill(Field("text", ("strip_punct", "lower_first")), {"text": "It rains. "})
    'it rains'
    """
    text = row[field.name].strip()
    if "strip_punct" in field.specs:
        while text and _ends_sentence(text[-1]):
            text = text[:-1].rstrip()
    if "lower_first" in field.specs:
        text = text[:1].lower() + text[1:]
    return text


def pattern_of(
    name: str, template: str, labels: tuple[str, ...], words: tuple[tuple[str, ...], ...]
) -> Pattern:
    """The pattern of a template and its label words; raises `ValueError` on bad syntax.

    >>> pattern_of("so", "{text} {mask}", ("a", "b"), (("no",), ("yes",))).render({"text": "So?"})
    'So? {mask}'
    """
    return Pattern(name, parse_template(template), labels, words)


def template_of(pattern: Pattern) -> str:
    """The template of a pattern as its file has it.

    >>> template_of(pattern_of("so", "{x:keep} {{1}} {mask}", ("a", "b"), (("no",), ("yes",))))
    '{x:keep} {{1}} {mask}'
    """
    return "".join(
        part.replace("{", "{{").replace("}", "}}") if isinstance(part, str) else _written(part)
        for part in pattern.parts
    )


def parse_template(template: str) -> tuple[str | Field, ...]:
    """The parts of a template: literal text and fields; raises `ValueError` on bad syntax."""
    parts: list[str | Field] = []
    for text, name, spec, conversion in string.Formatter().parse(template):
        if text:
            parts.append(text)
        if name is not None:
            if conversion or "{" in (spec or ""):
                raise ValueError(f"{{{name}...}}: only {{name}} and {{name:spec,spec}} are read")
            given = [spec or ""] if name == "soft" else (spec or "").split(",")
            parts.append(Field(name, tuple(s.strip() for s in given if s.strip())))
    return tuple(parts)


def _written(field: Field) -> str:
    specs = ",".join(field.specs)
    return "{" + field.name + (f":{specs}" if specs else "") + "}"


def _ends_sentence(character: str) -> bool:
    name = unicodedata.name(character, "")
    return unicodedata.category(character) == "Po" and bool(SENTENCE_PUNCTUATION.search(name))


def _load_pattern(
    file: Path, columns: tuple[str, ...], labels: tuple[str, ...], verbalizer: Mapping[str, Any]
) -> tuple[Pattern, bool]:
    """The pattern of a file, and whether it is default; raises `UserError` with all problems."""
    try:
        raw = _read(file)
    except ValueError as error:
        raise UserError(str(error)) from None
    problems = [*_unknown_keys(raw, ("template", "default", "verbalizer"))]
    if not isinstance(raw.get("default", True), bool):
        problems.append(f"default: true or false is needed; found {raw['default']!r}")
    parts: tuple[str | Field, ...] = ()
    try:
        template = _template(raw)
    except ValueError as error:
        problems.append(str(error))
    else:
        try:
            parts = parse_template(template)
            problems += _check_parts(parts, columns)
        except ValueError as error:
            problems.append(f"template: {error}")
    verbalizer = raw.get("verbalizer", verbalizer)
    raise_all([*problems, *_check_verbalizer(verbalizer, labels)])
    words = _words(verbalizer)
    pattern = Pattern(file.stem, parts, labels, tuple(words[label] for label in labels))
    return pattern, raw.get("default", True)


def _template(raw: Mapping[str, Any]) -> str:
    template = raw.get("template")
    if isinstance(template, str):
        return template
    if isinstance(raw.get("verbalizer"), dict) and "template" in raw["verbalizer"]:
        raise ValueError("template must come before [verbalizer]; after it, it counts as a label")
    if template is not None:
        raise ValueError(f"template: a string is needed; found {template!r}")
    raise ValueError('no template; write template = "... {mask} ..."')


def _check_parts(parts: Iterable[str | Field], columns: tuple[str, ...]) -> Iterator[str]:
    fields = [part for part in parts if isinstance(part, Field)]
    names = [field.name for field in fields]
    n_masks = names.count("mask")
    if n_masks != 1:
        yield f"template has {n_masks} {{mask}}; exactly one is needed, however long the words"
    if names.count("sep") > 1:
        yield f"template has {names.count('sep')} {{sep}}; a model takes at most two segments"
    if names.count("demos") > 1:
        yield f"template has {names.count('demos')} {{demos}}; demonstrations go in one place"
    unknown = [name for name in names if name not in (*columns, *SLOTS)]
    if not unknown and not set(names) & set(columns):
        yield f"template has no text column; there are {listed(columns)}"
    for field in fields:
        if field.name in unknown:
            yield _unknown_field(field.name, columns)
        for spec in field.specs:
            yield from _check_spec(field.name, spec, columns)


def _check_spec(name: str, spec: str, columns: tuple[str, ...]) -> Iterator[str]:
    if name == "soft":  # any words, or a number
        if spec.isdecimal() and not 1 <= int(spec) <= MOST_SOFT:
            yield f"{{soft:{spec}}}: a number of tokens from 1 to {MOST_SOFT} is allowed"
    elif name in SLOTS:
        yield f"{{{name}:{spec}}}: {{{name}}} takes no spec"
    elif name in columns and spec not in SPECS:
        yield f"{{{name}:{spec}}}: no such spec{nearest(spec, SPECS)}"


def _unknown_field(name: str, columns: tuple[str, ...]) -> str:
    return f"{{{name}}} is not a column of this task{nearest(name, (*columns, *SLOTS))}"


def _check_verbalizer(table: Any, labels: tuple[str, ...]) -> Iterator[str]:
    if not isinstance(table, dict):
        yield f"verbalizer: a table is needed, [verbalizer]; found {table!r}"
        return
    for label, words in table.items():
        if label == "default" and isinstance(words, bool):
            yield "default must come before [verbalizer]; after it, it counts as a label"
            return
        group = [words] if isinstance(words, str) else words
        if not isinstance(group, list) or not all(isinstance(word, str) for word in group):
            yield f"verbalizer: {label!r} needs a list of words; found {words!r}"
            return
    yield from _check_words(_words(table), labels)


def _check_words(words: Mapping[str, tuple[str, ...]], labels: tuple[str, ...]) -> Iterator[str]:
    for label in words:
        if label not in (*labels, "template"):
            yield f"verbalizer: {label!r} is not a label of this task{nearest(label, labels)}"
    owner: dict[str, str] = {}
    for label in labels:
        if not words.get(label):
            yield f"verbalizer: no word for label {label!r}"
        for word in words.get(label, ()):
            if word != word.strip() or not word:
                yield f"verbalizer: {word!r} has spaces around it; the template says where they are"
            if owner.get(word) == label:
                yield f"verbalizer: {word!r} is listed twice for {label!r}"
            elif word in owner:
                yield f"verbalizer: {word!r} is used for both {owner[word]!r} and {label!r}"
            owner[word] = label


def _check_task(raw: Mapping[str, Any]) -> Iterator[str]:
    yield from _unknown_keys(raw, ("columns", "labels", "metric", "verbalizer"))
    for key in ("columns", "labels"):
        value = raw.get(key)
        if not isinstance(value, list) or not all(isinstance(v, str) and v for v in value or [0]):
            yield f'{key}: a list of strings is needed, such as ["a", "b"]; found {value!r}'
        elif len(set(value)) < len(value):
            yield f"{key}: {listed(value)} has a duplicate name"
        elif key == "labels" and len(value) < 2:
            yield f"labels: {listed(value)} is one label; a classifier needs two or more"
    columns = raw.get("columns")
    for column in columns if isinstance(columns, list) else ():
        if column in (*SLOTS, *RESERVED):
            yield f"columns: {column!r} has a meaning of its own; give the column another name"
    yield from _check_metric(raw)
    if not isinstance(raw.get("verbalizer", {}), dict):
        yield f"verbalizer: a table is needed, [verbalizer]; found {raw['verbalizer']!r}"


def _check_metric(raw: Mapping[str, Any]) -> Iterator[str]:
    metric = raw.get("metric", "accuracy")
    if metric not in METRIC_NAMES:
        yield f"metric: {metric!r} is not a metric{nearest(str(metric), METRIC_NAMES)}"
    labels = raw.get("labels")
    if metric == "f1" and isinstance(labels, list) and len(labels) != 2:
        many = f"'f1' is for two labels, here are {len(labels)}"
        yield f"metric: {many}; 'f1_macro' is for any number"


def _unknown_keys(raw: Mapping[str, Any], known: tuple[str, ...]) -> Iterator[str]:
    for key in raw:
        if key not in known:
            yield f"unknown key {key!r}{nearest(key, known)}"


def _read_task(file: Path) -> dict[str, Any]:
    try:
        return _read(file)
    except (FileNotFoundError, NotADirectoryError):
        near = sorted(p.parent.name for p in file.parent.parent.glob("*/task.toml"))
        hint = nearest(file.parent.name, near) if near else "; a task is a folder with a task.toml"
        raise UserError(f"{file}: no such task{hint}") from None
    except ValueError as error:
        raise UserError(f"{file}: {error}") from None


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8-sig"))  # some editors put a mark first
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text ({error.reason})") from None


def _words(table: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    return {label: (w,) if isinstance(w, str) else tuple(w) for label, w in table.items()}
