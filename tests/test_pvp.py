"""A pattern-verbalizer pair: what it says of rows, how it is tuned, and what it learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from testing import CPU, HAPPY, SAD, sharpened
from torch import Tensor
from torch.nn import functional

from pet_pipeline.calibration import CALIBRATIONS, content_free_rows
from pet_pipeline.compute import Compute
from pet_pipeline.contrast import supervised_contrast
from pet_pipeline.demonstrations import Demonstrations, Rows
from pet_pipeline.encoded import Encoded, Role
from pet_pipeline.masking import MaskedText
from pet_pipeline.mlm import MaskedLM
from pet_pipeline.models import ModelFolder
from pet_pipeline.optimisation import (
    PROTOTYPES,
    Contrast,
    MlmLoss,
    Optimisation,
    PrototypeSettings,
    Tuning,
)
from pet_pipeline.patterns import pattern_of
from pet_pipeline.prototypes import spread_of
from pet_pipeline.pvp import Prior, Pvp
from pet_pipeline.seeds import seed_from
from pet_pipeline.training import CHECKPOINT

GOLD = [0] * 4 + [1] * 4
ROWS = [{"text": text} for text in SAD + HAPPY]
TEXTS = ["a", "a very good day and a very bad night", "the film", "great food at the shop", "no"]
LENGTHS = [{"text": text} for text in TEXTS]
ONE, LONG = (("terrible",), ("great", "good")), (("very bad",), ("great",))
OFTEN = replace(CPU, checkpoint_seconds=0)  # a checkpoint after every step


def pvp_of(
    folder: Path,
    words: Any = ONE,
    template: str = "{text} it was {mask}.",
    *,
    sharp: bool = False,
    dropout: bool = True,
    compute: Compute = OFTEN,
    **options: Any,
) -> Pvp:
    pattern = pattern_of("p", template, ("sad", "happy"), words)
    pvp = Pvp.load(ModelFolder(folder), pattern, max_tokens=48, compute=compute, **options)
    if sharp:
        sharpened(pvp.lm.model)
    for module in pvp.lm.model.modules():
        if isinstance(module, torch.nn.Dropout) and not dropout:
            module.p = 0.0
    return pvp


def certain(folder: Path, words: Any = ONE, **options: Any) -> Pvp:
    """A PVP sure of itself whose losses do not depend on chance."""
    return pvp_of(folder, words, sharp=True, dropout=False, **options)


def tune(
    pvp: Pvp,
    texts: Sequence[Encoded] = (),
    *,
    rows: Any = ROWS,
    steps: int = 1,
    mlm: MlmLoss | None = None,
    contrast: Contrast | None = None,
    checkpoints: Path | None = None,
    **options: Any,
) -> float:
    optimisation = Optimisation(**{"learning_rate": 1e-4, "batch_size": 8, **options})
    tuning = Tuning(optimisation, steps, mlm, contrast)
    return pvp.tune(rows, GOLD[: len(rows)], tuning, seed=1, texts=texts, checkpoints=checkpoints)


# Scores


@pytest.mark.parametrize("words", [(("bad",), ("good",)), (("come back",), ("good",))])
@pytest.mark.parametrize("decoding", ["confident", "parallel"])
def test_scores_are_in_the_order_of_the_rows_in_any_batches(
    tiny_mlm: Path, words: Any, decoding: str
) -> None:
    pvp = pvp_of(tiny_mlm, words, sharp=True, decoding=decoding)
    whole = pvp.scores(LENGTHS)
    assert whole.shape == (5, 2)
    assert whole.dtype == np.float32
    assert np.diff(np.sort(whole[:, 0])).min() > 1e-3
    for batch_tokens in (1, 20):
        pvp.lm.compute = replace(CPU, batch_tokens=batch_tokens)
        np.testing.assert_allclose(pvp.scores(LENGTHS[::-1])[::-1], whole, atol=1e-4)


def test_no_rows_have_no_scores(tiny_mlm: Path) -> None:
    pvp = pvp_of(tiny_mlm)
    assert pvp.scores([]).shape == (0, 2)
    assert pvp.scores(Rows([])).shape == (0, 2)
    pvp.prior = Prior("contextual", (0.5, -0.5))
    pvp.demonstrations = Demonstrations(pvp.encoder, ROWS, GOLD, max_tokens=120, draws=2)
    assert pvp.scores([]).shape == (0, 2)


def test_rows_as_a_table_has_them_score_as_those_in_the_pattern(tiny_mlm: Path) -> None:
    for template in ("{text} so {mask}", "{demos} {text} so {mask}"):
        pvp = pvp_of(tiny_mlm, template=template, sharp=True)
        rows = Rows(pvp.encoder.encode(ROWS))
        assert pvp.n_labels == 2
        assert np.array_equal(pvp.scores(ROWS), pvp.scores(rows))


def test_without_demonstrations_their_location_is_not_read(tiny_mlm: Path) -> None:
    plain, demos = (
        pvp_of(tiny_mlm, template=f"{start}{{text}} so {{mask}}", sharp=True)
        for start in ("", "{demos} ")
    )
    assert np.array_equal(plain.scores(ROWS), demos.scores(ROWS))


def test_words_of_several_tokens_are_decoded_as_asked(tiny_mlm: Path) -> None:
    confident = pvp_of(tiny_mlm, LONG, sharp=True)
    parallel = Pvp.of(confident.lm, confident.encoder.pattern, 48, decoding="parallel")
    rows, words = confident.encoder.encode(ROWS), confident.encoder.words
    with torch.no_grad():
        expected = [
            confident.lm.confident_scores(rows, words),
            confident.lm.label_scores(rows, words),
        ]
    for pvp, scores in zip((confident, parallel), expected, strict=True):
        np.testing.assert_allclose(pvp.scores(ROWS), scores.numpy(), atol=1e-4)
    assert np.abs(confident.scores(ROWS) - parallel.scores(ROWS)).max() > 0.1


def test_words_of_one_token_are_decoded_one_way(tiny_mlm: Path) -> None:
    confident, parallel = (pvp_of(tiny_mlm, decoding=d) for d in ("confident", "parallel"))
    assert np.array_equal(confident.scores(ROWS), parallel.scores(ROWS))


def test_a_model_is_scored_without_dropout(tiny_mlm: Path) -> None:
    pvp = pvp_of(tiny_mlm, sharp=True)
    first = pvp.scores(ROWS)
    pvp.lm.model.train()
    assert np.array_equal(pvp.scores(ROWS), first)


def test_masks_in_texts_are_text(tiny_mlm: Path) -> None:
    pvp = pvp_of(tiny_mlm, LONG, sharp=True)
    alone = [pvp.scores([{"text": text}]) for text in ("so [MASK] so", "so so so")]
    rows = pvp.encoder.encode([{"text": "so [MASK] so"}])
    assert rows[0].ids.count(pvp.lm.layout.mask) == 2
    assert np.abs(alone[0] - alone[1]).max() > 1e-3


def demonstrated(tiny_mlm: Path, *, draws: int, template: str = "{text} it was {mask}.") -> Pvp:
    pvp = pvp_of(tiny_mlm, template=template, sharp=True)
    vectors = np.eye(8, dtype=np.float32)
    pvp.demonstrations = Demonstrations(
        pvp.encoder, ROWS, GOLD, max_tokens=120, draws=draws, vectors=vectors, fraction=0.5
    )
    return pvp


@pytest.mark.parametrize("template", ["{text} it was {mask}.", "{demos} {text} so {mask}"])
def test_scores_are_the_mean_over_the_draws(tiny_mlm: Path, template: str) -> None:
    pvp = demonstrated(tiny_mlm, draws=3, template=template)
    plain = Pvp(pvp.lm, pvp.encoder)
    rows = Rows(
        pvp.encoder.encode(ROWS), vectors=np.eye(8, dtype=np.float32), support=list(range(8))
    )
    assert pvp.demonstrations is not None
    each = []
    for draw in range(3):
        seed = seed_from("draw", 5, draw)
        assert pvp.demonstrations.room(rows, seed) == (2, 0)
        inserted = pvp.demonstrations.insert(rows, seed)
        assert all(row.roles.count(Role.DEMONSTRATION) > 6 for row in inserted)
        with torch.no_grad():
            each.append(pvp.lm.label_scores(inserted, pvp.encoder.words).numpy())
    found = pvp.scores(rows, seed=5)
    assert found == pytest.approx(np.mean(each, axis=0), abs=1e-4)
    assert found.dtype == np.float32
    assert np.abs(each[0] - each[1]).max() > 1e-3
    assert np.abs(plain.scores(rows) - found).max() > 1e-3
    assert np.array_equal(pvp.scores(rows, seed=5), found)
    assert np.abs(pvp.scores(rows, seed=6) - found).max() > 1e-3


@pytest.mark.parametrize("method", CALIBRATIONS)
def test_the_prior_is_subtracted(tiny_mlm: Path, method: str) -> None:
    pvp = pvp_of(tiny_mlm, sharp=True)
    with torch.no_grad():
        rows = pvp.encoder.encode(ROWS)
        normalised = CALIBRATIONS[method].normalised
        raw = pvp.lm.label_scores(rows, pvp.encoder.words, normalised=normalised).numpy()
    pvp.prior = Prior(method, (0.25, -1.5))
    found = pvp.scores(ROWS)
    np.testing.assert_allclose(found, raw - np.array([0.25, -1.5]), atol=1e-4)
    assert found.dtype == np.float32


@pytest.mark.parametrize("words", [ONE, LONG])
@pytest.mark.parametrize("method", CALIBRATIONS)
def test_a_text_is_undecided_after_its_own_prior(tiny_mlm: Path, method: str, words: Any) -> None:
    pvp = pvp_of(tiny_mlm, words, sharp=True)
    row = content_free_rows(["text"])[:1]
    assert np.ptp(softmax(pvp.scores(row), axis=1)) > 0.01
    pvp.prior = pvp.measure_prior(row, method)
    assert pvp.prior.method == method
    np.testing.assert_allclose(softmax(pvp.scores(row), axis=1), [[0.5, 0.5]], atol=1e-4)
    # A prior that is there is not measured again.
    assert pvp.measure_prior(row, method) == pvp.prior


def test_the_prior_is_measured_with_demonstrations(tiny_mlm: Path) -> None:
    pvp = demonstrated(tiny_mlm, draws=2)
    rows = content_free_rows(["text"])
    scores = pvp.scores(rows, seed=3)
    expected = CALIBRATIONS["contextual"].log_prior(scores)
    prior = pvp.measure_prior(rows, "contextual", seed=3)
    assert prior.log_prior == pytest.approx(expected)
    assert prior != Pvp(pvp.lm, pvp.encoder).measure_prior(rows, "contextual", seed=3)


@pytest.mark.parametrize("words", [ONE, LONG])
def test_scores_for_a_prior_over_the_vocabulary_rank_labels_as_before(
    tiny_mlm: Path, words: Any
) -> None:
    pvp = pvp_of(tiny_mlm, words, sharp=True)
    plain = pvp.scores(ROWS)
    pvp.prior = Prior("pmi", (0.0, 0.0))
    found = pvp.scores(ROWS)
    assert (found < 0).all()
    assert log_softmax(found, axis=1) == pytest.approx(log_softmax(plain, axis=1), abs=1e-4)


# Tuning


def test_rare_labels_are_predicted_after_balanced_batches(tiny_mlm: Path) -> None:
    texts = [*SAD, *(f"{text} again" for text in SAD), "a great day", "the team", "the market"]
    rows = [{"text": text} for text in texts]
    words = (("terrible",), ("great",), ("sports",), ("business",))
    pattern = pattern_of("p", "{text} it was {mask}.", ("sad", "happy", "sport", "money"), words)

    def tuned(*, balanced: bool) -> Any:
        pvp = Pvp.load(ModelFolder(tiny_mlm), pattern, max_tokens=48, compute=CPU)
        optimisation = Optimisation(2e-3, batch_size=8, balanced=balanced)
        pvp.tune(rows, [0] * 8 + [1, 2, 3], Tuning(optimisation, 20), seed=1)
        return softmax(pvp.scores(rows), axis=1)

    as_they_are, balanced = tuned(balanced=False), tuned(balanced=True)
    assert set(as_they_are.argmax(1)) == {0}
    assert len(set(balanced.argmax(1))) >= 3
    np.testing.assert_allclose(balanced.mean(0), [0.25] * 4, atol=0.08)


def watch_gradients(monkeypatch: pytest.MonkeyPatch, pvp: Pvp) -> list[list[Tensor]]:
    """The gradients of every step from now on, in which nothing is changed."""
    found: list[list[Tensor]] = []
    parameters = list(pvp.lm.model.parameters())
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: None)
    monkeypatch.setattr(
        torch.optim.AdamW,
        "zero_grad",
        lambda self, set_to_none: found.append(
            [p.grad.clone() for p in parameters if p.grad is not None]
        ),
    )
    return found


@pytest.mark.parametrize("words", [ONE, LONG])
def test_a_step_follows_the_gradient_of_the_cross_entropy(
    tiny_mlm: Path, monkeypatch: pytest.MonkeyPatch, words: Any
) -> None:
    pvp = certain(tiny_mlm, words)
    scores = pvp.lm.label_scores(pvp.encoder.encode(ROWS), pvp.encoder.words)
    expected = functional.cross_entropy(scores, torch.tensor(GOLD))
    expected.backward()
    gradients = [p.grad.clone() for p in pvp.lm.model.parameters() if p.grad is not None]
    found = watch_gradients(monkeypatch, pvp)
    for batch_tokens in (1, 30, 6000):
        pvp.lm.model.zero_grad()
        loss = tune(pvp, batch_tokens=batch_tokens, clip=1e9, frozen_embeddings=False)
        assert loss == pytest.approx(expected.item(), abs=1e-4)
        torch.testing.assert_close(found.pop(), gradients, atol=1e-4, rtol=1e-3)


def test_the_mlm_loss_of_a_step_does_not_depend_on_how_it_is_cut(
    tiny_mlm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pvp = certain(tiny_mlm)
    texts = pvp.encoder.encode([{"text": text * n} for n, text in enumerate(SAD + HAPPY)])
    found = watch_gradients(monkeypatch, pvp)
    parts: list[int] = []
    mlm_loss = MaskedLM.mlm_loss

    def counted(self: MaskedLM, part: Sequence[MaskedText]) -> Tensor:
        parts.append(sum(len(text.positions) for text in part))
        return mlm_loss(self, part)

    monkeypatch.setattr(MaskedLM, "mlm_loss", counted)
    results = []
    for batch_tokens in (6000, 50):
        parts.clear()
        pvp.lm.model.zero_grad()
        loss = tune(
            pvp,
            texts,
            mlm=MlmLoss(0.5, texts=2, masked=0.3),
            batch_tokens=batch_tokens,
            clip=1e9,
            frozen_embeddings=False,
        )
        results.append((loss, found.pop(), sum(parts)))
    assert len(parts) > 3
    assert len(set(parts)) > 1  # which a mean over parts, or over rows, would not weight right
    (whole, gradient, count), (cut, others, cut_count) = results
    assert cut == pytest.approx(whole, abs=1e-4)
    assert cut_count == count
    torch.testing.assert_close(others, gradient, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("batch_tokens", [40, 6000])
def test_the_two_losses_are_weighted(
    tiny_mlm: Path, monkeypatch: pytest.MonkeyPatch, batch_tokens: int
) -> None:
    alone = tune(certain(tiny_mlm))
    pvp = certain(tiny_mlm)
    seen: list[int] = []

    def loss(self: MaskedLM, texts: Sequence[MaskedText]) -> Tensor:
        seen.append(len(texts))
        count = sum(len(text.positions) for text in texts)
        return 5.0 * count + 0.0 * self.model.get_output_embeddings().bias.sum()

    monkeypatch.setattr(MaskedLM, "mlm_loss", loss)
    both = tune(
        pvp, pvp.encoder.encode(ROWS), batch_tokens=batch_tokens, mlm=MlmLoss(0.25, 2, masked=1.0)
    )
    assert both == pytest.approx(0.75 * alone + 0.25 * 5.0, abs=1e-4)
    assert sum(seen) == 16  # two texts for each labelled row


@pytest.mark.parametrize(("mlm", "n_texts"), [(None, 8), (MlmLoss(0.0), 8), (MlmLoss(0.5), 0)])
def test_without_weight_or_texts_there_is_no_mlm_loss(
    tiny_mlm: Path, monkeypatch: pytest.MonkeyPatch, mlm: MlmLoss | None, n_texts: int
) -> None:
    monkeypatch.setattr(MaskedLM, "mlm_loss", None)
    alone = tune(certain(tiny_mlm))
    pvp = certain(tiny_mlm)
    found = tune(pvp, pvp.encoder.encode(ROWS)[:n_texts], mlm=mlm)
    assert found == pytest.approx(alone * (0.5 if n_texts == 0 else 1.0), abs=1e-5)


@pytest.mark.parametrize(
    "template", ["{text} so {mask} {sep} the end", "{mask}: {text}", "{demos} {text} {mask}"]
)
def test_special_tokens_and_the_slot_are_never_predicted(
    tiny_mlm: Path, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    pvp = pvp_of(tiny_mlm, LONG, template)
    special = {pvp.lm.tokenizer.convert_tokens_to_ids(t) for t in ("[CLS]", "[SEP]", "[PAD]")}
    seen = []

    def loss(self: MaskedLM, texts: Sequence[MaskedText]) -> Tensor:
        for text in texts:
            assert not {*special, self.layout.mask} & set(text.targets.tolist())
            assert Role.DEMONSTRATION not in text.row.roles
            others = set(range(len(text.row))) - set(text.positions.tolist())
            assert {text.row.ids[n] for n in others} == {*text.row.ids} & {2, 3, 4}
            seen.append(text)
        return 0.0 * self.model.get_output_embeddings().bias.sum()

    monkeypatch.setattr(MaskedLM, "mlm_loss", loss)
    tune(pvp, pvp.encoder.encode(ROWS), mlm=MlmLoss(0.5, masked=1.0))
    assert len(seen) == 24


def test_empty_texts_have_no_mlm_loss(tiny_mlm: Path) -> None:
    template = "{text} {mask}"
    alone = tune(certain(tiny_mlm, template=template))
    pvp = certain(tiny_mlm, template=template)
    empty = pvp.encoder.encode([{"text": ""}])
    assert tune(pvp, empty, mlm=MlmLoss(0.5)) == pytest.approx(alone / 2, abs=1e-5)


def test_every_step_draws_demonstrations_anew_and_none_is_of_its_own_row(
    tiny_mlm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pvp = pvp_of(tiny_mlm)
    pvp.demonstrations = Demonstrations(pvp.encoder, ROWS, GOLD, max_tokens=120)
    one = Rows(pvp.encoder.encode(ROWS[:1]), support=[0])  # all rows of a step are this one
    read: list[list[str]] = []
    label_scores = MaskedLM.label_scores_and_states

    def watched(self: MaskedLM, part: Sequence[Encoded], *args: Any) -> Any:
        read.append([self.tokenizer.decode(list(row.ids)) for row in part])
        return label_scores(self, part, *args)

    monkeypatch.setattr(MaskedLM, "label_scores_and_states", watched)
    for _ in range(2):
        tune(pvp, rows=one, steps=2)
    first, second, *again = read
    assert again == [first, second]  # by the seed
    assert sorted(first) != sorted(second)
    for text in [*first, *second]:
        assert text.count("it was") == 3
        assert text.count(f"{SAD[0]} it was") == 1  # the input itself


@pytest.mark.parametrize("words", [ONE, LONG])
def test_it_learns(tiny_mlm: Path, words: Any) -> None:
    pvp = pvp_of(tiny_mlm, words, compute=CPU)

    def predict() -> list[int]:
        found: list[int] = pvp.scores(ROWS).argmax(1).tolist()
        return found

    assert predict() != GOLD  # scored before, so that nothing of inference mode is left
    first = tune(pvp)
    last = tune(pvp, steps=120, learning_rate=2e-3, frozen_embeddings=False)
    assert last < first / 2
    assert predict() == GOLD


# Contrast

NO_CONTRAST = 1e-9  # a weight at which two views are read, and only the cross-entropy counts


def cross_entropy(pvp: Pvp) -> float:
    """Of all rows in the pattern of a PVP."""
    with torch.no_grad():
        scores = pvp.lm.label_scores(pvp.encoder.encode(ROWS), pvp.encoder.words)
    return float(functional.cross_entropy(scores, torch.tensor(GOLD)))


@pytest.mark.parametrize("words", [ONE, LONG])
def test_contrast_is_added_to_the_cross_entropy_of_both_views(tiny_mlm: Path, words: Any) -> None:
    pvp = certain(tiny_mlm, words)
    rows = pvp.encoder.encode(ROWS)
    with torch.no_grad():
        _, states = pvp.lm.label_scores_and_states(rows, pvp.encoder.words)
    assert states.shape == (len(ROWS), pvp.lm.model.config.hidden_size)
    twice = torch.cat([states, states]), torch.tensor(GOLD * 2)
    expected = cross_entropy(pvp) + 0.5 * float(supervised_contrast(*twice, 0.2))
    assert tune(pvp, contrast=Contrast(0.5, 0.2, "dropout")) == pytest.approx(expected, abs=1e-4)


def test_a_contrastive_step_does_not_depend_on_how_it_is_cut(
    tiny_mlm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pvp = certain(tiny_mlm)
    found, losses = watch_gradients(monkeypatch, pvp), []
    for batch_tokens in (6000, 30, 1):
        pvp.lm.model.zero_grad()
        losses.append(
            tune(pvp, contrast=Contrast(1.0, 0.1, "dropout"), batch_tokens=batch_tokens, clip=1e9)
        )
    assert losses == pytest.approx([losses[0]] * 3, abs=1e-3)
    whole, *others = found
    assert max(float(gradient.abs().max()) for gradient in whole) > 0.01
    for cut in others:
        torch.testing.assert_close(cut, whole, atol=1e-3, rtol=1e-2)


def test_the_second_view_may_be_another_pattern(tiny_mlm: Path) -> None:
    view = pattern_of("v", "{mask}: {text}", ("sad", "happy"), LONG)
    own, other = (
        certain(tiny_mlm),
        certain(tiny_mlm, LONG, template="{mask}: {text}"),
    )
    assert abs(cross_entropy(own) - cross_entropy(other)) > 0.01
    pvp = certain(tiny_mlm, view=view)
    loss = tune(pvp, contrast=Contrast(NO_CONTRAST, 0.1, "pattern"))
    assert loss == pytest.approx((cross_entropy(own) + cross_entropy(other)) / 2, abs=1e-4)


def test_the_views_differ_by_their_demonstrations(
    tiny_mlm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pvp = pvp_of(tiny_mlm)
    pvp.demonstrations = Demonstrations(pvp.encoder, ROWS, GOLD, max_tokens=120)
    rows = Rows(pvp.encoder.encode(ROWS), support=range(8))
    read: list[str] = []
    scores_and_states = MaskedLM.label_scores_and_states

    def watched(self: MaskedLM, part: Sequence[Encoded], *args: Any) -> Any:
        read.extend(self.tokenizer.decode(list(row.ids)) for row in part)
        return scores_and_states(self, part, *args)

    monkeypatch.setattr(MaskedLM, "label_scores_and_states", watched)
    tune(pvp, rows=rows, contrast=Contrast(1.0, 0.1, "demonstrations"))
    for text in SAD + HAPPY:
        both = [row for row in read if row.startswith(f"[CLS] {text} it was")]
        assert len(both) == 2
        assert both[0] != both[1]


def test_contrast_brings_the_states_of_a_label_together(tiny_mlm: Path) -> None:
    def distance(weight: float) -> float:
        pvp = pvp_of(tiny_mlm, compute=CPU)
        contrast = Contrast(weight, 0.1, "dropout") if weight else None
        tune(pvp, steps=15, learning_rate=1e-3, contrast=contrast)
        with torch.no_grad():
            rows = pvp.encoder.encode(ROWS)
            _, states = pvp.lm.label_scores_and_states(rows, pvp.encoder.words)
        return float(supervised_contrast(states, torch.tensor(GOLD), 0.1))

    assert distance(1.0) < distance(0.0) - 0.2


class Stopped(Exception):
    pass


def test_an_interrupted_tuning_resumes_to_the_same_weights(
    tiny_mlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, stopped, resumed = (pvp_of(tiny_mlm) for _ in range(3))
    texts = whole.encoder.encode(ROWS)
    options: dict[str, Any] = {"steps": 6, "batch_size": 3, "mlm": MlmLoss(0.1)}
    loss = tune(whole, texts, **options)
    calls = []
    label_scores = MaskedLM.label_scores_and_states

    def scores(self: MaskedLM, *args: Any) -> Any:
        calls.append(1)
        if len(calls) == 5:
            raise Stopped
        return label_scores(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(MaskedLM, "label_scores_and_states", scores)
        with pytest.raises(Stopped):
            tune(stopped, texts, checkpoints=tmp_path, **options)
    assert (tmp_path / CHECKPOINT).exists()
    torch.rand(5)
    assert tune(resumed, texts, checkpoints=tmp_path, **options) == loss
    for name, parameter in whole.lm.model.named_parameters():
        assert torch.equal(parameter, resumed.lm.model.get_parameter(name)), name


def test_a_saved_model_scores_the_same(tiny_mlm: Path, tmp_path: Path) -> None:
    pvp = pvp_of(tiny_mlm, LONG)
    tune(pvp, steps=2)
    scores = pvp.scores(ROWS)
    pvp.save(tmp_path / "model")
    again = Pvp.load(ModelFolder(tmp_path / "model"), pvp.encoder.pattern, max_tokens=48)
    again.lm.compute = CPU
    assert np.array_equal(again.scores(ROWS), scores)
    assert np.array_equal(pvp.scores(ROWS), scores)  # it is still of use
    tune(pvp)
    assert not np.array_equal(pvp.scores(ROWS), scores)


# Prototypes


def states_of(pvp: Pvp, rows: Sequence[Encoded] = ()) -> Any:
    """What the decoder reads at the slots of rows."""
    with torch.no_grad():
        inputs = rows or pvp.encoder.encode(ROWS)
        return pvp.lm.label_scores_and_states(inputs, pvp.encoder.words)[1].numpy()


def with_prototypes(folder: Path, words: Any = ONE, **options: Any) -> Pvp:
    pvp = certain(folder, words, **options)
    pvp.learn_prototypes(ROWS, GOLD, PrototypeSettings(size=8), seed=1)
    return pvp


@pytest.mark.parametrize("words", [ONE, LONG])
@pytest.mark.parametrize("decoding", ["confident", "parallel"])
def test_prototypes_scores_join_those_of_the_label_words(
    tiny_mlm: Path, words: Any, decoding: str
) -> None:
    pvp, plain = (make(tiny_mlm, words, decoding=decoding) for make in (with_prototypes, certain))
    assert pvp.prototypes is not None
    scores, states = plain.scores(ROWS), states_of(plain)
    assert states.shape == (8, 32)
    expected_spread = spread_of(scores - scores.mean(0))
    assert pvp.prototypes.word_spread == pytest.approx(expected_spread, rel=1e-4)
    expected = pvp.prototypes.combine(scores, states)
    np.testing.assert_allclose(pvp.scores(ROWS), expected, atol=1e-3)
    assert np.abs(expected - scores).max() > 0.01
    assert pvp.scores([]).shape == (0, 2)
    pvp.prototypes = None
    np.testing.assert_allclose(pvp.scores(ROWS), scores, atol=1e-4)


def test_learning_prototypes_leaves_the_model_as_it_is(tiny_mlm: Path) -> None:
    pvp = certain(tiny_mlm)
    before = {name: value.clone() for name, value in pvp.lm.model.state_dict().items()}
    pvp.learn_prototypes(ROWS, GOLD, PrototypeSettings(size=8), seed=1)
    for name, value in pvp.lm.model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in pvp.lm.model.parameters())


def test_a_prior_is_that_of_the_label_words(tiny_mlm: Path) -> None:
    pvp, plain = with_prototypes(tiny_mlm), certain(tiny_mlm)
    assert pvp.prototypes is not None
    rows = content_free_rows(["text"])
    prior = pvp.measure_prior(rows, "contextual")
    assert prior == plain.measure_prior(rows, "contextual")
    pvp.prior = plain.prior = prior
    expected = pvp.prototypes.combine(plain.scores(ROWS), states_of(plain))
    np.testing.assert_allclose(pvp.scores(ROWS), expected, atol=1e-3)


def test_prototypes_read_rows_with_demonstrations(tiny_mlm: Path) -> None:
    pvp, plain = demonstrated(tiny_mlm, draws=3), demonstrated(tiny_mlm, draws=3)
    pvp.learn_prototypes(ROWS, GOLD, PrototypeSettings(size=8), seed=1)
    assert pvp.prototypes is not None
    rows = pvp.rows(ROWS)
    draws = [states_of(plain, plain._inputs(rows, 5, draw)) for draw in range(3)]
    assert np.abs(draws[0] - draws[1]).max() > 1e-3
    expected = pvp.prototypes.combine(plain.scores(ROWS, seed=5), np.mean(draws, axis=0))
    np.testing.assert_allclose(pvp.scores(ROWS, seed=5), expected, atol=1e-3)


def test_saved_prototypes_score_the_same(tiny_mlm: Path, tmp_path: Path) -> None:
    pvp = with_prototypes(tiny_mlm)
    scores, file = pvp.scores(ROWS), tmp_path / "model" / PROTOTYPES
    pvp.save_prototypes(tmp_path / "model")
    assert [path.name for path in (tmp_path / "model").iterdir()] == [PROTOTYPES]
    pvp.save(tmp_path / "whole")
    for folder in (tmp_path / "model", tmp_path / "whole"):
        again = Pvp.of(pvp.lm, pvp.encoder.pattern, 48, prototypes=folder / PROTOTYPES)
        assert np.array_equal(again.scores(ROWS), scores)
    assert file.read_bytes() == (tmp_path / "whole" / PROTOTYPES).read_bytes()
    certain(tiny_mlm).save(tmp_path / "without")
    assert not (tmp_path / "without" / PROTOTYPES).exists()
