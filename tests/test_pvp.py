"""Tuning a pattern-verbalizer pair: its loss, its parts, and what it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import HAPPY, SAD, sharpened
from torch import Tensor
from torch.nn import functional

from pet_pipeline import pvp
from pet_pipeline.config import Finetune, Machine
from pet_pipeline.encoding import Encoded, PatternEncoder, collate
from pet_pipeline.inference import score_rows
from pet_pipeline.mlm import label_scores
from pet_pipeline.patterns import Pattern, parse_template
from pet_pipeline.pretrained import load_mlm, load_tokenizer
from pet_pipeline.pvp import tune_pvp
from pet_pipeline.training import CHECKPOINT

GOLD = [0] * 4 + [1] * 4
ROWS = [{"text": text} for text in SAD + HAPPY]
ONE, LONG = (("terrible",), ("great", "good")), (("very bad",), ("great",))


def encoder_of(
    tiny_mlm: Path, words: Any = ONE, template: str = "{text} it was {mask}."
) -> PatternEncoder:
    pattern = Pattern("p", parse_template(template), ("sad", "happy"), words)
    return PatternEncoder(pattern, load_tokenizer(tiny_mlm), 48)


def tune(
    model: Any,
    encoder: PatternEncoder,
    texts: list[Encoded] | None = None,
    *,
    batch_tokens: int = 6000,
    checkpoints: Path | None = None,
    **options: Any,
) -> float:
    return tune_pvp(
        model,
        encoder.encode(ROWS),
        GOLD,
        texts or [],
        encoder.layout,
        encoder.words,
        settings=Finetune(**{"steps": 1, "batch_size": 8, **options}),
        seed=1,
        machine=Machine(
            device="cpu",
            precision="float32",
            threads=1,
            batch_tokens=batch_tokens,
            checkpoint_seconds=0,
        ),
        what="test",
        checkpoints=checkpoints,
    )


def without_dropout(tiny_mlm: Path) -> Any:
    model = sharpened(load_mlm(tiny_mlm))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


@pytest.mark.parametrize("words", [ONE, LONG])
def test_a_step_follows_the_gradient_of_the_cross_entropy(
    tiny_mlm: Path, monkeypatch: pytest.MonkeyPatch, words: Any
) -> None:
    encoder = encoder_of(tiny_mlm, words)
    model = without_dropout(tiny_mlm)
    rows = encoder.encode(ROWS)
    slots = torch.tensor([row.slot for row in rows])
    scores = label_scores(model, collate(rows, encoder.layout), slots, encoder.words)
    expected = functional.cross_entropy(scores, torch.tensor(GOLD))
    expected.backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    found: list[list[Tensor]] = []
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self: None)
    monkeypatch.setattr(
        torch.optim.AdamW,
        "zero_grad",
        lambda self, set_to_none: found.append(
            [p.grad.clone() for p in model.parameters() if p.grad is not None]
        ),
    )
    for batch_tokens in (1, 30, 6000):
        model.zero_grad()
        loss = tune(model, encoder, batch_tokens=batch_tokens, clip=1e9, frozen_embeddings=False)
        assert loss == pytest.approx(expected.item(), abs=1e-4)
        torch.testing.assert_close(found.pop(), gradients, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("batch_tokens", [40, 6000])
def test_the_two_losses_are_weighted(
    tiny_mlm: Path, monkeypatch: pytest.MonkeyPatch, batch_tokens: int
) -> None:
    encoder, texts = encoder_of(tiny_mlm), encoder_of(tiny_mlm).encode(ROWS)
    alone = tune(without_dropout(tiny_mlm), encoder)
    seen: list[int] = []

    def loss(model: Any, inputs: dict[str, Tensor], maskable: Tensor, **options: Any) -> Tensor:
        seen.append(len(maskable))
        assert options == {"share": 0.2, "mask": encoder.layout.mask, "vocabulary": 206}
        return 5.0 + 0.0 * model.get_output_embeddings().bias.sum()

    monkeypatch.setattr(pvp, "mlm_loss", loss)
    both = tune(
        without_dropout(tiny_mlm),
        encoder,
        texts,
        batch_tokens=batch_tokens,
        mlm_weight=0.25,
        mlm_masked=0.2,
        mlm_texts=2,
    )
    assert both == pytest.approx(0.75 * alone + 0.25 * 5.0, abs=1e-4)
    assert sum(seen) == 16  # two texts for each labelled row


def test_without_weight_the_texts_are_not_read(
    tiny_mlm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pvp, "mlm_loss", None)
    encoder = encoder_of(tiny_mlm)
    tune(load_mlm(tiny_mlm), encoder, encoder.encode(ROWS), mlm_weight=0.0)


@pytest.mark.parametrize("template", ["{text} so {mask} {sep} the end", "{mask}: {text}"])
def test_special_tokens_pads_and_the_slot_are_never_predicted(
    tiny_mlm: Path, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    encoder = encoder_of(tiny_mlm, LONG, template)
    special = {encoder.tokenizer.convert_tokens_to_ids(t) for t in ("[CLS]", "[SEP]", "[PAD]")}
    special.add(encoder.layout.mask)

    def loss(model: Any, inputs: dict[str, Tensor], maskable: Tensor, **options: Any) -> Tensor:
        for ids, allowed in zip(inputs["input_ids"].tolist(), maskable.tolist(), strict=True):
            assert [token not in special for token in ids] == allowed
        return 0.0 * model.get_output_embeddings().bias.sum()

    monkeypatch.setattr(pvp, "mlm_loss", loss)
    tune(load_mlm(tiny_mlm), encoder, encoder.encode(ROWS), mlm_weight=0.5)


def test_empty_texts_have_no_mlm_loss(tiny_mlm: Path) -> None:
    encoder = encoder_of(tiny_mlm, template="{text} {mask}")
    alone = tune(without_dropout(tiny_mlm), encoder)
    empty = encoder.encode([{"text": ""}])
    assert tune(without_dropout(tiny_mlm), encoder, empty, mlm_weight=0.5) == pytest.approx(
        alone / 2, abs=1e-5
    )


@pytest.mark.parametrize("words", [ONE, LONG])
def test_it_learns(tiny_mlm: Path, words: Any) -> None:
    model, encoder = load_mlm(tiny_mlm), encoder_of(tiny_mlm, words)
    rows = encoder.encode(ROWS)
    machine = Machine(device="cpu", precision="float32", threads=1)

    def predict() -> list[int]:
        scores = score_rows(
            model, rows, encoder.layout, encoder.words, machine=machine, what="test"
        )
        found: list[int] = scores.argmax(1).tolist()
        return found

    assert predict() != GOLD  # scored before, so that nothing of inference mode is left
    first = tune(model, encoder)
    last = tune(model, encoder, steps=120, learning_rate=2e-3, frozen_embeddings=False)
    assert last < first / 2
    assert predict() == GOLD


class Stopped(Exception):
    pass


def test_a_stopped_tuning_goes_on_to_the_same_weights(
    tiny_mlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = encoder_of(tiny_mlm)
    texts = encoder.encode(ROWS)
    options: dict[str, Any] = {"steps": 6, "batch_size": 3, "mlm_weight": 0.1}
    whole, stopped, resumed = (load_mlm(tiny_mlm) for _ in range(3))
    loss = tune(whole, encoder, texts, **options)
    calls = []

    def scores(*args: Any) -> Tensor:
        calls.append(1)
        if len(calls) == 5:
            raise Stopped
        return label_scores(*args)

    with monkeypatch.context() as patched:
        patched.setattr(pvp, "label_scores", scores)
        with pytest.raises(Stopped):
            tune(stopped, encoder, texts, checkpoints=tmp_path, **options)
    assert (tmp_path / CHECKPOINT).exists()
    torch.rand(5)
    assert tune(resumed, encoder, texts, checkpoints=tmp_path, **options) == loss
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, resumed.get_parameter(name)), name
