"""Words and templates to start a task with, chosen by the names of its labels and columns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pet_pipeline.errors import nearest, raise_all
from pet_pipeline.label_names import (
    Words,
    judgement_words,
    relation_words,
    weak_names,
    words_from_names,
)

Templates = dict[str, tuple[str, str]]  # by the file's name: what it is, and the template

TOPICS: Templates = {
    "category": (
        "A category before the text; Topic, Intent or Emotion may say better what the labels are",
        "[ Category: {mask} ] {text}",
    ),
    "colon": (
        'A heading before the text; it may say more, such as "News about {mask}:"',
        "{mask}: {text}",
    ),
    "brackets": (
        "The label after the text, in brackets, as in a list of titles",
        "{text} ({mask})",
    ),
    "question": (
        "A question about the text; ask what you would ask a person who labels it",
        "{text} {sep} Question: What is this about? Answer: {mask}.",
    ),
}
JUDGEMENTS: Templates = {
    "it_was": (
        'A sentence after the text; it may name the thing, such as "The film was {mask}."',
        "{text} It was {mask}.",
    ),
    "all_in_all": (
        "A conclusion, as the writer would add it",
        "{text} All in all, it was {mask}.",
    ),
    "just": (
        "An exclamation before the text; a name may stand there too: 'A {mask} film!'",
        "Just {mask}! {sep} {text}",
    ),
    "in_summary": (
        'A summary; it may name the thing, such as "In summary, the film is {mask}."',
        "{text} {sep} In summary, it is {mask}.",
    ),
}
RELATIONS: Templates = {
    "quoted": (
        "The first text as a question, the second as what follows from the answer",
        '"{first:strip_punct}"? {sep} {mask}, "{second}"',
    ),
    "plain": ("The same without quotation marks", "{first:strip_punct}? {sep} {mask}, {second}"),
    "one_segment": (
        "The same as one sentence",
        "{first:strip_punct}? {mask}, {second:lower_first}",
    ),
    "question": (
        "The second text as a question about the first",
        "{first} {sep} Question: {second:strip_punct}? Answer: {mask}.",
    ),
}
COMPARED = (  # names of two columns whose texts are compared
    {"premise", "hypothesis"}, {"question", "passage"}, {"question", "context"},
    {"question", "sentence"}, {"query", "document"}, {"claim", "evidence"},
)  # fmt: skip


@dataclass(frozen=True)
class Draft:
    """What the names of labels and columns are taken for, and the words and templates that fit."""

    question: str  # that the labels answer
    words: Words
    why: str  # these words
    templates: Templates
    others: Templates  # that fit if the names were misread
    when: str  # that would be
    weak: tuple[str, ...] = ()  # labels whose words do not say what they mean


def draft_task(
    labels: Sequence[str],
    columns: Sequence[str],
    given: Mapping[str, str | Sequence[str]] | None = None,
) -> Draft:
    """Words and templates for labels and text columns; given: words that some labels have already.

    Raises `UserError` if words are given for something else, or cannot be made of the names.
    """
    own = {
        label: (word,) if isinstance(word, str) else tuple(word)
        for label, word in (given or {}).items()
    }
    raise_all(
        f"words: {label!r} is not a label{nearest(label, labels)}"
        for label in own
        if label not in labels
    )
    if judged := judgement_words(labels):
        return Draft(
            question="How good is it, in the eyes of the writer?",
            words=judged | own,
            why="These are adjectives from bad to good, because the labels judge.",
            templates=JUDGEMENTS,
            others=TOPICS,
            when="If the labels say what a text is about rather than how good something is",
        )
    related = relation_words(labels)
    if len(columns) == 2 and (related or _are_compared(columns)):
        return Draft(
            question=f"What does {columns[0]} say of {columns[1]}?",
            words=related | own if related else _named(labels, own),
            why="It stands between the two texts.",
            templates=RELATIONS,
            others=TOPICS,
            when="If the two texts are one, such as a title and what follows it",
            weak=() if related else _weak(labels, own),
        )
    return Draft(
        question="What is the text about?",
        words=_named(labels, own),
        why="So far these are the labels' names.",
        templates=TOPICS,
        others=JUDGEMENTS,
        when="If the labels say how something is rather than what a text is about",
        weak=_weak(labels, own),
    )


def with_columns(template: str, columns: Sequence[str]) -> str:
    """A template of this module with the names of a task's text columns.

    >>> with_columns("{text} {mask}", ["title", "body"])
    '{title} {body} {mask}'
    """
    names = {"text": "} {".join(columns), "first": columns[0], "second": columns[-1]}
    return re.sub(r"\{(text|first|second)\b", lambda match: "{" + names[match[1]], template)


def _named(labels: Sequence[str], own: Words) -> Words:
    made = words_from_names([label for label in labels if label not in own])
    return {label: own.get(label) or made[label] for label in labels}


def _weak(labels: Sequence[str], own: Words) -> tuple[str, ...]:
    return tuple(label for label in weak_names(labels) if label not in own)


def _are_compared(columns: Sequence[str]) -> bool:
    """Whether the names of two columns say that their texts are compared."""
    numbered = [re.fullmatch(r"(.+?)[_ ]?[ab12]", name.lower()) for name in columns]
    stems = {match[1] if match else "" for match in numbered}
    return {name.lower() for name in columns} in COMPARED or (len(stems) == 1 and "" not in stems)
