"""Foreign tables: every source gives the same rows, every mistake its message."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from pet_pipeline.errors import UserError
from pet_pipeline.keys import fingerprint
from pet_pipeline.sources import (
    Folder,
    check_source,
    count_rows,
    find_source,
    read_batches,
)
from pet_pipeline.tables import part_name

LABELS = ("sad", "happy")
ROWS = {
    "text": ["007", "1.0", "two\nlines", 'a "quoted", comma', "", "é 中 😀"],
    "label": ["sad", "happy", "sad", "happy", "sad", "happy"],
}


def rows(
    source: str, names: dict[str, str] | None = None, labels: Any = LABELS
) -> list[dict[str, Any]]:
    batches = read_batches(find_source(source), ("text",), names or {}, labels)
    return [row for batch in batches for row in batch.to_pylist()]


def written(folder: Path, kind: str) -> str:
    table, file = pa.table(ROWS), folder / f"rows.{kind}"
    if kind == "parquet":
        pq.write_table(table, file)
    elif kind == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in table.to_pylist()))
    else:
        delimiter = "\t" if kind == "tsv" else ","
        pa_csv.write_csv(table, file, pa_csv.WriteOptions(delimiter=delimiter))
    return str(file)


@pytest.mark.parametrize("kind", ["parquet", "csv", "tsv", "jsonl"])
def test_every_format_gives_the_same_rows(tmp_path: Path, kind: str) -> None:
    source = written(tmp_path, kind)
    assert count_rows(find_source(source)) == 6
    assert rows(source) == [
        {"id": n, "text": text, "label": label}
        for n, (text, label) in enumerate(zip(ROWS["text"], ROWS["label"], strict=True))
    ]


COLUMNS = {
    "integers": pa.array([7, 8]),
    "categories": pa.array(["7", "8"]).dictionary_encode(),
    "large": pa.array(["7", "8"], pa.large_string()),
    "bytes": pa.array([b"7", b"8"]),
}


@pytest.mark.parametrize("kind", COLUMNS)
def test_columns_of_other_types_are_read_as_text(tmp_path: Path, kind: str) -> None:
    column = COLUMNS[kind]
    pq.write_table(pa.table({"text": column, "label": column}), tmp_path / "t.parquet")
    assert rows(str(tmp_path / "t.parquet"), labels=("7", "8")) == [
        {"id": 0, "text": "7", "label": "7"},
        {"id": 1, "text": "8", "label": "8"},
    ]


def test_shards_of_csv_may_have_their_columns_in_another_order(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\na,sad\n")
    (tmp_path / "b.csv").write_text("label,text\nhappy,b\n")
    assert [(row["text"], row["label"]) for row in rows(str(tmp_path))] == [
        ("a", "sad"),
        ("b", "happy"),
    ]


def test_ids_are_made_across_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pet_pipeline.sources.BATCH_ROWS", 2)
    pq.write_table(pa.table({"text": list("abcde")}), tmp_path / "t.parquet")
    assert [row["id"] for row in rows(str(tmp_path / "t.parquet"), labels=None)] == [0, 1, 2, 3, 4]


def test_a_folder_of_shards_is_one_table_in_order(tmp_path: Path) -> None:
    for n in range(3):
        pq.write_table(pa.table({"text": [f"{n}"]}), tmp_path / part_name(n))
    (tmp_path / "README.md").write_text("no table")
    assert [row["text"] for row in rows(str(tmp_path), labels=None)] == ["0", "1", "2"]


def saved(file: Path, **columns: list[Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), file)


def test_hidden_files_are_neither_read_nor_counted(tmp_path: Path) -> None:
    hidden = [".cache/x.parquet", "_tmp/x.parquet", "a/.ipynb_checkpoints/x.parquet", "_x.parquet"]
    for n, name in enumerate(["b.parquet", "a/x.parquet", *hidden]):
        saved(tmp_path / name, text=[str(n)])
    source = find_source(str(tmp_path))
    assert count_rows(source) == 2
    assert [row["text"] for row in rows(str(tmp_path), labels=None)] == ["1", "0"]
    assert count_rows(find_source(f"{tmp_path}/_x.parquet")) == 1  # asked for


def test_a_source_in_a_hidden_folder_is_read(tmp_path: Path) -> None:
    saved(tmp_path / ".cache" / "pool" / "x.parquet", text=["a"])
    assert rows(str(tmp_path / ".cache" / "pool"), labels=None) == [{"id": 0, "text": "a"}]


def test_the_key_of_a_folder_is_made_of_the_files_that_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pool/b.parquet", "pool/a/x.parquet", "pool/.cache/x.parquet"):
        saved(tmp_path / name, text=["a"])
    (tmp_path / "pool" / "README.md").write_text("not a table")
    monkeypatch.chdir(tmp_path)
    source = find_source("pool")
    files = (Path("pool/a/x.parquet"), Path("pool/b.parquet"))
    assert source == Folder(Path("pool"), files)
    assert str(source) == "pool"
    assert source.in_key() == [["a/x.parquet", files[0]], ["b.parquet", files[1]]]
    assert count_rows(source) == 2
    assert find_source("pool/b.parquet") == Path("pool/b.parquet")


def test_only_files_that_are_read_change_the_key(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    saved(pool / "a.parquet", text=["a"])
    key = fingerprint(find_source(str(pool)))
    saved(pool / "_tmp" / "x.parquet", text=["b"])
    (pool / "README.md").write_text("not a table")
    assert fingerprint(find_source(str(pool))) == key
    pool.rename(tmp_path / "moved")
    assert fingerprint(find_source(str(tmp_path / "moved"))) == key
    saved(tmp_path / "moved" / "b.parquet", text=["b"])
    assert fingerprint(find_source(str(tmp_path / "moved"))) != key


@pytest.mark.parametrize(
    ("shards", "problem"),
    [
        (
            [{"text": "a", "label": "sad"}, {"text": "a"}, {"text": "a"}],
            "part-1.parquet has no column 'label' but part-0.parquet has (2 such shards); every shard needs it",
        ),
        (
            [{"label": "sad"}, {"text": "a", "label": "sad"}],
            "part-0.parquet has no column 'text' but part-1.parquet has; every shard needs it",
        ),
        (
            [{"text": "a", "label": "sad"}, {"id": 7, "text": "a", "label": "sad"}],
            "part-0.parquet has no column 'id' but part-1.parquet has; give all shards ids or none",
        ),
    ],
)
@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl"])
def test_a_column_that_some_shards_lack(
    tmp_path: Path, shards: list[dict[str, Any]], problem: str, kind: str
) -> None:
    for n, shard in enumerate(shards):
        file = tmp_path / f"part-{n}.{kind}"
        if kind == "jsonl":
            file.write_text(json.dumps(shard))
        elif kind == "csv":
            pa_csv.write_csv(pa.Table.from_pylist([shard]), file)
        else:
            pq.write_table(pa.Table.from_pylist([shard]), file)
    message = f"{tmp_path}: {problem.replace('parquet', kind)}"
    assert check_source(str(tmp_path), ("text",), {}, labelled=True, place="data.test") == [
        f"data.test: {message}"
    ]
    with pytest.raises(UserError) as error:
        rows(str(tmp_path))
    assert error.value.problems == (message,)


def test_a_column_that_no_shard_has_is_named_once(tmp_path: Path) -> None:
    for n in range(3):
        saved(tmp_path / part_name(n), txt=["a"])
    assert check_source(str(tmp_path), ("text",), {}, labelled=False, place="p") == [
        f"p: {tmp_path} has no column 'text'; it has 'txt'; if it is 'txt', add "
        '--text-column txt (data.columns = {text = "txt"})'
    ]
    with pytest.raises(UserError) as error:
        rows(str(tmp_path), labels=None)
    assert str(error.value) == f"{tmp_path} has no column 'text'; it has 'txt'"


def test_shards_may_have_columns_of_different_types(tmp_path: Path) -> None:
    saved(tmp_path / "a.parquet", id=[1], text=["a"])
    saved(tmp_path / "b.parquet", id=["x"], text=[2])
    assert rows(str(tmp_path), labels=None) == [{"id": "1", "text": "a"}, {"id": "x", "text": "2"}]


def test_a_broken_shard_is_named(tmp_path: Path) -> None:
    saved(tmp_path / "a.parquet", text=["a"])
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no more")
    (problem,) = check_source(str(tmp_path), ("text",), {}, labelled=False, place="p")
    assert problem.startswith(f"p: {tmp_path}: b.parquet: cannot be read: ")


def test_a_table_behind_a_url() -> None:
    with fsspec.open("memory://shop/pool.csv", "w") as file:
        file.write("text\nhello\n")
    source = find_source("memory://shop/pool.csv")
    assert rows("memory://shop/pool.csv", labels=None) == [{"id": 0, "text": "hello"}]
    with fsspec.open("memory://shop/pool.csv", "w") as file:
        file.write("text\nhello again\n")
    assert find_source("memory://shop/pool.csv") != source
    with pytest.raises(UserError, match=r"other\.csv: no such file or folder"):
        find_source("memory://shop/other.csv")


def test_a_folder_behind_a_url() -> None:
    for name in ("a.csv", "_log/b.csv", "sub/c.csv"):
        with fsspec.open(f"memory://stock/{name}", "w") as file:
            file.write(f"text\n{name}\n")
    source = find_source("memory://stock")
    assert [row["text"] for row in rows("memory://stock", labels=None)] == ["a.csv", "sub/c.csv"]
    with fsspec.open("memory://stock/_log/b.csv", "w") as file:
        file.write("text\nother\n")
    assert find_source("memory://stock") == source


@pytest.mark.parametrize("name", ["label", "coarse_label"])
def test_numbered_labels_with_names_in_the_metadata(tmp_path: Path, name: str) -> None:
    features = {"info": {"features": {name: {"names": ["sad", "happy"], "_type": "ClassLabel"}}}}
    table = pa.table({"text": ["a", "b"], name: [1, 0]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, tmp_path / "t.parquet")
    read = rows(str(tmp_path / "t.parquet"), {"label": name})
    assert [row["label"] for row in read] == ["happy", "sad"]


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (-1, "1 row without a label; the pool is for those"),
        (None, "1 row without a label; the pool is for those"),
        (2, "cannot be read: Index 2 out of bounds"),
    ],
)
def test_numbers_that_are_no_label(tmp_path: Path, number: int | None, message: str) -> None:
    features = {"info": {"features": {"label": {"names": ["sad", "happy"], "_type": "ClassLabel"}}}}
    table = pa.table({"text": ["a", "b"], "label": [number, 0]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(UserError) as error:
        rows(str(tmp_path / "t.parquet"))
    assert str(error.value) == f"{tmp_path}/t.parquet: {message}"


@pytest.mark.parametrize("ids", [["x", "y"], [7, 3]])
def test_ids_and_mapped_columns_are_kept(tmp_path: Path, ids: list[Any]) -> None:
    table = pa.table({"key": ids, "message": ["a", None], "class": ["sad", "happy"]})
    pq.write_table(table, tmp_path / "t.parquet")
    names = {"id": "key", "text": "message", "label": "class"}
    assert rows(str(tmp_path / "t.parquet"), names) == [
        {"id": ids[0], "text": "a", "label": "sad"},
        {"id": ids[1], "text": "", "label": "happy"},
    ]


def test_unknown_labels_are_counted_and_named(tmp_path: Path) -> None:
    table = pa.table({"text": ["a", "b", "c"], "label": ["hapy", "hapy", None]})
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(UserError) as error:
        rows(str(tmp_path / "t.parquet"))
    assert error.value.problems == (
        f"{tmp_path}/t.parquet: 'hapy' (2 rows) is not a label of the task; did you mean 'happy'?",
        f"{tmp_path}/t.parquet: 1 row without a label; the pool is for those",
    )


def test_every_unknown_label_is_a_problem_of_its_own_up_to_ten(tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"text": list("abcdefghijkl"), "label": [f"x{n}" for n in range(12)]}),
        tmp_path / "t.parquet",
    )
    with pytest.raises(UserError) as error:
        rows(str(tmp_path / "t.parquet"))
    assert len(error.value.problems) == 10
    assert all(problem.count("is not a label") == 1 for problem in error.value.problems)


def test_what_keeps_a_source_from_being_read(tmp_path: Path) -> None:
    source = written(tmp_path, "csv")
    for broken, message in {
        str(tmp_path / "rows.cvs"): f"no such file or folder; did you mean '{source}'?",
        str(tmp_path / "empty"): "no table found; one of ",
        str(tmp_path / "broken.parquet"): "cannot be read: ",
        "nowhere://x/y.csv": "Protocol not known: nowhere",
    }.items():
        (tmp_path / "empty").mkdir(exist_ok=True)
        (tmp_path / "broken.parquet").write_bytes(b"PAR1 no more")
        (problem,) = check_source(broken, ("text",), {}, labelled=False, place="data.pool")
        assert problem.startswith(f"data.pool: {broken}: ")
        assert message in problem


def missing(
    tmp_path: Path, header: str, *columns: str, names: dict[str, str] | None = None, **options: Any
) -> list[str]:
    """What is said of the columns that a CSV file does not have, after its name."""
    (tmp_path / "t.csv").write_text(f"{header}\n")
    given = {"labelled": True, "place": "p", **options}
    problems = check_source(f"{tmp_path}/t.csv", columns, names or {}, **given)
    return [problem.removeprefix(f"p: {tmp_path}/t.csv has no column ") for problem in problems]


def test_a_missing_column_is_told_with_the_delimiter_and_the_option(tmp_path: Path) -> None:
    assert missing(tmp_path, "text;category", "text") == [
        "'label'; with the delimiter ';' it has 'text', 'category'; if it is 'category', add "
        '--label-column category (data.columns = {label = "category"})'
    ]
    assert missing(tmp_path, "a\tb\tc", "text", labelled=False) == [
        "'text'; with the delimiter '\\t' it has 'a', 'b', 'c'; name it: --text-column NAME "
        '(data.columns = {text = "NAME"})'
    ]
    assert missing(tmp_path, "text^label", "text", labelled=False, mapping="--as NAME") == [
        "'text'; no delimiter (',', ';', '\\t', '|') was found, and it has 'text^label'; "
        "if it is 'text^label', add --as text^label"
    ]


def test_both_columns_may_be_missing(tmp_path: Path) -> None:
    text, label = missing(tmp_path, "the message|category", "text")
    assert text.endswith(
        "; if it is 'the message', add --text-column 'the message' "
        '(data.columns = {text = "the message"})'
    )
    assert label.endswith(
        "; if it is 'category', add --label-column category (data.columns = {label = \"category\"})"
    )


def test_the_options_of_two_text_columns_are_given_together(tmp_path: Path) -> None:
    (problem,) = missing(tmp_path, "premise,hypo,label", "premise", "hypothesis")
    assert problem.endswith(
        "if it is 'hypo', add --text-column premise --text-column hypo "
        '(data.columns = {hypothesis = "hypo"})'
    )
    first, second = missing(tmp_path, "a,b,label", "premise", "hypothesis")
    assert first.endswith(
        '; name it: --text-column NAME --text-column NAME (data.columns = {premise = "NAME"})'
    )
    assert second.endswith('(data.columns = {hypothesis = "NAME"})')


def test_a_table_without_another_column_gets_no_advice_to_name_it(tmp_path: Path) -> None:
    assert missing(tmp_path, "id,text", "text") == [
        "'label'; with the delimiter ',' it has 'id', 'text'"
    ]


def test_a_mapping_to_a_column_that_is_not_there(tmp_path: Path) -> None:
    seen = "with the delimiter ',' it has 'message', 'label'"
    assert missing(tmp_path, "message,label", "text", names={"text": "mesage"}) == [
        f"'mesage'; {seen}; did you mean 'message'?"
    ]
    body = {"names": {"text": "body"}}
    assert missing(tmp_path, "message,label", "text", **body) == [
        f"'body'; {seen}; data.columns is for all tables: rename it in this one"
    ]
    assert missing(tmp_path, "message,label", "text", **body, mapping="--column COLUMN=NAME") == [
        f"'body'; {seen}"
    ]


def test_a_wide_table_is_told_by_its_first_columns(tmp_path: Path) -> None:
    (problem,) = missing(tmp_path, ",".join(f"c{n}" for n in range(25)), "text", labelled=False)
    assert "'c18', 'c19' and 5 more; name it" in problem


@pytest.mark.parametrize("root", ["memory://shelf", "{tmp_path}"])
@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_delimiters_of_every_file_of_a_folder_or_url(
    tmp_path: Path, root: str, delimiter: str
) -> None:
    root = root.format(tmp_path=tmp_path)
    content = f'text{delimiter}label\n"so, {delimiter} good"{delimiter}happy\n'
    for name, text in {"a.csv": content, "b.csv": 'label,text\nsad,"bad; day"\n'}.items():
        with fsspec.open(f"{root}/{name}", "w") as file:
            file.write(text)
    for source in (root, f"{root}/a.csv"):
        assert check_source(source, ("text",), {}, labelled=True, place="p") == []
        first, *others = [(row["text"], row["label"]) for row in rows(source)]
        assert first == (f"so, {delimiter} good", "happy")
        assert others in ([("bad; day", "sad")], [])
        assert count_rows(find_source(source), ("text",), {}) == 1 + len(others)


def test_a_table_is_counted_by_the_delimiter_that_it_is_read_by(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('text,a;b,c\n"1\n;2",3;4,5\n')
    source = find_source(str(tmp_path / "t.csv"))
    read = list(read_batches(source, ("text",), {}, None))
    assert [batch["text"].to_pylist() for batch in read] == [["1\n;2"]]
    assert count_rows(source, ("text",), {}) == 1


@pytest.mark.parametrize(
    "column", [[["a"]], [{"a": 1}], [b"\xff"]], ids=["list", "struct", "bytes"]
)
@pytest.mark.parametrize("name", ["id", "text", "label"])
def test_columns_that_are_no_text(tmp_path: Path, name: str, column: list[Any]) -> None:
    table = {"id": ["1"], "text": ["a"], "label": ["sad"], name: column}
    pq.write_table(pa.table(table), tmp_path / "t.parquet")
    with pytest.raises(UserError, match=r"t\.parquet: cannot be read: "):
        rows(str(tmp_path / "t.parquet"))


def test_an_empty_table_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("text,label\n")
    assert count_rows(find_source(str(tmp_path / "t.csv"))) == 0
    assert rows(str(tmp_path / "t.csv")) == []


def test_labels_that_are_missing_or_unknown_in_any_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pet_pipeline.sources.BATCH_ROWS", 2)
    labels = ["sad", "odd", "happy", "odd", "", None]
    pq.write_table(pa.table({"text": ["a"] * 6, "label": labels}), tmp_path / "t.parquet")
    with pytest.raises(UserError) as error:
        rows(str(tmp_path / "t.parquet"))
    assert error.value.problems == (
        f"{tmp_path}/t.parquet: 'odd' (2 rows) is not a label of the task; there are 'sad', 'happy'",
        f"{tmp_path}/t.parquet: 2 rows without a label; the pool is for those",
    )


def test_mixed_formats_in_a_folder(tmp_path: Path) -> None:
    written(tmp_path, "csv")
    written(tmp_path, "parquet")
    (problem,) = check_source(str(tmp_path), ("text",), {}, labelled=False, place="p")
    assert "'csv', 'parquet' found; one of" in problem
