"""What a run says of its tables before hours are spent: exact sentences, on one screen."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from testing import CPU

from pet_pipeline.duplicates import NO_TEXT
from pet_pipeline.models import ModelFolder
from pet_pipeline.stages.check_data import (
    FEW_ROWS,
    UNEVEN,
    CheckData,
    label_conflicts,
    label_warnings,
    say_warnings,
    table_warnings,
)
from pet_pipeline.tables import part_name
from pet_pipeline.units import Result

MANY = {"sad": 10, "happy": 12}
Check = Callable[..., list[str]]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    """The warnings about tables of texts; the pool is given shard by shard."""

    def make(
        pool: Sequence[Sequence[str]] | None = None,
        *,
        left_out: int = 0,
        counts: dict[str, int] = MANY,
        truncated: Sequence[str] = (),
        student: ModelFolder | None = None,
        max_tokens: int = 16,
        **tables: Sequence[str],
    ) -> list[str]:
        def saved(**files: Sequence[str]) -> Path:
            folder = Path(tempfile.mkdtemp(dir=tmp_path))
            for file, texts in files.items():
                column = pa.array(list(texts), pa.string())
                table = pa.table({"id": list(range(len(texts))), "text": column})
                pq.write_table(table, folder / f"{file}.parquet")
            return folder

        shards = {part_name(n).removesuffix(".parquet"): s for n, s in enumerate(pool or ())}
        rows = sum(len(texts) for texts in shards.values())
        prepared = Result(saved(**shards), "p", {"rows": rows, "left_out": left_out})
        unit = CheckData(
            columns=("text",),
            tables={
                name: Result(saved(table=texts), name, {"labels": counts})
                for name, texts in tables.items()
            },
            pool=prepared if pool is not None else None,
            balanced=True,
            checked=tuple(Result(tmp_path, line, {"warnings": [line]}) for line in truncated),
            student=student,
            student_tokens=max_tokens,
        )
        warnings: list[str] = unit.work(tmp_path, CPU)["warnings"]
        return warnings

    return make


def test_nothing_is_said_of_tables_without_faults(check: Check) -> None:
    assert check([["a", "b"], ["c"]], labelled=["d", "e"], test=["f"], development=["g"]) == []
    assert check([["a"]]) == []
    assert check(labelled=["a", "b"]) == []


COUNTS: dict[str, tuple[dict[str, int], bool, list[str]]] = {
    "enough": ({"sad": FEW_ROWS, "happy": UNEVEN * FEW_ROWS}, True, []),
    "few of one": (
        {"sad": 7, "happy": 8},
        True,
        [
            "data.labelled: fewer than 8 rows of 'sad' (7); what is learned of such a label "
            "depends on which rows these are; label more of them first"
        ],
    ),
    "few and uneven": (
        {"sad": 8, "happy": 1, "calm": 2},
        True,
        [
            "data.labelled: fewer than 8 rows of 'happy' (1), 'calm' (2); what is learned of such "
            "a label depends on which rows these are; label more of them first",
            "data.labelled: 8 rows of 'sad' and 1 of 'happy', 8.0 times as many; batches are "
            "balanced by taking rows of rarer labels more often (finetune.balanced); more rows of "
            "'happy' would teach more",
        ],
    ),
    "uneven and not balanced": (
        {"sad": 10, "happy": 31},
        False,
        [
            "data.labelled: 31 rows of 'happy' and 10 of 'sad', 3.1 times as many; batches are not "
            "balanced, so rare labels may never be predicted; set finetune.balanced = true, or "
            "label more rows of 'sad'"
        ],
    ),
    "few of many": (
        {f"l{n}": 5 for n in range(13)},
        True,
        [
            "data.labelled: fewer than 8 rows of "
            + ", ".join(f"'l{n}' (5)" for n in range(10))
            + " and 3 more; what is learned of such a label depends on which rows these are; "
            "label more of them first"
        ],
    ),
}


@pytest.mark.parametrize(("counts", "balanced", "expected"), COUNTS.values(), ids=COUNTS)
def test_labels_with_few_rows_and_imbalance(
    counts: dict[str, int], balanced: bool, expected: list[str]
) -> None:
    assert list(label_warnings(counts, balanced)) == expected


def test_the_labelled_tables_counts_are_those_that_are_warned_about(check: Check) -> None:
    (warning,) = check(labelled=["a"], test=["b"], counts={"sad": 9, "happy": 7})
    assert warning.startswith("data.labelled: fewer than 8 rows of 'happy' (7); ")
    assert check(test=["b"], counts={"sad": 9, "happy": 0}) == []  # zero-shot


REMOVE = "remove the copies from one of the tables"


def test_texts_that_tables_share(check: Check) -> None:
    assert check(
        [["new", "  A\tDAY"], ["b"]],
        labelled=["a day", "b"],
        development=["B ", "c"],
        test=["A  Day\n", "C", "d"],
    ) == [
        f"data.test: 1 of 3 texts is in data.labelled too; figures measured on such texts are too good; {REMOVE}",
        f"data.development: 1 of 2 texts is in data.labelled too; weights fitted on such texts trust the models too much; {REMOVE}",
        f"data.test: 1 of 3 texts is in data.development too; figures are too good if weights are fitted on such texts; {REMOVE}",
        "data.pool: 2 of 3 texts are in data.labelled too; their soft labels are surer than those "
        "of other texts; remove the copies from data.pool if they are many",
    ]


def test_test_texts_that_were_left_out_of_the_pool(check: Check) -> None:
    assert check([["a"], []], left_out=2, test=["b", "c"]) == [
        "data.pool: 2 of 3 texts are in data.test too and left out of the pool, so that the "
        "classifier is measured on texts it was not trained on; no action is needed"
    ]


def test_repeated_texts_are_counted_in_every_table(check: Check) -> None:
    assert check(
        [["p", "q"], ["Q", "q "]],
        labelled=["a", "A", "b"],
        test=["t", "t", "t"],
        development=["d", " d"],
    ) == [
        "data.labelled: 1 of 3 rows repeats the text of an earlier row; such texts count several times in training; keep one row of each",
        "data.test: 2 of 3 rows repeat the text of an earlier row; such texts count several times in the figures, whose intervals come out too narrow; keep one row of each",
        "data.development: 1 of 2 rows repeats the text of an earlier row; such texts count several times where weights are fitted; keep one row of each",
        "data.pool: 2 of 4 rows repeat the text of an earlier row; such texts count several times in the classifier's training; keep one row of each, unless texts to be classified repeat as often",
    ]


def test_rows_of_the_pool_without_text_are_no_duplicates(check: Check) -> None:
    assert check([["a", " "], ["", "\n\t"]]) == [
        "data.pool: 3 of 4 rows have no text; the soft label of such a row means nothing; remove these rows"
    ]


def test_a_pool_that_is_smaller_than_the_labelled_table(check: Check) -> None:
    assert check([["a", "b"]], labelled=["c", "d", "e"]) == [
        "data.pool: 2 rows, fewer than the 3 of data.labelled; the classifier learns from the pool "
        "for the most part; give more unlabelled texts, some thousand if there are"
    ]


def test_a_pool_as_large_as_the_labelled_table(check: Check) -> None:
    assert check([["a", "b"], ["c"]], labelled=["d", "e", "f"]) == []


def test_texts_that_the_classifier_does_not_see_whole(check: Check, tiny_mlm: Path) -> None:
    short, long = "the day was nice", "the day " * 8  # and two special tokens
    student = ModelFolder(tiny_mlm)
    pool = [[], [short, long], ["a " + long, "my day"]]
    assert check(pool, student=student, max_tokens=17, truncated=["a pattern cuts texts"]) == [
        "a pattern cuts texts",
        "distill.max_tokens: texts of the pool are cut to 17 tokens, 2 of 4, 50%; the classifier "
        "does not see what is cut; raise it where labels depend on that, at the cost of time",
    ]


def test_texts_that_just_fit_are_not_cut(check: Check, tiny_mlm: Path) -> None:
    assert check([["the day " * 8]], student=ModelFolder(tiny_mlm), max_tokens=18) == []


def row(text: str, label: str) -> dict[str, Any]:
    return {"text": text, "label": label}


CONFLICTS: dict[str, tuple[list[dict[str, Any]], list[str]]] = {
    "none": ([row("a", "sad"), row("A", "sad"), row("b", "happy")], []),
    "two rows": (
        [row("A  day", "sad"), row("b", "sad"), row("A day ", "happy"), row("a day", "happy")],
        ["l: 'A day' is labelled 'sad' (row 10) and 'happy' (row 12); keep one label"],
    ),
    "many rows": (
        [*[row("a", "sad")] * 7, row("a", "happy"), row("a", "happy")],
        [
            "l: 'a' is labelled 'sad' (rows 10, 11, 12, 13, 14 and 2 more) and 'happy' "
            "(rows 17, 18); keep one label"
        ],
    ),
    "a long text": (
        [row("word " * 30, "sad"), row("word " * 30, "happy")],
        [
            f"l: '{('word ' * 30)[:59]}…' is labelled 'sad' (row 10) and 'happy' (row 11); "
            "keep one label"
        ],
    ),
    "six texts": (
        [row(text, label) for text in "abcdef" for label in ("sad", "happy")],
        [
            *(
                f"l: '{text}' is labelled 'sad' (row {n}) and 'happy' (row {n + 1}); keep one label"
                for text, n in zip("abcde", range(10, 20, 2), strict=True)
            ),
            "l: 1 more text has several labels",
        ],
    ),
}


@pytest.mark.parametrize(("rows", "expected"), CONFLICTS.values(), ids=CONFLICTS)
def test_texts_with_several_labels(rows: list[dict[str, Any]], expected: list[str]) -> None:
    numbers = range(10, 10 + len(rows))
    assert list(label_conflicts("l", rows, ("text",), numbers)) == expected


def test_pairs_conflict_only_if_both_texts_are_the_same() -> None:
    rows = [{"a": "x", "b": text, "label": text} for text in ("y", "z")]
    assert list(label_conflicts("l", rows, ("a", "b"), (0, 1))) == []
    rows = [{"a": "x", "b": "Y", "label": label} for label in ("sad", "happy")]
    assert list(label_conflicts("l", rows, ("a", "b"), (0, 1))) == [
        "l: 'x | Y' is labelled 'sad' (row 0) and 'happy' (row 1); keep one label"
    ]


HASHES = st.lists(st.integers(0, 5), min_size=1, max_size=12)


@given(HASHES, HASHES)
def test_numbers_of_shared_and_repeated_texts(test: list[int], labelled: list[int]) -> None:
    tables = {"test": np.array(test, np.uint64), "labelled": np.array(labelled, np.uint64)}
    said = list(table_warnings(tables))
    shared = sum(text in labelled for text in test if text != NO_TEXT)
    copies = {
        name: sum(n - 1 for text, n in Counter(rows.tolist()).items() if text != NO_TEXT)
        for name, rows in tables.items()
    }
    expected = [f"data.test: {shared} of {len(test)} texts"] if shared else []
    for name in ("labelled", "test"):
        if copies[name]:
            expected.append(f"data.{name}: {copies[name]} of {len(tables[name])} rows repeat")
    assert len(said) == len(expected)
    assert all(line.startswith(begin) for line, begin in zip(said, expected, strict=True))


def test_warnings_are_printed_as_one_block(capsys: pytest.CaptureFixture[str]) -> None:
    results = [Result(Path(), "", {"warnings": lines}) for lines in (["a: b", "c: d"], [], ["e"])]
    say_warnings("Data checks", results)
    assert capsys.readouterr().err == "Data checks: 3 warnings\n  - a: b\n  - c: d\n  - e\n"
    say_warnings("Data checks", results[2:])
    assert capsys.readouterr().err == "Data checks: 1 warning\n  - e\n"
    say_warnings("Data checks", [results[1], Result(Path(), "", {})])
    assert capsys.readouterr().err == ""


def test_rows_that_were_chosen_from_the_pool_are_not_said_to_be_in_it() -> None:
    pool, merged = np.array([3, 5, 7, 9], np.uint64), np.array([7], np.uint64)
    hashes = {"labelled": np.array([5, 7], np.uint64), "pool": pool}
    (shared,) = (w for w in table_warnings(hashes, merged=merged) if "in data.labelled" in w)
    assert shared.startswith("data.pool: 1 of 4 texts is in data.labelled too")
    assert not [
        w
        for w in table_warnings({**hashes, "labelled": merged}, merged=merged)
        if "in data.labelled" in w
    ]
