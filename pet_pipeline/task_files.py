"""Write the files of a task and of its patterns, as a search finds them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomlkit

from pet_pipeline.patterns import TASK_FILE


def write_task(
    folder: Path,
    columns: Sequence[str],
    labels: Sequence[str],
    metric: str,
    words: Sequence[Sequence[str]],
) -> None:
    """Write task.toml, which makes the folder one of a task whose files can be tried as they are.

    words: of each label
    """
    document = tomlkit.document()
    document.update({"columns": list(columns), "labels": list(labels), "metric": metric})
    document.add("verbalizer", _verbalizer_table(labels, words))
    (folder / TASK_FILE).write_text(tomlkit.dumps(document), "utf-8")


def write_pattern(
    file: Path,
    comment: str,
    template: str,
    labels: Sequence[str],
    words: Sequence[Sequence[str]],
) -> None:
    """Write a pattern's file, with a comment on where it comes from; words: of each label."""
    document = tomlkit.document()
    document.add(tomlkit.comment(comment))
    document.add("template", tomlkit.item(template))
    document.add("verbalizer", _verbalizer_table(labels, words))
    file.write_text(tomlkit.dumps(document), "utf-8")


def _verbalizer_table(labels: Sequence[str], words: Sequence[Sequence[str]]) -> Any:
    table = tomlkit.table()
    for label, group in zip(labels, words, strict=True):
        table.add(label, list(group))
    return table
