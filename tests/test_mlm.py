"""Only the wanted positions and columns are computed, and they are what the whole model says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from testing import (
    ARCHITECTURES,
    CPU,
    SMALL,
    TOKENIZERS,
    UNUSUAL,
    WORDS,
    random_mlm,
    sharpened,
)
from torch import Tensor
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import BertConfig, BertForMaskedLM
from transformers.modeling_outputs import MaskedLMOutput

from pet_pipeline import mlm
from pet_pipeline.compute import Compute
from pet_pipeline.encoded import Encoded
from pet_pipeline.encoding import PatternEncoder
from pet_pipeline.masking import MaskedText
from pet_pipeline.mlm import MaskedLM, own_logits, token_logits
from pet_pipeline.models import ModelFolder
from pet_pipeline.patterns import pattern_of

VOCABULARY = {"vocab_size": 90, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SHARED = [HealthCheck.function_scoped_fixture]
Inputs = dict[str, Tensor]


def tiny(name: str) -> Any:
    special = {"cls_token_id": 1, "sep_token_id": 2} if name == "modernbert" else {}
    return with_biases(random_mlm(name, **VOCABULARY, **special))


def with_biases(model: Any) -> Any:
    """The model with all parameters moved: biases start at zero, where a lost one does not show."""
    torch.manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return model.eval()


def batch() -> tuple[Inputs, Tensor]:
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
        every, _ = token_logits(model, inputs, positions)
        columns = torch.tensor([7, 3, 88])
        some, _ = token_logits(model, inputs, positions, columns)
    assert whole.std() > 0.01
    torch.testing.assert_close(every, whole, atol=1e-5, rtol=0)
    torch.testing.assert_close(some, whole[:, columns], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", [n for n in ARCHITECTURES if n != "deberta-v2-new-head"])
def test_states_are_what_the_decoder_makes_logits_of(name: str) -> None:
    model, (inputs, positions) = tiny(name), batch()
    decoder = model.get_output_embeddings()
    with torch.no_grad():
        logits, states = token_logits(model, inputs, positions)
        _, encoded = own_logits(model, inputs, positions)
        hidden = model.base_model(**inputs).last_hidden_state
    expected = functional.linear(states, decoder.weight, decoder.bias)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(encoded, hidden[positions[:, 0], positions[:, 1]])


def test_logits_are_not_rounded_to_bfloat16() -> None:
    model, (inputs, positions) = tiny("bert"), batch()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        every, _ = token_logits(model, inputs, positions)
        some, _ = token_logits(model, inputs, positions, torch.tensor([7, 3, 88]))
    for logits in (every, some):
        assert (logits != logits.bfloat16().float()).float().mean() > 0.9


def gradients(model: Any, loss: Tensor) -> dict[str, Tensor]:
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
    logits, _ = token_logits(model, inputs, positions, chosen)
    found = gradients(model, functional.cross_entropy(logits, target))
    expected = gradients(
        model, functional.cross_entropy(whole if chosen is None else whole[:, chosen], target)
    )
    assert max(gradient.abs().max() for gradient in expected.values()) > 1e-3
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_no_hook_is_left_after_an_error() -> None:
    model, (inputs, positions) = tiny("bert"), batch()
    with pytest.raises(IndexError):
        token_logits(model, {**inputs, "input_ids": inputs["input_ids"] + 90}, positions)
    assert not model.base_model._forward_hooks
    assert "forward" not in vars(model.get_output_embeddings())


def test_the_whole_decoder_is_not_cast_for_some_columns() -> None:
    model, (inputs, positions) = tiny("bert"), batch()
    decoder = model.get_output_embeddings().weight
    cast: list[Tensor] = []

    class Watched(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if "_to_copy" in str(func):
                cast.append(args[0])
            return func(*args, **(kwargs or {}))

    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), Watched():
        token_logits(model, inputs, positions, torch.tensor([7, 3, 88]))
    assert cast
    assert not any(tensor is decoder for tensor in cast)


ROWS = [{"text": "the film was long"}, {"text": "nice"}, {"text": "a very good day and more of it"}]
LONG = (("come back", "great"), ("never come back", "bad", "in other words"))
PLAIN = (("great", "good"), ("bad",))


def encoder(
    lm: MaskedLM, words: tuple[tuple[str, ...], ...], template: str = "{text} it was {mask}."
) -> PatternEncoder:
    labels = tuple(f"label-{n}" for n in range(len(words)))
    return PatternEncoder(pattern_of("p", template, labels, words), lm.tokenizer, 48)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_every_architecture_with_its_tokenizer(name: str, mlm_of: Callable[[str], Path]) -> None:
    lm = MaskedLM.load(ModelFolder(mlm_of(name)), CPU)
    assert lm.has_shortcut
    pvp = encoder(lm, (("bad",), ("great",)), "{text} it was {mask}. {sep} so so")
    assert pvp.problems() == []
    mask = lm.tokenizer.mask_token
    texts = [f"{row['text']} it was {mask}." for row in ROWS]
    plain = lm.tokenizer(texts, ["so so"] * len(texts), padding=True, return_tensors="pt")
    rows = pvp.encode(ROWS)
    assert {name: v.tolist() for name, v in lm.inputs(rows).items()} == {
        name: v.tolist() for name, v in plain.items()
    }
    with torch.no_grad():
        found = lm.label_scores(rows, pvp.words)
        whole = lm.model(**plain).logits[plain["input_ids"] == lm.tokenizer.mask_token_id]
    words = [word for (word,) in pvp.words.words]
    torch.testing.assert_close(found, whole[:, words], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", UNUSUAL)
def test_where_the_shortcut_fails_the_models_own_logits_serve(
    name: str, mlm_of: Callable[[str], Path]
) -> None:
    # MobileBERT's decoder is two matrices; ESM adds the decoder's bias elsewhere, and its
    # embeddings depend on how many tokens are masked.
    lm = MaskedLM.load(ModelFolder(mlm_of(name)), CPU)
    lm = MaskedLM(with_biases(lm.model), lm.tokenizer, CPU)
    assert not lm.has_shortcut
    assert not lm.model.base_model._forward_hooks  # of the attempt
    pvp, long = encoder(lm, PLAIN), encoder(lm, LONG)
    rows = pvp.encode(ROWS)
    with torch.no_grad():
        found = lm.label_scores(rows, pvp.words)
        whole = [  # one by one, without padding
            lm.model(**lm.inputs([row])).logits[0, row.slot.start] for row in rows
        ]
        filled = lm.confident_scores(long.encode(ROWS[:1]), long.words)
        texts = lm.masking(0.5).texts(rows, np.random.default_rng(0))
        loss = lm.mlm_loss(texts)
    great, good, bad = (word[0] for word in pvp.words.words)
    expected = [torch.stack([(row[great] + row[good]) / 2, row[bad]]) for row in whole]
    torch.testing.assert_close(found, torch.stack(expected), atol=1e-4, rtol=0)
    assert filled.tolist()[0] == pytest.approx(slow_scores(lm, long, ROWS[0]), abs=1e-3)
    assert float(loss) == pytest.approx(transformers_loss(lm, texts), rel=1e-4)


def test_a_shortcut_that_disagrees_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = random_mlm("bert", vocab_size=206), TOKENIZERS["wordpiece"]()
    for wrong, agrees in ((0.0, True), (0.1, False)):

        def shortcut(*args: Any, wrong: float = wrong) -> tuple[Tensor, Tensor]:
            logits, states = own_logits(*args)
            logits[-1, 3] += wrong
            return logits, states

        monkeypatch.setattr(mlm, "token_logits", shortcut)
        assert MaskedLM(model, tokenizer, CPU).has_shortcut is agrees


class OtherStates(BertForMaskedLM):
    """A model whose head reads the states from another place than the encoder's output."""

    def forward(self, **inputs: Any) -> Any:
        states = self.bert(**inputs, output_hidden_states=True).hidden_states[-1]
        return MaskedLMOutput(logits=self.cls(states))


def test_a_head_that_reads_all_states_is_noticed() -> None:
    tokenizer = TOKENIZERS["wordpiece"]()
    config = BertConfig(vocab_size=len(tokenizer), **SMALL, attn_implementation="eager")
    model = OtherStates(config).eval()
    lm = MaskedLM(model, tokenizer, CPU)
    assert not lm.has_shortcut
    pvp = encoder(lm, PLAIN)
    assert pvp.problems() == []
    with torch.no_grad():
        assert lm.label_scores(pvp.encode(ROWS), pvp.words).shape == (len(ROWS), 2)


def test_trying_the_shortcut_takes_no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pet_pipeline.inference.usable_cores", lambda: 3)
    MaskedLM(random_mlm("bert", vocab_size=206), TOKENIZERS["wordpiece"](), CPU)
    assert torch.get_num_threads() == 1


@pytest.fixture(scope="module")
def lm(tiny_mlm: Path) -> MaskedLM:
    return MaskedLM.load(ModelFolder(tiny_mlm), CPU)


@pytest.fixture(scope="module")
def peaked(tiny_mlm: Path) -> MaskedLM:
    """A model sure of itself, whose scores depend on which masks are filled first."""
    lm = MaskedLM.load(ModelFolder(tiny_mlm), CPU)
    sharpened(lm.model)
    return lm


def test_one_token_words_are_scored_by_the_mean_of_their_logits(lm: MaskedLM) -> None:
    pvp = encoder(lm, PLAIN)
    rows = pvp.encode(ROWS)
    with torch.no_grad():
        found = lm.label_scores(rows, pvp.words)
        whole = lm.model(**lm.inputs(rows)).logits
    slots = [row.slot.start for row in rows]
    whole = whole[torch.arange(3), slots]
    great, good, bad = (word[0] for word in pvp.words.words)
    expected = torch.stack([(whole[:, great] + whole[:, good]) / 2, whole[:, bad]], 1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_normalised_scores_of_one_token_words_differ_from_logits_by_a_constant(
    peaked: MaskedLM,
) -> None:
    pvp = encoder(peaked, PLAIN)
    rows = pvp.encode(ROWS)
    with torch.no_grad():
        logits = peaked.label_scores(rows, pvp.words)
        normalised = peaked.label_scores(rows, pvp.words, normalised=True)
    assert (normalised < 0).all()
    assert (normalised - logits).abs().max() > 1
    torch.testing.assert_close(
        normalised - normalised[:, :1], logits - logits[:, :1], atol=1e-4, rtol=0
    )


@settings(max_examples=20, deadline=None, suppress_health_check=SHARED)
@given(st.lists(st.sampled_from(WORDS), min_size=2, max_size=6, unique=True))
def test_one_token_words_are_ranked_as_by_their_logits(peaked: MaskedLM, chosen: list[str]) -> None:
    pvp = encoder(peaked, tuple((word,) for word in chosen))
    rows = pvp.encode(ROWS)
    with torch.no_grad():
        by_logit = peaked.label_scores(rows, pvp.words)
        for scores in (
            peaked.label_scores(rows, pvp.words, normalised=True),
            peaked.confident_scores(rows, pvp.words),
        ):
            assert torch.equal(scores.argsort(1), by_logit.argsort(1))


def test_words_of_several_tokens_are_scored_by_the_mean_of_their_log_probabilities(
    lm: MaskedLM,
) -> None:
    pvp = encoder(lm, LONG)
    rows = pvp.encode(ROWS)
    with torch.no_grad():
        found = lm.label_scores(rows, pvp.words)
        log_probs = lm.model(**lm.inputs(rows)).logits.log_softmax(-1)
    for n, row in enumerate(rows):
        for label, group in enumerate(pvp.words.tokens):
            scores = [
                np.mean([float(log_probs[n, row.slot.start + k, token]) for k, token in word_])
                for word_ in (list(enumerate(word)) for word in group)
            ]
            assert float(found[n, label]) == pytest.approx(float(np.mean(scores)), abs=1e-4)


@pytest.mark.parametrize("decoding", [MaskedLM.label_scores, MaskedLM.confident_scores])
def test_words_of_different_lengths_are_comparable(lm: MaskedLM, decoding: Any) -> None:
    # A model that knows nothing gives every token 1/206: by sums a long word could not win.
    pvp = encoder(lm, LONG)
    with torch.no_grad():
        scores = decoding(lm, pvp.encode(ROWS), pvp.words)
    assert (scores - np.log(1 / 206)).abs().max() < 1


def one_word_at_a_time(lm: MaskedLM, row: Encoded, word: tuple[int, ...]) -> float:
    """The slow way: a slot of the word's length, the most confident of its tokens first."""
    sized = row.with_slot([lm.layout.mask] * len(word))
    inputs, slot = lm.inputs([sized]), sized.slot.start
    left, total = dict(enumerate(word)), 0.0
    while left:
        with torch.no_grad():
            log_probs = lm.model(**inputs).logits[0].log_softmax(-1)
        place = max(left, key=lambda k: float(log_probs[slot + k, left[k]]))
        total += float(log_probs[slot + place, left[place]])
        inputs["input_ids"][0, slot + place] = left.pop(place)
    return total / len(word)


def slow_scores(lm: MaskedLM, pvp: PatternEncoder, row: dict[str, str]) -> list[float]:
    (encoded,) = pvp.encode([row])
    return [
        float(np.mean([one_word_at_a_time(lm, encoded, word) for word in group]))
        for group in pvp.words.tokens
    ]


def within(lm: MaskedLM, batch_tokens: int) -> MaskedLM:
    """The same model with another budget of inference batches."""
    return MaskedLM(lm.model, lm.tokenizer, replace(CPU, batch_tokens=batch_tokens))


WORD = st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join)


@settings(max_examples=10, deadline=None, suppress_health_check=SHARED)
@given(
    st.lists(st.lists(WORD, min_size=1, max_size=3).map(tuple), min_size=2, max_size=3).map(tuple),
    st.integers(1, 200),
)
def test_any_words_are_filled_by_confidence(
    peaked: MaskedLM, words: tuple[tuple[str, ...], ...], batch_tokens: int
) -> None:
    pvp = encoder(peaked, words)
    with torch.no_grad():
        found = within(peaked, batch_tokens).confident_scores(pvp.encode(ROWS), pvp.words)
    for scores, row in zip(found.tolist(), ROWS, strict=True):
        assert scores == pytest.approx(slow_scores(peaked, pvp, row), abs=1e-3)


@pytest.mark.parametrize("batch_tokens", [1, 40, 4000])
@pytest.mark.parametrize("template", ["{text} it was {mask}.", "{mask} ! {sep} {text}"])
def test_the_most_confident_mask_is_filled_first(
    peaked: MaskedLM, batch_tokens: int, template: str
) -> None:
    pvp = encoder(peaked, LONG, template)
    with torch.no_grad():
        found = within(peaked, batch_tokens).confident_scores(pvp.encode(ROWS), pvp.words)
    for scores, row in zip(found.tolist(), ROWS, strict=True):
        assert scores == pytest.approx(slow_scores(peaked, pvp, row), abs=1e-3)


def test_the_order_of_filling_counts(peaked: MaskedLM) -> None:
    pvp = encoder(peaked, LONG)
    rows = pvp.encode(ROWS)
    with torch.no_grad():
        parallel = peaked.label_scores(rows, pvp.words)
        confident = peaked.confident_scores(rows, pvp.words)
    assert (parallel - confident).abs().max() > 0.1


@pytest.mark.parametrize("words", [PLAIN, LONG])
def test_scores_are_not_rounded_by_autocast(
    lm: MaskedLM, words: tuple[tuple[str, ...], ...]
) -> None:
    pvp = encoder(lm, words)
    rows = pvp.encode(ROWS)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        scores = lm.label_scores(rows, pvp.words)
        confident = lm.confident_scores(rows, pvp.words)
    for found in (scores, confident):
        assert found.dtype == torch.float32
        assert not torch.equal(found, found.bfloat16().float())


@torch.no_grad()
def transformers_loss(lm: MaskedLM, texts: Sequence[MaskedText]) -> float:
    """The sum of the losses by transformers' own labels, text by text."""
    total = 0.0
    for text in texts:
        inputs = lm.inputs([text.row])
        labels = torch.full_like(inputs["input_ids"], -100)
        labels[0, text.positions] = torch.from_numpy(text.targets)
        total += float(lm.model(**inputs, labels=labels).loss) * len(text.positions)
    return total


def test_the_mlm_loss_is_the_models_own(lm: MaskedLM) -> None:
    rows = encoder(lm, LONG).encode(ROWS)
    texts = lm.masking(0.5).texts(rows, np.random.default_rng(3))
    assert len({len(text.row) for text in texts}) > 1
    with torch.no_grad():
        assert float(lm.mlm_loss(texts)) == pytest.approx(transformers_loss(lm, texts), rel=1e-5)


def test_it_computes_on_the_cpu_if_nothing_else_is_there(
    monkeypatch: pytest.MonkeyPatch, tiny_mlm: Path
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    lm = MaskedLM.load(ModelFolder(tiny_mlm))
    assert lm.compute == Compute()
    assert lm.device == torch.device("cpu")
    torch.set_num_threads(1)


@pytest.mark.parametrize("words", [(("bad",), ("great",)), (("very bad",), ("great",))])
@pytest.mark.parametrize("name", [*ARCHITECTURES, *UNUSUAL])
def test_states_are_what_the_decoder_reads_at_the_slot(
    name: str, words: Any, mlm_of: Callable[[str], Path]
) -> None:
    lm = MaskedLM.load(ModelFolder(mlm_of(name)), CPU)
    pvp = encoder(lm, words)
    rows = pvp.encode(ROWS)
    decoder = lm.model.get_output_embeddings()
    with torch.no_grad():
        _, found = lm.label_scores_and_states(rows, pvp.words)
        inputs = lm.inputs(rows)
        masks = inputs["input_ids"] == lm.tokenizer.mask_token_id
        # All masks alike: a linear decoder takes the mean of its inputs to that of its outputs
        shape = (len(rows), pvp.words.n_masks, -1)
        logits = lm.model(**inputs).logits[masks].view(shape).mean(1)
        states = lm.model.base_model(**inputs).last_hidden_state[masks].view(shape).mean(1)
    assert not lm.model.base_model._forward_hooks
    assert found.dtype == torch.float32
    if name in ("mobilebert", "deberta-v2-new-head"):  # without a decoder of its own
        torch.testing.assert_close(found, states, atol=1e-5, rtol=0)
    else:
        assert not decoder._forward_pre_hooks
        bias = logits - functional.linear(found, decoder.weight)
        torch.testing.assert_close(bias, bias[:1].expand_as(bias), atol=1e-5, rtol=0)
