"""Columns that a table calls by another name: which one is probably meant, and how to say so."""

from __future__ import annotations

import difflib
import json
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence

TEXT_NAMES = (
    *("text", "texts", "message", "sentence", "content", "body", "comment", "review", "tweet"),
    *("question", "document", "utterance", "description", "abstract", "title"),
)
LABEL_NAMES = (
    *("label", "labels", "class", "category", "target", "topic", "sentiment", "intent", "tag"),
    *("emotion", "rating", "gold", "y"),
)


def likely_columns(
    columns: Iterable[str], names: Sequence[str], taken: Collection[str] = ()
) -> dict[str, str]:
    """For text columns and `label`, the names that a table probably has for them, where any is.

    By their spelling, by what such columns are often called, or as the only one that is left.
    names: of the table's columns; taken: those of them that are something else

    >>> likely_columns(["text", "label"], ["category", "message"])
    {'text': 'message', 'label': 'category'}
    >>> likely_columns(["label"], ["text", "a", "b"], taken=["text"])
    {}
    """
    likely: dict[str, str] = {}
    for column in columns:
        usual, others = (TEXT_NAMES, LABEL_NAMES)[:: -1 if column == "label" else 1]
        left = {
            name.lower(): name
            for name in names
            if name not in (*taken, *likely.values(), "id") and name.lower() not in others
        }
        close = difflib.get_close_matches(column.lower(), list(left), n=1)
        known = [name for name in usual if name in left]
        only = list(left) if len(left) == 1 else []
        for name in [*close, *known, *only][:1]:
            likely[column] = left[name]
    return likely


def how_to_map(column: str, texts: Mapping[str, str], likely: Mapping[str, str]) -> str:
    """How a run is told what the tables call a column: by options, or by a setting.

    texts: the task's text columns and what the table calls them; NAME where it is not known
    likely: of the missing columns, as `likely_columns` gives them

    >>> how_to_map("label", {"text": "text"}, {"label": "category"})
    '--label-column category (data.columns = {label = "category"})'
    """
    name = json.dumps(likely.get(column, "NAME"), ensure_ascii=False)
    if column == "label":
        options = [f"--label-column {shlex.quote(likely.get(column, 'NAME'))}"]
    else:  # one for each text column: they are given in the task's order
        named = [likely.get(text_column, own) for text_column, own in texts.items()]
        options = [f"--text-column {shlex.quote(own)}" for own in named]
    return f"{' '.join(options)} (data.columns = {{{column} = {name}}})"
