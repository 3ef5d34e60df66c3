"""Tokens know what they are: a splice keeps every other token's id, role and segment."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_encoding import DEMONSTRATED, KINDS, LONG, PLAIN, TEMPLATES, WILD, encoder, ids_of, tokens

from pet_pipeline.encoded import Encoded, Role, read_encoded, write_encoded

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


ROWS = st.builds(
    lambda kind, template, text, more: encoder(kind, template, words=LONG).encode(
        [{"text": text, "more": more}]
    )[0],
    KINDS, st.sampled_from(TEMPLATES + DEMONSTRATED), WILD, PLAIN,
)  # fmt: skip


@st.composite
def with_soft_tokens(draw: st.DrawFn) -> Encoded:
    """A row into which trainable prompt tokens are inserted, anywhere but into the slot."""
    row = draw(ROWS)
    for _ in range(draw(st.integers(0, 3))):
        places = [n for n in range(len(row) + 1) if not row.slot.start < n < row.slot.stop]
        n = draw(st.sampled_from(places))
        soft = Encoded.of(
            draw(st.lists(st.integers(900, 999), min_size=1, max_size=3)),
            Role.SOFT,
            draw(st.integers(0, 1)),
        )
        before, inserted = tokens(row), row.splice(slice(n, n), soft)
        assert tokens(inserted) == before[:n] + tokens(soft) + before[n:]
        row = inserted
    return row


@QUICK
@given(with_soft_tokens(), st.data())
def test_a_splice_keeps_every_other_token(row: Encoded, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(row)))
    stop = data.draw(st.integers(start, len(row)))
    role = data.draw(st.sampled_from(Role))
    added = Encoded.of(data.draw(st.lists(st.integers(0, 99), max_size=5)), role, segment=1)
    found = row.splice(slice(start, stop), added)
    assert tokens(added) == [(token, role, 1) for token in added.ids]
    assert tokens(found) == tokens(row)[:start] + tokens(added) + tokens(row)[stop:]
    assert tokens(row[start:stop]) == tokens(row)[start:stop]


@QUICK
@given(with_soft_tokens(), st.lists(st.integers(0, 99), min_size=1, max_size=4))
def test_a_slot_takes_other_tokens_and_a_splice_keeps_soft_ones(
    row: Encoded, ids: list[int]
) -> None:
    found = row.with_slot(ids)
    assert found.ids[found.slot] == tuple(ids)
    others = [token for token in tokens(row) if token[1] != Role.MASK]
    assert [token for token in tokens(found) if token[1] != Role.MASK] == others
    segment = row.segments[row.slot.start]
    assert set(found.segments[found.slot]) == {segment}
    assert ids_of(found, Role.SOFT) == ids_of(row, Role.SOFT)
    assert found.with_slot(row.ids[row.slot]) == row


@QUICK
@given(with_soft_tokens(), st.sampled_from(Role))
def test_without_a_role_all_other_tokens_stay(row: Encoded, role: Role) -> None:
    found = row.without(role)
    assert tokens(found) == [token for token in tokens(row) if token[1] != role]
    assert found.without(role) == found


def test_a_role_that_is_not_there_has_no_location() -> None:
    row = Encoded.of([1, 2], Role.TEXT) + Encoded.of([3], Role.MASK, 1)
    assert row.where(Role.TEXT) == slice(0, 2)
    assert row.slot == slice(2, 3)
    with pytest.raises(ValueError, match="not found"):
        row.where(Role.SOFT)


@QUICK
@given(st.lists(st.builds(lambda text: {"text": text}, WILD), max_size=5))
def test_encoded_rows_are_kept_with_their_ids(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]]
) -> None:
    file = tmp_path_factory.mktemp("encoded") / "tokens.parquet"
    encoded = encoder("wordpiece", "{text} {mask} {sep} so").encode(rows)
    ids = pa.array([f"row {n}" for n in range(len(rows))], pa.string())
    write_encoded(file, ids, encoded)
    assert read_encoded(file) == (ids, encoded)
