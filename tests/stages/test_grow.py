"""iPET's draws: by the paper's numbers, without replacement, in one pass and little memory."""

from __future__ import annotations

import itertools
import tracemalloc
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from planning import Make, planned
from scipy.special import softmax
from testing import CPU, rows

from pet_pipeline.models import ModelFolder
from pet_pipeline.patterns import Pattern
from pet_pipeline.stages import grow
from pet_pipeline.stages.grow import Drawn, Grow, Growth, choose_teachers, new_rows
from pet_pipeline.stages.results import SCORES, Model, Scores
from pet_pipeline.tables import Floats, part_name, write_scores
from pet_pipeline.units import Result

LABELS = ("a", "b")
SHARDS = st.lists(st.lists(st.floats(0.01, 1), max_size=6), min_size=1, max_size=4)


def scores(name: str) -> Scores:
    pattern = Pattern(name, (), (), ())
    result = Result(Path(), name, {})
    return Scores(Model(name, pattern, 1, ModelFolder(Path()), result), (), {})


def drawn_from(shards: Sequence[Sequence[float]], size: int, rng: np.random.Generator) -> Drawn:
    """A draw of rows with these probabilities, shard by shard."""
    drawn = Drawn.none()
    for n, probs in enumerate(shards):
        found = Drawn.of(n, np.arange(len(probs)), np.array(probs))
        drawn = drawn.merged(found.with_keys(rng), size)
    return drawn


@given(SHARDS, st.integers(0, 30), st.integers(0, 99))
def test_draws_are_of_the_candidates_each_once(
    shards: list[list[float]], size: int, seed: int
) -> None:
    drawn = drawn_from(shards, size, np.random.default_rng(seed)).in_order()
    candidates = {(n, row): p for n, probs in enumerate(shards) for row, p in enumerate(probs)}
    locations = list(zip(drawn.shards.tolist(), drawn.rows.tolist(), strict=True))
    assert len(locations) == len(drawn.locations) == min(size, len(candidates))
    assert locations == sorted(locations)
    assert [candidates[location] for location in locations] == drawn.probs.tolist()


@pytest.mark.parametrize("shards", [[[0.75, 0.25]], [[0.75], [0.25]]])
def test_more_probable_rows_are_drawn_more_often(shards: list[list[float]]) -> None:
    rng = np.random.default_rng(0)
    first = Counter(int(drawn_from(shards, 1, rng).probs[0] * 4) for _ in range(4000))
    assert first[3] / 4000 == pytest.approx(0.75, abs=0.03)


@pytest.mark.parametrize("cut", [(4,), (1, 3), (2, 2), (1, 1, 1, 1)])
def test_a_draw_is_like_drawing_one_by_one_without_replacement(cut: tuple[int, ...]) -> None:
    probs = [0.5, 0.3, 0.15, 0.05]
    expected = dict.fromkeys(map(frozenset, itertools.combinations(range(4), 2)), 0.0)
    for one, two in itertools.permutations(range(4), 2):
        expected[frozenset((one, two))] += probs[one] * probs[two] / (1 - probs[one])
    ends = [0, *itertools.accumulate(cut)]
    shards = [probs[a:b] for a, b in itertools.pairwise(ends)]
    rng = np.random.default_rng(1)
    counted: Counter[frozenset[int]] = Counter()
    for _ in range(6000):
        drawn = drawn_from(shards, 2, rng)
        numbers = [ends[shard] + row for shard, row in drawn.locations]
        counted[frozenset(numbers)] += 1
    for pair, probability in expected.items():
        assert counted[pair] / 6000 == pytest.approx(probability, abs=0.025)


def test_rows_without_any_probability_are_drawn_last() -> None:
    rng = np.random.default_rng(0)
    assert {row for _, row in drawn_from([[0.0, 1.0, 0.0]], 1, rng).locations} == {1}
    assert len(drawn_from([[0.0, 1.0, 0.0]], 3, rng).locations) == 3


@pytest.mark.parametrize(
    ("labelled", "generation", "expected"),
    [
        ({"a": 5, "b": 5}, 1, {"a": 20, "b": 20}),
        ({"a": 5, "b": 5}, 2, {"a": 120, "b": 120}),
        ({"a": 1, "b": 3}, 1, {"a": 4, "b": 12}),
        (None, 1, {"a": 5, "b": 5}),
        (None, 3, {"a": 125, "b": 125}),
    ],
)
def test_growth_by_the_paper(
    labelled: dict[str, int] | None, generation: int, expected: dict[str, int]
) -> None:
    assert new_rows(labelled, LABELS, Growth(), generation) == expected


@pytest.mark.parametrize(("models", "teachers"), [(1, 1), (2, 1), (3, 1), (4, 1), (7, 2), (18, 4)])
def test_a_quarter_of_the_other_models_teaches(models: int, teachers: int) -> None:
    everyone = [scores(f"m{n}") for n in range(models)]
    chosen = choose_teachers("m0", everyone, Growth(), 1)
    assert len(chosen) == teachers
    assert models == 1 or "m0" not in {s.model.name for s in chosen}
    assert chosen == choose_teachers("m0", everyone, Growth(), 1)


class Pool:
    """A pool in shards and some models' scores of it, on the disk."""

    def __init__(self, folder: Path, scores: Sequence[Sequence[Floats]]):
        """Scores: of each model, (rows, labels) of each shard."""
        self.folder, self.scores = folder, scores
        (folder / "pool").mkdir(parents=True)
        start = 0
        for n, values in enumerate(scores[0]):
            ids = pa.array(range(start, start + len(values)))
            table = pa.table({"id": ids, "text": [f"text {i}" for i in ids.to_pylist()]})
            pq.write_table(table, folder / "pool" / part_name(n))
            start += len(values)
        self.teachers = tuple(
            tuple(self._written(f"{model}-{n}", values) for n, values in enumerate(shards))
            for model, shards in enumerate(scores)
        )

    def _written(self, name: str, values: Floats) -> Result:
        (self.folder / name).mkdir()
        write_scores(self.folder / name / SCORES, pa.array(range(len(values))), values, LABELS)
        return Result(self.folder / name, name, {})

    def grow(self, labelled: dict[str, int] | None, **fields: Any) -> tuple[Any, Any]:
        """The table that is drawn, and what is said of it."""
        unit = Grow(
            name=fields.pop("name", "m"),
            labels=LABELS,
            pool=Result(self.folder / "pool", "pool", {}),
            labelled=Result(Path(), "labelled", {"labels": labelled}) if labelled else None,
            teachers=self.teachers,
            growth=Growth(**fields),
            generation=1,
        )
        out = self.folder / "out"
        out.mkdir(exist_ok=True)
        info = unit.work(out, CPU)
        return rows(out / "table.parquet"), info

    @property
    def probs(self) -> Floats:
        """(rows, labels) of the mean of the models' scores."""
        mean = np.mean([np.concatenate(shards) for shards in self.scores], axis=0)
        return np.asarray(softmax(mean, axis=-1))


def random_pool(folder: Path, sizes: Sequence[int], *, models: int = 2, seed: int = 0) -> Pool:
    rng = np.random.default_rng(seed)
    return Pool(folder, [[rng.normal(size=(n, 2)) for n in sizes] for _ in range(models)])


def test_rows_are_those_that_the_teachers_predict(tmp_path: Path) -> None:
    pool = random_pool(tmp_path / "pool", [9, 0, 12, 7])
    table, info = pool.grow({"a": 2, "b": 3}, scale=2.0)
    predicted = pool.probs.argmax(1)
    assert Counter(row["label"] for row in table) == info["added"] == {"a": 2, "b": 3}
    assert info["rows"] == 5
    for row in table:
        assert predicted[row["id"]] == LABELS.index(row["label"])
        assert row["text"] == f"text {row['id']}"
    confidences = [pool.probs[row["id"], LABELS.index(row["label"])] for row in table]
    assert info["mean_confidence"] == pytest.approx(np.mean(confidences), abs=1e-5)
    assert pool.grow({"a": 2, "b": 3}, scale=2.0) == (table, info)
    assert any(pool.grow({"a": 2, "b": 3}, scale=2.0, name=f"m{n}")[0] != table for n in range(3))


def test_too_few_predicted_rows_are_all_taken_and_that_is_said(tmp_path: Path) -> None:
    pool = random_pool(tmp_path / "pool", [9, 12])
    table, info = pool.grow({"a": 8, "b": 8}, scale=5.0)
    counts = np.bincount(pool.probs.argmax(1)).tolist()
    assert Counter(row["label"] for row in table) == dict(zip(LABELS, counts, strict=True))
    assert info["short"] == f"a {counts[0]} of 32, b {counts[1]} of 32"


def test_nobody_predicts_a_label(tmp_path: Path) -> None:
    pool = Pool(tmp_path / "pool", [[np.tile([1.0, 0.0], (5, 1))]])
    table, info = pool.grow({"a": 1, "b": 1}, scale=3.0)
    assert info["added"] == {"a": 2, "b": 0}
    assert info["short"] == "b 0 of 2"
    assert len(table) == 2


def test_an_empty_draw_is_a_table_without_rows(tmp_path: Path) -> None:
    pool = random_pool(tmp_path / "pool", [3])
    table, info = pool.grow({"a": 1, "b": 1}, scale=1.5)  # half a row is none
    assert (table, info["rows"], info["mean_confidence"]) == ([], 0, 0.0)
    assert pq.read_schema(tmp_path / "pool/out/table.parquet").names == ["id", "text", "label"]


@hypothesis_settings(max_examples=25)
@given(st.lists(st.integers(1, 8), min_size=1, max_size=3), st.integers(0, 999))
def test_from_nothing_no_row_is_drawn_for_two_labels(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], seed: int
) -> None:
    pool = random_pool(tmp_path_factory.mktemp("pool") / "pool", sizes, models=1, seed=seed)
    table, info = pool.grow(None, first_rows=4, candidates=5)
    assert len({row["id"] for row in table}) == len(table) == info["rows"]
    order = np.argsort(-pool.probs, axis=0, kind="stable")
    for row in table:
        label = LABELS.index(row["label"])
        assert row["id"] in order[:5, label]
    if sum(sizes) >= 10:  # so many that 5 candidates per label leave 2 for each
        assert info["added"] == {"a": 2, "b": 2}


@pytest.mark.parametrize("labelled", [{"a": 2, "b": 2}, None])
def test_the_pool_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labelled: dict[str, int] | None
) -> None:
    pool = random_pool(tmp_path / "pool", [5, 6, 7], models=3)
    read: Counter[str] = Counter()
    read_scores = grow.read_scores

    def counted(file: Path) -> Any:
        read[file.parent.name] += 1
        return read_scores(file)

    monkeypatch.setattr(grow, "read_scores", counted)
    pool.grow(labelled, scale=2.0)
    assert read == {f"{model}-{shard}": 1 for model in range(3) for shard in range(3)}


def test_memory_does_not_grow_with_the_pool(tmp_path: Path) -> None:
    size = 4000
    pool = random_pool(tmp_path / "pool", [size], models=1)
    (shard,) = pool.teachers[0]

    def peak(n_shards: int) -> int:
        for n in range(1, n_shards):
            file = tmp_path / "pool" / "pool" / part_name(n)
            if not file.exists():
                file.symlink_to(tmp_path / "pool" / "pool" / part_name(0))
        pool.teachers = ((shard,) * n_shards,)
        tracemalloc.start()
        pool.grow({"a": 3, "b": 3}, scale=2.0)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(2)  # what is imported and cached late counts for none
    assert peak(40) < 1.5 * peak(2)


def test_the_teachers_of_a_plan_are_other_models(finished: Make, tiny_settings: Make) -> None:
    output = finished().output
    units = planned(tiny_settings(output=output, ipet={"generations": 1}))
    shards = {
        name.rpartition("-")[0].rpartition("/")[2]: unit
        for name, unit in units.items()
        if name.startswith("gen-0/annotate/") and name.endswith("00000")
    }
    for name in ("it_was-1", "just-1", "mood-1"):
        (teacher,) = units[f"gen-1/grow/{name}"].unit.teachers
        assert [shard.key for shard in teacher] != [shards[name].key]
        assert units[f"gen-1/finetune/{name}"].unit.added.key == units[f"gen-1/grow/{name}"].key


def test_from_nothing_a_model_is_not_taught_by_what_it_starts_from(tiny_settings: Make) -> None:
    settings = tiny_settings(
        data={"labelled": ""}, ipet={"generations": 2, "fraction": 1.0}, finetune={"seeds": [1, 2]}
    )
    units = planned(settings)
    of_model = {
        unit.key: name.removeprefix("gen-0/annotate/").rpartition("-")[0]
        for name, unit in units.items()
        if name.startswith("gen-0/annotate/")
    }
    for pattern in ("it_was", "just", "mood"):
        for seed in (1, 2):
            teachers = units[f"gen-1/grow/{pattern}-{seed}"].unit.teachers
            names = [of_model[shards[0].key] for shards in teachers]
            others = [f"{other}-0" for other in ("it_was", "just", "mood") if other != pattern]
            assert names == others
            # Tuned models of the same pattern, with another seed, do teach.
            assert len(units[f"gen-2/grow/{pattern}-{seed}"].unit.teachers) == 5


def test_a_model_that_is_alone_teaches_itself(tiny_settings: Make, long_words: str) -> None:
    settings = tiny_settings(task=long_words, data={"labelled": ""}, ipet={"generations": 1})
    units = planned(settings)
    ((shard,),) = units["gen-1/grow/back-1"].unit.teachers
    assert shard.key == units["gen-0/annotate/back-0-00000"].key
