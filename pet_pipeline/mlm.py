"""A masked language model: logits at wanted positions, scores of label words, the masked-LM loss.

The model's own head runs at the wanted positions only, and its decoder on the wanted columns
only, whatever the architecture: a hook on the encoder replaces its hidden states by the rows
wanted, and one on the decoder takes its input and leaves it nothing to do.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from pet_pipeline.compute import Compute
from pet_pipeline.encoded import Encoded, Role
from pet_pipeline.encoding import LabelWords, Tokenizer, layout_of
from pet_pipeline.inference import Forward, collate, device_of, parts_within, read_rows
from pet_pipeline.models import Pretrained
from pet_pipeline.pretrained import load_mlm, load_tokenizer
from pet_pipeline.soft_prompt import PROMPT
from pet_pipeline.tables import Floats
from pet_pipeline.words import Joins

Inputs = Mapping[str, Tensor]

TOLERANCE = 1e-3  # of the shortcut's logits; real disagreement is larger by far


class MaskedLM:
    """A masked language model with its tokenizer, and where it computes."""

    def __init__(self, model: Any, tokenizer: Tokenizer, compute: Compute | None = None):
        """Also compares the shortcut for logits with the model's own ones, on one input."""
        self.model, self.tokenizer = model, tokenizer
        self.compute = compute or Compute()
        self.layout = layout_of(tokenizer)
        self.has_shortcut = _shortcut_agrees(model, self._probe_inputs())

    @classmethod
    def load(cls, base: Pretrained, compute: Compute | None = None) -> Self:
        """The model of a folder or of the hub; raises `UserError` if it is not a masked LM."""
        return cls(load_mlm(base, compute), load_tokenizer(base), compute)

    def copy(self) -> Self:
        """Another model that shares all parameters with this one until they are replaced.

        Raises `ValueError` if a soft prompt is attached to this one.
        """
        if PROMPT in self.model._modules:
            raise ValueError("a model with a soft prompt cannot be copied; detach the prompt first")
        shared = {id(t): t for t in (*self.model.parameters(), *self.model.buffers())}
        other = copy.copy(self)
        other.model = copy.deepcopy(self.model, shared)
        return other

    @property
    def device(self) -> torch.device:
        """Where tensors belong."""
        return device_of(self.compute)

    def inputs(self, rows: Sequence[Encoded]) -> dict[str, Tensor]:
        """Padded model inputs, each (rows, tokens)."""
        return collate(rows, self.layout.padding, self.compute)

    def logits(self, inputs: Inputs, positions: Tensor, columns: Tensor | None = None) -> Tensor:
        """Logits (n, m) at some positions, for some tokens of the vocabulary or all.

        positions: (n, 2) row and token of each; columns: (m,) token ids, or None for all
        """
        read = token_logits if self.has_shortcut else own_logits
        return read(self.model, inputs, positions, columns)

    def read(self, rows: Sequence[Encoded], forward: Forward, what: str = "") -> Floats:
        """Outputs (rows, width), float32; forward: from row numbers of a batch to its outputs."""
        return read_rows(
            self.model, [len(row) for row in rows], forward, compute=self.compute, what=what
        )

    def label_scores(
        self, rows: Sequence[Encoded], words: LabelWords, *, normalised: bool = False
    ) -> Tensor:
        """Scores (rows, labels) with all masks of the slot filled at once, as in training.

        A label's score is the mean over its words of the mean of their tokens' log-probabilities
        (after 2001.07676, section 3, where words have one token); then the logits serve, which
        differ from it by a constant per row, unless it must be `normalised` over the vocabulary.
        """
        inputs = self.inputs(rows)
        starts = torch.tensor([row.slot.start for row in rows], device=self.device)
        if words.n_masks == 1 and not normalised:
            columns = torch.tensor([word[0] for word in words.words], device=self.device)
            numbers = torch.arange(len(rows), device=self.device)
            logits = self.logits(inputs, torch.stack([numbers, starts], 1), columns)
            return _label_means(logits, words)
        log_probs = self._slot_log_probs(inputs, starts, words.n_masks)
        scores = [
            torch.stack([log_probs[:, n, token] for n, token in enumerate(word)]).mean(0)
            for word in words.words
        ]
        return _label_means(torch.stack(scores, 1), words)

    def confident_scores(self, rows: Sequence[Encoded], words: LabelWords) -> Tensor:
        """Scores (rows, labels) of words of several tokens, the most confident mask filled first.

        Each word is scored in a slot of its own length, over rows and words of equal length at a
        time (2009.07118, section 3, equation 3), by the mean of its tokens' log-probabilities.
        """
        by_word = torch.zeros(len(rows), len(words.words), device=self.device)
        for length in sorted({len(word) for word in words.words}):
            indices = [n for n, word in enumerate(words.words) if len(word) == length]
            resized = [row.with_slot((self.layout.mask,) * length) for row in rows]
            targets = torch.tensor([words.words[n] for n in indices], device=self.device)
            by_word[:, indices] = self._fill_words(resized, targets) / length
        return _label_means(by_word, words)

    def mlm_loss(self, texts: Sequence[MaskedText]) -> Tensor:
        """The sum of the cross-entropies of the predicted tokens of some texts."""
        inputs = self.inputs([text.row for text in texts])
        rows = np.repeat(np.arange(len(texts)), [len(text.positions) for text in texts])
        tokens = np.concatenate([text.positions for text in texts])
        targets = np.concatenate([text.targets for text in texts])
        positions = torch.from_numpy(np.stack([rows, tokens], 1)).to(self.device)
        logits = self.logits(inputs, positions)
        return functional.cross_entropy(
            logits, torch.from_numpy(targets).to(self.device), reduction="sum"
        )

    def _probe_inputs(self) -> dict[str, Tensor]:
        """Two rows of different lengths."""
        ids = self.tokenizer("a", add_special_tokens=False)["input_ids"]
        row = Encoded.of(self.layout.prefix, Role.SPECIAL) + Encoded.of(ids, Role.TEXT)
        row += Encoded.of([self.layout.mask], Role.MASK)
        row += Encoded.of([*ids, *self.layout.suffix], Role.SPECIAL)
        here = str(next(self.model.parameters()).device)
        rows, where = [row, row + row[1:]], replace(self.compute, device=here)
        return collate(rows, self.layout.padding, where)

    def _slot_log_probs(self, inputs: Inputs, starts: Tensor, n_masks: int) -> Tensor:
        """Log-probabilities (rows, masks, vocabulary) of a slot's masks; starts: (rows,)."""
        offsets = torch.arange(n_masks, device=starts.device)
        tokens = (starts[:, None] + offsets).flatten()
        rows = torch.arange(len(starts), device=starts.device).repeat_interleave(n_masks)
        logits = self.logits(inputs, torch.stack([rows, tokens], 1))
        return logits.log_softmax(-1).view(len(starts), n_masks, -1)

    def _fill_words(self, rows: Sequence[Encoded], words: Tensor) -> Tensor:
        """Log-probabilities (rows, words) of words of one length; words: (words, length)."""
        n_words, length = words.shape
        device = words.device
        inputs = self.inputs(rows)
        starts = torch.tensor([row.slot.start for row in rows], device=device)
        steps = torch.arange(length, device=device)
        # The first pass serves all words: nothing is filled yet.
        first = self._slot_log_probs(inputs, starts, length)  # (rows, length, vocabulary)
        token_scores = first[:, steps, words].flatten(0, 1)  # (rows * words, length)
        pairs = _Pairs(
            starts=starts,
            owner=torch.arange(len(rows), device=device).repeat_interleave(n_words),
            targets=words.repeat(len(rows), 1),
        )
        filled = torch.zeros_like(pairs.targets, dtype=torch.bool)
        total = torch.zeros(len(pairs.owner), device=device)
        for step in range(length):
            best = token_scores.masked_fill(filled, -torch.inf).argmax(1, keepdim=True)
            total += token_scores.gather(1, best).squeeze(1)
            filled.scatter_(1, best, True)
            if step < length - 1:
                token_scores = self._refill(inputs, pairs, filled)
        return total.view(len(rows), n_words)

    def _refill(self, inputs: Inputs, pairs: _Pairs, filled: Tensor) -> Tensor:
        """Log-probabilities (pairs, length) of each pair's own tokens, the filled ones inserted."""
        length = pairs.targets.shape[1]
        steps = torch.arange(length, device=filled.device)
        scores = []
        for part in parts_within(len(pairs.owner), inputs["input_ids"].shape[1], self.compute):
            rows, targets = pairs.owner[part], pairs.targets[part]
            batch = {name: values[rows].clone() for name, values in inputs.items()}
            positions = pairs.starts[rows, None] + steps
            old = batch["input_ids"].gather(1, positions)
            batch["input_ids"].scatter_(1, positions, torch.where(filled[part], targets, old))
            log_probs = self._slot_log_probs(batch, pairs.starts[rows], length)
            scores.append(log_probs.gather(2, targets[..., None]).squeeze(2))
        return torch.cat(scores)


@dataclass(frozen=True)
class _Pairs:
    """Each row with each word of one length."""

    starts: Tensor  # (rows,) the first mask of each row
    owner: Tensor  # (pairs,) the row of each
    targets: Tensor  # (pairs, length) the tokens of each one's word


@dataclass(frozen=True)
class MaskedText:
    """A text of which some tokens are predicted."""

    row: Encoded  # with masks, or other tokens, at the positions
    positions: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]

    @property
    def clean(self) -> Encoded:
        """The text as it was."""
        ids = np.array(self.row.ids, np.int64)
        ids[self.positions] = self.targets
        return replace(self.row, ids=tuple(ids.tolist()))


def mask_texts(
    rows: Sequence[Encoded],
    rng: np.random.Generator,
    *,
    fraction: float,
    lm: MaskedLM,
    words: Joins | None = None,
) -> list[MaskedText]:
    """Texts in which a fraction of the tokens is to be predicted; those without any are left out.

    Of the chosen tokens 80 % become masks, 10 % random tokens, 10 % stay (1810.04805, 3.1). At
    least one token of all texts is chosen, if any may be: no special token, mask or prompt. A slot
    that has a label word is always chosen (2305.01711, section 3).

    words: how tokens make words, to choose whole words only
    """
    allowed = [_maskable(row) for row in rows]
    chosen = [
        _with_slot(_choose(row, positions, rng, fraction, words), row, lm.layout.mask)
        for row, positions in zip(rows, allowed, strict=True)
    ]
    if not any(len(positions) for positions in chosen):
        first = next((n for n, places in enumerate(allowed) if len(places)), None)
        if first is None:
            return []
        chosen[first] = allowed[first][:1]
        if words:
            starts = words.starts(rows[first], allowed[first])
            chosen[first] = allowed[first][np.cumsum(starts) == 1]
    vocabulary = lm.model.config.vocab_size
    return [
        _mask_text(row, positions, rng, mask=lm.layout.mask, vocabulary=vocabulary)
        for row, positions in zip(rows, chosen, strict=True)
        if len(positions)
    ]


def token_logits(
    model: Any, inputs: Inputs, positions: Tensor, columns: Tensor | None = None
) -> Tensor:
    """Logits (n, m) of a masked LM at some positions only, float32.

    positions: (n, 2) row and token of each; columns: (m,) token ids, or None for all
    """
    features: list[Tensor] = []

    def keep_positions(_module: Any, _args: Any, output: Any) -> Any:
        hidden = output.last_hidden_state
        output.last_hidden_state = hidden[positions[:, 0], positions[:, 1]].unsqueeze(0)
        return output

    def take_features(hidden: Tensor) -> Tensor:
        features.append(hidden)
        return hidden.new_empty((*hidden.shape[:-2], 0, model.config.vocab_size))

    decoder = model.get_output_embeddings()
    # Some heads (DeBERTa-v2's newer one) name another layer: then the head's own logits serve.
    known = decoder is not None and decoder.weight.shape[0] == model.config.vocab_size
    hooks = [model.base_model.register_forward_hook(keep_positions)]
    if known:  # not by a hook: the decoder would still cast its whole matrix to bfloat16
        decoder.forward = take_features
    try:
        output = model(**inputs)
    finally:
        for hook in hooks:
            hook.remove()
        if known:
            del decoder.forward
    if not known:
        logits: Tensor = output.logits.squeeze(0)
        return (logits if columns is None else logits[:, columns]).float()
    weight, bias = decoder.weight, getattr(decoder, "bias", None)
    if columns is not None:
        weight = weight[columns]
        bias = None if bias is None else bias[columns]
    with torch.autocast(weight.device.type, enabled=False):  # bfloat16 would make near ones tie
        return functional.linear(features[0].squeeze(0).to(weight.dtype), weight, bias)


def own_logits(
    model: Any, inputs: Inputs, positions: Tensor, columns: Tensor | None = None
) -> Tensor:
    """Logits (n, m) as `token_logits` gives them, from the model's whole forward pass."""
    logits: Tensor = model(**inputs).logits[positions[:, 0], positions[:, 1]]
    return (logits if columns is None else logits[:, columns]).float()


@torch.inference_mode()
def _shortcut_agrees(model: Any, inputs: Inputs) -> bool:
    """Whether `token_logits` is right for an architecture, by some tokens of two rows."""
    model.eval()
    ids = inputs["input_ids"]
    last = ids.shape[1] - 1
    positions = torch.tensor([[1, last], [0, 1], [1, 2], [0, 0]], device=ids.device)
    own = own_logits(model, inputs, positions)
    try:
        found = token_logits(model, inputs, positions)
    except (RuntimeError, AttributeError, TypeError, IndexError, ValueError):
        return False  # MobileBERT's decoder is made of two matrices, for example
    limit = TOLERANCE * max(1.0, float(own.abs().max()))
    return found.shape == own.shape and bool((found - own).abs().max() <= limit)


def _label_means(by_word: Tensor, words: LabelWords) -> Tensor:
    """Scores (rows, words) as scores (rows, labels), in float32."""
    # Not a matrix product: autocast would round its result to bfloat16.
    return (by_word[:, :, None] * torch.from_numpy(words.mean).to(by_word.device)).sum(1)


def _maskable(row: Encoded) -> npt.NDArray[np.int64]:
    """Positions of the tokens that may be predicted."""
    return np.flatnonzero(
        np.isin(np.frombuffer(row.roles, np.uint8), (int(Role.TEXT), int(Role.TEMPLATE)))
    )


def _choose(
    row: Encoded,
    positions: npt.NDArray[np.int64],
    rng: np.random.Generator,
    fraction: float,
    words: Joins | None,
) -> npt.NDArray[np.int64]:
    """Those of some positions that are to be predicted, each token or word as likely."""
    if words is None:
        return positions[rng.random(len(positions)) < fraction]
    numbers = np.cumsum(words.starts(row, positions)) - 1  # of the word that each is in
    chosen = rng.random(len(positions)) < fraction  # of the words; there are no more than tokens
    return np.asarray(positions[chosen[numbers]])


def _with_slot(positions: npt.NDArray[np.int64], row: Encoded, mask: int) -> npt.NDArray[np.int64]:
    """The positions, and those of the slot if it has tokens to be predicted."""
    roles = np.frombuffer(row.roles, np.uint8)
    slot = np.flatnonzero((roles == int(Role.MASK)) & (np.array(row.ids) != mask))
    return np.asarray(np.union1d(positions, slot)) if len(slot) else positions


def _mask_text(
    row: Encoded,
    positions: npt.NDArray[np.int64],
    rng: np.random.Generator,
    *,
    mask: int,
    vocabulary: int,
) -> MaskedText:
    ids = np.array(row.ids, np.int64)
    targets = ids[positions]
    kind = rng.random(len(positions))
    random = rng.integers(vocabulary, size=len(positions))
    ids[positions] = np.where(kind < 0.8, mask, np.where(kind < 0.9, random, targets))
    masked = Encoded(tuple(ids.tolist()), row.roles, row.segments)
    return MaskedText(masked, positions, targets)
