"""Templates from a list and from the pool."""

from __future__ import annotations

from pet_pipeline.patterns import parse_template
from pet_pipeline.search.connectors import connector_templates, count_contexts, mined_templates
from pet_pipeline.search.templates import locations

WORDS = (("bad",), ("great", "good"))
POOL = [
    "The food was great. We came again.",
    "The food was bad. We left.",
    "the staff was bad, so",
    "We say the food was good.",
    "great",
]


def test_connectors_fit_every_location() -> None:
    for columns in (["x"], ["x", "y"]):
        found = connector_templates(columns, WORDS)
        assert len(found) == len(locations(columns))
        for group in found:
            assert len(group) > 20
            assert len({c.template for c in group}) == len(group)
            assert {c.generator for c in group} == {"connectors"}
            for candidate in group:
                parse_template(candidate.template)


def test_contexts_are_counted_by_label() -> None:
    around, openings = count_contexts(POOL, WORDS)
    assert around["food was", "."] == {0: 1, 1: 2}
    assert around["was", "."] == {0: 1, 1: 2}
    assert ("staff was", ",") not in around  # seen once
    assert not [left for left, _ in around if "." in left]  # not across sentences
    assert openings["we"] == 3
    assert openings["the food was"] == 2


def test_text_seen_with_several_labels_comes_first() -> None:
    last, first = mined_templates(POOL, ["x"], WORDS)
    best = max(last, key=lambda c: c.score)
    assert best.template in ("{x} was {mask}.", "{x} food was {mask}.", "{x} the food was {mask}.")
    texts = {c.template for c in last}
    assert "{x} the food {mask}." in texts  # how sentences open
    assert "the food was {mask}. {x}" in {c.template for c in first}
    for candidate in (*last, *first):
        literal = [p for p in parse_template(candidate.template) if isinstance(p, str)]
        assert not {"bad", "great", "good"} & set(
            " ".join(literal).lower().replace(".", "").split()
        )


def test_a_pool_without_anything_gives_nothing() -> None:
    assert mined_templates([], ["x"], WORDS) == [[], []]
    assert mined_templates(["", "?!", "once only"], ["x"], WORDS) == [[], []]
