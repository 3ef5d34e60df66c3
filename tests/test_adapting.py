"""A masked LM trained further: it learns the texts, keeps a teacher's embeddings, and resumes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from testing import ARCHITECTURES, CPU, HAPPY, SAD, TOKENIZERS, WORDS, save_mlm

from pet_pipeline import adapting
from pet_pipeline.adapting import Teacher, adapt_mlm, check_teacher
from pet_pipeline.classifier import encode_texts
from pet_pipeline.corpus import MEASURED, Corpus, Packing
from pet_pipeline.encoded import Encoded, EncodedRows, Role
from pet_pipeline.encoding import layout_of
from pet_pipeline.errors import UserError
from pet_pipeline.masking import Masking
from pet_pipeline.mlm import MaskedLM
from pet_pipeline.models import ModelFolder
from pet_pipeline.optimisation import Adaptation, Optimisation
from pet_pipeline.pretrained import new_mlm
from pet_pipeline.training import CHECKPOINT
from pet_pipeline.words import Joins

TEXTS = [f"{text} {more}" for more in ("and so on", "again and again") for text in SAD + HAPPY]
RATE = 3e-3


def how(**changes: Any) -> Adaptation:
    optimisation = Optimisation(RATE, batch_size=4, frozen_embeddings=False)
    given = {"steps": 30, "max_tokens": 24, "masked": 0.3, "held_out": 30}
    return Adaptation(optimisation, **{**given, **changes})


def chunks_of(texts: Sequence[str], lm: MaskedLM, limit: int, size: int = 5) -> Callable[[], Any]:
    """Texts in chunks of some rows, as a table has them."""

    def chunks() -> Iterator[Any]:
        for start in range(0, len(texts), size):
            part = texts[start : start + size]
            yield (
                len(part),
                lambda numbers, part=part: encode_texts(
                    lm.tokenizer, [{"text": part[n]} for n in numbers], ["text"], limit
                ),
            )

    return chunks


def corpus_of(lm: MaskedLM, adaptation: Adaptation, texts: Sequence[str] = TEXTS) -> Corpus:
    limit = 10**9 if adaptation.packed else adaptation.max_tokens
    return Corpus.read(len(texts), chunks_of(texts, lm, limit), adaptation, lm.layout)


def load(folder: Path) -> MaskedLM:
    return MaskedLM.load(ModelFolder(folder), CPU)


def all_rows(rows: EncodedRows) -> list[Encoded]:
    return [rows[n] for n in range(len(rows))]


def test_the_loss_on_held_out_texts_falls(tiny_mlm: Path) -> None:
    lm, adaptation = load(tiny_mlm), how(steps=60, held_out=100)
    texts = [f"{text} {word}" for text in TEXTS for word in ("team", "match", "goal", "bank")]
    adapted = adapt_mlm(lm, corpus_of(lm, adaptation, texts), adaptation, seed=1)
    assert adapted.after.loss < adapted.before.loss - 0.5
    assert adapted.after.accuracy > adapted.before.accuracy
    assert adapted.before.cosine == pytest.approx(1, abs=1e-5)
    assert adapted.after.cosine < 0.999
    assert adapted.loss < adapted.before.loss
    assert 0 < adapted.tokens <= adaptation.tokens


def test_figures_are_those_of_a_plain_forward_pass(tiny_mlm: Path) -> None:
    lm, adaptation = load(tiny_mlm), how(held_out=100)
    corpus = corpus_of(lm, adaptation)
    adapted = adapt_mlm(lm, corpus, replace(adaptation, steps=0), seed=1)
    examination = adapting.Examination.of(lm, corpus.held_out, adaptation, None, None)
    losses, right = [], []
    for text in examination.texts:
        with torch.no_grad():
            logits = lm.model(**lm.inputs([text.row])).logits[0].log_softmax(-1)
        losses += [-float(logits[p, t]) for p, t in zip(text.positions, text.targets, strict=True)]
        right += (logits.argmax(-1).numpy()[text.positions] == text.targets).tolist()
    assert adapted.positions == len(losses)
    assert adapted.before.loss == pytest.approx(np.mean(losses), abs=1e-4)
    assert adapted.before.accuracy == pytest.approx(np.mean(right))
    assert adapted.after == adapted.before


def test_a_teacher_keeps_the_sentence_embeddings(tiny_mlm: Path) -> None:
    figures = []
    for weight in (0.0, 4.0):
        lm, adaptation = load(tiny_mlm), how(steps=60, keep_weight=weight)
        teacher = Teacher.load(ModelFolder(tiny_mlm), CPU) if weight else None
        corpus = corpus_of(lm, adaptation)
        figures.append(adapt_mlm(lm, corpus, adaptation, seed=1, teacher=teacher))
    free, kept = figures
    assert kept.before.cosine == pytest.approx(1, abs=1e-5)
    assert kept.after.cosine > free.after.cosine + 0.02
    assert kept.after.loss < kept.before.loss
    assert all(not p.requires_grad for p in teacher.model.parameters())  # type: ignore[union-attr]


@pytest.mark.parametrize("keep_weight", [0.0, 4.0])
def test_micro_batches_make_the_same_update(tiny_mlm: Path, keep_weight: float) -> None:
    weights = []
    for batch_tokens in (10**6, 20):
        lm = load(tiny_mlm)
        for module in lm.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        adaptation = how(steps=3, keep_weight=keep_weight)
        optimisation = replace(adaptation.optimisation, batch_tokens=batch_tokens)
        adaptation = replace(adaptation, optimisation=optimisation)
        teacher = Teacher.load(ModelFolder(tiny_mlm), CPU) if keep_weight else None
        adapt_mlm(lm, corpus_of(lm, adaptation), adaptation, seed=1, teacher=teacher)
        weights.append(lm.model.state_dict())
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], atol=2e-5, rtol=1e-3)


def test_a_killed_adaptation_ends_where_an_uninterrupted_one_does(
    tiny_mlm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = replace(CPU, checkpoint_seconds=0.0)  # after every step
    adaptation = how(steps=8, keep_weight=1.0, whole_words=True)

    def run(folder: Path) -> tuple[MaskedLM, Any]:
        lm = MaskedLM.load(ModelFolder(tiny_mlm), compute)
        teacher = Teacher.load(ModelFolder(tiny_mlm), compute)
        folder.mkdir(exist_ok=True)
        corpus = corpus_of(lm, adaptation)
        return lm, adapt_mlm(lm, corpus, adaptation, seed=1, teacher=teacher, checkpoints=folder)

    whole, figures = run(tmp_path / "whole")
    masked, calls = Masking.texts, itertools.count()

    def killed(*arguments: Any, **options: Any) -> Any:
        if next(calls) == 6:  # the first is of the held-out texts
            raise KeyboardInterrupt
        return masked(*arguments, **options)

    monkeypatch.setattr(Masking, "texts", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed")
    assert (tmp_path / "killed" / CHECKPOINT).exists()
    steps = []

    def counted(*arguments: Any, **options: Any) -> Any:
        steps.append(1)
        return masked(*arguments, **options)

    monkeypatch.setattr(Masking, "texts", counted)
    resumed, again = run(tmp_path / "killed")
    assert len(steps) == 1 + 3  # the held-out texts, and the steps that were left
    assert again == figures
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


words = st.sampled_from([*WORDS, "unbelievable", "gooddays", "x1", "semifinal"])


@pytest.fixture(scope="session", params=["bert", "roberta", "albert"])
def lm_of_a_kind(request: pytest.FixtureRequest, mlm_of: Callable[[str], Path]) -> MaskedLM:
    """A masked LM with each kind of tokenizer."""
    return load(mlm_of(request.param))


@given(
    texts=st.lists(st.lists(words, min_size=1, max_size=8).map(" ".join), min_size=1, max_size=4),
    fraction=st.floats(0.05, 0.9),
    seed=st.integers(0, 99),
)
def test_whole_words_are_masked_whole(
    lm_of_a_kind: MaskedLM, texts: list[str], fraction: float, seed: int
) -> None:
    tokenizer, rng = lm_of_a_kind.tokenizer, np.random.default_rng(seed)
    joins = Joins.of(tokenizer)
    for text in texts:
        row = encode_texts(tokenizer, [{"text": text}], ["text"], 200)
        masked = lm_of_a_kind.masking(fraction, joins).texts(row, rng)
        chosen = set(masked[0].positions.tolist())  # never none
        assert masked[0].clean == row[0]
        offsets = tokenizer(text, return_offsets_mapping=True)["offset_mapping"]
        owners = [text[:end].count(" ") for _, end in offsets]
        for word in range(len(text.split())):
            own = {
                n for n, owner in enumerate(owners)
                if owner == word and row[0].roles[n] == Role.TEXT
            }  # fmt: skip
            assert own <= chosen or not own & chosen


def test_words_end_at_punctuation(lm_of_a_kind: MaskedLM) -> None:
    (row,) = encode_texts(lm_of_a_kind.tokenizer, [{"text": "so good,but (bad)"}], ["text"], 99)
    positions = np.flatnonzero(np.frombuffer(row.roles, np.uint8) == Role.TEXT)
    starts = Joins.of(lm_of_a_kind.tokenizer).starts(row, positions)
    names = lm_of_a_kind.tokenizer.convert_ids_to_tokens([row.ids[n] for n in positions])
    groups: list[str] = []
    for name, start in zip(names, starts, strict=True):
        groups += [""] * int(start)
        groups[-1] += name.lstrip("Ġ▁").removeprefix("##")
    assert [group for group in groups if group] == ["so", "good", ",", "but", "(", "bad", ")"]


def test_a_filled_slot_is_always_predicted_and_an_empty_one_never(tiny_mlm: Path) -> None:
    lm = load(tiny_mlm)
    (text,) = encode_texts(lm.tokenizer, [{"text": "the film was good and great"}], ["text"], 99)
    mask = lm.layout.mask
    empty = text[:-1] + Encoded.of([mask], Role.MASK) + text[-1:]
    filled = empty.with_slot(lm.tokenizer("great bad", add_special_tokens=False)["input_ids"])
    slot = set(range(filled.slot.start, filled.slot.stop))
    for seed in range(30):
        for row, predicted in ((filled, slot), (empty, set[int]())):
            rng = np.random.default_rng(seed)
            for masked in lm.masking(0.15).texts([row], rng):
                positions = masked.positions.tolist()
                assert set(positions) & slot == predicted
                assert positions == sorted(positions)
                assert masked.clean == row


@given(
    lengths=st.lists(st.integers(0, 40), min_size=1, max_size=20),
    max_tokens=st.integers(4, 30),
)
def test_packed_sequences_hold_every_token_and_the_budget(
    lengths: list[int], max_tokens: int
) -> None:
    layout = layout_of(TOKENIZERS["wordpiece"]())
    counter = itertools.count(10)
    rows = [
        Encoded.of(layout.prefix, Role.SPECIAL)
        + Encoded.of(itertools.islice(counter, length), Role.TEXT)
        + Encoded.of(layout.suffix, Role.SPECIAL)
        for length in lengths
    ]
    packing = Packing(layout, max_tokens)
    packed = [*itertools.chain.from_iterable(packing.add([row]) for row in rows), *packing.rest()]
    texts = [
        token
        for row in packed
        for token, role in zip(row.ids, row.roles, strict=True)
        if role == Role.TEXT
    ]
    assert texts == list(range(10, 10 + sum(lengths)))  # in order, none lost
    assert all(len(row) <= max_tokens for row in packed)
    assert all(len(row) == max_tokens for row in packed[:-1])
    for row in packed:
        assert row.ids[0] == layout.prefix[0]
        assert row.ids[-1] == layout.suffix[-1]
        assert {*row.segments} == {0}


@pytest.mark.parametrize("packed", [False, True])
def test_a_corpus_is_no_larger_than_the_budget(tiny_mlm: Path, packed: bool) -> None:
    lm = load(tiny_mlm)
    texts = [f"the film number {n} was good and great" for n in range(2000)]
    read: list[int] = []

    def chunks() -> Iterator[Any]:
        for count, encode in chunks_of(texts, lm, 24, size=100)():

            def counted(numbers: Sequence[int], encode: Any = encode) -> Any:
                read.append(len(numbers))
                return encode(numbers)

            yield count, counted

    adaptation = how(steps=10, packed=packed)  # 10 updates of 96 tokens
    corpus = Corpus.read(2000, chunks, adaptation, lm.layout)
    assert 0.8 * 960 < corpus.train.lengths.sum() < 1.2 * 960
    assert 0.3 * sum(len(row) for row in all_rows(corpus.held_out)) >= 30
    assert sum(read) < MEASURED + 200
    adapted = adapt_mlm(lm, corpus, adaptation, seed=1)
    assert 0.8 * adaptation.tokens < adapted.tokens <= adaptation.tokens
    assert adapted.sequences == len(corpus.train)


@pytest.mark.parametrize("longest_first", [False, True])
def test_a_table_sorted_by_length_keeps_the_budget(tiny_mlm: Path, longest_first: bool) -> None:
    texts = ["good " * (2 if (n < 1000) ^ longest_first else 40) for n in range(2000)]
    lm, adaptation = load(tiny_mlm), how(steps=10, max_tokens=64)  # 10 updates of 256 tokens
    corpus = corpus_of(lm, adaptation, texts)
    assert 0.7 * 2560 < corpus.train.lengths.sum() < 1.4 * 2560


@pytest.mark.parametrize("packed", [False, True])
def test_passes_tell_the_steps(tiny_mlm: Path, packed: bool) -> None:
    lm = load(tiny_mlm)
    texts = [f"the film number {n} was good" for n in range(400)]
    tokens = []
    for passes in (0.25, 1, 3):
        adaptation = how(steps=0, passes=passes, packed=packed)
        corpus = corpus_of(lm, adaptation, texts)
        planned = corpus.plan(adaptation)
        assert planned == replace(adaptation, steps=planned.steps)
        assert planned.tokens <= max(1, passes) * corpus.train.lengths.sum()
        tokens.append(planned.tokens)
    assert tokens[1] / tokens[0] == pytest.approx(390 / 100, rel=0.05)  # ten texts are held out
    assert tokens[2] / tokens[1] == pytest.approx(3, rel=0.05)
    given = how(steps=7, packed=packed)
    assert corpus.plan(given) is given


def test_held_out_texts_are_the_same_for_every_budget_and_never_trained_on(tiny_mlm: Path) -> None:
    lm = load(tiny_mlm)
    texts = [f"the film number {n} was good" for n in range(300)]
    corpora = [corpus_of(lm, how(steps=steps), texts) for steps in (1, 5, 999)]
    held = [all_rows(corpus.held_out) for corpus in corpora]
    assert held[0] == held[1] == held[2]
    for corpus in corpora:
        assert not {row.ids for row in all_rows(corpus.train)} & {row.ids for row in held[0]}
    assert len(corpora[2].train) + len(held[2]) == 300


@pytest.mark.parametrize("texts", [[], ["good"], ["", " ", ""]])
def test_too_few_texts_are_refused(tiny_mlm: Path, texts: list[str]) -> None:
    with pytest.raises(UserError, match=r"^\d rows, not enough of them with text; two are needed"):
        corpus_of(load(tiny_mlm), how(), texts)


@pytest.mark.parametrize("name", ["bert", "roberta", "distilbert", "electra", "modernbert"])
def test_an_encoder_without_a_head_gets_one(
    mlm_of: Callable[[str], Path], tmp_path: Path, name: str
) -> None:
    whole, is_new = new_mlm(ModelFolder(mlm_of(name)))
    assert not is_new
    whole.base_model.save_pretrained(tmp_path)
    load(mlm_of(name)).tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="has no trained masked-LM head"):
        load(tmp_path)
    model, is_new = new_mlm(ModelFolder(tmp_path))
    assert is_new
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    for key, tensor in whole.base_model.state_dict().items():
        assert torch.equal(tensor, model.base_model.state_dict()[key])


def test_a_teacher_that_does_not_fit_is_refused(
    mlm_of: Callable[[str], Path], tiny_mlm: Path, tmp_path: Path
) -> None:
    def problem(teacher: Path, max_tokens: int = 24) -> str:
        with pytest.raises(UserError) as caught:
            check_teacher(ModelFolder(teacher), ModelFolder(tiny_mlm), max_tokens)
        return str(caught.value)

    check_teacher(ModelFolder(tiny_mlm), ModelFolder(tiny_mlm), 24)
    assert "has another vocabulary than" in problem(mlm_of("roberta"))
    assert problem(tiny_mlm, 300) == f"{tiny_mlm} reads 256 tokens, and sequences have up to 300"
    monkeypatched = {**ARCHITECTURES["bert"][1], "hidden_size": 64}
    wide = tmp_path / "wide"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ARCHITECTURES, "bert", ("wordpiece", monkeypatched))
        save_mlm("bert", wide)
    assert problem(wide) == (
        f"{wide} has the hidden size 64, {tiny_mlm} 32; name a teacher of the same size"
    )
