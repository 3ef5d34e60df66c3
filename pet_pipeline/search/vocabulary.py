"""Which tokens of a model are words that a person can read, whatever the tokenizer.

A token is a word at some location if the tokenizer makes exactly that token of the token's own
text there. So neither `##ly`, nor `Ġ` or `▁`, nor upper case need a rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property

import numpy as np
import numpy.typing as npt

from pet_pipeline.encoding import Tokenizer
from pet_pipeline.search.templates import ONE_LETTER, PUNCTUATION

WORD = re.compile(r"[^\W\d_]+")

Mask = npt.NDArray[np.bool_]
Tokenise = Callable[[Sequence[str]], Sequence[Sequence[int]]]  # words -> the tokens of each


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
        """(tokens,) True for words as they are after a space."""
        return self.words(lambda texts: self._tokenise([f" {text}" for text in texts]))

    @cached_property
    def first(self) -> Mask:
        """(tokens,) True for words as they are at the beginning of an input."""
        return self.words(self._tokenise)

    @cached_property
    def attached(self) -> Mask:
        """(tokens,) True for punctuation as it is at the end of a word."""
        alone, *marked = self._tokenise(["a", *(f"a{mark}" for mark in PUNCTUATION)])
        attached = np.zeros(len(self.texts), bool)
        for tokens in marked:
            if len(tokens) == len(alone) + 1:
                attached[tokens[-1]] = True
        return attached

    def words(self, tokenise: Tokenise) -> Mask:
        """(tokens,) True for those that are words at some location.

        tokenise: the tokens that words have at that location
        """
        readable = [
            n
            for n, text in enumerate(self.texts)
            if WORD.fullmatch(text) and (len(text) > 1 or text.lower() in ONE_LETTER)
        ]
        words = np.zeros(len(self.texts), bool)
        for n, tokens in zip(readable, tokenise([self.texts[n] for n in readable]), strict=True):
            words[n] = list(tokens) == [n]
        return words

    def numbers(self, words: Iterable[str]) -> set[int]:
        """The tokens that are one of some words, in upper or lower case, at any location."""
        wanted = {word.lower() for word in words}
        return {n for n, text in enumerate(self.texts) if text.lower() in wanted}

    def text_of(self, ids: Iterable[int]) -> str:
        """Tokens as text: words with spaces between them, punctuation at their ends."""
        text = ""
        for n in ids:
            attached = self.attached[n] or not text
            text += self.texts[n] if attached else f" {self.texts[n]}"
        return text

    def _tokenise(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        encoded = self._tokenizer(list(texts), add_special_tokens=False)
        tokens: list[list[int]] = encoded["input_ids"]
        return tokens
