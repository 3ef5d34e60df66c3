"""Models and tokenizers of folders load, in float32, or it is said what is wrong with them."""

from __future__ import annotations

import fractions
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from testing import ARCHITECTURES, CPU, SMALL, TOKENIZERS, random_mlm, save_mlm, save_t5
from transformers import AutoConfig, AutoModelForMaskedLM, GPT2Config, GPT2LMHeadModel

from pet_pipeline import pretrained
from pet_pipeline.errors import UserError
from pet_pipeline.models import HubModel, ModelFolder
from pet_pipeline.pretrained import (
    check_mlm,
    check_seq2seq,
    load_classifier,
    load_encoder,
    load_mlm,
    load_seq2seq,
    load_tokenizer,
    new_classifier,
)


def same(one: Any, other: Any) -> bool:
    own = dict(other.named_parameters())
    return all(torch.equal(parameter, own[name]) for name, parameter in one.named_parameters())


def with_pickled_weights(folder: Path, weights: object) -> ModelFolder:
    """A folder with a configuration, a tokenizer and nothing but a pytorch_model.bin."""
    save_mlm("bert", folder)
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    return ModelFolder(folder)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_are_float32_whatever_is_stored(tmp_path: Path, dtype: torch.dtype) -> None:
    save_mlm("bert", tmp_path)
    stored = load_mlm(ModelFolder(tmp_path)).to(dtype)
    stored.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == str(dtype)[6:]
    for load in (load_mlm, load_encoder, lambda model: new_classifier(model, ("a", "b"))):
        model = load(ModelFolder(tmp_path))
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_folder_with_pickled_weights_alone_is_loaded(tmp_path: Path) -> None:
    model = random_mlm("bert", vocab_size=206)
    folder = with_pickled_weights(tmp_path, model.state_dict())
    assert same(load_mlm(folder), model)
    assert load_encoder(folder).config.vocab_size == 206


def test_a_pickle_that_is_more_than_weights_is_refused(tmp_path: Path) -> None:
    for weights in ({"weight": fractions.Fraction(1, 2)}, random_mlm("bert", vocab_size=206)):
        folder = with_pickled_weights(tmp_path, weights)
        for load in (load_mlm, load_encoder):
            with pytest.raises(UserError) as error:
                load(folder)
            assert str(error.value) == (
                f"{tmp_path}: its pytorch_model.bin holds more than weights and is not loaded; "
                "convert it: load the model where you trust it and call "
                "model.save_pretrained(FOLDER)"
            )


class Trap:
    """An object that would write a file when it is unpickled."""

    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def test_no_code_of_a_pickle_is_run(tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    folder = with_pickled_weights(tmp_path / "model", {"weight": Trap(trap)})
    with pytest.raises(UserError, match="holds more than weights"):
        load_mlm(folder)
    assert not trap.exists()


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04 cut off"])
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_damaged_weights(tmp_path: Path, name: str, content: bytes) -> None:
    save_mlm("bert", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        load_mlm(ModelFolder(tmp_path))
    assert str(error.value).startswith(f"{tmp_path} cannot be loaded: ")
    assert not str(error.value).endswith(": ")


def test_weights_of_another_configuration(tmp_path: Path) -> None:
    save_mlm("bert", tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "vocab_size": 99}))
    with pytest.raises(UserError, match="cannot be loaded: "):
        load_mlm(ModelFolder(tmp_path))


def other_mlm(name: str) -> Any:
    if name in ARCHITECTURES:
        return random_mlm(name, vocab_size=206)
    config = AutoConfig.for_model(name, vocab_size=206, **SMALL, embedding_size=32)
    return AutoModelForMaskedLM.from_config(config)


@pytest.mark.parametrize("name", ["bert", "deberta-v2", "mpnet", "convbert", "roformer"])
def test_with_a_gpu_every_architecture_loads_with_the_attention_that_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    model = other_mlm(name)
    model.save_pretrained(tmp_path)
    folder = ModelFolder(tmp_path)
    assert load_mlm(folder).config._attn_implementation == "eager"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    loaded = load_mlm(folder)
    assert same(loaded, model)
    assert loaded.config._attn_implementation == ("sdpa" if loaded._supports_sdpa else "eager")
    assert loaded._supports_sdpa == (name == "bert")
    assert {parameter.device.type for parameter in loaded.parameters()} == {"cpu"}
    new_classifier(folder, ("a", "b"))
    # What is computed on the CPU of such a machine takes what is fast there.
    assert load_mlm(folder, CPU).config._attn_implementation == "eager"


def test_a_hub_model_without_safetensors_is_loaded_from_its_pickle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = random_mlm("bert", vocab_size=206)
    folder = with_pickled_weights(tmp_path, model.state_dict())
    asked: list[tuple[str, dict[str, Any]]] = []

    class Auto:
        @staticmethod
        def from_pretrained(name: str, **options: Any) -> Any:
            asked.append((name, options))
            options.pop("revision")
            return AutoModelForMaskedLM.from_pretrained(str(folder), **options)

    loaded, _ = pretrained._load(Auto, HubModel("org/name", "c0ffee"))
    assert same(loaded, model)
    assert [name for name, _ in asked] == ["org/name"] * 2
    assert [options["use_safetensors"] for _, options in asked] == [True, False]
    assert all(options["weights_only"] for _, options in asked)
    assert all(options["trust_remote_code"] is False for _, options in asked)


@pytest.mark.parametrize("name", [*ARCHITECTURES, "esm"])
def test_the_most_tokens_are_what_the_model_can_read(tmp_path: Path, name: str) -> None:
    tokenizer = TOKENIZERS["bytelevel"]()  # its padding token is not the first of the vocabulary
    special = {f"{k}_token_id": getattr(tokenizer, f"{k}_token_id") for k in ("pad", "bos", "eos")}
    if name == "esm":
        special |= {"position_embedding_type": "absolute", "token_dropout": False}
    if name == "modernbert":
        special |= {"cls_token_id": 0, "sep_token_id": 2}
    model = random_mlm(name, vocab_size=300, max_position_embeddings=20, **special)
    model.save_pretrained(tmp_path)
    most = check_mlm(ModelFolder(tmp_path))
    late = name in (*pretrained.LATE_POSITIONS,)
    assert most == (18 if late else 20)
    ids = torch.full((1, most), 50)
    with torch.no_grad():
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
        if late:
            ids = torch.full((1, most + 1), 50)
            with pytest.raises((IndexError, RuntimeError)):
                model(input_ids=ids, attention_mask=torch.ones_like(ids))


def test_a_model_without_positions_reads_any_number_of_tokens(tmp_path: Path) -> None:
    AutoConfig.for_model("funnel").save_pretrained(tmp_path)
    assert check_mlm(ModelFolder(tmp_path)) == sys.maxsize


def test_models_without_a_masked_lm_head(tmp_path: Path, tiny_mlm: Path) -> None:
    config = GPT2Config(vocab_size=50, n_embd=8, n_layer=1, n_head=1)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    for call in (check_mlm, load_mlm):
        with pytest.raises(UserError) as error:
            call(ModelFolder(tmp_path / "gpt2"))
        assert str(error.value) == (
            f"{tmp_path}/gpt2 is a gpt2 model, which has no masked-LM head; "
            "name one such as bert, roberta, deberta-v2 or modernbert"
        )
    new_classifier(ModelFolder(tiny_mlm), ("a", "b")).save_pretrained(tmp_path / "tuned")
    with pytest.raises(UserError) as error:
        load_mlm(ModelFolder(tmp_path / "tuned"))
    assert str(error.value) == (
        f"{tmp_path}/tuned has no trained masked-LM head (missing: cls.predictions.bias); "
        "name the model that was pretrained, not one tuned for another task"
    )


def test_sequence_to_sequence_models(tmp_path: Path, tiny_mlm: Path) -> None:
    t5 = ModelFolder(save_t5(tmp_path))
    check_seq2seq(t5)
    assert load_seq2seq(t5).config.model_type == "t5"
    with pytest.raises(UserError) as error:
        check_seq2seq(ModelFolder(tiny_mlm))
    assert str(error.value) == (
        f"{tiny_mlm} is a bert model, which does not write text from text; name one such as t5"
    )


def test_a_new_classifier_has_the_encoder_and_the_labels(tiny_mlm: Path) -> None:
    classifier = new_classifier(ModelFolder(tiny_mlm), ("sad", "happy", "so so"))
    assert classifier.config.id2label == {0: "sad", 1: "happy", 2: "so so"}
    assert classifier.config.label2id == {"sad": 0, "happy": 1, "so so": 2}
    assert same(classifier.bert.encoder, load_mlm(ModelFolder(tiny_mlm)).bert.encoder)


def test_a_classifier_with_other_labels_gets_a_new_head(tmp_path: Path, tiny_mlm: Path) -> None:
    new_classifier(ModelFolder(tiny_mlm), ("a", "b", "c")).save_pretrained(tmp_path)
    again = new_classifier(ModelFolder(tmp_path), ("x", "y"))
    assert again.classifier.weight.shape == (2, 32)
    assert same(again.bert.encoder, load_classifier(tmp_path).bert.encoder)


def test_a_model_that_is_not_a_classifier(tiny_mlm: Path) -> None:
    with pytest.raises(UserError) as error:
        load_classifier(tiny_mlm)
    assert str(error.value) == (
        f"{tiny_mlm}: a model without a classification head; name a classifier"
    )


@pytest.mark.parametrize("load", [load_mlm, load_encoder, load_tokenizer])
def test_a_broken_configuration(
    tmp_path: Path, mlm_of: Callable[[str], Path], load: Callable[[ModelFolder], Any]
) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError) as error:
        load(ModelFolder(tmp_path))
    assert str(error.value).startswith(str(tmp_path))
    assert "is not a valid JSON file" in str(error.value)


def test_a_configuration_with_a_value_of_another_type(tmp_path: Path) -> None:
    save_mlm("bert", tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "hidden_size": "wide"}))
    for load in (load_mlm, load_encoder):
        with pytest.raises(UserError) as error:
            load(ModelFolder(tmp_path))
        assert str(error.value).startswith(str(tmp_path))
        assert "'hidden_size'" in str(error.value)


def test_half_a_tokenizer(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(ModelFolder(save_mlm("bert", tmp_path)))
    assert tokenizer.is_fast
    assert tokenizer.mask_token == "[MASK]"
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UserError) as error:
        load_tokenizer(ModelFolder(tmp_path))
    assert str(error.value) == (
        f"{tmp_path}: no tokenizer: Couldn't instantiate the backend tokenizer from one of; "
        "its files belong in the same folder"
    )
