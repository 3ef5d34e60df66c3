"""Words are told from pieces of words by what the tokenizer does, for every kind of it."""

from __future__ import annotations

import pytest
from testing import TOKENIZERS, WORDS

from pet_pipeline.encoding import PatternEncoder
from pet_pipeline.patterns import pattern_of
from pet_pipeline.search.templates import Location
from pet_pipeline.search.vocabulary import Vocabulary


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_words_are_tokens_that_their_text_makes(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]()
    vocabulary = Vocabulary(tokenizer)
    inside = {vocabulary.texts[n]: int(n) for n in vocabulary.inside.nonzero()[0]}
    assert {word for word in WORDS if len(word) > 1} <= set(inside)
    for text, n in inside.items():
        assert tokenizer(f" {text}", add_special_tokens=False)["input_ids"] == [n]
        assert text.isalpha()
    for n in vocabulary.first.nonzero()[0]:
        assert tokenizer(vocabulary.texts[n], add_special_tokens=False)["input_ids"] == [n]
    special = set(tokenizer.all_special_ids)
    assert not special & set((vocabulary.inside | vocabulary.first).nonzero()[0].tolist())
    marks = {vocabulary.texts[n] for n in vocabulary.attached.nonzero()[0]}
    assert marks == set(".,:;!?")


@pytest.mark.parametrize(
    "template", ["{x} it was {mask}", "{mask} {x}", "{x} ({mask})", '"{mask}" {x}']
)
@pytest.mark.parametrize("kind", TOKENIZERS)
def test_words_at_a_mask_are_one_token_there(kind: str, template: str) -> None:
    tokenizer = TOKENIZERS[kind]()
    pattern = pattern_of("p", template, ("a", "b"), (("bad",), ("good",)))
    encoder = PatternEncoder(pattern, tokenizer, 64)
    vocabulary = Vocabulary(tokenizer)
    found = vocabulary.words(encoder.tokens_at_mask).nonzero()[0][:50]
    assert len(found) > 20
    words = [vocabulary.texts[n] for n in found]
    written = PatternEncoder(
        pattern_of("p", template, ("a", "b"), (tuple(words[::2]), tuple(words[1::2]))),
        tokenizer,
        64,
    )
    assert sorted(token for word in written.words.words for token in word) == sorted(found.tolist())
    assert written.words.n_masks == 1


def test_numbers_of_words_in_any_form() -> None:
    vocabulary = Vocabulary(TOKENIZERS["bytelevel"]())
    found = {vocabulary.texts[n] for n in vocabulary.numbers(["GOOD"])}
    assert found == {"good"}
    assert len(vocabulary.numbers(["good"])) == 2  # with and without a space before


def test_tokens_as_text() -> None:
    tokenizer = TOKENIZERS["wordpiece"]()
    vocabulary = Vocabulary(tokenizer)
    ids = tokenizer("the film, so good.", add_special_tokens=False)["input_ids"]
    assert vocabulary.text_of(ids) == "the film, so good."
    comma = vocabulary.text_of(ids[2:3])
    assert Location("{x}", "").template(comma, "") == "{x}, {mask}"
