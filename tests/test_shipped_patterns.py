"""The tasks that come with the package: all load, name their source and suit the embedded model."""

from __future__ import annotations

from pathlib import Path

import pytest

from pet_pipeline.encoding import PatternEncoder, check_encoders
from pet_pipeline.patterns import Pattern, all_patterns, load_task, parse_template, template_of
from pet_pipeline.pretrained import load_tokenizer

ROOT = Path(__file__).parents[1]
EMBEDDED = ROOT / "data" / "models" / "minilm-mlm"
SHIPPED = sorted(file.parent for file in (ROOT / "patterns").rglob("task.toml"))


def test_the_tasks_of_the_literature_are_there() -> None:
    names = {folder.name for folder in SHIPPED}
    expected = (
        "agnews yahoo_topics yelp_full yelp_polarity imdb sst2 sst5 mr cr mpqa subj trec cola mnli "
        "snli qnli rte cb mrpc qqp boolq wic xstance banking77 tweet_emotion support aspect entity "
        "multiple_choice"
    )
    assert set(expected.split()) <= names
    assert len(SHIPPED) == len(names) > 20


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_shipped_patterns_load_and_name_their_source(folder: Path) -> None:
    task = load_task(folder)
    assert len(task.patterns) >= 2
    patterns = all_patterns(task)
    assert len({(pattern.parts, pattern.words) for pattern in patterns}) == len(patterns)
    for pattern in patterns:
        assert parse_template(template_of(pattern)) == pattern.parts
        assert (folder / f"{pattern.name}.toml").read_text("utf-8").startswith("# ")


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_every_task_has_null_prompts_that_are_taken_only_by_name(folder: Path) -> None:
    task = load_task(folder)
    assert task.others
    assert all(pattern.name.startswith("null_") for pattern in task.others)
    for pattern in all_patterns(task):
        assert is_null(pattern) == (pattern in task.others)
        fields = {part.name for part in pattern.parts if not isinstance(part, str)}
        assert fields - {"sep"} == {*task.columns, "mask"}


def is_null(pattern: Pattern) -> bool:
    """Whether a pattern has no words of its own."""
    return not "".join(part for part in pattern.parts if isinstance(part, str)).strip()


@pytest.mark.skipif(not EMBEDDED.exists(), reason="the embedded model is not here")
def test_shipped_patterns_suit_the_embedded_model() -> None:
    tokenizer = load_tokenizer(EMBEDDED)
    patterns = [pattern for folder in SHIPPED for pattern in all_patterns(load_task(folder))]
    assert check_encoders([PatternEncoder(p, tokenizer, 128) for p in patterns]) == []
