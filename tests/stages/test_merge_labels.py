"""Labels given by hand become part of the run's own labelled table."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from filelock import FileLock
from planning import planned
from testing import HAPPY, SAD, rows, run, todo

from pet_pipeline.config import Settings
from pet_pipeline.errors import UserError
from pet_pipeline.patterns import load_task
from pet_pipeline.stages.merge_labels import Merged, merge_labels

Make = Callable[..., Settings]
POOL = [
    {"id": str(100 + n), "text": f"{text} {more}"}
    for n, (more, text) in enumerate(
        (more, text) for more in ("and so on", "in the night", "of my team") for text in SAD + HAPPY
    )
]  # as in tiny_tables


@pytest.fixture
def prepared(finished: Make, tmp_path: Path) -> Callable[..., Settings]:
    """A function from sections to the settings of a run of one's own with prepared tables."""

    def make(**sections: Any) -> Settings:
        settings = finished(until="prepare", **sections)
        folder = shutil.copytree(settings.output, tmp_path / "mine")
        return settings.model_copy(update={"output": str(folder)})

    return make


def filled(tmp_path: Path, labels: dict[int, str | None], **changed: Any) -> Path:
    """A table with the pool's rows that are numbered, and their labels."""
    columns = ("id", "guess", "text", "label")
    table = [{**POOL[n], "guess": "sad", "label": label, **changed} for n, label in labels.items()]
    file = tmp_path / "todo.parquet"
    pq.write_table(pa.table({name: [row[name] for row in table] for name in columns}), file)
    return file


def merge(settings: Settings, file: Path) -> Merged:
    return merge_labels(run(settings, plan=True), load_task(settings.task), settings, file)


def own(settings: Settings) -> list[dict[str, Any]]:
    """The rows of the run's own labelled table."""
    return rows(Path(settings.output) / "labelled.parquet")


def test_filled_rows_are_added_to_the_runs_own_table(
    prepared: Make, tmp_path: Path, tiny_tables: dict[str, str]
) -> None:
    settings = prepared()
    file = filled(tmp_path, {3: "happy", 5: "", 7: None, 2: " sad "})
    merged = merge(settings, file)
    labelled = Path(settings.output) / "labelled.parquet"
    assert merged == Merged(labelled, added=2, known=0, empty=2, counts={"sad": 5, "happy": 5})
    given = rows(Path(tiny_tables["labelled"]))
    assert own(settings) == [
        *({"id": str(n), **row} for n, row in enumerate(given)),
        {"id": "pool:103", "text": POOL[3]["text"], "label": "happy"},
        {"id": "pool:102", "text": POOL[2]["text"], "label": "sad"},
    ]
    assert len(given) == 8  # the user's table is as it was


def test_a_table_that_is_merged_again_adds_nothing(prepared: Make, tmp_path: Path) -> None:
    settings = prepared()
    file = filled(tmp_path, {3: "happy", 2: "sad"})
    merge(settings, file)
    before = own(settings)
    assert (merged := merge(settings, file)).added == 0
    assert merged.known == 2
    assert own(settings) == before
    more = merge(settings, filled(tmp_path, {3: "happy", 4: "sad"}))
    assert (more.added, more.known) == (1, 1)
    assert [row["id"] for row in own(settings)[8:]] == ["pool:103", "pool:102", "pool:104"]


def test_the_next_run_reads_it_in_place_of_the_users_table(
    prepared: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = prepared(data={"k": 2})
    merge(settings, filled(tmp_path, {3: "happy", 2: "sad"}))
    assert todo(settings)[0] == "prepare/labelled"
    assert "prepare/pool" not in todo(settings)
    run(settings, until="prepare")
    read = rows(Path(settings.output) / "prepare/labelled/table.parquet")
    assert read == own(settings)
    assert len(read) == 6  # of the 4 that were drawn, nothing is drawn again
    said = " ".join(capsys.readouterr().err.split())
    assert f"labelled rows: {settings.output}/labelled.parquet, in place of data.labelled" in said


def test_columns_keep_the_names_of_the_users_tables(
    prepared: Make, tmp_path: Path, tiny_tables: dict[str, str]
) -> None:
    data = {}
    for name in ("labelled", "pool", "test"):
        table = pq.read_table(tiny_tables[name])
        renamed = {"text": "message", "label": "mood", "id": "number"}
        file = tmp_path / f"{name}.parquet"
        pq.write_table(table.rename_columns([renamed[n] for n in table.column_names]), file)
        data[name] = str(file)
    columns = {"text": "message", "label": "mood", "id": "number"}
    settings = prepared(data={**data, "columns": columns})
    for n in (3, 4):  # a new table, and one that is there
        merge(settings, filled(tmp_path, {n: "happy"}))
    assert own(settings)[8:] == [
        {"number": f"pool:{100 + n}", "message": POOL[n]["text"], "mood": "happy"} for n in (3, 4)
    ]
    run(settings, until="prepare")


def test_a_run_without_labels_begins_a_table(prepared: Make, tmp_path: Path) -> None:
    settings = prepared(data={"labelled": ""})
    assert merge(settings, filled(tmp_path, {3: "happy"})).counts == {"sad": 0, "happy": 1}
    merge(settings, filled(tmp_path, {2: "sad"}))
    assert [row["label"] for row in own(settings)] == ["happy", "sad"]
    assert "distill/baseline" in planned(settings)  # which needs labelled rows
    run(settings, until="prepare")


def test_texts_are_recognised_whatever_a_spreadsheet_did_to_case_and_space(
    prepared: Make, tmp_path: Path
) -> None:
    settings = prepared()
    text = POOL[3]["text"].upper().replace(" ", "  ") + "\r\n"
    merge(settings, filled(tmp_path, {3: "happy"}, text=text, id="1.03E+02"))
    assert own(settings)[8] == {"id": "pool:103", "text": POOL[3]["text"], "label": "happy"}


def test_an_id_that_is_taken_gets_a_number(
    prepared: Make, tmp_path: Path, tiny_tables: dict[str, str]
) -> None:
    table = pq.read_table(tiny_tables["labelled"])
    ids = pa.array([f"pool:{n}" for n in range(100, 108)])
    file = tmp_path / "labelled.parquet"
    pq.write_table(table.append_column("id", ids), file)
    settings = prepared(data={"labelled": str(file)})
    merge(settings, filled(tmp_path, {3: "happy"}))
    assert own(settings)[8]["id"] == "pool:103#2"


def problem(settings: Settings, file: Path) -> str:
    """What merging a table ends with; nothing is merged."""
    with pytest.raises(UserError) as error:
        merge(settings, file)
    assert not (Path(settings.output) / "labelled.parquet").exists()
    return str(error.value)


def test_mistakes_in_a_filled_table(prepared: Make, tmp_path: Path) -> None:
    settings = prepared()
    empty = filled(tmp_path, {3: "", 4: None})
    assert problem(settings, empty) == (
        f"{empty}: no row has a label; fill the column 'label' with 'sad', 'happy'"
    )
    wrong = filled(tmp_path, {3: "hapy", 4: "hapy", 5: "sad"})
    assert problem(settings, wrong) == (
        f"{wrong}: 'hapy' (2 rows) is not a label of the task; did you mean 'happy'?"
    )
    edited = filled(tmp_path, {3: "", 4: "sad"}, text="another text")
    assert problem(settings, edited) == (
        f"{edited}: row 1 (id 104, 'another text'): not a text of this run's pool; restore the "
        "text as it was written"
    )
    twice = filled(tmp_path, {3: "happy", 4: "sad"}, text=POOL[3]["text"])
    assert problem(settings, twice) == (
        f"{twice}: row 1 (id 104, {POOL[3]['text']!r}): labelled 'sad', but 'happy' in an earlier "
        "row; keep one"
    )
    known = filled(tmp_path, {3: "happy"}, text=SAD[0])
    assert problem(settings, known) == (
        f"{known}: row 0 (id 103, {SAD[0]!r}): labelled 'happy', but 'sad' before; clear it to "
        "keep that"
    )
    many = filled(tmp_path, dict.fromkeys(range(12), "sad"), text="x" * 70)
    lines = problem(settings, many).splitlines()
    assert lines[1].startswith(f"  - {many}: row 0 (id 100, '{'x' * 59}…'): not a text")
    assert lines[11:] == [f"  - {many}: 2 more such rows"]
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "other.parquet")
    assert problem(settings, tmp_path / "other.parquet").startswith(
        f"{tmp_path}/other.parquet has no column 'label'"
    )
    pq.write_table(pa.table({"text": pa.array([], pa.string()), "label": []}), many)
    assert problem(settings, many) == f"{many}: has no rows"


def test_a_run_that_is_not_prepared(
    tiny_settings: Make, prepared: Make, tmp_path: Path, tiny_tables: dict[str, str]
) -> None:
    file = filled(tmp_path, {3: "happy"})
    settings = prepared()
    changed = tmp_path / "changed.parquet"
    pq.write_table(pq.read_table(tiny_tables["labelled"]).slice(1), changed)
    other = tiny_settings(output=settings.output, data={"labelled": str(changed)})
    assert problem(other, file) == (
        f"{settings.output}: prepare/labelled is not done, or the table has changed since; "
        f"run it first: pet run {settings.output}/config.toml --until prepare"
    )


def test_a_run_at_work_is_left_alone(prepared: Make, tmp_path: Path) -> None:
    settings = prepared()
    with FileLock(Path(settings.output) / ".lock"):
        assert problem(settings, filled(tmp_path, {3: "happy"})) == (
            f"{settings.output}: another process is at work on this run; merge when it is finished"
        )
