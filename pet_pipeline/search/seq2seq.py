"""Templates that a sequence-to-sequence model with sentinels writes, as LM-BFF has it.

Its encoder reads each labelled row with its label word between two sentinels, once; its decoder
writes what the sentinels stand for. A template's score is the sum over the rows of the
log-probabilities of its tokens (2012.15723, section 5.2), here divided by the number of rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pet_pipeline.config import Machine
from pet_pipeline.encoding import Tokenizer
from pet_pipeline.errors import UserError
from pet_pipeline.patterns import fill, parse_template
from pet_pipeline.pretrained import autocast, device_of
from pet_pipeline.progress import progress
from pet_pipeline.search.templates import TEXT, Candidate, Place, Words, places, usable

SENTINELS = ("<extra_id_0>", "<extra_id_1>", "<extra_id_2>")
MOST_TOKENS = 5  # of each part; longer ones are no short templates


@dataclass(frozen=True)
class Written:
    """Tokens of the two parts around a label word, and their score."""

    left: tuple[int, ...]
    right: tuple[int, ...]
    score: float


def seq2seq_templates(
    model: Any,
    tokenizer: Tokenizer,
    rows: Sequence[Mapping[str, str]],
    gold: Sequence[int],
    columns: Sequence[str],
    words: Words,
    *,
    beam: int,
    max_tokens: int,
    machine: Machine,
) -> list[list[Candidate]]:
    """Candidates of each place of the slot. Raises `UserError` if the model has no sentinels.

    gold: (rows,) label numbers; words: of each label, the first of which stands in the slot
    """
    sentinels = sentinels_of(tokenizer)
    allowed = writable_tokens(tokenizer)
    spots = places(columns)
    found = []
    with progress("write templates", len(spots), "places") as advance:
        for place in spots:
            sources = [
                source_of(place, row, words[label][0], tokenizer, sentinels, max_tokens)
                for row, label in zip(rows, gold, strict=True)
            ]
            written = write(
                model,
                sources,
                tokenizer.pad_token_id,
                sentinels,
                allowed,
                beam,
                MOST_TOKENS,
                machine,
            )
            group = []
            for entry in written:
                left, right = (tokenizer.decode(list(part)) for part in (entry.left, entry.right))
                if usable(place, left, right, words):
                    template = place.template(left, right)
                    group.append(Candidate(template, "t5", entry.score))
            found.append(group)
            advance(1)
    return found


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
    found = []
    for n, token in enumerate(tokenizer.convert_ids_to_tokens(range(len(tokenizer)))):
        text = tokenizer.convert_tokens_to_string([token or ""]).strip()
        if n not in special and text and "".join(TEXT.findall(text)) == text:
            found.append(n)
    return found


def source_of(
    place: Place,
    row: Mapping[str, str],
    word: str,
    tokenizer: Tokenizer,
    sentinels: Sequence[int],
    max_tokens: int,
) -> list[int]:
    """The encoder's input: the row with its label word between two sentinels.

    What stands before is cut at its beginning, what stands behind at its end.
    """

    def tokens(text: str) -> list[int]:
        ids: list[int] = tokenizer(text, add_special_tokens=False, split_special_tokens=True)[
            "input_ids"
        ]
        return [n for n in ids if n not in sentinels]  # a text's own mean nothing

    before, after = (tokens(_filled(side, row)) for side in (place.before, place.after))
    before = before[max(0, len(before) - max_tokens) :]
    middle = [sentinels[0], *tokens(word), sentinels[1]]
    return [*before, *middle, *after[:max_tokens], tokenizer.eos_token_id]


@torch.inference_mode()
def write(
    model: Any,
    sources: Sequence[Sequence[int]],
    pad: int,
    sentinels: Sequence[int],
    allowed: Sequence[int],
    beam: int,
    most_tokens: int,
    machine: Machine,
) -> list[Written]:
    """The best pairs of parts by the mean over the sources, best first, at most `beam`.

    most_tokens: of each part, of which none is empty
    """
    device = device_of(machine)
    model.to(device).eval()
    decoder = _Decoder(model, sources, pad, sentinels[0], machine)
    normal = torch.tensor(allowed, device=device)
    alive: list[tuple[list[int], float]] = [([], 0.0)]
    done: list[Written] = []
    while True:
        log_probs = decoder.log_probs  # (beams, vocabulary)
        options: list[tuple[float, int, int]] = []
        for number, (tokens, score) in enumerate(alive):
            cut = tokens.index(sentinels[1]) if sentinels[1] in tokens else None
            length = len(tokens) if cut is None else len(tokens) - cut - 1  # of this part
            if length < most_tokens:
                values, indices = log_probs[number, normal].topk(min(beam, len(normal)))
                options += [
                    (score + float(value), number, int(normal[index]))
                    for value, index in zip(values, indices, strict=True)
                ]
            if length and cut is None:
                total = score + float(log_probs[number, sentinels[1]])
                options.append((total, number, sentinels[1]))
            elif length and cut is not None:
                total = score + float(log_probs[number, sentinels[2]])
                done.append(Written(tuple(tokens[:cut]), tuple(tokens[cut + 1 :]), total))
        done = sorted(done, key=lambda entry: -entry.score)[:beam]
        options = sorted(options, key=lambda option: (-option[0], option[1:]))[:beam]
        # Scores only fall, so nothing alive can overtake a full list of better ones.
        if not options or (len(done) == beam and options[0][0] <= done[-1].score):
            return done
        decoder.advance([number for _, number, _ in options], [token for *_, token in options])
        alive = [([*alive[number][0], token], score) for score, number, token in options]


class _Decoder:
    """Cached decoding of beams, each over all sources at once."""

    def __init__(
        self, model: Any, sources: Sequence[Sequence[int]], pad: int, first: int, machine: Machine
    ):
        self._model, self._machine, self._rows = model, machine, len(sources)
        self._device = device_of(machine)
        width = max(len(source) for source in sources)
        ids = torch.tensor([[*s, *[pad] * (width - len(s))] for s in sources], device=self._device)
        self._attention = (
            torch.arange(width, device=self._device)[None]
            < torch.tensor([[len(s)] for s in sources], device=self._device)
        ).long()
        with autocast(machine, self._device):
            self._states = model.get_encoder()(input_ids=ids, attention_mask=self._attention)[0]
        self._cache: Any = None
        start = model.config.decoder_start_token_id
        self._read(
            torch.tensor([[start, first]] * self._rows, device=self._device),
            list(range(self._rows)),
        )

    def advance(self, parents: Sequence[int], tokens: Sequence[int]) -> None:
        """Go on with other beams: for each the beam it continues, and its next token."""
        order = [parent * self._rows + row for parent in parents for row in range(self._rows)]
        self._cache.reorder_cache(torch.tensor(order, device=self._device))
        ids = torch.tensor(tokens, device=self._device).repeat_interleave(self._rows)[:, None]
        self._read(ids, [n % self._rows for n in order])

    def _read(self, ids: Tensor, rows: list[int]) -> None:
        with autocast(self._machine, self._device):
            output = self._model(
                encoder_outputs=(self._states[rows],),
                attention_mask=self._attention[rows],
                decoder_input_ids=ids,
                past_key_values=self._cache,
                use_cache=True,
            )
        self._cache = output.past_key_values
        log_probs = output.logits[:, -1].float().log_softmax(-1)
        self.log_probs = log_probs.view(-1, self._rows, log_probs.shape[-1]).mean(1)


def _filled(side: str, row: Mapping[str, str]) -> str:
    """One side of a place with a row's texts in it."""
    parts = parse_template(side)
    texts = (
        part if isinstance(part, str) else "" if part.name == "sep" else fill(part, row)
        for part in parts
    )
    return " ".join("".join(texts).split())
