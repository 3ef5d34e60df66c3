"""Only the wanted positions and columns are computed, and they are what the whole model says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ARCHITECTURES, TOKENIZERS, WORDS, random_mlm, sharpened
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from pet_pipeline.encoding import LabelWords, PatternEncoder, collate, layout_of
from pet_pipeline.mlm import confident_scores, label_scores, mlm_loss, token_logits
from pet_pipeline.patterns import Pattern, parse_template
from pet_pipeline.pretrained import load_mlm, load_tokenizer

VOCABULARY = {"vocab_size": 90, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def tiny(name: str) -> Any:
    special = {"cls_token_id": 1, "sep_token_id": 2} if name == "modernbert" else {}
    model = random_mlm(name, **VOCABULARY, **special)
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


def test_logits_are_not_rounded_to_bfloat16() -> None:
    model, (inputs, positions) = tiny("bert"), batch()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        every = token_logits(model, inputs, positions)
        some = token_logits(model, inputs, positions, torch.tensor([7, 3, 88]))
    for logits in (every, some):
        assert (logits != logits.bfloat16().float()).float().mean() > 0.9


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
    }


@pytest.mark.parametrize("columns", [None, [7, 3, 88]], ids=["all", "some"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_gradients_are_those_of_the_whole_model(name: str, columns: list[int] | None) -> None:
    model, (inputs, positions) = tiny(name), batch()
    chosen = None if columns is None else torch.tensor(columns)
    target = torch.tensor([0, 2, 1])
    whole = model(**inputs).logits[positions[:, 0], positions[:, 1]]
    found = gradients(
        model, functional.cross_entropy(token_logits(model, inputs, positions, chosen), target)
    )
    expected = gradients(
        model, functional.cross_entropy(whole if chosen is None else whole[:, chosen], target)
    )
    assert max(gradient.abs().max() for gradient in expected.values()) > 1e-3
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_with_its_tokenizer(name: str, mlm_of: Callable[[str], Path]) -> None:
    folder = mlm_of(name)
    model, tokenizer = load_mlm(folder).eval(), load_tokenizer(folder)
    template = parse_template("{text} it was {mask}. {sep} so so")
    pvp = PatternEncoder(Pattern("p", template, ("a", "b"), (("bad",), ("great",))), tokenizer, 48)
    assert pvp.problems() == []
    rows = pvp.encode(ROWS)
    inputs, slots = collate(rows, pvp.layout), torch.tensor([row.slot for row in rows])
    texts = [f"{row['text']} it was {tokenizer.mask_token}." for row in ROWS]
    plain = tokenizer(texts, ["so so"] * len(texts), padding=True, return_tensors="pt")
    with torch.no_grad():
        found = label_scores(model, inputs, slots, pvp.words)
        whole = model(**plain).logits[plain["input_ids"] == tokenizer.mask_token_id]
    words = [word for (word,) in pvp.words.words]
    torch.testing.assert_close(found, whole[:, words], atol=1e-5, rtol=0)


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


WORD = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)


@settings(
    max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.lists(WORD, min_size=1, max_size=3).map(tuple), min_size=2, max_size=3).map(tuple),
    st.integers(1, 200),
)
def test_any_words_are_filled_by_confidence(
    peaked: Any, tiny_mlm: Path, words: tuple[tuple[str, ...], ...], batch_tokens: int
) -> None:
    pvp = encoder(tiny_mlm, words)
    rows = pvp.encode(ROWS)
    cpu = torch.device("cpu")
    with torch.no_grad():
        found = confident_scores(
            peaked, rows, pvp.layout, pvp.words, batch_tokens=batch_tokens, device=cpu
        )
    for n, row in enumerate(rows):
        for label, group in enumerate(pvp.words.tokens):
            expected = np.mean([one_word_at_a_time(peaked, row, word, pvp) for word in group])
            assert float(found[n, label]) == pytest.approx(float(expected), abs=1e-3)


@pytest.fixture(scope="module")
def peaked(tiny_mlm: Path) -> Any:
    """A model sure of itself, whose scores depend on which masks are filled first."""
    return sharpened(load_mlm(tiny_mlm))


def test_the_order_of_filling_counts(peaked: Any, tiny_mlm: Path) -> None:
    pvp = encoder(tiny_mlm, LONG)
    rows = pvp.encode(ROWS)
    inputs, slots = collate(rows, pvp.layout), torch.tensor([row.slot for row in rows])
    cpu = torch.device("cpu")
    with torch.no_grad():
        parallel = label_scores(peaked, inputs, slots, pvp.words)
        confident = confident_scores(
            peaked, rows, pvp.layout, pvp.words, batch_tokens=99, device=cpu
        )
    assert (parallel - confident).abs().max() > 0.1


@pytest.mark.parametrize("words", [(("great", "good"), ("bad",)), LONG])
def test_scores_are_not_rounded_by_autocast(
    tiny_mlm: Path, words: tuple[tuple[str, ...], ...]
) -> None:
    pvp, model = encoder(tiny_mlm, words), load_mlm(tiny_mlm).eval()
    rows = pvp.encode(ROWS)
    inputs, slots = collate(rows, pvp.layout), torch.tensor([row.slot for row in rows])
    cpu = torch.device("cpu")
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        scores = label_scores(model, inputs, slots, pvp.words)
        confident = confident_scores(
            model, rows, pvp.layout, pvp.words, batch_tokens=99, device=cpu
        )
    for found in (scores, confident):
        assert found.dtype == torch.float32
        assert not torch.equal(found, found.bfloat16().float())


@pytest.mark.parametrize("batch_tokens", [1, 40, 4000])
def test_the_most_confident_mask_is_filled_first(
    peaked: Any, tiny_mlm: Path, batch_tokens: int
) -> None:
    pvp, model = encoder(tiny_mlm, LONG), peaked
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
            assert float(found[n, label]) == pytest.approx(float(expected), abs=1e-3)


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


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(0, 10_000), st.floats(0, 1))
def test_the_mlm_loss_predicts_only_what_it_may(
    monkeypatch: pytest.MonkeyPatch, seed: int, share: float
) -> None:
    inputs, _ = batch()
    maskable = inputs["attention_mask"].bool()
    maskable[:, :2] = False
    asked: list[torch.Tensor] = []

    def logits(model: Any, changed: dict[str, torch.Tensor], positions: torch.Tensor) -> Any:
        assert ((changed["input_ids"] == inputs["input_ids"]) | maskable).all()
        asked.append(positions)
        return functional.one_hot(inputs["input_ids"][positions[:, 0], positions[:, 1]], 90) * 99.0

    monkeypatch.setattr("pet_pipeline.mlm.token_logits", logits)
    torch.manual_seed(seed)
    loss = mlm_loss(None, inputs, maskable, share=share, mask=4, vocabulary=90)
    (positions,) = asked
    assert maskable[positions[:, 0], positions[:, 1]].all()
    assert len(positions) > 0
    assert loss == pytest.approx(0.0)  # the targets are the tokens that stood there


def test_a_share_of_the_tokens_is_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = torch.full((100, 100), 7)
    seen: list[torch.Tensor] = []

    def logits(model: Any, changed: dict[str, torch.Tensor], positions: torch.Tensor) -> Any:
        seen.append(changed["input_ids"][positions[:, 0], positions[:, 1]])
        return torch.zeros(len(positions), 1000)

    monkeypatch.setattr("pet_pipeline.mlm.token_logits", logits)
    torch.manual_seed(0)
    everywhere = torch.ones_like(ids, dtype=torch.bool)
    mlm_loss(None, {"input_ids": ids}, everywhere, share=0.15, mask=4, vocabulary=1000)
    (tokens,) = seen
    assert len(tokens) == pytest.approx(1500, abs=150)
    assert (tokens == 4).float().mean() == pytest.approx(0.8, abs=0.03)
    assert (tokens == 7).float().mean() == pytest.approx(0.1, abs=0.03)


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
