"""The classifier: its losses, what it is made of, and what transformers makes of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import softmax
from testing import ARCHITECTURES, CPU, HAPPY, SAD, sharpened
from torch import Tensor
from torch.nn import functional
from transformers import AutoTokenizer, pipeline

from pet_pipeline.classifier import Classifier, Labelled, SoftLabelled, encode_texts
from pet_pipeline.encoded import Encoded, Role
from pet_pipeline.errors import UserError
from pet_pipeline.models import ModelFolder
from pet_pipeline.optimisation import Distillation, Optimisation
from pet_pipeline.pretrained import load_tokenizer
from pet_pipeline.training import CHECKPOINT

TEXTS = ["a", "a very good day and a very bad night", "the film", "great food at the shop", "no"]
ROWS = [{"text": text} for text in TEXTS]
LABELLED = Labelled([{"text": text} for text in SAD + HAPPY], [0] * 4 + [1] * 4)


def new(
    folder: Path,
    columns: list[str],
    labels: tuple[str, ...] = ("sad", "happy"),
    max_tokens: int = 32,
) -> Classifier:
    return Classifier.new(ModelFolder(folder), labels, columns, max_tokens, seed=0, compute=CPU)


def saved(base: Path, folder: Path, columns: list[str]) -> Path:
    classifier = new(base, columns, ("sad", "happy", "so so"), 16)
    sharpened(classifier.model)
    classifier.save(folder)
    return folder


def scores_of(classifier: Classifier, theirs: list[dict[str, Any]]) -> list[float]:
    """What transformers' pipeline says of a text, in the order of the classifier's labels."""
    by_label = {entry["label"]: entry["score"] for entry in theirs}
    return [by_label[label] for label in classifier.labels]


def test_transformers_gives_the_same_labels_and_scores(tiny_mlm: Path, tmp_path: Path) -> None:
    folder = saved(tiny_mlm, tmp_path, ["text"])
    classifier = Classifier(folder, CPU)
    probs = classifier.predict_proba(ROWS)
    assert classifier.labels == ["sad", "happy", "so so"]
    assert classifier.columns == ["text"]
    assert classifier.max_tokens == 16
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-6)
    assert np.ptp(probs[:, 0]) > 0.01
    theirs = pipeline("text-classification", model=str(folder), top_k=None)(TEXTS, truncation=True)
    for row, found in zip(probs, theirs, strict=True):
        assert scores_of(classifier, found) == pytest.approx(row.tolist(), abs=1e-5)


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_a_text_with_special_tokens_has_the_same_scores_in_transformers(
    mlm_of: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    folder = saved(mlm_of(name), tmp_path, ["text"])
    classifier = Classifier(folder, CPU)
    special = [classifier.tokenizer.mask_token, classifier.tokenizer.sep_token]
    texts = [f"the film {token} was" for token in special] + [f"a {special[1]} {special[0]}"]
    probs = classifier.predict_proba([{"text": text} for text in texts])
    theirs = pipeline("text-classification", model=str(folder), top_k=None)(texts)
    for row, found in zip(probs, theirs, strict=True):
        assert scores_of(classifier, found) == pytest.approx(row.tolist(), abs=1e-5)
    # It would not be so by itself: there a special token in a text is one.
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.split_special_tokens
    assert tokenizer.model_max_length == 16
    one, split = (
        tokenizer(texts, split_special_tokens=split)["input_ids"] for split in (False, True)
    )
    assert all(a != b for a, b in zip(one, split, strict=True))


def test_a_classifier_that_is_saved_again_is_the_same(tiny_mlm: Path, tmp_path: Path) -> None:
    first = Classifier(saved(tiny_mlm, tmp_path / "first", ["a", "b"]), CPU)
    rows = [{"a": "the [MASK]", "b": "was good"}]
    probs = first.predict_proba(rows)
    first.save(tmp_path / "second")
    second = Classifier(tmp_path / "second", CPU)
    assert np.array_equal(second.predict_proba(rows), probs)
    assert np.array_equal(first.predict_proba(rows), probs)
    assert (second.columns, second.max_tokens) == (["a", "b"], 16)
    assert AutoTokenizer.from_pretrained(tmp_path / "second").split_special_tokens


def test_pairs_are_read_as_pairs(tiny_mlm: Path, tmp_path: Path) -> None:
    classifier = Classifier(saved(tiny_mlm, tmp_path, ["a", "b"]), CPU)
    probs = classifier.predict_proba([{"a": "the film", "b": "was good"}])
    theirs = pipeline("text-classification", model=str(tmp_path), top_k=None)
    found = theirs({"text": "the film", "text_pair": "was good"})
    assert scores_of(classifier, found) == pytest.approx(probs[0].tolist(), abs=1e-5)


def test_probabilities_keep_their_order_in_any_batches(tiny_mlm: Path) -> None:
    classifier = new(tiny_mlm, ["text"])
    sharpened(classifier.model)
    expected = logits_of(classifier, TEXTS).softmax(-1).numpy()
    assert np.diff(np.sort(expected[:, 0])).min() > 1e-5
    for batch_tokens in (1, 20, 6000):
        classifier.compute = replace(CPU, batch_tokens=batch_tokens)
        np.testing.assert_allclose(classifier.predict_proba(ROWS), expected, atol=1e-4)
    assert classifier.predict_proba([]).shape == (0, 2)


def test_long_texts_are_cut_and_special_words_are_text(tiny_mlm: Path) -> None:
    tokenizer = load_tokenizer(ModelFolder(tiny_mlm))
    texts = [{"text": "[SEP] [MASK]"}, {"text": "day " * 99}, {"text": ""}]
    special, long, empty = encode_texts(tokenizer, texts, ["text"], 12)
    assert len(long) == 12
    assert tokenizer.mask_token_id not in special.ids
    assert special.ids.count(tokenizer.sep_token_id) == 1
    assert long.roles == bytes([Role.SPECIAL, *[Role.TEXT] * 10, Role.SPECIAL])
    assert empty.roles == bytes([Role.SPECIAL] * 2)
    assert encode_texts(tokenizer, [], ["text"], 12) == []


def test_further_columns_become_the_pair(tiny_mlm: Path) -> None:
    tokenizer = load_tokenizer(ModelFolder(tiny_mlm))
    row = {"a": " the film ", "b": "was good", "c": "again "}
    (found,) = encode_texts(tokenizer, [row], ["a", "b", "c"], 32)
    expected = tokenizer("the film", "was good again", return_special_tokens_mask=True)
    roles = [Role.SPECIAL if s else Role.TEXT for s in expected["special_tokens_mask"]]
    ids, types = tuple(expected["input_ids"]), bytes(expected["token_type_ids"])
    assert found == Encoded(ids, bytes(roles), types)
    assert found.segments.count(1) == 4


def test_folders_without_a_classifier(tiny_mlm: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a model without a classification head; name a classifier"):
        Classifier(tiny_mlm)


def test_a_classifier_from_elsewhere_reads_a_column_text(tiny_mlm: Path, tmp_path: Path) -> None:
    theirs = new(tiny_mlm, ["text"])
    theirs.model.save_pretrained(tmp_path)
    theirs.tokenizer.save_pretrained(tmp_path)
    classifier = Classifier(tmp_path, CPU)
    assert (classifier.columns, classifier.max_tokens) == (["text"], 128)


def test_labels_of_texts_and_none_below_the_threshold(tiny_mlm: Path, tmp_path: Path) -> None:
    classifier = Classifier(saved(tiny_mlm, tmp_path, ["text"]), CPU)
    probs = classifier.predict_proba(TEXTS)
    highest = probs.max(1)
    names = [classifier.labels[n] for n in probs.argmax(1)]
    assert classifier.predict(TEXTS) == names
    assert classifier.predict(pd.Series(TEXTS), threshold=0.0) == names
    assert classifier.predict(pd.DataFrame({"text": TEXTS, "n": range(5)})) == names
    assert classifier.predict(TEXTS[0]) == names[:1]
    limit = float(np.median(highest))  # of one of the texts, which is answered
    expected = [name if p >= limit else None for name, p in zip(names, highest, strict=True)]
    assert classifier.predict(TEXTS, threshold=limit) == expected
    assert expected.count(None) == 2
    assert classifier.predict(TEXTS, threshold=1) == [None] * 5


def test_a_text_that_is_empty_has_no_label(tiny_mlm: Path) -> None:
    one, two = new(tiny_mlm, ["text"]), new(tiny_mlm, ["a", "b"])
    assert [name is None for name in one.predict(["", "a", None, " \n"])] == [
        True,
        False,
        True,
        True,
    ]
    pairs = [{"a": "", "b": "x"}, {"a": "", "b": ""}]
    assert [name is None for name in two.predict(pairs)] == [False, True]
    assert one.predict([]) == []


def test_problems_of_texts_and_thresholds(tiny_mlm: Path) -> None:
    classifier = new(tiny_mlm, ["text"])
    for method in (classifier.predict, classifier.predict_proba):
        with pytest.raises(UserError, match=r"^texts\[1\]: found 3 \(int\); a text is needed$"):
            method(["a", 3])
    with pytest.raises(UserError, match=r"^threshold: found 80; give a probability, from 0 to 1$"):
        classifier.predict(["a"], threshold=80)


def test_the_classifier_of_a_run_is_found(tiny_mlm: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    made = saved(tiny_mlm, run / "distill" / "classifier", ["text"])
    probs = Classifier(made, CPU).predict_proba(TEXTS)
    assert np.array_equal(Classifier(str(run), CPU).predict_proba(TEXTS), probs)


def test_weights_are_saved_in_float32(tiny_mlm: Path, tmp_path: Path) -> None:
    model = Classifier(saved(tiny_mlm, tmp_path, ["text"]), CPU).model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_the_seed_decides_the_new_head(tiny_mlm: Path) -> None:
    base, labels = ModelFolder(tiny_mlm), ("sad", "happy")
    heads = [
        Classifier.new(base, labels, ["text"], 32, seed=seed, compute=CPU).predict_proba(ROWS)
        for seed in (1, 1, 2)
    ]
    assert np.array_equal(heads[0], heads[1])
    assert not np.array_equal(heads[0], heads[2])


def without_dropout(tiny_mlm: Path) -> Classifier:
    classifier = new(tiny_mlm, ["text"])
    sharpened(classifier.model)
    for module in classifier.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return classifier


def logits_of(classifier: Classifier, texts: list[str]) -> Tensor:
    inputs = classifier.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits: Tensor = classifier.model.eval()(**inputs).logits
    return logits


@pytest.mark.parametrize("batch_tokens", [1, 20, 6000])
def test_the_loss_on_gold_labels_is_cross_entropy(tiny_mlm: Path, batch_tokens: int) -> None:
    classifier = without_dropout(tiny_mlm)
    logits = logits_of(classifier, SAD + HAPPY)
    expected = functional.cross_entropy(logits, torch.tensor(LABELLED.gold))
    optimisation = Optimisation(learning_rate=1e-4, batch_size=8, batch_tokens=batch_tokens)
    loss = classifier.tune(LABELLED, optimisation, 1, seed=1)
    assert loss == pytest.approx(float(expected), abs=1e-4)


def test_it_learns_from_labelled_rows(tiny_mlm: Path) -> None:
    classifier = new(tiny_mlm, ["text"])
    classifier.tune(LABELLED, Optimisation(3e-3, batch_size=8), 60, seed=1)
    assert classifier.predict_proba(LABELLED.rows).argmax(1).tolist() == LABELLED.gold


def distillation(batch_tokens: int = 6000, **options: Any) -> Distillation:
    optimisation = Optimisation(learning_rate=1e-4, batch_size=8, batch_tokens=batch_tokens)
    values = {"steps": 1, "temperature": 2.0, "gold_weight": 0.3, "max_tokens": 32}
    return Distillation(**{"optimisation": optimisation, **values, **options})


@pytest.mark.parametrize("batch_tokens", [1, 6000])
@pytest.mark.parametrize(("gold_weight", "labelled"), [(0.3, True), (0.0, True), (0.3, False)])
def test_the_loss_on_soft_labels_is_the_divergence_at_a_temperature(
    tiny_mlm: Path, gold_weight: float, labelled: bool, batch_tokens: int
) -> None:
    classifier = without_dropout(tiny_mlm)
    probs = np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]])
    chosen = [2, 0]
    soft = torch.tensor(probs[chosen] ** 0.5)
    soft /= soft.sum(1, keepdim=True)
    student = (logits_of(classifier, [SAD[2], SAD[0]]) / 2).log_softmax(-1)
    divergence = 4 * float((soft * (soft.log() - student)).sum(1).mean())
    gold = Labelled([{"text": SAD[0]}, {"text": HAPPY[0]}], [0, 1])
    truth = functional.cross_entropy(
        logits_of(classifier, [SAD[0], HAPPY[0]]), torch.tensor([0, 1])
    )
    g = gold_weight if labelled else 0.0
    pool = SoftLabelled([{"text": text} for text in SAD[:3]], probs, [chosen])
    loss = classifier.distill(
        pool,
        gold if labelled else None,
        distillation(batch_tokens, gold_weight=gold_weight),
        seed=1,
    )
    assert loss == pytest.approx((1 - g) * divergence + g * float(truth), abs=1e-3)


PROBS = np.array([[0.8, 0.2]] * 4 + [[0.2, 0.8]] * 4)


def test_it_learns_what_soft_labels_say(tiny_mlm: Path) -> None:
    classifier, steps = new(tiny_mlm, ["text"]), 60
    pool = SoftLabelled(LABELLED.rows, PROBS, [list(range(8))] * steps)
    optimisation = Optimisation(learning_rate=3e-3)
    classifier.distill(pool, None, distillation(optimisation=optimisation, steps=steps), seed=1)
    logits = logits_of(classifier, SAD + HAPPY)
    assert logits.argmax(1).tolist() == LABELLED.gold
    np.testing.assert_allclose(logits.softmax(-1), PROBS, atol=0.15)


class Stopped(Exception):
    pass


class Batches(list[list[int]]):
    """Rows of each step, until a step at which the run is interrupted."""

    stop: int | None = None

    def __getitem__(self, step: Any) -> Any:
        if step == self.stop:
            raise Stopped
        return super().__getitem__(step)


def test_an_interrupted_distillation_resumes_to_the_same_weights(
    tiny_mlm: Path, tmp_path: Path
) -> None:
    whole, stopped, resumed = (new(tiny_mlm, ["text"]) for _ in range(3))
    for classifier in (whole, stopped, resumed):
        classifier.compute = replace(CPU, checkpoint_seconds=0)
    batches = Batches([[n, n + 1, 7 - n] for n in range(6)])
    pool = SoftLabelled(LABELLED.rows, PROBS, batches)

    def run(classifier: Classifier, checkpoints: Path | None) -> float:
        settings = distillation(steps=6)
        return classifier.distill(pool, LABELLED, settings, seed=1, checkpoints=checkpoints)

    loss = run(whole, None)
    batches.stop = 4
    with pytest.raises(Stopped):
        run(stopped, tmp_path)
    assert (tmp_path / CHECKPOINT).exists()
    batches.stop = None
    torch.rand(3)
    assert run(resumed, tmp_path) == loss
    for name, parameter in whole.model.named_parameters():
        assert torch.equal(parameter, resumed.model.get_parameter(name)), name


@pytest.mark.parametrize("name", [*ARCHITECTURES])
def test_it_can_be_made_as_sure_as_wanted_in_every_architecture(
    mlm_of: Callable[[str], Path], name: str, tmp_path: Path
) -> None:
    classifier = new(mlm_of(name), ["text"], ("sad", "happy", "so so"))
    sharpened(classifier.model)
    before = np.log(classifier.predict_proba(ROWS))
    temperature = classifier.calibrate(ROWS, 0.6)
    after = classifier.predict_proba(ROWS)
    assert after.max(1).mean() == pytest.approx(0.6, abs=1e-3)
    np.testing.assert_allclose(after, softmax(before / temperature, axis=-1), atol=1e-4)
    classifier.save(tmp_path)
    np.testing.assert_allclose(Classifier(tmp_path, CPU).predict_proba(ROWS), after, atol=1e-6)
