"""Candidate templates: where the mask may be, what may surround it, and which are readable."""

from __future__ import annotations

import itertools
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pet_pipeline.patterns import Pattern, parse_template

PUNCTUATION = ".,:;!?"
ONE_LETTER = ("a", "i", "o", "y")  # words of one letter in languages that have such
MOST_WORDS = 12  # of a candidate; the search writes ordinary, short templates
TEXT = re.compile(rf"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*|[{re.escape(PUNCTUATION)}()\[\]\"]")

Words = tuple[tuple[str, ...], ...]  # of each label


@dataclass(frozen=True)
class Location:
    """Where the mask is among the texts: the template before and after what is written."""

    before: str
    after: str

    @property
    def begins(self) -> bool:
        """Whether what is written is the beginning of the input."""
        return not self.before

    def template(self, left: str, right: str) -> str:
        """The template with words left and right of the mask.

        >>> Location("{text}", "").template("It was", ".")
        '{text} It was {mask}.'
        """
        return _join(self.before, _escape(left), "{mask}", _escape(right), self.after)


@dataclass(frozen=True)
class Candidate:
    """A template that a search found; the score is the generator's own, higher is better."""

    template: str
    generator: str
    score: float


@dataclass(frozen=True)
class LabelledTexts:
    """Labelled rows that templates are written for; of a label's words the first is inserted.

    gold: (rows,) label numbers; columns: the text columns of the rows; words: of each label
    """

    rows: Sequence[Mapping[str, str]]
    gold: Sequence[int]
    columns: Sequence[str]
    words: Words

    @property
    def labels(self) -> tuple[str, ...]:
        """Placeholder names of the labels, for patterns that are not kept."""
        return tuple(str(n) for n in range(len(self.words)))


def locations(columns: Sequence[str]) -> list[Location]:
    """After the texts, before them, and between those of a pair.

    >>> [location.template("A", "B") for location in locations(["text"])]
    ['{text} A {mask} B', 'A {mask} B {text}']
    """
    first, *others = ["{" + column + "}" for column in columns]
    texts = f"{first} {{sep}} {' '.join(others)}" if others else first
    result = [Location(texts, ""), Location("", texts)]
    if others:
        ended = "{" + columns[0] + ":strip_punct}"
        begun = "{" + columns[1] + ":lower_first}"
        result.append(Location(ended, " ".join([begun, *others[1:]])))
    return result


def verbalizer_of(patterns: Sequence[Pattern]) -> Words:
    """The label words that most of the patterns have; of equally many, the first."""
    words = [pattern.words for pattern in patterns]
    return max(words, key=lambda group: (words.count(group), -words.index(group)))


def readable(text: str, forbidden: Iterable[str]) -> bool:
    """Whether a person can read the words around a mask, and none of them is a label word.

    >>> readable("It was", ["great"]), readable("great ,", ["great"]), readable("..", [])
    (True, False, False)
    """
    tokens = TEXT.findall(text)
    if "".join(tokens) != re.sub(r"\s", "", text) or len(tokens) > MOST_WORDS:
        return False
    lowered = [token.lower() for token in tokens]
    if any(len(token) == 1 and token.isalpha() and token not in ONE_LETTER for token in lowered):
        return False
    if any(a == b for a, b in itertools.pairwise(lowered)):
        return False
    if any(set(pair) <= set(PUNCTUATION) for pair in itertools.pairwise(tokens)):
        return False
    return not any(_contains(lowered, word) for word in forbidden)


def usable(location: Location, left: str, right: str, words: Words) -> bool:
    """Whether text around a mask makes a template that a person can read, without label words."""
    forbidden = list(itertools.chain(*words))
    if location.begins and left.strip().startswith(tuple(PUNCTUATION)):  # it ends nothing
        return False
    sides = all(readable(side, forbidden) for side in (left, right))
    return sides and has_words(location.template(left, right))


def choose(
    groups: Sequence[Sequence[Candidate]], count: int, known: Iterable[str]
) -> list[Candidate]:
    """The best of each group in turn, until there are enough; no duplicates, nothing known.

    groups: candidates of each generator and location; known: templates that exist already
    """
    seen = {normal(template) for template in known}
    chosen: list[Candidate] = []
    ranked = [sorted(group, key=lambda c: -c.score) for group in groups]
    for turn in itertools.zip_longest(*ranked):
        for candidate in turn:
            if candidate and normal(candidate.template) not in seen and len(chosen) < count:
                seen.add(normal(candidate.template))
                chosen.append(candidate)
    return chosen


def normal(template: str) -> str:
    """A template without what makes no difference: case, and spaces around punctuation.

    >>> normal("{text} It was {mask} .") == normal("{text} it was {mask}.")
    True
    """
    return re.sub(r"\s*([^\w\s{}])\s*", r"\1", " ".join(template.lower().split()))


def has_words(template: str) -> bool:
    """Whether a template has a word of its own, not only punctuation."""
    own = "".join(part for part in parse_template(template) if isinstance(part, str))
    return bool(own.strip(string.punctuation + string.whitespace))


def _escape(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _join(*pieces: str) -> str:
    """Pieces with spaces between them, but none before punctuation."""
    text = ""
    for piece in (piece.strip() for piece in pieces):
        attached = piece.startswith((*PUNCTUATION, ")", "]"))
        opened = text.endswith(("(", "[", ' "')) or text == '"'
        text += piece if not text or attached or opened or not piece else f" {piece}"
    return text


def _contains(tokens: Sequence[str], word: str) -> bool:
    """Whether a word, or words in a row, occur in a list of lower-case words."""
    wanted = [token.lower() for token in TEXT.findall(word)]
    if not wanted:
        return False
    size = len(wanted)
    return any(list(tokens[n : n + size]) == wanted for n in range(len(tokens) - size + 1))
