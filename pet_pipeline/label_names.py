"""What the names of labels say: an order, whether they judge or relate, words for the mask."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from pet_pipeline.errors import listed, raise_all

Words = dict[str, tuple[str, ...]]  # of each label

POLARITIES = {"negative": -2, "neg": -2, "neutral": 0, "mixed": 0, "positive": 2, "pos": 2}
DEGREES = {
    **dict.fromkeys(("very", "strongly", "extremely", "highly", "most"), 1),
    **dict.fromkeys(("somewhat", "slightly", "mildly", "weakly", "rather"), -1),
}
QUALITIES = {
    **dict.fromkeys(("terrible", "awful", "horrible"), -3),
    **dict.fromkeys(("bad", "poor"), -2),
    "mediocre": -1,
    **dict.fromkeys(("okay", "ok", "fair", "average"), 0),
    **dict.fromkeys(("fine", "decent"), 1),
    "good": 2,
    **dict.fromkeys(("great", "excellent", "wonderful", "amazing", "perfect"), 3),
}
# For the most extreme label on each side, the next, and one between that and neutral.
NEGATIVE_WORDS, POSITIVE_WORDS = ("terrible", "bad", "poor"), ("great", "good", "fine")
STARS = {"1": "terrible", "2": "bad", "3": "okay", "4": "good", "5": "great"}
RELATIONS = {
    **dict.fromkeys(("yes", "true", "entailment", "entailed", "implied"), "Yes"),
    **dict.fromkeys(("duplicate", "paraphrase", "equivalent", "same", "match", "related"), "Yes"),
    **dict.fromkeys(("maybe", "neutral", "unknown"), "Maybe"),
    **dict.fromkeys(("no", "false", "contradiction", "different", "unrelated", "mismatch"), "No"),
}
RELATION_ORDER = ("Yes", "Maybe", "No")
TRUTHS = ("yes", "no", "true", "false", "y", "n", "t", "f")
NUMBERED = re.compile(r"((label|class|category|cat|type|topic|cluster|group|intent|.)? ?\d+)|.")
ALTERNATIVES = re.compile(r"\s*[/|&,;]\s*")
ALTERNATIVE_WORDS = re.compile(r"\s+(?:and|or)\s+", re.IGNORECASE)
SHORTEST = 3  # letters of an alternative: "Q&A" has none


def in_order(labels: Iterable[str]) -> list[str]:
    """The labels in an order that does not depend on that of the rows.

    Judgements from worst to best, numbers by value, relations from yes to no, others by name.

    >>> in_order(["positive", "neutral", "negative"]), in_order(["10", "9"])
    (['negative', 'neutral', 'positive'], ['9', '10'])
    """
    labels = sorted(set(labels))
    if judged := _levels(labels):
        return sorted(labels, key=lambda label: judged[label])
    if related := relation_words(labels):
        return sorted(labels, key=lambda label: RELATION_ORDER.index(related[label][0]))
    try:
        return sorted(labels, key=float)
    except ValueError:
        return sorted(labels, key=_natural)


def judgement_words(labels: Sequence[str]) -> Words:
    """Adjectives for labels that judge, such as negative and positive, or 1 to 5 stars.

    Empty if one of the labels does not judge.

    >>> judgement_words(["negative", "positive"])
    {'negative': ('terrible',), 'positive': ('great',)}
    >>> judgement_words(["positive", "spam"])
    {}
    """
    levels = _levels(labels)
    if not levels:
        return {}
    words: Words = {label: (_adjective(label, levels),) for label in labels}
    return words if len(set(words.values())) == len(labels) else {}


def relation_words(labels: Sequence[str]) -> Words:
    """Yes, Maybe and No for labels that say how two texts are related; empty for others.

    >>> relation_words(["entailment", "not_entailment"])
    {'entailment': ('Yes',), 'not_entailment': ('No',)}
    """
    words: Words = {}
    for label in labels:
        name = _plain(label)
        negated = re.sub(r"^(not?|non|un|dis) ", "", name)
        word = RELATIONS.get(name) or ("No" if RELATIONS.get(negated) == "Yes" else "")
        words[label] = (word,)
    unique = set(words.values())
    return words if len(unique) == len(labels) > 1 and ("",) not in unique else {}


def words_from_names(labels: Sequence[str]) -> Words:
    """Words for labels of any kind: their names, as one would write them in a sentence.

    The case stays as it is written, for a German noun or a name needs its capital, unless all
    labels are in capitals. Raises `UserError` if labels differ in nothing that a word shows.

    >>> words_from_names(["Sci/Tech", "card_not_working", "accountIssue"])
    {'Sci/Tech': ('Sci', 'Tech'), 'card_not_working': ('card not working',), \
'accountIssue': ('account issue',)}
    """
    shouted = all(label == label.upper() for label in labels) and any(
        len(re.findall(r"[^\W\d_]", label)) > SHORTEST for label in labels
    )
    phrases = {label: _phrase(label.lower() if shouted else label) for label in labels}
    words = {label: _alternatives(phrase) for label, phrase in phrases.items()}
    counts = Counter(word.casefold() for group in words.values() for word in group)
    for label, phrase in phrases.items():
        if any(counts[word.casefold()] > 1 for word in words[label]):
            words[label] = (phrase,)
    raise_all(f"labels: {label!r} is blank" for label in labels if not label.strip())
    raise_all(_shared(words))
    return words


def weak_names(labels: Sequence[str]) -> list[str]:
    """The labels whose names do not say what they mean: numbers, letters, yes and no.

    >>> weak_names(["0", "LABEL_1", "spam", "no"])
    ['0', 'LABEL_1', 'no']
    """
    names = {label: _plain(label) for label in labels}
    return [
        label
        for label, name in names.items()
        if name in TRUTHS or NUMBERED.fullmatch(name) or not re.search(r"[^\W\d_]", name)
    ]


def _levels(labels: Sequence[str]) -> dict[str, float]:
    """How good each label is, if all of them say so and not all the same; else empty."""
    levels = {label: level for label in labels if (level := _level(label)) is not None}
    if len(levels) == len(labels) and len(set(levels.values())) > 1:
        return levels
    stars = {label: _stars(label) for label in labels}
    marked = any("star" in label.lower() for label in labels)
    if None in stars.values() or not (marked or set(stars.values()) == set(STARS)):
        return {}
    return {label: float(star) - 3 for label, star in stars.items() if star}


def _level(label: str) -> float | None:
    degree, _, name = _plain(label).rpartition(" ")
    base = POLARITIES.get(name, QUALITIES.get(name))
    if base is None or (degree and degree not in DEGREES):
        return None
    strength = DEGREES.get(degree, 0) / (1 if name in POLARITIES else 2)
    return base + strength * (base > 0) - strength * (base < 0)


def _stars(label: str) -> str | None:
    match = re.fullmatch(r"([1-5])(?:\.0)?(?: ?stars?)?", _plain(label))
    return match[1] if match else None


def _adjective(label: str, levels: dict[str, float]) -> str:
    """The word of a label that judges: its own if that is an adjective."""
    name = _plain(label)
    if star := _stars(label):
        return STARS[star]
    if name.rpartition(" ")[2] in QUALITIES or name == "mixed":
        return name
    level = levels[label]
    side = {abs(value) for value in levels.values() if value * level > 0}
    rank = sorted(side, reverse=True).index(abs(level)) if level else 0
    words = NEGATIVE_WORDS if level < 0 else POSITIVE_WORDS if level else ("okay",)
    return words[min(rank, len(words) - 1)]


def _phrase(name: str) -> str:
    """A name as words with spaces between them; the name itself if nothing would be left."""
    words = re.sub(r"(?<=[a-z]{2})(?=[A-Z][a-z])", " ", name)
    words = re.sub(r"(?<=\w)-(?=\w)", " ", words.replace("_", " "))
    words = " ".join(words.split())
    if words[:1].islower() and words != name:
        words = words.lower()
    return words or name.strip() or name


def _alternatives(phrase: str) -> tuple[str, ...]:
    """The names that a phrase lists, as in "Sci/Tech"; else the phrase."""
    single = ALTERNATIVE_WORDS.split(phrase)
    parts = ALTERNATIVES.split(phrase)
    if len(parts) == 1 and all(" " not in word for word in single):
        parts = single
    if any(len(re.findall(r"[^\W\d_]", part)) < SHORTEST for part in parts):
        return (phrase,)
    return tuple({part.casefold(): part for part in reversed(parts)}.values())[::-1]


def _shared(words: Words) -> Iterator[str]:
    owners: dict[str, list[str]] = {}
    for label, group in words.items():
        for word in group:
            owners.setdefault(word.casefold(), []).append(label)
    for word, labels in owners.items():
        if len(labels) > 1:
            yield (
                f"labels: {listed(labels)} are the same label word, {word!r}; write one name for "
                "one label in the table, or names that differ in more than case and punctuation"
            )


def _plain(label: str) -> str:
    return _phrase(label).lower()


def _natural(label: str) -> list[tuple[int, int, str]]:
    """A key that orders numbers in names by value."""
    parts = re.split(r"(\d+)", label.casefold())
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in parts if p]
