"""Where trainable prompt tokens stand in a template, and what each of them starts at."""

from __future__ import annotations

from dataclasses import dataclass, replace

from pet_pipeline.patterns import Field, Pattern


@dataclass(frozen=True)
class SoftTokens:
    """Soft tokens for patterns that have none of their own.

    length: how many come first, before all else; words: instead, those they start at;
    template: the template's own words become soft tokens, in every pattern
    """

    length: int = 0
    words: str = ""
    template: bool = False

    def put_in(self, pattern: Pattern) -> Pattern:
        """The pattern with `{soft}` fields; its own are kept.

        >>> from pet_pipeline.patterns import pattern_of, template_of
        >>> pattern = pattern_of("so", "{text} It was {mask}.", ("a", "b"), (("no",), ("yes",)))
        >>> template_of(SoftTokens(length=3).put_in(pattern))
        '{soft:3} {text} It was {mask}.'
        >>> template_of(SoftTokens(template=True).put_in(pattern))
        '{text} {soft:It was} {mask}{soft:.}'
        """
        parts: list[str | Field] = []
        for part in pattern.parts:
            parts += _soft_words(part) if self.template and isinstance(part, str) else [part]
        if not pattern.has_soft and not self.template and (self.words or self.length):
            parts = [Field("soft", (self.words or str(self.length),)), " ", *parts]
        return replace(pattern, parts=tuple(parts))


@dataclass(frozen=True)
class NearWord:
    """A token of the vocabulary, and the cosine of the angle to a soft token."""

    word: str
    cosine: float


@dataclass(frozen=True)
class SoftTokenWords:
    """The word that a soft token started at, "" for another prompt, and those nearest to it."""

    start: str
    nearest: list[NearWord]


def soft_count(field: Field) -> int | None:
    """How many tokens a `{soft}` field has; None if that is up to its words.

    >>> soft_count(Field("soft")), soft_count(Field("soft", ("8",)))
    (1, 8)
    """
    text = field.specs[0] if field.specs else "1"
    return int(text) if text.isdecimal() else None


def _soft_words(literal: str) -> list[str | Field]:
    """The words of a template's literal text as a soft field, with the spaces around them."""
    words = literal.strip()
    if not words:
        return [literal]
    before, after = literal[: literal.index(words)], literal[literal.index(words) + len(words) :]
    written = f" {words}" if words.isdecimal() else words  # else it would be a number of tokens
    return [part for part in (before, Field("soft", (written,)), after) if part]
