"""Which tokens of a model are words that a person can read, whatever the tokenizer.

A token is a word at a place if the tokenizer makes exactly that token of the token's own text
there. So neither `##ly`, nor `Ġ` or `▁`, nor upper case need a rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pet_pipeline.encoding import Tokenizer
from pet_pipeline.search.templates import ONE_LETTER, PUNCTUATION

WORD = re.compile(r"[^\W\d_]+")

Mask = npt.NDArray[np.bool_]


class Vocabulary:
    """The tokens of a tokenizer as words and punctuation."""

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        special = set(tokenizer.all_special_ids)
        self.texts = [
            ""
            if n in special
            else tokenizer.convert_tokens_to_string([token or ""]).strip().removeprefix("##")
            for n, token in enumerate(tokenizer.convert_ids_to_tokens(range(len(tokenizer))))
        ]

    @cached_property
    def inside(self) -> Mask:
        """(tokens,) True for words that stand after a space."""
        return self.words(lambda texts: self._spell([f" {text}" for text in texts]))

    @cached_property
    def first(self) -> Mask:
        """(tokens,) True for words that stand first in an input."""
        return self.words(self._spell)

    @cached_property
    def attached(self) -> Mask:
        """(tokens,) True for punctuation that stands at the end of a word."""
        alone, *marked = self._spell(["a", *(f"a{mark}" for mark in PUNCTUATION)])
        found = np.zeros(len(self.texts), bool)
        for tokens in marked:
            if len(tokens) == len(alone) + 1:
                found[tokens[-1]] = True
        return found

    def words(self, spell: Callable[[Sequence[str]], Sequence[Sequence[int]]]) -> Mask:
        """(tokens,) True for those that are words at some place; spell: words' tokens there."""
        readable = [
            n
            for n, text in enumerate(self.texts)
            if WORD.fullmatch(text) and (len(text) > 1 or text.lower() in ONE_LETTER)
        ]
        found = np.zeros(len(self.texts), bool)
        for n, tokens in zip(readable, spell([self.texts[n] for n in readable]), strict=True):
            found[n] = list(tokens) == [n]
        return found

    def numbers(self, words: Sequence[str]) -> set[int]:
        """The tokens that are one of some words, in any case and at any place."""
        wanted = {word.lower() for word in words}
        return {n for n, text in enumerate(self.texts) if text.lower() in wanted}

    def _spell(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        tokens: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=False)[
            "input_ids"
        ]
        return tokens
