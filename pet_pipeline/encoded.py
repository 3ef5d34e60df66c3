"""An input as tokens that know what they are: ids, roles and segments; one way to splice them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import compress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pet_pipeline.tables import COMPRESSION


class Role(IntEnum):
    """What a token of an input is."""

    SPECIAL = 0  # around and between segments
    TEMPLATE = 1
    TEXT = 2
    MASK = 3  # the slot that label words are scored at
    DEMONSTRATION = 4
    SOFT = 5  # a trainable prompt token


@dataclass(frozen=True)
class Encoded:
    """Tokens of an input: ids, and for each its role and its segment, 0 or 1."""

    ids: tuple[int, ...]
    roles: bytes
    segments: bytes

    @classmethod
    def of(cls, ids: Iterable[int], role: Role, segment: int = 0) -> Encoded:
        """Tokens of one role and segment."""
        ids = tuple(ids)
        return cls(ids, bytes([role]) * len(ids), bytes([segment]) * len(ids))

    def __add__(self, other: Encoded) -> Encoded:
        return Encoded(
            self.ids + other.ids, self.roles + other.roles, self.segments + other.segments
        )

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, location: slice) -> Encoded:
        return Encoded(self.ids[location], self.roles[location], self.segments[location])

    def splice(self, location: slice[int, int, None], tokens: Encoded) -> Encoded:
        """The input with other tokens in place of some; every other token keeps what it is."""
        return self[: location.start] + tokens + self[location.stop :]

    def where(self, role: Role) -> slice[int, int, None]:
        """From the first to the last token of a role; raises `ValueError` without any."""
        return slice(self.roles.index(role), self.roles.rindex(role) + 1)

    @property
    def slot(self) -> slice[int, int, None]:
        """The location of the masks that label words are scored at."""
        return self.where(Role.MASK)

    def with_slot(self, ids: Iterable[int]) -> Encoded:
        """The same input with these tokens in its slot."""
        slot = self.slot
        return self.splice(slot, Encoded.of(ids, Role.MASK, self.segments[slot.start]))

    def without(self, role: Role) -> Encoded:
        """The input without the tokens of a role."""
        if role not in self.roles:
            return self
        kept = [own != role for own in self.roles]
        ids, roles, segments = (
            compress(values, kept) for values in (self.ids, self.roles, self.segments)
        )
        return Encoded(tuple(ids), bytes(roles), bytes(segments))


class EncodedRows:
    """Many inputs in flat arrays: six bytes per token, where a tuple of numbers takes forty."""

    def __init__(self, rows: Iterable[Encoded] = ()):
        self._ids, self._ends = array("i"), array("q", [0])
        self._roles, self._segments = bytearray(), bytearray()
        for row in rows:
            self.append(row)

    def append(self, row: Encoded) -> None:
        """Add an input."""
        self._ids.extend(row.ids)
        self._roles += row.roles
        self._segments += row.segments
        self._ends.append(len(self._ids))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, row: int) -> Encoded:
        tokens = slice(self._ends[row], self._ends[row + 1])
        return Encoded(
            tuple(self._ids[tokens]), bytes(self._roles[tokens]), bytes(self._segments[tokens])
        )

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """(rows,) The number of tokens of each."""
        ends = np.array(self._ends, np.int64)
        return np.asarray(ends[1:] - ends[:-1])


def write_encoded(file: Path, ids: pa.Array, rows: Sequence[Encoded]) -> None:
    """Keep encoded rows with the ids of their table, so that every model reads the same tokens."""
    table = pa.table(
        {
            "id": ids,
            "tokens": pa.array([row.ids for row in rows], pa.list_(pa.int32())),
            "roles": pa.array([row.roles for row in rows], pa.binary()),
            "segments": pa.array([row.segments for row in rows], pa.binary()),
        }
    )
    pq.write_table(table, file, compression=COMPRESSION)


def read_encoded(file: Path) -> tuple[pa.Array, list[Encoded]]:
    """The table's ids and the rows that `write_encoded` kept."""
    table = pq.read_table(file)
    columns = [table[name].to_pylist() for name in ("tokens", "roles", "segments")]
    rows = [
        Encoded(tuple(tokens), roles, segments)
        for tokens, roles, segments in zip(*columns, strict=True)
    ]
    return table["id"].combine_chunks(), rows
