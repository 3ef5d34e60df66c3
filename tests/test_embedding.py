"""Embeddings of texts: the mean of an encoder's last states, each of length 1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from testing import CPU
from torch.nn import functional

from pet_pipeline.embedding import embed_texts
from pet_pipeline.models import ModelFolder
from pet_pipeline.pretrained import load_encoder, load_tokenizer

ROWS = [
    {"a": "the film", "b": "was good"},
    {"a": "a very good day and a very bad night", "b": "we come again"},
    {"a": "", "b": ""},
    {"a": "great food at the shop", "b": "so so"},
]


@pytest.mark.parametrize("name", ["bert", "roberta"])
@pytest.mark.parametrize("columns", [["a"], ["a", "b"]])
def test_embeddings_are_the_mean_of_the_last_states(
    mlm_of: Callable[[str], Path], name: str, columns: list[str]
) -> None:
    folder = ModelFolder(mlm_of(name))
    model, tokenizer = load_encoder(folder).eval(), load_tokenizer(folder)
    expected = []
    for row in ROWS:
        inputs = tokenizer(*([row[column]] for column in columns), return_tensors="pt")
        with torch.no_grad():
            mean = model(**inputs).last_hidden_state[0].mean(0)
        expected.append(functional.normalize(mean, dim=0).tolist())
    found = embed_texts(folder, ROWS, columns, 64, CPU)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_embeddings_do_not_depend_on_the_batches(tiny_mlm: Path) -> None:
    folder = ModelFolder(tiny_mlm)
    whole = embed_texts(folder, ROWS, ["a"], 64, CPU)
    for batch_tokens in (1, 30):
        compute = replace(CPU, batch_tokens=batch_tokens)
        found = embed_texts(folder, ROWS[::-1], ["a"], 64, compute)[::-1]
        np.testing.assert_allclose(found, whole, atol=1e-5)


def test_long_texts_are_cut_and_special_tokens_in_them_are_text(tiny_mlm: Path) -> None:
    folder = ModelFolder(tiny_mlm)
    texts = ["day " * 40, "day " * 6, "[MASK]", "[ mask ]"]  # the last two have the same tokens
    found = embed_texts(folder, [{"text": text} for text in texts], ["text"], 8, CPU)
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    np.testing.assert_allclose(found[2], found[3], atol=1e-5)


def test_no_rows_have_no_embeddings(tiny_mlm: Path) -> None:
    assert embed_texts(ModelFolder(tiny_mlm), [], ["text"], 8, CPU).shape == (0, 32)
