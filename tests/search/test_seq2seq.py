"""A tiny random T5 writes the same candidates as an exhaustive search."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from testing import CPU, save_t5, sharpened

from pet_pipeline.errors import UserError
from pet_pipeline.models import ModelFolder
from pet_pipeline.pretrained import load_tokenizer
from pet_pipeline.search.seq2seq import (
    Seq2SeqLM,
    Written,
    sentinels_of,
    seq2seq_templates,
    source_of,
    writable_tokens,
    write,
)
from pet_pipeline.search.templates import LabelledTexts, locations

LABEL_WORDS = (("bad",), ("great",))


@pytest.fixture(scope="session")
def tiny_t5(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return ModelFolder(save_t5(tmp_path_factory.mktemp("t5")))


def slow_score(model: Any, sources: list[list[int]], tokens: list[int], first: int) -> float:
    """The mean over the sources of a target's log-probability, without cache, beams or padding."""
    total = 0.0
    for source in sources:
        with torch.inference_mode():
            logits = model(
                input_ids=torch.tensor([source]),
                decoder_input_ids=torch.tensor([[0, first, *tokens[:-1]]]),
            ).logits[0]
        log_probs = logits[1:].log_softmax(-1)
        total += float(sum(log_probs[n, token] for n, token in enumerate(tokens)))
    return total / len(sources)


def test_the_same_candidates_as_an_exhaustive_search(tiny_t5: ModelFolder) -> None:
    lm = Seq2SeqLM.load(tiny_t5, CPU)
    sharpened(lm.model)
    sentinels = lm.sentinels
    allowed = writable_tokens(lm.tokenizer)[:3]
    sources = [
        [9, 10, *sentinels[:1], 12, sentinels[1], 1],
        [20, *sentinels[:1], 13, sentinels[1], 14, 15, 16, 1],
    ]
    expected = {}
    for n_left, n_right in itertools.product((1, 2), repeat=2):
        for tokens in itertools.product(allowed, repeat=n_left + n_right):
            target = [*tokens[:n_left], sentinels[1], *tokens[n_left:], sentinels[2]]
            score = slow_score(lm.model, sources, target, sentinels[0])
            expected[tokens[:n_left], tokens[n_left:]] = score
    found = write(lm, sources, allowed, beam=1000, most_tokens=2)
    assert {(w.left, w.right) for w in found} == set(expected)
    for entry in found:
        assert entry.score == pytest.approx(expected[entry.left, entry.right], rel=1e-5)
    assert found == sorted(found, key=lambda entry: -entry.score)
    few = write(lm, sources, allowed, beam=3, most_tokens=2)
    assert 1 <= len(few) <= 3
    assert all(isinstance(entry, Written) for entry in few)


def test_a_source_is_the_row_with_its_label_word_between_sentinels(tiny_t5: ModelFolder) -> None:
    lm = Seq2SeqLM.load(tiny_t5, CPU)
    sentinels = lm.sentinels
    row = {"x": "the food was <extra_id_0>", "y": "We come again."}
    last, first, between = locations(["x", "y"])
    ids = source_of(last, row, "great", lm, 64)
    assert ids.count(sentinels[0]) == 1  # the text's own is not read as one
    assert ids[-1] == lm.tokenizer.eos_token_id
    assert ids[-2] == sentinels[1]
    begun = source_of(first, row, "great", lm, 64)
    assert begun[0] == sentinels[0]
    inside = source_of(between, row, "great", lm, 64)
    assert 0 < inside.index(sentinels[0]) < inside.index(sentinels[1]) < len(inside) - 2
    cut = source_of(between, row, "great", lm, 2)
    assert cut[:2] == inside[inside.index(sentinels[0]) - 2 : inside.index(sentinels[0])]
    after = inside.index(sentinels[1]) + 1
    assert cut[cut.index(sentinels[1]) + 1 : -1] == inside[after : after + 2]


def test_templates_are_readable_and_new(tiny_t5: ModelFolder) -> None:
    rows = [{"x": "the food was so"}, {"x": "a film of my team"}]
    texts = LabelledTexts(rows, [0, 1], ["x"], LABEL_WORDS)
    found = seq2seq_templates(Seq2SeqLM.load(tiny_t5, CPU), texts, beam=12, max_tokens=32)
    assert len(found) == 2
    templates = [c.template for group in found for c in group]
    assert templates
    for template in templates:
        assert "{x}" in template
        assert "{mask}" in template
        assert "extra_id" not in template
        assert not {"bad", "great"} & set(template.split())


def test_a_model_without_sentinels_is_refused(tiny_mlm: Path) -> None:
    with pytest.raises(UserError, match=r"search.t5: .* has no <extra_id_0>; name a T5"):
        sentinels_of(load_tokenizer(ModelFolder(tiny_mlm)))
