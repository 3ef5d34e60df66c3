"""Only the wanted positions and columns are computed, and they are what the whole model says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from conftest import TOKENIZERS
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForMaskedLM

from pet_pipeline.encoding import LabelWords, PatternEncoder, collate, layout_of
from pet_pipeline.mlm import confident_scores, label_scores, mlm_loss, token_logits
from pet_pipeline.patterns import Pattern, parse_template
from pet_pipeline.pretrained import load_mlm, load_tokenizer

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "bert": SMALL,
    "roberta": SMALL,
    "albert": {**SMALL, "embedding_size": 16},
    "distilbert": {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    "electra": {**SMALL, "embedding_size": 16},
    "deberta-v2": {**SMALL, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]},
    "deberta-v2-new-head": {**SMALL, "relative_attention": True, "legacy": False},
    "modernbert": SMALL,
    "xlm-roberta": SMALL,
    "mpnet": SMALL,
}


def tiny(name: str) -> Any:
    options = {"vocab_size": 90, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    if name == "modernbert":
        options |= {"cls_token_id": 1, "sep_token_id": 2}
    config = AutoConfig.for_model(name.removesuffix("-new-head"), **options, **ARCHITECTURES[name])
    torch.manual_seed(0)
    model = AutoModelForMaskedLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():  # biases start at zero, where a lost one would not be noticed
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return model


def batch() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    torch.manual_seed(1)
    ids = torch.randint(5, 90, (3, 12))
    attention = torch.ones_like(ids)
    for row, length in enumerate((12, 7, 9)):
        ids[row, length:] = 0
        attention[row, length:] = 0
    return {"input_ids": ids, "attention_mask": attention}, torch.tensor([[0, 11], [1, 3], [2, 0]])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_logits_are_those_of_the_whole_model(name: str) -> None:
    model, (inputs, positions) = tiny(name), batch()
    with torch.no_grad():
        whole = model(**inputs).logits[positions[:, 0], positions[:, 1]]
        every = token_logits(model, inputs, positions)
        columns = torch.tensor([7, 3, 88])
        some = token_logits(model, inputs, positions, columns)
    assert whole.std() > 0.01
    torch.testing.assert_close(every, whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(some, whole[:, columns], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["bert", "roberta", "albert", "deberta-v2", "modernbert"])
def test_gradients_are_those_of_the_whole_model(name: str) -> None:
    model, (inputs, positions) = tiny(name), batch()
    columns, target = torch.tensor([7, 3, 88]), torch.tensor([0, 2, 1])
    gradients = []
    for logits in (
        model(**inputs).logits[positions[:, 0], positions[:, 1]][:, columns],
        token_logits(model, inputs, positions, columns),
    ):
        model.zero_grad()
        torch.nn.functional.cross_entropy(logits, target).backward()
        gradients.append(
            {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        )
    assert any(gradient.abs().max() > 1e-4 for gradient in gradients[0].values())
    for parameter, gradient in gradients[0].items():
        if gradient.abs().max() > 0:
            torch.testing.assert_close(gradients[1][parameter], gradient, atol=1e-5, rtol=0)


def test_no_hook_is_left_behind_by_an_error() -> None:
    model, (inputs, positions) = tiny("bert"), batch()
    with pytest.raises(IndexError):
        token_logits(model, {**inputs, "input_ids": inputs["input_ids"] + 90}, positions)
    assert not model.base_model._forward_hooks
    assert not model.get_output_embeddings()._forward_pre_hooks


def encoder(tiny_mlm: Path, words: tuple[tuple[str, ...], ...]) -> PatternEncoder:
    labels = tuple(f"label-{n}" for n in range(len(words)))
    pattern = Pattern("p", parse_template("{text} it was {mask}."), labels, words)
    return PatternEncoder(pattern, load_tokenizer(tiny_mlm), 48)


ROWS = [{"text": "the film was long"}, {"text": "nice"}, {"text": "a very good day and more of it"}]
LONG = (("come back", "great"), ("never come back", "bad", "in other words"))


def test_one_token_words_are_scored_by_the_mean_of_their_logits(tiny_mlm: Path) -> None:
    pvp, model = encoder(tiny_mlm, (("great", "good"), ("bad",))), load_mlm(tiny_mlm).eval()
    rows = pvp.encode(ROWS)
    inputs, slots = collate(rows, pvp.layout), torch.tensor([row.slot for row in rows])
    with torch.no_grad():
        found = label_scores(model, inputs, slots, pvp.words)
        whole = model(**inputs).logits[torch.arange(3), slots]
    great, good, bad = (word[0] for word in pvp.words.words)
    expected = torch.stack([(whole[:, great] + whole[:, good]) / 2, whole[:, bad]], 1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_longer_words_are_scored_by_their_tokens_log_probabilities(tiny_mlm: Path) -> None:
    pvp, model = encoder(tiny_mlm, LONG), load_mlm(tiny_mlm).eval()
    rows = pvp.encode(ROWS)
    inputs, slots = collate(rows, pvp.layout), torch.tensor([row.slot for row in rows])
    with torch.no_grad():
        found = label_scores(model, inputs, slots, pvp.words)
        log_probs = model(**inputs).logits.log_softmax(-1)
    for n, row in enumerate(rows):
        for label, group in enumerate(pvp.words.tokens):
            scores = [
                sum(float(log_probs[n, row.slot + k, token]) for k, token in enumerate(word))
                for word in group
            ]
            assert float(found[n, label]) == pytest.approx(float(np.mean(scores)), abs=1e-4)


def one_word_at_a_time(model: Any, row: Any, word: tuple[int, ...], pvp: PatternEncoder) -> float:
    """The slow way: a slot of the word's length, the most confident of its tokens first."""
    sized = row.with_masks(pvp.words.n_masks, len(word), pvp.layout.mask)
    ids = torch.tensor([sized.ids])
    types = torch.zeros_like(ids)
    left, total = dict(enumerate(word)), 0.0
    while left:
        with torch.no_grad():
            log_probs = model(input_ids=ids, token_type_ids=types).logits[0].log_softmax(-1)
        place = max(left, key=lambda k: float(log_probs[sized.slot + k, left[k]]))
        total += float(log_probs[sized.slot + place, left[place]])
        ids[0, sized.slot + place] = left.pop(place)
    return total


@pytest.mark.parametrize("batch_tokens", [1, 40, 4000])
def test_the_most_confident_mask_is_filled_first(tiny_mlm: Path, batch_tokens: int) -> None:
    pvp, model = encoder(tiny_mlm, LONG), load_mlm(tiny_mlm).eval()
    rows = pvp.encode(ROWS)
    with torch.no_grad():
        found = confident_scores(
            model,
            rows,
            pvp.layout,
            pvp.words,
            batch_tokens=batch_tokens,
            device=torch.device("cpu"),
        )
    for n, row in enumerate(rows):
        for label, group in enumerate(pvp.words.tokens):
            expected = np.mean([one_word_at_a_time(model, row, word, pvp) for word in group])
            assert float(found[n, label]) == pytest.approx(float(expected), abs=1e-4)


def test_the_mlm_loss_is_the_models_own(tiny_mlm: Path) -> None:
    model = load_mlm(tiny_mlm).eval()
    inputs, _ = batch()
    maskable = inputs["attention_mask"].bool()
    options = {"share": 1.0, "mask": 4, "vocabulary": 90}
    torch.manual_seed(5)
    loss = mlm_loss(model, inputs, maskable, **options)
    torch.manual_seed(5)
    torch.rand(maskable.shape)
    kind = torch.rand(int(maskable.sum()))
    random = torch.randint(90, kind.shape)
    ids, targets = inputs["input_ids"].clone(), inputs["input_ids"][maskable]
    ids[maskable] = torch.where(kind < 0.8, 4, torch.where(kind < 0.9, random, targets))
    labels = inputs["input_ids"].masked_fill(~maskable, -100)
    expected = model(**{**inputs, "input_ids": ids}, labels=labels).loss
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 0.4))
def test_the_mlm_loss_predicts_only_what_it_may(seed: int, share: float) -> None:
    seen: list[torch.Tensor] = []

    class Model(torch.nn.Module):
        """Gives away where it was asked; its logits are constant."""

        def __init__(self) -> None:
            super().__init__()
            self.config = transformers.BertConfig(vocab_size=90)
            self.base_model = torch.nn.Identity()
            self.decoder = torch.nn.Linear(4, 90)

        def get_output_embeddings(self) -> torch.nn.Module:
            return self.decoder

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> None:
            changed = input_ids != inputs["input_ids"]
            seen.append(changed)
            hidden = torch.zeros(*input_ids.shape, 4)
            output = type("Output", (), {"last_hidden_state": hidden})()
            self.decoder(self.base_model(output).last_hidden_state)

    inputs, _ = batch()
    maskable = inputs["attention_mask"].bool()
    maskable[:, :2] = False
    torch.manual_seed(seed)
    mlm_loss(Model(), inputs, maskable, share=share, mask=4, vocabulary=90)
    assert not (seen[0] & ~maskable).any()


def test_label_words_average() -> None:
    words = LabelWords((((1,), (2,)), ((3,),)))
    assert words.mean.tolist() == [[0.5, 0.0], [0.5, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_layouts(kind: str) -> None:
    tokenizer = TOKENIZERS[kind]()
    layout = layout_of(tokenizer)
    pair = tokenizer("great day", "bad night")["input_ids"]
    a, b = (
        tokenizer(text, add_special_tokens=False)["input_ids"]
        for text in ("great day", "bad night")
    )
    assert [*layout.prefix, *a, *layout.middle, *b, *layout.suffix] == pair
