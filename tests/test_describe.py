"""What is said of patterns with a model: tokens, warnings, and the untuned model's prior."""

from __future__ import annotations

from pathlib import Path

import pytest

from pet_pipeline.describe import describe_patterns
from pet_pipeline.errors import UserError
from pet_pipeline.patterns import Task, load_task, pattern_of

LABELS = ("sad", "happy")
ROWS = [{"text": "a bad day"}, {"text": "a good day " * 100}]


def task(*words: tuple[tuple[str, ...], ...]) -> Task:
    """A task of patterns that differ by their label words."""
    patterns = [
        pattern_of(f"p{n}", "{text} it was {mask}.", LABELS, group) for n, group in enumerate(words)
    ]
    return Task("mood", ("text",), LABELS, "accuracy", tuple(patterns))


def test_words_are_shown_with_their_tokens(tiny_mlm: Path, tiny_task: Path) -> None:
    described = describe_patterns(load_task(tiny_task), str(tiny_mlm), ROWS[:1], prior=False)
    assert list(described) == ["it_was", "just", "mood"]
    assert described["it_was"].words == {
        "sad": [["terrible"], ["bad"]],
        "happy": [["great"], ["good"]],
    }
    assert [d.warnings for d in described.values()] == [[], [], []]
    assert [d.prior for d in described.values()] == [None, None, None]


@pytest.mark.parametrize(
    ("words", "warnings"),
    [
        ((("bad",), ("good",)), []),
        ((("xy",), ("yx",)), ["label words of 2 tokens: 2 masks"]),
        (
            (("bad",), ("xyz",)),
            [
                "label words of 1 and 3 tokens: 3 masks; a word's score is the mean over its "
                "tokens, yet words of one length compare best"
            ],
        ),
    ],
)
def test_long_words_are_warned_of(
    tiny_mlm: Path, words: tuple[tuple[str, ...], ...], warnings: list[str]
) -> None:
    described = describe_patterns(task(words), str(tiny_mlm), ROWS[:1], prior=False)
    assert described["p0"].warnings == warnings


def test_truncated_rows_are_counted(tiny_mlm: Path) -> None:
    described = describe_patterns(task((("bad",), ("good",))), str(tiny_mlm), ROWS, prior=False)
    assert described["p0"].warnings == ["1 of 2 rows are cut to 128 tokens"]


def test_the_prior_is_a_distribution_of_each_pattern(tiny_mlm: Path, tiny_task: Path) -> None:
    described = describe_patterns(load_task(tiny_task), str(tiny_mlm), ROWS, prior=True)
    for description in described.values():
        assert description.prior
        assert sum(description.prior) == pytest.approx(1)
        assert all(0 < p < 1 for p in description.prior)


def test_problems_of_all_patterns_are_raised_together(tiny_mlm: Path) -> None:
    broken = task((("中",), ("good",)), (("good",), ("Good",)))
    with pytest.raises(UserError) as error:
        describe_patterns(broken, str(tiny_mlm), ROWS, prior=False)
    assert error.value.problems == (
        "pattern 'p0': label word '中' has tokens that the model does not know",
        "pattern 'p1': label words 'good' (sad) and 'Good' (happy) are the same tokens for this "
        "model",
    )


def test_problems_of_the_model_begin_with_its_option(tiny_task: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^model: .* has no config\.json"):
        describe_patterns(load_task(tiny_task), str(tmp_path), ROWS, prior=False)


def test_soft_tokens_are_counted_and_their_prior_is_that_of_the_words_they_start_at(
    tiny_mlm: Path,
) -> None:
    templates = ("{text} {soft:it was} {mask}.", "{text} it was {mask}.")
    patterns = tuple(
        pattern_of(f"p{n}", template, LABELS, (("bad",), ("good",)))
        for n, template in enumerate(templates)
    )
    described = describe_patterns(
        Task("mood", ("text",), LABELS, "accuracy", patterns), str(tiny_mlm), ROWS[:1], prior=True
    )
    note = "2 soft tokens, trained by the soft prompts of finetune.method"
    assert [d.warnings for d in described.values()] == [[note], []]
    assert described["p0"].prior == pytest.approx(described["p1"].prior)
