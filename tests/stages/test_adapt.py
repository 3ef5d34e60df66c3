"""The stage adapt: what it is made from, what depends on it, and what is refused."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from planning import QUICK, Make, planned, result
from testing import CPU, SAD, rows, run, save_mlm, todo
from transformers import AutoTokenizer

from pet_pipeline.commands.export import export_pvp
from pet_pipeline.config import Settings
from pet_pipeline.encoded import Role
from pet_pipeline.errors import UserError
from pet_pipeline.in_memory import save_table
from pet_pipeline.models import ModelFolder
from pet_pipeline.optimisation import Adaptation, Optimisation
from pet_pipeline.pretrained import load_mlm
from pet_pipeline.stages.adapt import AdaptMlm, read_adapted
from pet_pipeline.stages.adapt_texts import PromptedTexts, TableTexts
from pet_pipeline.stages.crossfit import CrossFit
from pet_pipeline.stages.finetune import FineTune
from pet_pipeline.tables import read_probs
from pet_pipeline.training import PARTIAL
from pet_pipeline.units import Result

SHORT = {"tokens": 400, "batch_size": 2, "max_tokens": 32}
PATTERNS = ("it_was", "just", "mood")


def settings_of(
    make: Make, text: str, *, finetune: dict[str, Any] | None = None, **adapt: Any
) -> Settings:
    """Settings of a run without a classifier that adapts the model."""
    return make(adapt={"text": text, **SHORT, **adapt}, finetune=finetune or {}, **QUICK)


def test_every_pvp_starts_from_the_adapted_model(tiny_settings: Make, tiny_mlm: Path) -> None:
    settings = settings_of(tiny_settings, "pool", finetune={"steps": 0})
    run(settings)
    adapted = result(settings, "adapt/model")
    start, after = load_mlm(ModelFolder(tiny_mlm)), load_mlm(ModelFolder(adapted.dir))
    assert not torch.equal(start.get_input_embeddings().weight, after.get_input_embeddings().weight)
    units = planned(settings)
    for pattern in PATTERNS:
        unit = units[f"gen-0/finetune/{pattern}-0"].unit
        assert isinstance(unit, FineTune)
        assert unit.base == adapted
    pvp = unit.load(CPU)
    for name, tensor in after.state_dict().items():
        assert torch.equal(tensor, pvp.lm.model.state_dict()[name])
    assert todo(settings) == []


def test_a_change_redoes_the_fine_tunes_and_off_is_as_before(tiny_settings: Make) -> None:
    before = {name: unit.key for name, unit in planned(tiny_settings(**QUICK)).items()}
    settings = settings_of(tiny_settings, "pool")
    units = planned(settings)
    changed = {name for name, key in before.items() if units[name].key != key}
    assert {f"gen-0/finetune/{pattern}-1" for pattern in PATTERNS} <= changed
    assert not {name for name in changed if name.startswith(("encode", "prepare/pool"))}
    off = planned(settings_of(tiny_settings, "", keep="base", tokens=7))
    after = {name: unit.key for name, unit in off.items()}
    assert after | {"report": ""} == before | {"report": ""}  # which shows all settings

    run(settings)
    assert todo(settings) == []
    more = settings_of(tiny_settings, "pool", tokens=500)
    assert [name for name in todo(more) if "annotate" not in name] == [
        "adapt/model",
        *(f"gen-0/finetune/{pattern}-1" for pattern in PATTERNS),
        "gen-0/ensemble/all",
        "evaluate/all",
        "report",
    ]
    plan = run(more, plan=True)
    why = {unit.dir.name: plan.why(unit) for unit in plan.units}
    assert why["model"] == ["adapt steps: 6 → 7"]
    assert why["just-1"] == ["adapt/model is redone first"]
    plan = run(tiny_settings(**QUICK), plan=True)
    assert {unit.dir.name: plan.why(unit) for unit in plan.units}["just-1"] == ["model changed"]


def test_a_plan_shows_steps_and_tokens(tiny_settings: Make) -> None:
    unit = planned(settings_of(tiny_settings, "pool"))["adapt/model"].unit
    assert isinstance(unit, AdaptMlm)
    assert (unit.adaptation.steps, unit.adaptation.tokens) == (6, 384)
    assert unit.size() == "6 steps, 384 tokens"
    assert unit.cost() < planned(settings_of(tiny_settings, "pool", keep="base"))["adapt/model"].unit.cost()  # fmt: skip


def test_the_first_ensemble_lies_under_adapt(tiny_settings: Make) -> None:
    settings = settings_of(tiny_settings, "prompted", finetune={"seeds": [1, 2]})
    run(settings)
    root = Path(settings.output)
    folders = {p.relative_to(root).as_posix() for p in root.glob("adapt/*/*") if p.is_dir()}
    assert folders == {
        *(f"adapt/finetune/{pattern}-1" for pattern in PATTERNS),
        *(f"adapt/annotate/{pattern}-1-00000" for pattern in PATTERNS),
        "adapt/ensemble/all",
    }
    assert {unit.stage for unit in run(settings, plan=True).units} >= {"adapt", "finetune"}
    card = read_adapted(result(settings, "adapt/model"))
    assert card.adaptation.max_tokens == 48  # of the fine-tunes
    assert todo(settings) == []
    # What the second ensemble starts from does not change the first one.
    assert "adapt/ensemble/all" not in todo(settings_of(tiny_settings, "prompted", tokens=999))


def test_an_untuned_ensemble_may_predict(tiny_settings: Make) -> None:
    units = planned(settings_of(tiny_settings, "prompted", first="untuned"))
    first = units["adapt/finetune/just-0"].unit
    assert isinstance(first, FineTune)
    assert first.tuning is None
    main = units["gen-0/finetune/just-1"].unit
    assert isinstance(main, FineTune)
    assert main.tuning


@pytest.mark.parametrize("method", ["full", "p_tuning_v2", "soft"])
def test_prompted_texts_have_a_word_of_the_predicted_label(
    tiny_settings: Make, tiny_mlm: Path, method: str
) -> None:
    finetune = {"method": method, "prompt_length": 2, "steps": 2}
    settings = settings_of(tiny_settings, "prompted", finetune=finetune)
    run(settings, until="adapt")
    unit = planned(settings)["adapt/model"].unit
    assert isinstance(unit, AdaptMlm)
    assert isinstance(unit.texts, PromptedTexts)
    tokenizer = AutoTokenizer.from_pretrained(tiny_mlm)
    ((count, encode),) = unit.texts.chunks(tokenizer, unit.adaptation)
    labels = read_probs(unit.texts.soft.dir / "part-00000.parquet").argmax(1)
    pool = rows(Path(settings.output) / "prepare/pool/part-00000.parquet")
    words = [{"terrible", "bad"}, {"great", "good"}]
    assert count == len(labels) == len(pool)
    texts, seen = encode(range(count)), Counter[str]()
    for row, label, text in zip(texts, labels, pool, strict=True):
        word = tokenizer.decode(row.ids[row.slot])
        assert word in words[label]
        assert min(row.ids) >= 0
        assert Role.SOFT not in row.roles
        read = tokenizer.decode(row.ids, skip_special_tokens=True)
        assert text["text"] in read
        templates = {
            f"it was {word}": "it_was",
            f"just {word}!": "just",
            f"mood : {word} ]": "mood",
        }
        seen.update(name for part, name in templates.items() if part in read.replace(" !", "!"))
    assert len(seen) == 3
    assert encode([5, 2]) == [texts[5], texts[2]]  # whichever are read


def test_a_table_by_name(tiny_settings: Make, tmp_path: Path) -> None:
    other = save_table([{"message": text} for text in SAD * 5], tmp_path, "other")
    with pytest.raises(UserError) as caught:
        run(settings_of(tiny_settings, str(other)))
    assert str(caught.value) == f"adapt.text: {other} has no text column, 'text'; it has 'message'"
    table = str(save_table([{"text": text} for text in SAD * 5], tmp_path, "texts"))
    settings = settings_of(tiny_settings, table, packed=True, whole_words=True)
    run(settings, until="adapt")
    card = read_adapted(result(settings, "adapt/model"))
    assert card.texts == table
    assert card.adapted.tokens > 0
    readme = (Path(settings.output) / "adapt/model/README.md").read_text("utf-8")
    assert f"- texts: {table}\n" in readme
    assert "packed sequences of at most 32 tokens, 15% of the whole words" in readme


def test_test_texts_are_left_out_of_a_table(
    tiny_settings: Make, tiny_mlm: Path, tmp_path: Path
) -> None:
    tests = [f"{text} again" for text in SAD]
    kept = [f"{text} and more" for text in SAD] + [""]
    tokenizer = AutoTokenizer.from_pretrained(tiny_mlm)

    def texts(*columns: str, rows: list[str]) -> list[str]:
        """What is read of a table by a task with some columns, each with the test texts."""
        prepared = pa.table({"id": [*range(4)], **dict.fromkeys(columns, tests)})
        pq.write_table(prepared, tmp_path / "table.parquet")
        table = save_table([{"text": text} for text in rows], tmp_path, "texts")
        read = TableTexts(Path(table), ("text",), {}, (Result(tmp_path, "key", {}),))
        (chunk,) = read.chunks(tokenizer, Adaptation(Optimisation(1e-3, 4), 1, 64))
        assert chunk[0] <= read.count() == len(rows)
        return [
            tokenizer.decode(row.ids, skip_special_tokens=True) for row in chunk[1](range(chunk[0]))
        ]

    mixed = [tests[0].upper(), *kept, f" {tests[3]}"]
    assert texts("text", rows=mixed) == texts("title", "body", rows=mixed) == kept
    settings = settings_of(
        tiny_settings, str(save_table([{"text": t} for t in tests], tmp_path, "all"))
    )
    with pytest.raises(UserError, match=r"all.*: all texts are in data.test too, and copies of te"):
        run(settings, until="adapt")
    unit = planned(settings)["adapt/model"].unit
    assert isinstance(unit, AdaptMlm)
    assert isinstance(unit.texts, TableTexts)
    assert unit.texts.excluded == (result(settings, "prepare/test"),)


@pytest.mark.parametrize(
    ("text", "sections", "unadapted"),
    [
        ("prompted", {}, True),
        ("prompted", {"adapt": {"first": "untuned"}}, False),
        ("prompted", {"adapt": {"first": "untuned"}, "finetune": {"prototypes": True}}, True),
        ("prompted", {"finetune": {"steps": 0, "prototypes": False}}, False),
        ("pool", {}, False),
    ],
)
def test_folds_do_not_start_from_a_model_that_knows_labels_of_their_held_out_rows(
    tiny_settings: Make, text: str, sections: dict[str, Any], unadapted: bool
) -> None:
    adapt = {"text": text, **SHORT, **sections.get("adapt", {})}
    finetune = {"select": "folds", "select_folds": 2, **sections.get("finetune", {})}
    if finetune.get("steps") == 0:
        finetune["select"] = "none"
    ensemble = {"weights": "fitted", "folds": 2}
    settings = tiny_settings(adapt=adapt, finetune=finetune, ensemble=ensemble, **QUICK)
    units = planned(settings)
    base = units["adapt/model"].unit.base  # type: ignore[attr-defined]
    folds = {name: unit.unit for name, unit in units.items() if isinstance(unit.unit, CrossFit)}
    stages = {name.rpartition("/")[0] for name in folds}
    assert stages == {"gen-0/crossfit", *(["select"] if finetune["select"] == "folds" else [])}
    for name, unit in folds.items():
        real = units[f"gen-0/finetune/{unit.real.pattern.name}-{unit.real.seed}"].unit
        assert isinstance(real, FineTune)
        assert isinstance(real.base, Result), name  # the adapted one
        assert unit.real.base == (base if unadapted else real.base), name


def test_nothing_of_a_killed_checkpoint_is_in_the_model(
    tiny_settings: Make, tmp_path: Path
) -> None:
    settings = settings_of(tiny_settings, "pool")
    run(settings, until="encode")
    (tmp_path / PARTIAL).write_bytes(b"")
    planned(settings)["adapt/model"].unit.work(tmp_path, CPU)
    assert (tmp_path / "adapted.json").exists()
    assert not [file.name for file in tmp_path.iterdir() if "checkpoint" in file.name]


def test_stages_are_named_as_others_are(tiny_settings: Make) -> None:
    settings = settings_of(tiny_settings, "prompted")
    run(settings, until="adapt")
    root = Path(settings.output)
    assert (root / "adapt/model/model.safetensors").exists()
    assert not (root / "gen-0").exists()
    with pytest.raises(UserError, match=r"--only adapt: .* prepare"):
        run(settings.model_copy(update={"output": str(root.with_name("new"))}), only="adapt")
    plan = run(settings, plan=True, force=("adapt",))
    forced = {unit.dir.relative_to(root).as_posix() for unit in plan.units if plan.is_forced(unit)}
    assert {"adapt/model", "adapt/finetune/just-1"} <= forced
    assert not any(name.startswith("gen-0") for name in forced)
    plan = run(settings, plan=True, force=("finetune",))
    forced = {unit.dir.relative_to(root).as_posix() for unit in plan.units if plan.is_forced(unit)}
    assert forced == {f"gen-0/finetune/{pattern}-1" for pattern in PATTERNS}
    run(settings, until="finetune")
    assert (root / "gen-0/finetune").exists()
    assert not (root / "gen-0/annotate").exists()


def test_a_part_of_the_adapted_model_is_read_and_exported(
    tiny_settings: Make, tmp_path: Path
) -> None:
    settings = settings_of(tiny_settings, "pool", finetune={"method": "bitfit", "steps": 2})
    run(settings)
    assert todo(settings) == []
    pvp = Path(settings.output) / "gen-0/finetune/just-1"
    assert [file.name for file in (pvp / "model").iterdir()] == ["trained.safetensors"]
    export_pvp(pvp, tmp_path / "merged")
    adapted = load_mlm(ModelFolder(Path(settings.output) / "adapt/model")).state_dict()
    merged = load_mlm(ModelFolder(tmp_path / "merged")).state_dict()
    matrices = [name for name, tensor in adapted.items() if tensor.ndim > 1]
    assert all(torch.equal(adapted[name], merged[name]) for name in matrices)
    assert not all(torch.equal(tensor, merged[name]) for name, tensor in adapted.items())


def test_the_report_shows_what_came_of_it(tiny_settings: Make) -> None:
    settings = settings_of(tiny_settings, "pool", keep="base")
    run(settings)
    page = (Path(settings.output) / "report/index.html").read_text("utf-8")
    adapted = read_adapted(result(settings, "adapt/model")).adapted
    assert "How the model was adapted" in page
    assert f"{adapted.tokens} tokens in 6 updates" in page
    for name, before, after in adapted.rows:
        assert f'<td>{name}</td><td class="n">{before}</td><td class="n">{after}</td>' in page
    info = json.loads((Path(settings.output) / "adapt/model/unit.json").read_text())["info"]
    assert info == {"tokens": adapted.tokens, "steps": 6, "loss": adapted.after.loss}


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"adapt": {"text": "pool"}, "data": {"pool": ""}},
            "adapt.text: 'pool' needs a pool, data.pool; without one only the baseline is trained, "
            "which starts from the model as it is",
        ),
        (
            {"adapt": {"text": "prompted", "packed": True}},
            "adapt.packed: 'prompted' texts are one per sequence; take packed = false",
        ),
        (
            {"adapt": {"text": "Pool"}},
            "adapt.text: 'Pool' is not a table, nor one of 'pool', 'prompted'; did you mean 'pool'?",
        ),
        (
            {"adapt": {"text": "corpus"}},
            "adapt.text: 'corpus' is not a table, nor one of 'pool', 'prompted'",
        ),
        (
            {"adapt": {"text": "pool", "max_tokens": 7}},
            "adapt.max_tokens: 7 is too few; the minimum is 8",
        ),
        (
            {"adapt": {"text": "pool", "max_tokens": 300}},
            "adapt.max_tokens: 300 is more than the model reads, 256",
        ),
    ],
)
def test_settings_that_cannot_be(
    tiny_settings: Make, sections: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError) as caught:
        run(tiny_settings(**sections))
    assert str(caught.value) == message


def test_bad_tables_and_teachers_are_refused_before_anything_is_tuned(
    tiny_settings: Make, mlm_of: Callable[[str], Path], tmp_path: Path
) -> None:
    def problem(text: str, **adapt: Any) -> str:
        settings = settings_of(tiny_settings, text, **adapt)
        with pytest.raises(UserError) as caught:
            run(settings)
        assert not (Path(settings.output) / "encode").exists()
        return str(caught.value)

    empty = tmp_path / "empty.csv"
    empty.write_text("text\n")
    assert problem(str(empty)) == (
        f"adapt.text: {empty} has no texts, or one; give more, of the pool's kind"
    )
    assert problem("missing.csv").startswith("adapt.text: missing.csv: ")
    roberta = mlm_of("roberta")
    assert problem("pool", keep=str(roberta)).startswith(
        f"adapt.keep: {roberta} has another vocabulary than "
    )
    assert problem("pool", keep="./none").startswith("adapt.keep: ./none: no such folder")


def test_another_teacher(tiny_settings: Make, tmp_path: Path) -> None:
    teacher = save_mlm("bert", tmp_path / "teacher")
    settings = settings_of(tiny_settings, "pool", keep=str(teacher))
    run(settings, until="adapt")
    assert "prepare/teacher" in planned(settings)
    card = read_adapted(result(settings, "adapt/model"))
    assert card.teacher == str(teacher)
    assert card.adaptation.keep_weight == 4
