"""Scores of label words at mask slots, and the masked-LM loss.

The model's own head runs at the wanted positions only, and its decoder on the wanted columns
only, whatever the architecture: a hook on the encoder replaces its hidden states by the rows
wanted, and one on the decoder takes its input and leaves it nothing to do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from pet_pipeline.encoding import Encoded, LabelWords, Layout, collate

Inputs = Mapping[str, Tensor]


def token_logits(
    model: Any, inputs: Inputs, positions: Tensor, columns: Tensor | None = None
) -> Tensor:
    """Logits of a masked LM at some positions, for some tokens of the vocabulary or all.

    positions: (n, 2) row and token of each; columns: (m,) token ids, or None for all
    Returns (n, m).
    """
    features: list[Tensor] = []

    def keep_positions(_module: Any, _args: Any, output: Any) -> Any:
        hidden = output.last_hidden_state
        output.last_hidden_state = hidden[positions[:, 0], positions[:, 1]].unsqueeze(0)
        return output

    def take_features(_module: Any, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        features.append(args[0])
        return (args[0][..., :0, :], *args[1:])

    decoder = model.get_output_embeddings()
    # Some heads (DeBERTa-v2's newer one) name another layer: then the model's own logits serve.
    known = decoder is not None and decoder.weight.shape[0] == model.config.vocab_size
    hooks = [model.base_model.register_forward_hook(keep_positions)]
    if known:
        hooks.append(decoder.register_forward_pre_hook(take_features))
    try:
        output = model(**inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if not known:
        logits: Tensor = output.logits.squeeze(0)
        return (logits if columns is None else logits[:, columns]).float()
    weight, bias = decoder.weight, getattr(decoder, "bias", None)
    if columns is not None:
        weight = weight[columns]
        bias = None if bias is None else bias[columns]
    with torch.autocast(weight.device.type, enabled=False):  # bfloat16 would make near ones tie
        return functional.linear(features[0].squeeze(0).to(weight.dtype), weight, bias)


def label_scores(
    model: Any, inputs: Inputs, slots: Tensor, words: LabelWords, *, normalise: bool = False
) -> Tensor:
    """Scores (rows, labels) with all masks of the slot filled at once, as in training.

    A label's score is the mean over its words of the sum of their tokens' log-probabilities
    (2001.07676, section 3); with one-token words the logits serve, which differ from it by a
    constant a row, unless `normalise` asks for probabilities over the vocabulary.
    slots: (rows,) the first mask of each row
    """
    rows = torch.arange(len(slots), device=slots.device)
    if words.n_masks == 1 and not normalise:
        columns = torch.tensor([word[0] for word in words.words], device=slots.device)
        logits = token_logits(model, inputs, torch.stack([rows, slots], 1), columns)
        return _label_means(logits, words)
    log_probs = _slot_log_probs(model, inputs, slots, words.n_masks)
    scores = [sum(log_probs[:, n, token] for n, token in enumerate(word)) for word in words.words]
    return _label_means(torch.stack([torch.as_tensor(score) for score in scores], 1), words)


def confident_scores(
    model: Any,
    rows: Sequence[Encoded],
    layout: Layout,
    words: LabelWords,
    *,
    batch_tokens: int,
    device: torch.device,
) -> Tensor:
    """Scores (rows, labels) of words with several tokens, the most confident mask filled first.

    Each word is scored in a slot of its own length, over rows and words of equal length at a
    time (2009.07118, section 3, equation 3). On the device, in no special order.
    """
    by_word = torch.zeros(len(rows), len(words.words), device=device)
    for length in sorted({len(word) for word in words.words}):
        indices = [n for n, word in enumerate(words.words) if len(word) == length]
        resized = [row.with_masks(words.n_masks, length, layout.mask) for row in rows]
        by_word[:, indices] = _fill_words(
            model,
            resized,
            layout,
            torch.tensor([words.words[n] for n in indices], device=device),
            batch_tokens,
        )
    return _label_means(by_word, words)


def mlm_loss(
    model: Any, inputs: Inputs, maskable: Tensor, *, share: float, mask: int, vocabulary: int
) -> Tensor:
    """The masked-LM loss of texts, of which a share of the maskable tokens is predicted.

    Of the chosen tokens 80 % become masks, 10 % random tokens, 10 % stay (1810.04805, 3.1).
    maskable: (rows, tokens) False for special tokens, pads and mask slots; True somewhere
    """
    chosen = (torch.rand(maskable.shape, device=maskable.device) < share) & maskable
    if not chosen.any():  # at least one, or the loss of an empty choice would be nan
        first = maskable.nonzero()[:1]
        chosen[first[:, 0], first[:, 1]] = True
    targets = inputs["input_ids"][chosen]
    kind = torch.rand(len(targets), device=targets.device)
    random = torch.randint(vocabulary, targets.shape, device=targets.device)
    ids = inputs["input_ids"].clone()
    masks = torch.full_like(targets, mask)
    ids[chosen] = torch.where(kind < 0.8, masks, torch.where(kind < 0.9, random, targets))
    logits = token_logits(model, {**inputs, "input_ids": ids}, chosen.nonzero())
    return functional.cross_entropy(logits, targets)


def _label_means(by_word: Tensor, words: LabelWords) -> Tensor:
    """Scores (rows, words) as scores (rows, labels), in float32."""
    # Not a matrix product: autocast would round its result to bfloat16.
    return (by_word[:, :, None] * torch.from_numpy(words.mean).to(by_word.device)).sum(1)


def _slot_log_probs(model: Any, inputs: Inputs, slots: Tensor, n_masks: int) -> Tensor:
    """Log-probabilities (rows, masks, vocabulary) of a slot's masks."""
    offsets = torch.arange(n_masks, device=slots.device)
    tokens = (slots[:, None] + offsets).flatten()
    rows = torch.arange(len(slots), device=slots.device).repeat_interleave(n_masks)
    logits = token_logits(model, inputs, torch.stack([rows, tokens], 1))
    return logits.log_softmax(-1).view(len(slots), n_masks, -1)


def _fill_words(
    model: Any, rows: Sequence[Encoded], layout: Layout, words: Tensor, batch_tokens: int
) -> Tensor:
    """Log-probabilities (rows, words) of words of one length; words: (words, length)."""
    n_words, length = words.shape
    device = words.device
    inputs = collate(rows, layout, device)
    slots = torch.tensor([row.slot for row in rows], device=device)
    steps = torch.arange(length, device=device)
    # The first pass serves all words: nothing is filled yet.
    first = _slot_log_probs(model, inputs, slots, length)  # (rows, length, vocabulary)
    token_scores = first[:, steps, words].flatten(0, 1)  # (rows * words, length)
    targets = words.repeat(len(rows), 1)
    owner = torch.arange(len(rows), device=device).repeat_interleave(n_words)
    filled = torch.zeros_like(targets, dtype=torch.bool)
    total = torch.zeros(len(owner), device=device)
    for step in range(length):
        best = token_scores.masked_fill(filled, -torch.inf).argmax(1, keepdim=True)
        total += token_scores.gather(1, best).squeeze(1)
        filled.scatter_(1, best, True)
        if step < length - 1:
            token_scores = _refill(model, inputs, slots, owner, targets, filled, batch_tokens)
    return total.view(len(rows), n_words)


def _refill(
    model: Any,
    inputs: Inputs,
    slots: Tensor,
    owner: Tensor,
    targets: Tensor,
    filled: Tensor,
    batch_tokens: int,
) -> Tensor:
    """Log-probabilities (pairs, length) of each pair's own tokens, the filled ones in place."""
    length = targets.shape[1]
    steps = torch.arange(length, device=slots.device)
    size = max(1, batch_tokens // inputs["input_ids"].shape[1])
    scores = []
    for part in torch.split(torch.arange(len(owner), device=slots.device), size):
        rows = owner[part]
        batch = {name: values[rows].clone() for name, values in inputs.items()}
        places = slots[rows, None] + steps
        old = batch["input_ids"].gather(1, places)
        batch["input_ids"].scatter_(1, places, torch.where(filled[part], targets[part], old))
        log_probs = _slot_log_probs(model, batch, slots[rows], length)
        scores.append(log_probs.gather(2, targets[part][..., None]).squeeze(2))
    return torch.cat(scores)
