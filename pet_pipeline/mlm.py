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
import torch
from torch import Tensor
from torch.nn import functional

from pet_pipeline.compute import Compute
from pet_pipeline.encoded import Encoded, Role
from pet_pipeline.encoding import LabelWords, Tokenizer, layout_of
from pet_pipeline.inference import Forward, collate, device_of, parts_within, read_rows
from pet_pipeline.masking import MaskedText, Masking
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
        return self.logits_and_states(inputs, positions, columns)[0]

    def logits_and_states(
        self, inputs: Inputs, positions: Tensor, columns: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Logits (n, m) as `logits` gives them, and the states (n, width) that they are made from.

        The states are what the decoder reads, at the end of the head's transform; the encoder's
        where an architecture does not allow the shortcut for logits.
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
        return self.label_scores_and_states(rows, words, normalised=normalised)[0]

    def label_scores_and_states(
        self, rows: Sequence[Encoded], words: LabelWords, *, normalised: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Scores (rows, labels) as `label_scores` gives them, and states (rows, width).

        The states are those of `logits_and_states`, the mean over the slot's masks.
        """
        inputs = self.inputs(rows)
        starts = torch.tensor([row.slot.start for row in rows], device=self.device)
        positions = _slot_positions(starts, words.n_masks)
        if words.n_masks == 1 and not normalised:
            columns = torch.tensor([word[0] for word in words.words], device=self.device)
            logits, states = self.logits_and_states(inputs, positions, columns)
            return _label_means(logits, words), states
        logits, states = self.logits_and_states(inputs, positions)
        log_probs = logits.log_softmax(-1).view(len(rows), words.n_masks, -1)
        scores = [
            torch.stack([log_probs[:, n, token] for n, token in enumerate(word)]).mean(0)
            for word in words.words
        ]
        by_row = states.view(len(rows), words.n_masks, -1).mean(1)
        return _label_means(torch.stack(scores, 1), words), by_row

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

    def masking(self, fraction: float, words: Joins | None = None) -> Masking:
        """How a fraction of the tokens of texts is to be predicted; words: to mask them whole."""
        return Masking(fraction, self.layout.mask, self.model.config.vocab_size, words)

    def mlm_loss(self, texts: Sequence[MaskedText]) -> Tensor:
        """The sum of the cross-entropies of the predicted tokens of some texts."""
        _, logits, targets = self.predict(texts)
        return functional.cross_entropy(logits, targets, reduction="sum")

    def predict(self, texts: Sequence[MaskedText]) -> tuple[Tensor, Tensor, Tensor]:
        """Of each token that is predicted the text's number, the logits, and the token itself."""
        inputs = self.inputs([text.row for text in texts])
        rows = np.repeat(np.arange(len(texts)), [len(text.positions) for text in texts])
        tokens = np.concatenate([text.positions for text in texts])
        targets = np.concatenate([text.targets for text in texts])
        positions = torch.from_numpy(np.stack([rows, tokens], 1)).to(self.device)
        logits = self.logits(inputs, positions)
        return positions[:, 0], logits, torch.from_numpy(targets).to(self.device)

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
        logits = self.logits(inputs, _slot_positions(starts, n_masks))
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


def token_logits(
    model: Any, inputs: Inputs, positions: Tensor, columns: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Logits (n, m) of a masked LM at some positions only, float32, and their states (n, width).

    positions: (n, 2) row and token of each; columns: (m,) token ids, or None for all
    """
    states: list[Tensor] = []  # (1, n, width): the encoder's, then those that the decoder reads

    def keep_positions(_module: Any, _args: Any, output: Any) -> Any:
        hidden = output.last_hidden_state
        output.last_hidden_state = hidden[positions[:, 0], positions[:, 1]].unsqueeze(0)
        states.append(output.last_hidden_state)
        return output

    def take_states(hidden: Tensor) -> Tensor:
        states.append(hidden)
        return hidden.new_empty((*hidden.shape[:-2], 0, model.config.vocab_size))

    decoder = model.get_output_embeddings()
    # Some heads (DeBERTa-v2's newer one) name another layer: then the head's own logits serve.
    known = decoder is not None and decoder.weight.shape[0] == model.config.vocab_size
    hooks = [model.base_model.register_forward_hook(keep_positions)]
    if known:  # not by a hook: the decoder would still cast its whole matrix to bfloat16
        decoder.forward = take_states
    try:
        output = model(**inputs)
    finally:
        for hook in hooks:
            hook.remove()
        if known:
            del decoder.forward
    at_positions = states[-1].squeeze(0)
    if not known:
        logits: Tensor = output.logits.squeeze(0)
        return (logits if columns is None else logits[:, columns]).float(), at_positions
    weight, bias = decoder.weight, getattr(decoder, "bias", None)
    if columns is not None:
        weight = weight[columns]
        bias = None if bias is None else bias[columns]
    with torch.autocast(weight.device.type, enabled=False):  # bfloat16 would make near ones tie
        return functional.linear(at_positions.to(weight.dtype), weight, bias), at_positions


def own_logits(
    model: Any, inputs: Inputs, positions: Tensor, columns: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Logits (n, m) as `token_logits` gives them, from the model's whole forward pass.

    The states (n, width) beside them are the encoder's.
    """
    hidden: list[Tensor] = []

    def keep(_module: Any, _args: Any, output: Any) -> None:
        hidden.append(output.last_hidden_state)

    hook = model.base_model.register_forward_hook(keep)
    try:
        logits: Tensor = model(**inputs).logits[positions[:, 0], positions[:, 1]]
    finally:
        hook.remove()
    states = hidden[-1][positions[:, 0], positions[:, 1]]
    return (logits if columns is None else logits[:, columns]).float(), states


@torch.inference_mode()
def _shortcut_agrees(model: Any, inputs: Inputs) -> bool:
    """Whether `token_logits` is right for an architecture, by some tokens of two rows."""
    model.eval()
    ids = inputs["input_ids"]
    last = ids.shape[1] - 1
    positions = torch.tensor([[1, last], [0, 1], [1, 2], [0, 0]], device=ids.device)
    own, _ = own_logits(model, inputs, positions)
    try:
        found, _ = token_logits(model, inputs, positions)
    except (RuntimeError, AttributeError, TypeError, IndexError, ValueError):
        return False  # MobileBERT's decoder is made of two matrices, for example
    limit = TOLERANCE * max(1.0, float(own.abs().max()))
    return found.shape == own.shape and bool((found - own).abs().max() <= limit)


def _slot_positions(starts: Tensor, n_masks: int) -> Tensor:
    """Row and token (rows * masks, 2) of the masks of slots; starts: (rows,) their first ones."""
    tokens = starts[:, None] + torch.arange(n_masks, device=starts.device)
    rows = torch.arange(len(starts), device=starts.device).repeat_interleave(n_masks)
    return torch.stack([rows, tokens.flatten()], 1)


def _label_means(by_word: Tensor, words: LabelWords) -> Tensor:
    """Scores (rows, words) as scores (rows, labels), in float32."""
    # Not a matrix product: autocast would round its result to bfloat16.
    return (by_word[:, :, None] * torch.from_numpy(words.mean).to(by_word.device)).sum(1)
