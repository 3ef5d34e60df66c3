"""Rows in, scores out: in order, the same in any batches."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import sharpened

from pet_pipeline.classifier import encode_texts
from pet_pipeline.config import Machine
from pet_pipeline.encoding import PatternEncoder, collate
from pet_pipeline.inference import classify_rows, pad_inputs, score_rows
from pet_pipeline.mlm import label_scores
from pet_pipeline.patterns import Pattern, parse_template
from pet_pipeline.pretrained import load_mlm, load_tokenizer, new_classifier

TEXTS = ["a", "a very good day and a very bad night", "the film", "great food at the shop", "no"]
ROWS = [{"text": text} for text in TEXTS]


def machine(batch_tokens: int = 6000) -> Machine:
    return Machine(device="cpu", precision="float32", threads=1, batch_tokens=batch_tokens)


@pytest.mark.parametrize("words", [(("bad",), ("good",)), (("come back",), ("good",))])
def test_scores_keep_their_order_in_any_batches(
    tiny_mlm: Path, words: tuple[tuple[str, ...], ...]
) -> None:
    model = sharpened(load_mlm(tiny_mlm))
    pattern = Pattern("p", parse_template("{text} so {mask}"), ("a", "b"), words)
    encoder = PatternEncoder(pattern, load_tokenizer(tiny_mlm), 48)
    encoded = encoder.encode(ROWS)

    def scores(batch_tokens: int, rows: list[int]) -> np.ndarray:
        return score_rows(
            model,
            [encoded[n] for n in rows],
            encoder.layout,
            encoder.words,
            machine=machine(batch_tokens),
            what="test",
        )

    whole = scores(6000, [0, 1, 2, 3, 4])
    assert whole.shape == (5, 2)
    assert np.diff(np.sort(whole[:, 0])).min() > 1e-3
    for batch_tokens in (1, 20):
        np.testing.assert_allclose(scores(batch_tokens, [4, 3, 2, 1, 0])[::-1], whole, atol=1e-5)
    assert scores(100, []).shape == (0, 2)


def test_words_of_several_tokens_are_decoded_as_asked(tiny_mlm: Path) -> None:
    model = sharpened(load_mlm(tiny_mlm))
    words = (("come back",), ("good",))
    pattern = Pattern("p", parse_template("{text} so {mask}"), ("a", "b"), words)
    encoder = PatternEncoder(pattern, load_tokenizer(tiny_mlm), 48)
    rows = encoder.encode(ROWS)
    confident, parallel = (
        score_rows(
            model,
            rows,
            encoder.layout,
            encoder.words,
            machine=machine(),
            what="test",
            decoding=decoding,
        )
        for decoding in ("confident", "parallel")
    )
    slots = torch.tensor([row.slot for row in rows])
    with torch.no_grad():
        expected = label_scores(model, collate(rows, encoder.layout), slots, encoder.words)
    np.testing.assert_allclose(parallel, expected.numpy(), atol=1e-4)
    assert np.abs(confident - parallel).max() > 0.1


def test_a_model_is_scored_as_it_is_used(tiny_mlm: Path) -> None:
    pattern = Pattern("p", parse_template("{text} {mask}"), ("a", "b"), (("bad",), ("good",)))
    encoder = PatternEncoder(pattern, load_tokenizer(tiny_mlm), 48)
    model = sharpened(load_mlm(tiny_mlm)).train()  # dropout would change the scores
    found = [
        score_rows(
            model.train(),
            encoder.encode(ROWS),
            encoder.layout,
            encoder.words,
            machine=machine(),
            what="test",
        )
        for _ in range(2)
    ]
    assert (found[0] == found[1]).all()
    assert found[0].dtype == np.float32


def test_logits_keep_their_order_in_any_batches(tiny_mlm: Path) -> None:
    model, tokenizer = new_classifier(tiny_mlm, ("a", "b")), load_tokenizer(tiny_mlm)
    sharpened(model)
    encodings = encode_texts(tokenizer, ROWS, ["text"], 32)
    pad = tokenizer.pad_token_id
    with torch.no_grad():
        expected = [
            model(**pad_inputs(encodings, [n], pad, torch.device("cpu"))).logits[0].tolist()
            for n in range(len(ROWS))
        ]
    assert np.diff(np.sort(np.array(expected)[:, 0])).min() > 1e-3
    for size in (1, 20, 6000):
        found = classify_rows(model, encodings, pad, machine=machine(size), what="test")
        np.testing.assert_allclose(found, expected, atol=1e-4)
    nothing = {name: [] for name in encodings}
    assert classify_rows(model, nothing, pad, machine=machine(), what="t").shape == (0, 2)


def test_inputs_are_padded_by_their_kind() -> None:
    encodings = {"input_ids": [[5, 6, 7], [8]], "attention_mask": [[1, 1, 1], [1]]}
    inputs = pad_inputs(encodings, [1, 0], 3, torch.device("cpu"))
    assert inputs["input_ids"].tolist() == [[8, 3, 3], [5, 6, 7]]
    assert inputs["attention_mask"].tolist() == [[1, 0, 0], [1, 1, 1]]
