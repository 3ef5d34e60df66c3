"""How many assignments of words to labels the exact label-word search compares in a second.

    python pipelines/label_word_speed.py

Random scores of 16 rows per label; each size is searched some times, and the rates are shown.
"""

import time

import numpy as np
import typer

from pet_pipeline.search.assignment import best_assignment

SIZES = ((2, 100), (2, 1000), (3, 100), (5, 30), (6, 20), (6, 30))  # labels, words of each
ROWS = 16  # of each label


def main(times: int = 3) -> None:
    """Search assignments of several sizes and print how many were compared a second."""
    rng = np.random.default_rng(0)
    for n_labels, n_words in SIZES:
        scores = rng.normal(size=(n_labels * ROWS, n_labels * n_words))
        gold = np.repeat(np.arange(n_labels), ROWS).tolist()
        candidates = np.arange(n_labels * n_words).reshape(n_labels, n_words).tolist()
        rates = []
        for _ in range(times):
            start = time.perf_counter()
            best_assignment(scores, gold, candidates)
            rates.append(n_words**n_labels / (time.perf_counter() - start))
        shown = "  ".join(f"{rate:.3g}" for rate in rates)
        size = f"{n_labels} labels, {n_words} words each, {n_words**n_labels:.3g} assignments"
        typer.echo(f"{size}: {shown} a second")


if __name__ == "__main__":
    typer.run(main)
