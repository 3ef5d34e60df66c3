"""Which rows of a pool are chosen to be labelled next."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from planning import QUICK
from scipy.special import softmax
from testing import HAPPY, LABELS, SAD, rows, run

from pet_pipeline import embedding
from pet_pipeline.combining import disagreement, entropy
from pet_pipeline.config import Settings
from pet_pipeline.errors import UserError
from pet_pipeline.stages.choose_rows import (
    Candidates,
    choose_rows,
    finished_ensemble,
    margin,
    spread,
)
from pet_pipeline.stages.ensemble import read_ensemble
from pet_pipeline.tables import (
    read_probs,
    read_scores,
    shard_files,
    write_scores,
    write_soft_labels,
)

Make = Callable[..., Settings]


def choose(settings: Settings, **options: Any) -> list[dict[str, Any]]:
    """The chosen rows of a run."""
    chosen: list[dict[str, Any]] = choose_rows(
        run(settings, plan=True), settings, **options
    ).to_pylist()
    return chosen


@pytest.fixture
def ensemble_of(finished: Make) -> Callable[..., Settings]:
    """A function from sections to the settings of a run that is finished up to its ensemble."""
    return lambda **sections: finished(until="ensemble", **{**QUICK, **sections})


@pytest.fixture
def copied(ensemble_of: Make, tmp_path: Path) -> Settings:
    """The settings of such a run that may be changed."""
    settings = ensemble_of()
    folder = shutil.copytree(settings.output, tmp_path / "copy")
    return settings.model_copy(update={"output": str(folder)})


def with_scores(settings: Settings, scores: np.ndarray) -> Settings:
    """The run with other scores (models, rows, labels) of its pool, at the ensemble's temperature."""
    unit, soft = finished_ensemble(run(settings, plan=True))
    temperature = read_ensemble(soft).temperature
    for member, own in zip(unit.members, scores, strict=True):
        file = member.shards[0].dir / "scores.parquet"
        write_scores(file, read_scores(file)[0], own * temperature, LABELS)
    (part,) = shard_files(soft.dir)
    probs = softmax(scores.mean(0), axis=-1)
    write_soft_labels(part, pq.read_table(part)["id"].combine_chunks(), probs, LABELS)
    return settings


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=30),
    st.integers(0, 35),
    st.integers(1, 35),
)
def test_rows_are_spread_over_clusters_and_guesses(
    pairs: list[tuple[int, int]], size: int, most: int
) -> None:
    clusters, guesses = [c for c, _ in pairs], [g for _, g in pairs]
    chosen = spread(clusters, guesses, size, most)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(size, len(pairs))
    counts = Counter(guesses[n] for n in chosen)
    left = {guesses[n] for n in range(len(pairs)) if n not in chosen}
    for guess, count in counts.items():  # above the limit only where no other guess was left
        assert count <= most or all(counts[other] >= most for other in left - {guess})
    if most >= size:
        assert len({clusters[n] for n in chosen}) == min(size, len(set(clusters)))
        firsts = {cluster: clusters.index(cluster) for cluster in clusters}
        best = sorted(firsts.values())[:size]
        assert set(best) <= set(chosen)


@given(
    st.lists(st.lists(st.integers(1, 40), max_size=12), min_size=1, max_size=5),
    st.integers(0, 6),
)
def test_shard_by_shard_the_same_rows_are_kept_as_of_the_whole_pool(
    texts: list[list[int]], size: int
) -> None:
    def candidates(shard: int, hashes: list[int]) -> Candidates:
        own = np.array(hashes, np.uint64)
        places = np.full(len(own), shard), np.arange(len(own))
        return Candidates(*places, own * 7 % 10 / 10, (own % 3).astype(int), own / 100, own)

    shards = [candidates(n, hashes) for n, hashes in enumerate(texts)]
    kept = shards[0].best(size)
    for shard in shards[1:]:
        kept = kept.joined(shard).best(size)
    seen: dict[int, tuple[float, int, int, int]] = {}
    for n, hashes in enumerate(texts):
        for row, text in enumerate(hashes):
            seen.setdefault(text, (-(text * 7 % 10 / 10), n, row, text % 3))
    ordered = sorted(seen.values())
    expected = [
        place for guess in range(3) for place in [o for o in ordered if o[3] == guess][:size]
    ]
    pairs = zip(kept.shards.tolist(), kept.rows.tolist(), strict=True)
    assert list(pairs) == sorted((n, row) for _, n, row, _ in expected)


def test_the_margin_is_between_the_first_two() -> None:
    assert margin(np.array([[0.2, 0.5, 0.3], [1.0, 0.0, 0.0]])) == pytest.approx([0.2, 1.0])


@pytest.mark.parametrize("by", ["disagreement", "entropy", "margin"])
def test_the_first_row_is_that_of_the_highest_value_of_the_pool(ensemble_of: Make, by: str) -> None:
    settings = ensemble_of(data={"shard_rows": 10})
    unit, soft = finished_ensemble(run(settings, plan=True))
    files = [[shard.dir / "scores.parquet" for shard in m.shards] for m in unit.members]
    scores = np.stack([np.concatenate([read_scores(f)[1] for f in own]) for own in files])
    assert scores.shape == (3, 24, 2)
    probs = np.concatenate([read_probs(file) for file in shard_files(soft.dir)])
    values = {
        "disagreement": disagreement(scores / read_ensemble(soft).temperature),
        "entropy": entropy(probs),
        "margin": -margin(probs),
    }[by]
    best = int(values.argmax())
    (row,) = choose(settings, n=1, by=by)
    assert row["id"] == 100 + best
    assert row["guess"] == LABELS[probs[best].argmax()]
    assert row["confidence"] == pytest.approx(probs[best].max(), abs=6e-4)
    assert row["label"] == ""
    assert row["text"] == [r for f in shard_files(unit.pool.dir) for r in rows(f)][best]["text"]


def test_the_same_run_gives_the_same_rows(ensemble_of: Make) -> None:
    settings = ensemble_of(data={"shard_rows": 10})
    chosen = choose(settings, n=6)
    assert chosen == choose(settings, n=6)
    assert len({row["id"] for row in chosen}) == 6
    assert list(chosen[0]) == ["id", "text", "guess", "confidence", "label"]


def test_labelled_and_equal_texts_are_left_out(
    ensemble_of: Make, tmp_path: Path, tiny_tables: dict[str, str]
) -> None:
    new = ["a film about food", "A  film about FOOD", " ", "not so happy", "a film about food\n"]
    pq.write_table(pa.table({"text": [SAD[0].upper(), *new, HAPPY[1]]}), tmp_path / "pool.parquet")
    settings = ensemble_of(data={"pool": str(tmp_path / "pool.parquet"), "shard_rows": 3})
    chosen = choose(settings, n=50)
    assert sorted(row["text"].strip().casefold().replace("  ", " ") for row in chosen) == [
        "a film about food",
        "not so happy",
    ]


def test_each_cluster_gives_its_first_row(
    copied: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    unit, _ = finished_ensemble(run(copied, plan=True))
    food = np.array(["food" in row["text"] for f in shard_files(unit.pool.dir) for row in rows(f)])
    votes = np.where(food, 1, -1) * np.arange(24) / 4  # later rows are more disputed
    with_scores(copied, np.stack([np.stack([own, 0 * own], -1) for own in (-votes, votes, votes)]))
    asked: list[int] = []

    def embed(encoder: object, texts: list[dict[str, str]], *others: object) -> np.ndarray:
        """Two groups: the texts about food, and the others."""
        asked.append(len(texts))
        return np.array([[1.0, 0] if "food" in text["text"] else [0, 1.0] for text in texts])

    monkeypatch.setattr(embedding, "embed_texts", embed)
    chosen = choose(copied, n=2)
    assert asked == [24]
    last = [100 + int(np.flatnonzero(group).max()) for group in (food, ~food)]
    assert sorted(row["id"] for row in chosen) == sorted(last)
    assert [row["id"] for row in choose(copied, n=24)] == list(range(123, 99, -1))


def test_half_of_the_rows_of_two_labels_have_one_guess_while_there_are_others(
    copied: Settings,
) -> None:
    scores = np.zeros((3, 24, 2))
    scores[..., 0] = 3  # sad, but for three rows that are less disputed
    scores[0, :, 0] = 1
    scores[:, :3] = [0, 4]
    with_scores(copied, scores)
    for n, sad in ((2, 1), (6, 3), (10, 7)):
        assert [row["guess"] for row in choose(copied, n=n)].count("sad") == sad


def test_a_run_that_is_not_done_is_named_with_what_to_type(tiny_settings: Make) -> None:
    settings = tiny_settings()
    with pytest.raises(UserError) as error:
        choose(settings)
    assert str(error.value).startswith(f"{settings.output}: it is not done up to its ensemble: ")
    assert str(error.value).endswith(
        f"units are to do, prepare/labelled first; run it first: "
        f"pet run {settings.output}/config.toml --until ensemble"
    )


def test_a_stale_run_is_named_with_its_reason(ensemble_of: Make) -> None:
    settings = ensemble_of()
    other = settings.model_copy(
        update={"finetune": settings.finetune.model_copy(update={"steps": 4})}
    )
    with pytest.raises(UserError) as error:
        choose(other)
    assert str(error.value).startswith(
        f"{settings.output}: settings or tables have changed since its ensemble was made "
        "(gen-0/finetune/it_was-1: "
    )
    assert str(error.value).endswith(
        f"; run it first: pet run {settings.output}/config.toml --until ensemble"
    )


def test_what_cannot_be_chosen_by(ensemble_of: Make, tiny_task: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"^--by: 'entropi' is not a criterion; did you mean 'entropy'\?$"
    ):
        choose(ensemble_of(), by="entropi")
    alone = Path(shutil.copytree(tiny_task, tmp_path / "alone"))
    for file in (alone / "just.toml", alone / "mood.toml"):
        file.unlink()
    settings = ensemble_of(task=str(alone))
    with pytest.raises(UserError) as error:
        choose(settings)
    assert str(error.value) == (
        f"{settings.output}: the ensemble has one model, which disagrees with no other; "
        "choose by one of 'entropy', 'margin', or add a pattern"
    )
    assert len(choose(settings, by="entropy", n=3)) == 3


def test_a_pool_without_new_texts(ensemble_of: Make, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": SAD}), tmp_path / "pool.parquet")
    settings = ensemble_of(data={"pool": str(tmp_path / "pool.parquet")})
    with pytest.raises(UserError, match=r"every text of the pool is labelled, or is empty$"):
        choose(settings)
