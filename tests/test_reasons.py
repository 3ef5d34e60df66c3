"""Why a result does not count any more, as sentences."""

from __future__ import annotations

from typing import Any

import pytest

from pet_pipeline.keys import changes
from pet_pipeline.reasons import reasons, waiting


def said(old: dict[str, Any], new: dict[str, Any], **more: Any) -> list[str]:
    """The reasons of a unit of `finetune` whose fields differ."""
    before, after = ({"stage": "finetune", "version": 1, "params": p} for p in (old, new))
    return reasons("finetune", changes(before, {**after, **more}))


COLON: dict[str, Any] = {"name": "colon", "template": "{mask}: {text}", "words": [["Good"]]}
TEAM: dict[str, Any] = {"name": "team", "template": "{text} {mask}", "words": [["Good"]]}
EDITED = {**COLON, "template": "{mask} {text}", "words": None}
FOLDER = {"config.json": {"sha256": "1"}, "model.safetensors": {"sha256": "2"}}
HUB = {"name": "bert", "commit": "1"}


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ({"tuning": {"steps": 60}}, {"tuning": {"steps": 40}}, "finetune steps: 60 → 40"),
        ({"real": {"seed": 1}}, {"real": {"seed": 2}}, "finetune seed: 1 → 2"),
        ({"rate": None}, {"rate": 0.5}, "finetune rate: none → 0.5"),
        ({"frozen": True}, {"frozen": False}, "finetune frozen: true → false"),
        ({"labels": ["a", "b"]}, {"labels": ["a", "c"]}, "finetune labels: b → c"),
        ({"labels": ["a"]}, {"labels": ["a", "b"]}, "finetune labels: ['a'] → ['a', 'b']"),
        ({"text": "a"}, {"text": "x" * 99}, f"finetune text: a → {'x' * 59}…"),
        ({}, {"fold": 1}, "finetune fold: absent → 1"),
        ({"pattern": COLON}, {"pattern": EDITED}, "pattern colon changed"),
        ({"patterns": [COLON]}, {"patterns": [COLON, TEAM]}, "pattern team added"),
        ({"patterns": [COLON, TEAM]}, {"patterns": [TEAM]}, "pattern colon removed"),
        ({"patterns": [COLON, TEAM]}, {"patterns": [EDITED, TEAM]}, "pattern colon changed"),
        ({"patterns": [COLON, TEAM]}, {"patterns": [TEAM, COLON]}, "patterns in another order"),
        ({"base": FOLDER}, {"base": {**FOLDER, "a": {"sha256": "3"}}}, "model changed"),
        ({"base": FOLDER}, {"base": HUB}, "model changed"),
        ({"base": HUB}, {"base": {**HUB, "commit": "2"}}, "model bert changed"),
        ({"base": HUB}, {"base": {"name": "t5", "commit": "1"}}, "finetune model: bert → t5"),
        ({"source": {"sha256": "1"}}, {"source": {"sha256": "2"}}, "source changed"),
        ({"labelled": {"result": "1"}}, {"labelled": None}, "labelled removed"),
        ({"name": "a"}, {"name": "b"}, "finetune name: a → b"),
        ({"tuning": None}, {"tuning": {"steps": 1}}, "tuning added"),
    ],
)
def test_a_difference_is_a_sentence(old: Any, new: Any, reason: str) -> None:
    assert said(old, new) == [reason]


def test_a_new_version_and_a_forced_attempt() -> None:
    assert said({}, {}, version=2) == ["finetune has a new version: 1 → 2"]
    assert said({}, {}, attempt=1) == ["forced"]


def test_what_other_units_made_is_left_out() -> None:
    up = {"up": {"result": "1"}, "shards": [{"result": "1"}], "steps": 1}
    new = {"up": {"result": "2"}, "shards": [{"result": "2"}, {"result": "3"}], "steps": 2}
    assert said(up, new) == ["finetune steps: 1 → 2"]
    assert said(up, {**new, "steps": 1}) == []


@pytest.mark.parametrize(
    ("names", "text"),
    [
        ({}, "an earlier result has changed"),
        ({"gen-0/finetune/a": False}, "gen-0/finetune/a is redone first"),
        ({"gen-0/finetune/a": True}, "gen-0/finetune/a was redone"),
        ({"encode/a": True, "gen-0/finetune/a": False}, "gen-0/finetune/a is redone first"),
        (
            {"gen-0/finetune/a": False, "gen-0/finetune/b": False},
            "2 units of gen-0/finetune are redone first",
        ),
        ({"gen-0/finetune/a": True, "encode/b": True}, "gen-0/finetune/a and 1 more were redone"),
    ],
)
def test_units_that_others_wait_for(names: dict[str, bool], text: str) -> None:
    assert waiting(names) == text
