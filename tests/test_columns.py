"""The names that tables have for columns, guessed and told."""

from __future__ import annotations

import shlex

import pytest
import tomlkit

from pet_pipeline.columns import how_to_map, likely_columns


@pytest.mark.parametrize(
    ("column", "names", "likely"),
    [
        ("label", ["Lable", "class"], "Lable"),  # by its spelling, before a usual name
        ("label", ["n", "Class", "text"], "Class"),
        ("label", ["n", "target", "category"], "category"),  # the more usual one
        ("text", ["title", "body", "n"], "body"),
        ("text", ["label", "said"], "said"),  # all that is left
        ("text", ["id", "said"], "said"),
        ("text", ["said", "when"], None),
        ("text", ["label"], None),
        ("label", ["text"], None),
        ("label", [], None),
    ],
)
def test_the_likely_column(column: str, names: list[str], likely: str | None) -> None:
    assert likely_columns([column], names) == ({column: likely} if likely else {})


def test_no_column_is_likely_twice_or_if_it_is_taken() -> None:
    columns = ["premise", "hypothesis", "label"]
    assert likely_columns(columns, ["premises", "hypo", "gold"]) == {
        "premise": "premises",
        "hypothesis": "hypo",
        "label": "gold",
    }
    assert likely_columns(["text"], ["message", "body"], taken=["message"]) == {"text": "body"}


def test_how_columns_are_mapped_can_be_typed() -> None:
    name = 'what is "said"'
    option, _, setting = how_to_map("text", {"text": "text"}, {"text": name}).partition(" (")
    assert shlex.split(option) == ["--text-column", name]
    assert tomlkit.parse(setting.rstrip(")"))["data"]["columns"] == {"text": name}  # type: ignore[index]
