"""The classifier: its losses, what it is made of, and what transformers makes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import HAPPY, SAD, sharpened
from torch.nn import functional
from transformers import pipeline

from pet_pipeline.classifier import (
    Classifier,
    distill_classifier,
    encode_texts,
    save_classifier,
    tune_classifier,
)
from pet_pipeline.config import Distill, Machine, Optimiser
from pet_pipeline.errors import UserError
from pet_pipeline.pretrained import load_tokenizer, new_classifier

TEXTS = ["a", "a very good day and a very bad night", "the film", "great food at the shop", "no"]
ROWS = [{"text": text} for text in TEXTS]


def machine(batch_tokens: int = 6000) -> Machine:
    return Machine(device="cpu", precision="float32", threads=1, batch_tokens=batch_tokens)


def saved(tiny_mlm: Path, folder: Path, columns: list[str]) -> Path:
    torch.manual_seed(0)
    model, tokenizer = new_classifier(tiny_mlm, ("sad", "happy", "so so")), load_tokenizer(tiny_mlm)
    sharpened(model)
    save_classifier(model, tokenizer, folder, columns, 16)
    return folder


def test_transformers_gives_the_same_labels_and_scores(tiny_mlm: Path, tmp_path: Path) -> None:
    folder = saved(tiny_mlm, tmp_path, ["text"])
    classifier = Classifier(folder, machine())
    probs = classifier.predict(ROWS)
    assert classifier.labels == ["sad", "happy", "so so"]
    assert classifier.columns == ["text"]
    assert classifier.max_tokens == 16
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-6)
    assert np.ptp(probs[:, 0]) > 0.01
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


def test_further_columns_become_the_pair(tiny_mlm: Path) -> None:
    tokenizer = load_tokenizer(tiny_mlm)
    row = {"a": " the film ", "b": "was good", "c": "again "}
    found = encode_texts(tokenizer, [row], ["a", "b", "c"], 32)
    expected = tokenizer(["the film"], ["was good again"])
    assert found == {name: expected[name] for name in tokenizer.model_input_names}


def test_folders_without_a_classifier(tiny_mlm: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no classifier; name the folder that a run's last lines"):
        Classifier(tmp_path)
    with pytest.raises(UserError, match="a model without a classification head; name a classifier"):
        Classifier(tiny_mlm)


def test_weights_are_saved_in_float32(tiny_mlm: Path, tmp_path: Path) -> None:
    model = Classifier(saved(tiny_mlm, tmp_path, ["text"]), machine()).model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def without_dropout(tiny_mlm: Path) -> Any:
    torch.manual_seed(0)
    model = sharpened(new_classifier(tiny_mlm, ("sad", "happy")))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def logits_of(model: Any, texts: list[str], tokenizer: Any) -> torch.Tensor:
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits: torch.Tensor = model(**inputs).logits
    return logits


@pytest.mark.parametrize("batch_tokens", [1, 20, 6000])
def test_the_loss_on_gold_labels_is_cross_entropy(tiny_mlm: Path, batch_tokens: int) -> None:
    model, tokenizer = without_dropout(tiny_mlm), load_tokenizer(tiny_mlm)
    gold = [0] * 4 + [1] * 4
    expected = functional.cross_entropy(
        logits_of(model, SAD + HAPPY, tokenizer), torch.tensor(gold)
    )
    loss = tune_classifier(
        model,
        encode_texts(tokenizer, [{"text": text} for text in SAD + HAPPY], ["text"], 32),
        gold,
        tokenizer.pad_token_id,
        optimiser=Optimiser(batch_size=8),
        steps=1,
        seed=1,
        machine=machine(batch_tokens),
        what="test",
    )
    assert loss == pytest.approx(float(expected), abs=1e-4)


@pytest.mark.parametrize("batch_tokens", [1, 6000])
@pytest.mark.parametrize(("gold_weight", "labelled"), [(0.3, True), (0.0, True), (0.3, False)])
def test_the_loss_on_soft_labels_is_the_divergence_at_a_temperature(
    tiny_mlm: Path, gold_weight: float, labelled: bool, batch_tokens: int
) -> None:
    model, tokenizer = without_dropout(tiny_mlm), load_tokenizer(tiny_mlm)
    probs = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
    chosen = [2, 0]
    soft = torch.tensor(probs[chosen] ** 0.5)
    soft /= soft.sum(1, keepdim=True)
    student = (logits_of(model, [SAD[2], SAD[0]], tokenizer) / 2).log_softmax(-1)
    divergence = 4 * float((soft * (soft.log() - student)).sum(1).mean())
    truth = functional.cross_entropy(
        logits_of(model, [SAD[0], HAPPY[0]], tokenizer), torch.tensor([0, 1])
    )
    g = gold_weight if labelled else 0.0
    rows = [{"text": text} for text in SAD[:3]]
    loss = distill_classifier(
        model,
        encode_texts(tokenizer, rows, ["text"], 32),
        probs,
        [chosen],
        encode_texts(tokenizer, [{"text": SAD[0]}, {"text": HAPPY[0]}], ["text"], 32)
        if labelled
        else None,
        [0, 1],
        tokenizer.pad_token_id,
        settings=Distill(steps=1, batch_size=8, gold_weight=gold_weight, temperature=2.0),
        seed=1,
        machine=machine(batch_tokens),
        what="test",
    )
    assert loss == pytest.approx((1 - g) * divergence + g * float(truth), abs=1e-3)


def test_it_learns_what_soft_labels_say(tiny_mlm: Path) -> None:
    torch.manual_seed(0)
    model, tokenizer = new_classifier(tiny_mlm, ("sad", "happy")), load_tokenizer(tiny_mlm)
    pool = encode_texts(tokenizer, [{"text": text} for text in SAD + HAPPY], ["text"], 32)
    probs = np.array([[0.8, 0.2]] * 4 + [[0.2, 0.8]] * 4)
    steps = 60
    distill_classifier(
        model,
        pool,
        probs,
        [list(range(8))] * steps,
        None,
        [],
        tokenizer.pad_token_id,
        settings=Distill(steps=steps, learning_rate=3e-3),
        seed=1,
        machine=machine(),
        what="test",
    )
    logits = logits_of(model, SAD + HAPPY, tokenizer)
    assert logits.argmax(1).tolist() == [0] * 4 + [1] * 4
    np.testing.assert_allclose(logits.softmax(-1), probs, atol=0.15)
