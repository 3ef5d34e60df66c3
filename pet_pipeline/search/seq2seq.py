"""Templates that a sequence-to-sequence model with sentinels writes, as LM-BFF has it.

Its encoder reads each labelled row with its label word between two sentinels, once; its decoder
writes what the sentinels replace. A template's score is the sum over the rows of the
log-probabilities of its tokens (2012.15723, section 5.2), here divided by the number of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from pet_pipeline.compute import Compute
from pet_pipeline.encoding import Tokenizer
from pet_pipeline.errors import UserError
from pet_pipeline.inference import autocast, device_of
from pet_pipeline.models import Pretrained
from pet_pipeline.patterns import fill, parse_template
from pet_pipeline.pretrained import load_seq2seq, load_tokenizer
from pet_pipeline.progress import progress
from pet_pipeline.search.templates import (
    TEXT,
    Candidate,
    LabelledTexts,
    Location,
    locations,
    usable,
)

SENTINELS = ("<extra_id_0>", "<extra_id_1>", "<extra_id_2>")
MOST_TOKENS = 5  # of each part; longer ones are not short templates


class Seq2SeqLM:
    """A sequence-to-sequence model with its tokenizer and sentinels, and where it computes."""

    def __init__(self, model: Any, tokenizer: Tokenizer, compute: Compute | None = None):
        """Raises `UserError` if the tokenizer has no sentinels."""
        self.model, self.tokenizer = model, tokenizer
        self.compute = compute or Compute()
        self.sentinels = sentinels_of(tokenizer)

    @classmethod
    def load(cls, base: Pretrained, compute: Compute | None = None) -> Self:
        """The model of a folder or of the hub; raises `UserError` if it has no sentinels."""
        return cls(load_seq2seq(base, compute), load_tokenizer(base), compute)

    @property
    def device(self) -> torch.device:
        """Where tensors belong."""
        return device_of(self.compute)


@dataclass(frozen=True)
class Written:
    """Tokens of the two parts around a label word, and their score."""

    left: tuple[int, ...]
    right: tuple[int, ...]
    score: float


def seq2seq_templates(
    lm: Seq2SeqLM, texts: LabelledTexts, *, beam: int, max_tokens: int
) -> list[list[Candidate]]:
    """Candidates of each location of the slot; max_tokens: of a row, on each side of the slot."""
    allowed = writable_tokens(lm.tokenizer)
    where = locations(texts.columns)
    groups: list[list[Candidate]] = [[] for _ in where]
    with progress("write templates", len(where), "locations") as advance:
        for group, location in zip(groups, where, strict=True):
            sources = [
                source_of(location, row, texts.words[label][0], lm, max_tokens)
                for row, label in zip(texts.rows, texts.gold, strict=True)
            ]
            for written in write(lm, sources, allowed, beam=beam, most_tokens=MOST_TOKENS):
                left = lm.tokenizer.decode(list(written.left))
                right = lm.tokenizer.decode(list(written.right))
                if usable(location, left, right, texts.words):
                    group.append(Candidate(location.template(left, right), "t5", written.score))
            advance(1)
    return groups


def sentinels_of(tokenizer: Tokenizer) -> tuple[int, int, int]:
    """The ids of the first three sentinels; raises `UserError` if there are none."""
    known = tokenizer.get_vocab()
    if not all(sentinel in known for sentinel in SENTINELS):
        raise UserError(
            f"search.t5: {tokenizer.name_or_path} has no {SENTINELS[0]}; "
            "name a T5 or another model that was trained with such sentinels"
        )
    first, second, third = (int(known[sentinel]) for sentinel in SENTINELS)
    return first, second, third


def writable_tokens(tokenizer: Tokenizer) -> list[int]:
    """Tokens of letters and common punctuation."""
    special = set(tokenizer.all_special_ids)
    writable = []
    for n, token in enumerate(tokenizer.convert_ids_to_tokens(range(len(tokenizer)))):
        text = tokenizer.convert_tokens_to_string([token or ""]).strip()
        if n not in special and text and "".join(TEXT.findall(text)) == text:
            writable.append(n)
    return writable


def source_of(
    location: Location, row: Mapping[str, str], word: str, lm: Seq2SeqLM, max_tokens: int
) -> list[int]:
    """The encoder's input: the row with its label word between two sentinels.

    What comes before it is cut at its beginning, what comes after it at its end.
    """

    def tokens(text: str) -> list[int]:
        encoded = lm.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        ids: list[int] = encoded["input_ids"]
        return [n for n in ids if n not in lm.sentinels]  # a text's own mean nothing

    before, after = (tokens(_filled(side, row)) for side in (location.before, location.after))
    before = before[max(0, len(before) - max_tokens) :]
    middle = [lm.sentinels[0], *tokens(word), lm.sentinels[1]]
    return [*before, *middle, *after[:max_tokens], lm.tokenizer.eos_token_id]


@torch.inference_mode()
def write(
    lm: Seq2SeqLM,
    sources: Sequence[Sequence[int]],
    allowed: Sequence[int],
    *,
    beam: int,
    most_tokens: int,
) -> list[Written]:
    """The best pairs of parts by the mean over the sources, best first, at most `beam`.

    allowed: tokens of the parts; most_tokens: of each part, of which none is empty
    """
    lm.model.to(lm.device).eval()
    decoder = _Decoder(lm, sources)
    normal = torch.tensor(allowed, device=lm.device)
    beams = [_Beam((), None, 0.0)]
    done: list[Written] = []
    while True:
        options: list[tuple[float, int, int]] = []  # score, beam, next token
        for number, part in enumerate(beams):
            log_probs = decoder.log_probs[number]  # (vocabulary,)
            if part.length < most_tokens:
                top = _top_tokens(log_probs, normal, beam)
                options += [(part.score + value, number, token) for value, token in top]
            if not part.length:
                continue
            sentinel = lm.sentinels[1 if part.right is None else 2]
            score = part.score + float(log_probs[sentinel])
            if part.right is None:
                options.append((score, number, sentinel))
            else:
                done.append(Written(part.left, part.right, score))
        done = sorted(done, key=lambda written: -written.score)[:beam]
        options = sorted(options, key=lambda option: (-option[0], option[1:]))[:beam]
        # Scores only fall, so no beam can overtake a full list of better ones.
        if not options or (len(done) == beam and options[0][0] <= done[-1].score):
            return done
        decoder.advance([number for _, number, _ in options], [token for *_, token in options])
        beams = [
            beams[number].extended(token, score, ends_left=token == lm.sentinels[1])
            for score, number, token in options
        ]


@dataclass(frozen=True)
class _Beam:
    """Two parts as far as they are written; the right one is None until the left one has ended."""

    left: tuple[int, ...]
    right: tuple[int, ...] | None
    score: float

    @property
    def length(self) -> int:
        """Tokens of the part that is being written."""
        return len(self.left if self.right is None else self.right)

    def extended(self, token: int, score: float, *, ends_left: bool) -> _Beam:
        """With one more token, which may be the sentinel that ends the left part."""
        if ends_left:
            return replace(self, right=(), score=score)
        if self.right is None:
            return replace(self, left=(*self.left, token), score=score)
        return replace(self, right=(*self.right, token), score=score)


class _Decoder:
    """Cached decoding of beams, each over all sources at once."""

    def __init__(self, lm: Seq2SeqLM, sources: Sequence[Sequence[int]]):
        self._lm, self._n_rows = lm, len(sources)
        width, pad = max(len(source) for source in sources), lm.tokenizer.pad_token_id
        ids = torch.tensor([[*s, *[pad] * (width - len(s))] for s in sources], device=lm.device)
        lengths = torch.tensor([[len(s)] for s in sources], device=lm.device)
        self._attention = (torch.arange(width, device=lm.device)[None] < lengths).long()
        with autocast(lm.compute):
            encoder = lm.model.get_encoder()
            self._states = encoder(input_ids=ids, attention_mask=self._attention)[0]
        self._cache: Any = None
        start = [lm.model.config.decoder_start_token_id, lm.sentinels[0]]
        rows = list(range(self._n_rows))
        self._read(torch.tensor([start] * self._n_rows, device=lm.device), rows)

    def advance(self, parents: Sequence[int], tokens: Sequence[int]) -> None:
        """Replace the beams: for each the beam it continues, and its next token."""
        order = [parent * self._n_rows + row for parent in parents for row in range(self._n_rows)]
        self._cache.reorder_cache(torch.tensor(order, device=self._lm.device))
        ids = torch.tensor(tokens, device=self._lm.device).repeat_interleave(self._n_rows)
        self._read(ids[:, None], [n % self._n_rows for n in order])

    def _read(self, ids: Tensor, rows: list[int]) -> None:
        with autocast(self._lm.compute):
            output = self._lm.model(
                encoder_outputs=(self._states[rows],),
                attention_mask=self._attention[rows],
                decoder_input_ids=ids,
                past_key_values=self._cache,
                use_cache=True,
            )
        self._cache = output.past_key_values
        log_probs = output.logits[:, -1].float().log_softmax(-1)
        self.log_probs = log_probs.view(-1, self._n_rows, log_probs.shape[-1]).mean(1)


def _top_tokens(log_probs: Tensor, tokens: Tensor, count: int) -> list[tuple[float, int]]:
    """The highest of some tokens' log-probabilities, and the tokens; log_probs: (vocabulary,)."""
    values, indices = log_probs[tokens].topk(min(count, len(tokens)))
    return list(zip(values.tolist(), tokens[indices].tolist(), strict=True))


def _filled(side: str, row: Mapping[str, str]) -> str:
    """One side of a location with a row's texts in it."""
    parts = parse_template(side)
    texts = (
        part if isinstance(part, str) else "" if part.name == "sep" else fill(part, row)
        for part in parts
    )
    return " ".join("".join(texts).split())
