"""A new task from labels and text columns: task.toml and a few patterns, to be bettered by hand."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import tomlkit

from pet_pipeline.drafts import Draft, draft_task, with_columns
from pet_pipeline.encoding import PatternEncoder, Tokenizer
from pet_pipeline.errors import UserError, listed, raise_all
from pet_pipeline.files import sync, sync_file
from pet_pipeline.labelled import column_problems
from pet_pipeline.patterns import TASK_FILE, Field, Pattern, Task, load_task, pattern_of

WIDTH = 100  # of a line in a file
NAMED = 6  # labels, in a message
MOST_TOKENS = 512  # no template here is as long

BETTER_WORDS = (
    "Better words make a better classifier: for each label one to three common words that read "
    "well in all patterns. A pattern may have its own, in a [verbalizer] after its template."
)
SEVERAL_TOKENS = (
    "The model's tokenizer splits some of them, as noted; a word of one token may do better."
)
BETTER_NAMES = (
    'Write words that do: for yes and no to the question "Is it spam?", spam and genuine, say.'
)
METRIC_COMMENTS = {
    "accuracy": "  # or f1_macro, where rare labels count as much as frequent ones",
    "f1_macro": "  # rare labels count as much as frequent ones; in accuracy they do not",
}


def new_task(
    labels: Iterable[str],
    columns: Sequence[str],
    *,
    metric: str = "accuracy",
    words: Mapping[str, str | Sequence[str]] | None = None,
    templates: Sequence[str] | None = None,
    tokenizer: Tokenizer | None = None,
    source: str = "",
) -> dict[str, str]:
    """The files of a task by name: task.toml, and one for each pattern, with comments.

    labels: in the order they shall have; columns: of the texts; words: of some labels or all,
    where they are not to be made from the names; templates: in place of four that fit the labels;
    tokenizer: tells in how many tokens words are split; source: where the labels were found.
    Raises `UserError` for a column that no template can name, and for labels without words.
    """
    labels, columns = tuple(labels), tuple(columns)
    raise_all(column_problems(columns))
    draft = draft_task(labels, columns, words)
    if templates is None:
        commented = draft.templates.items()
        patterns = {name: (what, with_columns(text, columns)) for name, (what, text) in commented}
    else:
        patterns = {f"pattern_{n}": ("", text) for n, text in enumerate(templates, 1)}
    counts = _count_tokens(tokenizer, labels, draft.words, [text for _, text in patterns.values()])
    sections = [
        *_head(draft, columns, labels, metric, source),
        *_verbalizer(draft, labels, counts, given=words is not None and {*words} == {*labels}),
        *(_other_templates(draft, columns) if templates is None else ()),
    ]
    return {TASK_FILE: "".join(sections)} | {
        f"{name}.toml": _comment(what) + f"template = {_quoted(text)}\n"
        for name, (what, text) in patterns.items()
    }


def save_task(folder: Path | str, files: Mapping[str, str]) -> None:
    """Write the files of a task into a new folder, all of them or none.

    Raises `UserError` if there is something in the folder, or if the files are not a task.
    """
    folder = Path(folder)
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        what = "a file" if folder.is_file() else "a folder with files in it"
        raise UserError(f"{folder}: there is {what}, which is left as it is; name another folder")
    task_of(files, folder.name)
    beside = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(beside, ignore_errors=True)
    try:
        beside.mkdir(parents=True)
        _write(files, beside)
        sync(beside)
        if folder.is_dir():
            folder.rmdir()
        beside.rename(folder)
        sync_file(folder.parent)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror}; name another folder") from None


def task_of(files: Mapping[str, str], name: str) -> Task:
    """The task of files that are not on the disk yet; raises `UserError` with all problems."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        _write(files, folder)
        try:
            return replace(load_task(folder), name=name)
        except UserError as error:
            problems = [problem.replace(f"{folder}/", "") for problem in error.problems]
            raise UserError(*problems) from None


def weak_words_note(labels: Sequence[str], columns: Sequence[str], task_file: Path | str) -> str:
    """What to tell a person whose labels have names that say nothing; "" if all say something."""
    weak = draft_task(labels, columns).weak
    return f"{_says_nothing(weak)}; write better label words into {task_file}" if weak else ""


def _head(
    draft: Draft, columns: Sequence[str], labels: Sequence[str], metric: str, source: str
) -> Iterator[str]:
    """What task.toml says of texts, labels and metric."""
    made = f"Made from {source}. " if source else ""
    yield _comment(f"{draft.question} (Write here which question the labels answer.)")
    yield _comment(
        f"{made}Every other .toml file in this folder is a pattern. Edit, add and remove them: a "
        "run does again only what depends on a change."
    )
    yield f"columns = {_array(columns)}\n"
    yield f"labels  = {_array(labels)}\n"
    yield f"metric  = {_quoted(metric)}{METRIC_COMMENTS.get(metric, '')}\n\n"


def _verbalizer(
    draft: Draft, labels: Sequence[str], counts: Mapping[str, Sequence[int]], *, given: bool
) -> Iterator[str]:
    """The label words; given: whether all are the user's own, who needs no advice on them."""
    several = any(n > 1 for group in counts.values() for n in group)
    if not given:
        yield _comment(f"What may stand at {{mask}}. {draft.why} {BETTER_WORDS}")
    if draft.weak:
        yield _comment(f"{_says_nothing(draft.weak)}. {BETTER_NAMES}")
    if several:
        yield _comment(SEVERAL_TOKENS)
    yield "[verbalizer]\n"
    keys = [_key(label) for label in labels]
    groups = [_array(draft.words[label], one_line=True) for label in labels]
    widths = max(map(len, keys)), max(map(len, groups))
    for label, key, group in zip(labels, keys, groups, strict=True):
        line = f"{key:<{widths[0]}} = {group}"
        if any(n > 1 for n in counts.get(label, ())):
            tokens = " and ".join(map(str, counts[label]))
            line = f"{key:<{widths[0]}} = {group:<{widths[1]}}  # {tokens} tokens"
        yield f"{line}\n"


def _other_templates(draft: Draft, columns: Sequence[str]) -> Iterator[str]:
    """As a comment, templates to try if the labels' names were misread."""
    yield "\n"
    yield _comment(f"{draft.when}, try templates such as")
    for _, text in list(draft.others.values())[:2]:
        yield f"#     template = {_quoted(with_columns(text, columns))}\n"


def _count_tokens(
    tokenizer: Tokenizer | None,
    labels: tuple[str, ...],
    words: Mapping[str, tuple[str, ...]],
    templates: Sequence[str],
) -> dict[str, list[int]]:
    """How many tokens each label's words have in the first template; empty if that is unknown."""
    if tokenizer is None or not templates:
        return {}
    groups = tuple(words[label] for label in labels)
    pattern = _pattern(templates[0], labels, groups)
    if pattern is None:
        return {}
    tokens = PatternEncoder(pattern, tokenizer, MOST_TOKENS).words.tokens
    return {label: [len(ids) for ids in group] for label, group in zip(labels, tokens, strict=True)}


def _pattern(
    template: str, labels: tuple[str, ...], groups: tuple[tuple[str, ...], ...]
) -> Pattern | None:
    """The pattern of a template; None if it is wrong, which is said where its file is read."""
    try:
        pattern = pattern_of("first", template, labels, groups)
    except ValueError:
        return None
    masked = any(isinstance(part, Field) and part.name == "mask" for part in pattern.parts)
    return pattern if masked else None


def _comment(text: str) -> str:
    """A text as the lines of a comment, where TOML allows no control characters."""
    lines: list[str] = []
    for word in "".join(c if c.isprintable() else " " for c in text).split():
        if not lines or len(lines[-1]) + 1 + len(word) > WIDTH:
            lines.append("#")
        lines[-1] += f" {word}"
    return "".join(f"{line}\n" for line in lines)


def _array(values: Sequence[str], *, one_line: bool = False) -> str:
    """A list of strings; on one line, or on several if they do not fit."""
    line = f"[{', '.join(map(_quoted, values))}]"
    if one_line or len("columns = ") + len(line) <= WIDTH:
        return line
    return "[\n" + "".join(f"    {_quoted(value)},\n" for value in values) + "]"


def _quoted(text: str) -> str:
    """A string as TOML has it; in single quotes if that saves it from escapes."""
    if '"' in text and "'" not in text and text.isprintable():
        return f"'{text}'"
    return str(tomlkit.item(text).as_string())


def _key(label: str) -> str:
    """A label as a key: a number in quotes too, so that it is seen to be a name."""
    bare = re.fullmatch(r"[A-Za-z0-9_-]+", label) and not label.isdigit()
    return label if bare else _quoted(label)


def _says_nothing(labels: Sequence[str]) -> str:
    more = f" and {len(labels) - NAMED} more" if len(labels) > NAMED else ""
    does = "does" if len(labels) == 1 else "do"
    return f"{listed(labels[:NAMED])}{more} {does} not say what is meant"


def _write(files: Mapping[str, str], folder: Path) -> None:
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")
