"""Scores and classifiers: in order, the same for any batch, and what transformers makes of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import pipeline

from pet_pipeline.classifier import Classifier, encode_texts, save_classifier
from pet_pipeline.config import Machine
from pet_pipeline.encoding import PatternEncoder
from pet_pipeline.inference import classify_rows, score_rows
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
    model = load_mlm(tiny_mlm)
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
    assert len(np.unique(whole[:, 0])) == 5
    for batch_tokens in (1, 20):
        np.testing.assert_allclose(scores(batch_tokens, [4, 3, 2, 1, 0])[::-1], whole, atol=1e-5)
    assert scores(100, []).shape == (0, 2)


def saved(tiny_mlm: Path, folder: Path, columns: list[str]) -> Path:
    torch.manual_seed(0)
    model, tokenizer = new_classifier(tiny_mlm, ("sad", "happy", "so so")), load_tokenizer(tiny_mlm)
    torch.nn.init.normal_(model.classifier.weight, std=2.0)
    save_classifier(model, tokenizer, folder, columns, 16)
    return folder


def test_transformers_gives_the_same_labels_and_scores(tiny_mlm: Path, tmp_path: Path) -> None:
    folder = saved(tiny_mlm, tmp_path, ["text"])
    classifier = Classifier(folder, machine())
    probs = classifier.predict(ROWS)
    assert classifier.labels == ["sad", "happy", "so so"]
    assert classifier.columns == ["text"]
    theirs = pipeline("text-classification", model=str(folder), top_k=None)(TEXTS, truncation=True)
    for row, found in zip(probs, theirs, strict=True):
        by_label = {entry["label"]: entry["score"] for entry in found}
        assert [by_label[label] for label in classifier.labels] == pytest.approx(
            row.tolist(), abs=1e-5
        )


def test_pairs_are_read_as_pairs(tiny_mlm: Path, tmp_path: Path) -> None:
    classifier = Classifier(saved(tiny_mlm, tmp_path, ["a", "b"]), machine())
    probs = classifier.predict([{"a": "the film", "b": "was good"}])
    theirs = pipeline("text-classification", model=str(tmp_path), top_k=None)
    found = theirs({"text": "the film", "text_pair": "was good"})
    by_label = {entry["label"]: entry["score"] for entry in found}
    assert [by_label[label] for label in classifier.labels] == pytest.approx(
        probs[0].tolist(), abs=1e-5
    )


def test_long_texts_are_cut_and_special_words_are_text(tiny_mlm: Path) -> None:
    tokenizer = load_tokenizer(tiny_mlm)
    encodings = encode_texts(
        tokenizer, [{"text": "[SEP] [MASK]"}, {"text": "day " * 99}], ["text"], 12
    )
    assert len(encodings["input_ids"][1]) == 12
    assert tokenizer.mask_token_id not in encodings["input_ids"][0]
    assert encodings["input_ids"][0].count(tokenizer.sep_token_id) == 1


def test_logits_keep_their_order_in_any_batches(tiny_mlm: Path) -> None:
    torch.manual_seed(0)
    model, tokenizer = new_classifier(tiny_mlm, ("a", "b")), load_tokenizer(tiny_mlm)
    encodings = encode_texts(tokenizer, ROWS, ["text"], 32)
    found = [
        classify_rows(model, encodings, tokenizer.pad_token_id, machine=machine(size), what="test")
        for size in (1, 6000)
    ]
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
