"""Pattern x rows x tokenizer -> inputs; label words -> tokens. Needs no torch.

A segment is cut into chunks at its slots; a chunk, literal words and columns together, is
tokenised once, so that spaces and word starts come out as in running text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pet_pipeline.encoded import Encoded, Role
from pet_pipeline.errors import UserError
from pet_pipeline.patterns import SLOTS, Field, Pattern, fill
from pet_pipeline.soft_tokens import SoftTokens, soft_count
from pet_pipeline.truncation import Tokens, truncate

Tokenizer = Any  # transformers has no public type for a tokenizer of any family
Chunk = tuple[str | Field, ...]
Slot = Literal["mask", "sep", "demos"]


@dataclass(frozen=True)
class Padding:
    """What a batch of inputs needs to know of a tokenizer."""

    pad: int
    has_types: bool
    second_type: int = 1  # token type of the second segment

    @classmethod
    def of(cls, tokenizer: Tokenizer, second_type: int = 1) -> Padding:
        """As a tokenizer says."""
        has_types = "token_type_ids" in tokenizer.model_input_names
        return cls(tokenizer.pad_token_id, has_types, second_type)


@dataclass(frozen=True)
class Layout:
    """The special tokens that a tokenizer puts around one and two segments."""

    prefix: tuple[int, ...]
    middle: tuple[int, ...]
    suffix: tuple[int, ...]
    mask: int
    padding: Padding


@dataclass(frozen=True)
class LabelWords:
    """Tokens of each label's words: label -> word -> token ids."""

    tokens: tuple[tuple[tuple[int, ...], ...], ...]

    @cached_property
    def words(self) -> list[tuple[int, ...]]:
        """All words, label by label."""
        return list(chain.from_iterable(self.tokens))

    @cached_property
    def n_masks(self) -> int:
        """Masks that the longest word needs."""
        return max(len(word) for word in self.words)

    @cached_property
    def mean(self) -> npt.NDArray[np.float32]:
        """Matrix (words, labels) that averages words' scores into their label's."""
        # Not a tensor: one that is made in inference mode cannot be trained with later.
        matrix = np.zeros((len(self.words), len(self.tokens)), np.float32)
        start = 0
        for label, group in enumerate(self.tokens):
            matrix[start : start + len(group), label] = 1 / len(group)
            start += len(group)
        return matrix


class PatternEncoder:
    """Turns rows into the inputs of one pattern, for one tokenizer."""

    def __init__(
        self,
        pattern: Pattern,
        tokenizer: Tokenizer,
        max_tokens: int,
        soft: SoftTokens | None = None,
    ):
        """soft: trainable tokens that are put into the pattern; without them it may have none."""
        self.pattern = soft.put_in(pattern) if soft else pattern
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.layout = layout_of(tokenizer)
        self.trains_soft = soft is not None
        self.words = LabelWords(tuple(tuple(self.tokens_at_mask(g)) for g in pattern.words))
        self._pieces = _pieces(self.pattern)
        # For each soft token the vocabulary's one that it starts at, None if it has none.
        self.soft_starts: list[int | None] = []
        self._soft_ids = {n: self._number_soft(n) for n in range(len(self._pieces))}
        nothing = Tokens([], np.zeros(0, np.int64), [])
        # Special tokens and masks, which every input has; {demos} is nothing yet.
        self._n_own = len(self._assemble([nothing] * len(self._pieces)).without(Role.DEMONSTRATION))

    def encode(self, rows: Sequence[Mapping[str, str]]) -> list[Encoded]:
        """The rows as model inputs, none longer than `max_tokens`.

        A pattern with {demos} has one token there, of the role DEMONSTRATION, to be replaced.
        """
        return [encoded for encoded, _ in self._encode(rows)]

    def count_truncated(self, rows: Sequence[Mapping[str, str]]) -> int:
        """How many of the rows lose tokens."""
        return sum(cut for _, cut in self._encode(rows))

    def problems(self) -> list[str]:
        """What makes the pattern unusable with this tokenizer."""
        found = []
        if not self.trains_soft and any(isinstance(p, Field) for p in self._pieces):
            found.append(
                "{soft} is trained by soft prompts only; set finetune.method to one of them, such "
                "as p_tuning_v2, or write words instead"
            )
        if self.trains_soft and not self.soft_starts:
            found.append(
                "it has no soft token: no words of its own to make soft, no {soft} field, and no "
                "finetune.prompt_length"
            )
        unknown = self.tokenizer.unk_token_id
        owner: dict[tuple[int, ...], tuple[str, str]] = {}
        for label, group, tokens in zip(
            self.pattern.labels, self.pattern.words, self.words.tokens, strict=True
        ):
            for word, ids in zip(group, tokens, strict=True):
                if not ids or unknown in ids:
                    found.append(f"label word {word!r} has tokens that the model does not know")
                    continue
                if ids in owner and owner[ids][0] != label:
                    found.append(
                        f"label words {owner[ids][1]!r} ({owner[ids][0]}) and {word!r} ({label}) "
                        "are the same tokens for this model"
                    )
                owner.setdefault(ids, (label, word))
        fixed = self._fixed_tokens()
        if fixed >= self.max_tokens:
            found.append(
                f"its own words and masks take {fixed} of max_tokens = {self.max_tokens}, "
                "which leaves none for the text"
            )
        return found

    def tokenise(self, rows: Sequence[Mapping[str, str]]) -> list[tuple[Tokens, ...]]:
        """The tokens of the template's chunks in each row, before any is cut."""
        chunks = [self._chunk(p, rows) for p in self._pieces if isinstance(p, tuple)]
        return list(zip(*chunks, strict=True)) if chunks else [()] * len(rows)

    def fill_in(self, row: Sequence[Tokens], word: Sequence[int], limit: int) -> tuple[int, ...]:
        """A tokenised row with a word at its mask and nothing around it: a demonstration.

        Its columns are cut to make at most `limit` tokens, but not its own words.
        """
        own: dict[Slot, Sequence[int]] = {"mask": word, "sep": self.layout.middle, "demos": ()}
        slots = [
            () if isinstance(p, tuple) else self._soft_ids[n] if isinstance(p, Field) else own[p]
            for n, p in enumerate(self._pieces)
        ]
        texts = iter(truncate(row, limit - sum(len(ids) for ids in slots))[0])
        pieces = (
            next(texts).ids if isinstance(p, tuple) else slot
            for p, slot in zip(self._pieces, slots, strict=True)
        )
        return tuple(chain.from_iterable(pieces))

    def tokens_at_mask(self, words: Sequence[str]) -> list[tuple[int, ...]]:
        """Tokens of words as they are at the mask, after what the template has before it.

        Where the form after a space has fewer tokens, it is taken: a byte-level tokenizer knows
        few whole words without one.
        """
        own = self._tokens_after(words)
        spaced = _tokenise(self.tokenizer, [f" {word}" for word in words])[0]
        return [tuple(s) if len(s) < len(o) else o for s, o in zip(spaced, own, strict=True)]

    def _tokens_after(self, words: Sequence[str]) -> list[tuple[int, ...]]:
        index = next(
            i for i, p in enumerate(self.pattern.parts) if isinstance(p, Field) and p.name == "mask"
        )
        literal = self.pattern.parts[index - 1] if index else ""
        before = literal[-1:] if isinstance(literal, str) else ""
        if before.isspace():
            before = " "
        tokens, ends = _tokenise(self.tokenizer, [before + word for word in words])
        if before in ("", " "):
            return [tuple(ids) for ids in tokens]
        alone = _tokenise(self.tokenizer, [before])[0][0]
        found = []
        for word, ids, last in zip(words, tokens, ends, strict=True):
            own = [i for i, end in zip(ids, last, strict=True) if end > len(before)]
            if len(alone) + len(own) != len(ids):  # the character before melted into the word
                own = _tokenise(self.tokenizer, [word])[0][0]
            found.append(tuple(own))
        return found

    def _encode(self, rows: Sequence[Mapping[str, str]]) -> Iterator[tuple[Encoded, bool]]:
        for row in self.tokenise(rows):
            kept, cut = truncate(row, self.max_tokens - self._n_own)
            yield self._assemble(kept), cut

    def _assemble(self, chunks: Sequence[Tokens]) -> Encoded:
        """The chunks' tokens with masks and special tokens around them."""
        layout, texts = self.layout, iter(chunks)
        row = Encoded.of(layout.prefix, Role.SPECIAL)
        segment = 0
        for n, piece in enumerate(self._pieces):
            if isinstance(piece, Field):
                row += Encoded.of(self._soft_ids[n], Role.SOFT, segment)
            elif piece == "mask":
                row += Encoded.of((layout.mask,) * self.words.n_masks, Role.MASK, segment)
            elif piece == "sep":
                row += Encoded.of(layout.middle, Role.SPECIAL, segment)
                segment = 1
            elif piece == "demos":
                row += Encoded.of((layout.mask,), Role.DEMONSTRATION, segment)
            else:
                text = next(texts)
                roles = np.where(text.literal, Role.TEMPLATE, Role.TEXT).astype(np.uint8)
                row += Encoded(tuple(text.ids), roles.tobytes(), bytes([segment]) * len(text.ids))
        return row + Encoded.of(layout.suffix, Role.SPECIAL, segment)

    def _number_soft(self, piece: int) -> tuple[int, ...]:
        """The ids of a piece's soft tokens, -1, -2 and so on; none if it is another piece."""
        field = self._pieces[piece]
        if not isinstance(field, Field):
            return ()
        starts: list[int | None] = [None] * (soft_count(field) or 0)
        if not starts:
            starts += _tokenise(self.tokenizer, [field.specs[0]])[0][0]
        first = len(self.soft_starts)
        self.soft_starts += starts
        return tuple(-1 - n for n in range(first, len(self.soft_starts)))

    def _chunk(self, parts: Chunk, rows: Sequence[Mapping[str, str]]) -> list[Tokens]:
        texts, ends = [], []
        for row in rows:
            pieces = [part if isinstance(part, str) else fill(part, row) for part in parts]
            texts.append("".join(pieces))
            ends.append(np.cumsum([len(piece) for piece in pieces]))
        tokens = _tokenise(self.tokenizer, texts)
        turns = [0 if isinstance(part, str) else 2 if "keep" in part.specs else 1 for part in parts]
        chunks = []
        for ids, offsets, end in zip(*tokens, ends, strict=True):
            # A token belongs to the part of its last character: its first may be a space before.
            owners = np.searchsorted(end, np.maximum(offsets - 1, 0), side="right")
            chunks.append(Tokens(ids, np.minimum(owners, len(parts) - 1), turns))
        return chunks

    def _fixed_tokens(self) -> int:
        """Tokens of an input whose columns are all empty."""
        columns = {part.name: "" for part in self.pattern.parts if isinstance(part, Field)}
        chunks = [self._chunk(p, [columns])[0] for p in self._pieces if isinstance(p, tuple)]
        return self._n_own + sum(len(chunk.ids) for chunk in chunks)


def layout_of(tokenizer: Tokenizer) -> Layout:
    """The special tokens of a tokenizer, found by what it does with two segments.

    Raises `UserError` if it has no mask token, or is a slow tokenizer.
    """
    if tokenizer.mask_token_id is None:
        raise UserError(f"{tokenizer.name_or_path} has no mask token; name a masked LM")
    if not tokenizer.is_fast:
        raise UserError(
            f"{tokenizer.name_or_path} has a slow tokenizer; one with a tokenizer.json works"
        )
    probe = tokenizer("a", "a", return_special_tokens_mask=True)
    special = probe["special_tokens_mask"]
    ids = probe["input_ids"]
    first = special.index(0)
    middle = special.index(1, first)
    second = special.index(0, middle)
    last = special.index(1, second) if 1 in special[second:] else len(ids)
    types = probe.get("token_type_ids", [0] * len(ids))
    return Layout(
        prefix=tuple(ids[:first]),
        middle=tuple(ids[middle:second]),
        suffix=tuple(ids[last:]),
        mask=tokenizer.mask_token_id,
        padding=Padding.of(tokenizer, types[second]),
    )


def describe_words(encoder: PatternEncoder) -> dict[str, list[list[str]]]:
    """The tokens of each label's words, to be read by a person."""
    return {
        label: [encoder.tokenizer.convert_ids_to_tokens(list(ids)) for ids in group]
        for label, group in zip(encoder.pattern.labels, encoder.words.tokens, strict=True)
    }


def check_encoders(encoders: Sequence[PatternEncoder]) -> list[str]:
    """Every problem of every pattern with its tokenizer."""
    return [
        f"pattern {encoder.pattern.name!r}: {problem}"
        for encoder in encoders
        for problem in encoder.problems()
    ]


def _pieces(pattern: Pattern) -> list[Chunk | Slot | Field]:
    """The template cut at its slots, with tuples of parts between them.

    Spaces at a segment's ends and before a mask or a soft token go: these bring their own.
    """
    pieces: list[list[str | Field] | Slot | Field] = [[]]
    for n, part in enumerate(pattern.parts):
        if isinstance(part, Field) and part.name == "soft":
            pieces += [_after(pattern.parts[:n], part), []]
        elif isinstance(part, Field) and part.name in SLOTS:
            pieces += [part.name, []]  # type: ignore[list-item]  # it is one of SLOTS
        elif isinstance(pieces[-1], list):
            pieces[-1].append(part)
    result: list[Chunk | Slot | Field] = []
    for n, piece in enumerate(pieces):
        if not isinstance(piece, list):
            result.append(piece)
            continue
        after_token = n > 0 and (pieces[n - 1] == "mask" or isinstance(pieces[n - 1], Field))
        if trimmed := _trim(piece, start=not after_token):
            result.append(tuple(trimmed))
    return result


def _after(parts: Sequence[str | Field], field: Field) -> Field:
    """A soft field whose words have a space before them if they stand after one."""
    spaced = bool(parts) and isinstance(parts[-1], str) and parts[-1][-1:].isspace()
    starts_segment = not any(
        part.strip() if isinstance(part, str) else part.name != "sep" for part in parts[-2:]
    )
    if not spaced or starts_segment or soft_count(field) is not None:
        return field
    return Field(field.name, (f" {field.specs[0].strip()}",))


def _trim(parts: list[str | Field], *, start: bool) -> list[str | Field]:
    if parts and start and isinstance(parts[0], str):
        parts = [parts[0].lstrip(), *parts[1:]]
    if parts and isinstance(parts[-1], str):
        parts = [*parts[:-1], parts[-1].rstrip()]
    return [part for part in parts if part != ""]


def _tokenise(
    tokenizer: Tokenizer, texts: list[str]
) -> tuple[list[list[int]], list[npt.NDArray[np.int64]]]:
    """Token ids and the ends of their characters, for each text; no special token is read in it."""
    if not texts:
        return [], []
    batch = tokenizer(
        texts,
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        split_special_tokens=True,
        truncation=False,
        verbose=False,
    )
    ends = [
        np.fromiter((end for _, end in offsets), np.int64, len(offsets))
        for offsets in batch["offset_mapping"]
    ]
    return batch["input_ids"], ends
