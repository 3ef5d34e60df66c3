"""Every command and every program of the README works as it is written there."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from pet_pipeline.cli import app
from pet_pipeline.patterns import load_task
from pet_pipeline.settings import read_settings
from pet_pipeline.stages.check_settings import setting_problems

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
# Added to the commands that train, so that they take seconds on a tiny model.
QUICK = (
    "--set finetune.steps=2 --set distill.steps=2 --set baseline.steps=2 "
    "--set machine.threads=1 --set machine.jobs=1 --set finetune.max_tokens=64 "
    "--set search.candidates=5 --set search.steps=1 --set search.beam=2"
)
SAD = ["terrible day", "awful food, so bad", "bad, terrible, awful", "an awful terrible night"]
HAPPY = ["great day", "wonderful food, so good", "good, great, wonderful", "a great good night"]

WORDS = ("terrible", "awful", "bad")
POOL = [f"{text} {more}" for more in ("again", "today", "there") for text in SAD + HAPPY]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def commands() -> list[str]:
    return [line for block in blocks("bash") for line in block.splitlines() if line.strip()]


def test_make_targets_exist() -> None:
    for line in (line for line in commands() if line.startswith("make ")):
        done = subprocess.run(
            [*shlex.split(line), "--dry-run"], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr


def test_no_figure_is_missing() -> None:
    assert "@@" not in README


def test_only_known_programs_are_shown() -> None:
    assert {shlex.split(line)[0] for line in commands()} == {"cp", "make", "pet"}


@pytest.fixture
def workplace(
    tmp_path: Path, tiny_mlm: Path, tiny_tables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A folder like a checkout's, with the tiny model for the embedded one, and the user's files."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / "models").mkdir(parents=True)
    (tmp_path / "data" / "models" / "minilm-mlm").symlink_to(tiny_mlm)
    (tmp_path / "data" / "support").symlink_to(ROOT / "data" / "support")
    toml = blocks("toml")
    files = re.findall(r"`(patterns/moods/\w+\.toml)`", README)
    folder = tmp_path / "patterns" / "moods"
    folder.mkdir(parents=True)
    assert len(files) == len(toml)
    for name, text in zip(files, toml, strict=True):
        (tmp_path / name).write_text(text)
    labelled = {"text": SAD + HAPPY, "label": ["sad"] * 4 + ["happy"] * 4}
    pa_csv.write_csv(pa.table(labelled), tmp_path / "labelled.csv")
    pa_csv.write_csv(pa.table(labelled), tmp_path / "test.csv")
    pa_csv.write_csv(pa.table({"text": POOL}), tmp_path / "pool.csv")
    return tmp_path


def run(line: str, extra: str = "") -> str:
    result = CliRunner().invoke(app, shlex.split(f"{line} {extra}")[1:])
    assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception}"
    return result.output


def test_own_data_and_settings(workplace: Path) -> None:
    lines = [line for line in commands() if line.startswith(("pet ", "cp "))]
    own = [line for line in lines if "mood" in line]
    assert len(own) == 10
    for line in own:
        if line.startswith("cp "):
            shutil.copytree(*line.split()[-2:])
            continue
        if "--merge" in line:
            _label(workplace / "todo.csv")
        run(line, QUICK if line.startswith("pet run") else "")
    table = pa_csv.read_csv(workplace / "labels.csv")
    assert table.column_names == [
        "text", "label", "confidence", "why_empty", "prob_happy", "prob_sad",
    ]  # fmt: skip
    assert table.num_rows == 24
    assert set(table["label"].to_pylist()) <= {"sad", "happy", "", None}
    assert (workplace / "runs/mood/labelled.parquet").exists()
    for option in re.findall(r"--set '([^']+)'|--set ([\w.=\-]+)\)", README):
        tomllib.loads("".join(option).replace("=", " = ", 1))
    settings = [line for line in lines if "my.toml" in line]
    assert len(settings) == 5
    for line in settings:
        if ">" in line:
            (workplace / "my.toml").write_text(_mood(run(line.partition(">")[0])))
        else:
            run(line, "" if "--plan" in line else QUICK)


def _label(file: Path) -> None:
    """Fill in the labels of a table, as a person would."""
    table = pa_csv.read_csv(file)
    labels = [
        "sad" if set(text.split()) & set(WORDS) else "happy" for text in table["text"].to_pylist()
    ]
    place = table.column_names.index("label")
    pa_csv.write_csv(table.set_column(place, "label", pa.array(labels)), file)


def _mood(config: str) -> str:
    """The default settings with the mood task, as a user would edit them."""
    config = config.replace('task = ""', 'task = "patterns/moods"')
    config = config.replace('output = ""', 'output = "runs/m2"')
    for name in ("labelled", "pool", "test"):
        config = config.replace(f'{name} = ""', f'{name} = "{name}.csv"')
    return config


def test_settings_of_the_table(workplace: Path) -> None:
    rows = re.findall(r"^\| .+? \| (.+) \|$", README, re.MULTILINE)
    settings = [text for row in rows for text in re.findall(r"`([a-z_]+\.\w+=[^`]+)`", row)]
    assert len(settings) >= 20
    everywhere = {*settings, *re.findall(r"`([a-z_]+(?:\.\w+)?=[^`]+)`", README)}
    task = load_task("patterns/moods")
    for text in everywhere:
        run(f"pet config --set '{text}'")
        problems = setting_problems(task, read_settings(None, [text]))
        assert not [problem for problem in problems if "is not one of" in problem]


def test_every_stage_is_listed(workplace: Path) -> None:
    """And nothing else: those of a run that does everything."""
    listed = README.partition("The stages are ")[2].partition(".")[0]
    stages = set(re.findall(r"\w+", re.sub(r"\(.*?\)|\band\b", "", listed, flags=re.DOTALL)))
    everything = (
        "search.templates=true adapt.text=pool demonstrations.enabled=true "
        "calibration.method=contextual ensemble.weights=fitted ipet.generations=1 "
        "finetune.max_tokens=64 finetune.select=folds"
    )
    shown = run(
        "pet run --task patterns/moods --labelled labelled.csv --pool pool.csv --test test.csv",
        " ".join(f"--set {text}" for text in everything.split()) + " --plan",
    )
    lines = [line.split()[0] for line in shown.splitlines()[1:] if "to do" in line][:-1]
    assert {line.rpartition("/")[2] for line in lines} == stages


def test_files_of_a_run_that_are_named_are_there(workplace: Path) -> None:
    run(
        "pet run --task patterns/moods --labelled labelled.csv --pool pool.csv --test test.csv "
        "--output runs/mood",
        QUICK,
    )
    described = README.partition("A run folder is")[2].partition("Exit codes")[0]
    named = re.findall(r"`([\w./<>*-]+\.\w+|[\w/-]+/)`", described)
    assert {"unit.json", "pins.json", "gen-0/ensemble/all/part-*.parquet"} <= set(named)
    root = workplace / "runs" / "mood"
    for name in named:
        assert [*root.rglob(re.sub(r"<\w+>", "*", name))], name


def test_columns_that_are_named_are_there(workplace: Path) -> None:
    run(
        "pet run --task patterns/moods --labelled labelled.csv --pool pool.csv --test test.csv "
        "--output runs/mood",
        QUICK,
    )
    root, checked = workplace / "runs" / "mood", 0
    for name, described in re.findall(r"\| `([^`]+\.parquet)` \| (.+) \|", README):
        file = next(root.glob(re.sub(r"<\w+>", "*", name)))
        columns = re.findall(r"`(\w+)`", described)
        assert set(columns) <= set(pq.read_schema(file).names), name
        checked += 1
    assert checked == 3


def test_python_programs(workplace: Path) -> None:
    run(
        "pet run --task patterns/moods --labelled labelled.csv --pool pool.csv --output runs/mood",
        QUICK,
    )
    classify, notebook = blocks("python")
    classify = classify.replace("runs/support/", "runs/mood/")
    table = {"text": SAD + HAPPY, "label": ["sad"] * 4 + ["happy"] * 4}
    names = {"labelled": table, "pool": POOL, "test": table}
    quick = "dict(steps=2, max_tokens=64)"
    notebook = notebook.replace("test=test,", f"test=test, finetune={quick}, distill={quick},")
    program = workplace / "notebook.py"
    lines = [f"{name} = {value!r}" for name, value in names.items()]
    program.write_text("\n".join([*lines, notebook, classify]))
    done = subprocess.run(
        [sys.executable, str(program)], cwd=workplace, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (workplace / "runs/notebook/distill/classifier").exists()
    assert re.search(r"\['(sad|happy)'\] \[\[", done.stdout)
    assert re.search(r"'label': '(sad|happy)'", done.stdout)
