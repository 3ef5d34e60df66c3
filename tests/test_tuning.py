"""Ways of tuning a masked LM: what each trains, leaves alone, keeps in a file, and merges."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import IA3Config, LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import safe_open
from safetensors.torch import save_file
from testing import CPU, HAPPY, SAD, sharpened
from torch import Tensor
from torch.nn import functional

from pet_pipeline import prompt_start
from pet_pipeline.errors import UserError
from pet_pipeline.methods import METHODS, SOFT_METHODS
from pet_pipeline.mlm import MaskedLM
from pet_pipeline.models import ModelFolder
from pet_pipeline.optimisation import PART, Method, Optimisation, Prompt, Tuning
from pet_pipeline.parts import read_part
from pet_pipeline.patterns import Pattern, pattern_of
from pet_pipeline.pvp import Pvp
from pet_pipeline.soft_prompt import encoder_layers
from pet_pipeline.soft_tokens import SoftTokens
from pet_pipeline.training import CHECKPOINT
from pet_pipeline.tuning import TrainedPart, trainable_count

ENCODERS = (
    "bert", "roberta", "albert", "distilbert", "electra", "deberta-v2", "modernbert", "mpnet",
)  # fmt: skip
PLAIN, LONGER = "{text} it was {mask}.", "{text} so it was just {mask}."
GOLD = [0] * 4 + [1] * 4
ROWS = [{"text": text} for text in SAD + HAPPY]
MERGED = ("bitfit", "layernorm", "head", "lora", "ia3")  # methods that end as a plain model
COMBINATIONS = [
    (encoder, method)
    for encoder in ENCODERS
    for method in METHODS
    if (encoder, method) != ("modernbert", "bitfit")  # it has no biases
]
OPTIMISATION = Optimisation(learning_rate=3e-3, batch_size=8, weight_decay=0.0, warmup=0.0)

Folder = Callable[[str], Path]
Loaded = Callable[[str], MaskedLM]


@pytest.fixture(scope="module")
def sharp(mlm_of: Folder, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    """A function from an architecture to a tiny model of it that is sensitive to its input."""
    root = tmp_path_factory.mktemp("sharp")

    @functools.cache
    def make(name: str) -> Path:
        lm = MaskedLM.load(ModelFolder(mlm_of(name)), CPU)
        sharpened(lm.model).save_pretrained(root / name)
        lm.tokenizer.save_pretrained(root / name)
        return root / name

    return make


@pytest.fixture(scope="module")
def plain(sharp: Folder) -> Loaded:
    """A function from an architecture to its model, to be left as it is."""
    return functools.cache(lambda name: MaskedLM.load(ModelFolder(sharp(name)), CPU))


def a_pattern(template: str = PLAIN) -> Pattern:
    return pattern_of("p", template, ("sad", "happy"), (("terrible",), ("great", "good")))


def a_method(name: str, tokens: SoftTokens | None = None, **prompt: Any) -> Method:
    if name not in SOFT_METHODS:
        return Method(name, lora_rank=4 if name == "lora" else 0)
    default = SoftTokens(template=True) if name == "soft" else SoftTokens(length=3)
    return Method(name, prompt=Prompt(tokens or default, **prompt))


def a_pvp(folder: Path, method: Method | str, template: str = PLAIN) -> Pvp:
    how = a_method(method) if isinstance(method, str) else method
    base, pattern = ModelFolder(folder), a_pattern(template)
    return Pvp.load(base, pattern, max_tokens=48, method=how, seed=1, compute=CPU)


def tune(pvp: Pvp, steps: int = 3, checkpoints: Path | None = None, **options: Any) -> float:
    how = Tuning(replace(OPTIMISATION, **options), steps)
    return pvp.tune(ROWS, GOLD, how, seed=1, checkpoints=checkpoints)


def part_of(pvp: Pvp) -> TrainedPart:
    assert pvp.trained
    return pvp.trained


def parameters(model: Any) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def shaken(pvp: Pvp, size: float = 0.1) -> Pvp:
    """The PVP with all that is trained moved at random, as long training would."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in part_of(pvp).parameters.values():
            parameter.add_(torch.randn_like(parameter) * size)
    return pvp


def trained_names(model: Any, method: str) -> set[str]:
    """The names of what a method trains, by how each is defined."""
    prefix = f"{model.base_model_prefix}."
    names = {name for name, _ in model.named_parameters()}
    match method:
        case "full":
            return {name for name in names if "word_embeddings" not in name} - {
                "model.embeddings.tok_embeddings.weight"
            }
        case "bitfit":
            return {name for name in names if name.endswith("bias")}
        case "layernorm":
            return {name for name in names if name.lower().rpartition(".")[0].endswith("norm")}
        case "head":
            return {name for name in names if not name.startswith(prefix)}
        case "lora" | "ia3":
            return {name for name in names if f"{method}_" in name}
        case _:
            frozen = {"soft_prompt.layers"} if method == "prefix_tuning" else set()
            return {name for name in names if name.startswith("soft_prompt.")} - frozen


@dataclass(frozen=True)
class Tuned:
    """A PVP after some steps, and what was there before them."""

    method: Method
    pvp: Pvp
    lm: MaskedLM  # its base, loaded again
    parameters: dict[str, Tensor]
    scores: Any


@pytest.fixture(
    scope="module", params=COMBINATIONS, ids=[f"{name}-{method}" for name, method in COMBINATIONS]
)
def tuned(request: pytest.FixtureRequest, sharp: Folder, plain: Loaded) -> Tuned:
    encoder, method = request.param
    pvp = a_pvp(sharp(encoder), method)
    before, scores = parameters(pvp.lm.model), pvp.scores(ROWS)
    tune(pvp)
    return Tuned(a_method(method), pvp, plain(encoder), before, scores)


# What is trained


def test_what_a_method_trains_moves_and_the_rest_stays(tuned: Tuned) -> None:
    after = parameters(tuned.pvp.lm.model)
    assert after.keys() == tuned.parameters.keys()
    moved = {name for name in after if not torch.equal(after[name], tuned.parameters[name])}
    assert moved == trained_names(tuned.pvp.lm.model, tuned.method.name)
    assert np.abs(tuned.pvp.scores(ROWS) - tuned.scores).max() > 1e-3


def test_scores_do_not_depend_on_longer_rows_in_the_batch(tuned: Tuned) -> None:
    lengths = [{"text": text} for text in ("a", "a very good day " * 8, "the film")]
    together = tuned.pvp.scores(lengths)
    alone = np.concatenate([tuned.pvp.scores([row]) for row in lengths])
    np.testing.assert_allclose(together, alone, atol=2e-4)


def test_a_saved_part_scores_the_same_in_a_copy_of_its_base(tuned: Tuned, tmp_path: Path) -> None:
    if tuned.method.name == "full":
        pytest.skip("its whole model is saved: tests/test_pvp.py")
    plain = Pvp.of(tuned.lm, a_pattern(), 48)
    of_base, weights = plain.scores(ROWS), parameters(tuned.lm.model)
    expected = tuned.pvp.scores(ROWS)
    tuned.pvp.save(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == [PART]
    soft, part = tuned.method.soft_tokens, tmp_path / PART
    again = Pvp.of(tuned.lm, a_pattern(), 48, soft=soft, part=part)
    np.testing.assert_allclose(again.scores(ROWS), expected, atol=1e-4)
    np.testing.assert_allclose(tuned.pvp.scores(ROWS), expected, atol=1e-4)  # it is still of use
    assert np.array_equal(plain.scores(ROWS), of_base)
    assert all(torch.equal(p, weights[name]) for name, p in tuned.lm.model.named_parameters())
    again.save(tmp_path / "again")
    assert stored(tmp_path / "again" / PART).keys() == stored(part).keys()


def test_a_head_that_names_another_layer_is_trained_whole(mlm_of: Folder) -> None:
    pvp = a_pvp(mlm_of("deberta-v2-new-head"), "head")
    assert part_of(pvp).parameters.keys() == trained_names(pvp.lm.model, "head")


def stored(file: Path) -> dict[str, Tensor]:
    with safe_open(file, "pt") as tensors:
        return {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118


@pytest.mark.parametrize("name", [name for name in METHODS if name != "full"])
def test_only_what_was_trained_is_in_the_file(sharp: Folder, tmp_path: Path, name: str) -> None:
    pvp = a_pvp(sharp("bert"), name)
    names = trained_names(pvp.lm.model, name)
    expected = {
        name: tuple(p.shape) for name, p in pvp.lm.model.named_parameters() if name in names
    }
    match name:
        case "prompt_tuning" | "p_tuning":
            expected = {"tokens": (3, 32)}
        case "p_tuning_v2" | "prefix_tuning":
            expected = {"layers": (2, 3, 32)}
        case "soft":  # "it", "was" and "."
            expected = {"tokens": (3, 32), "layers": (2, 3, 32)}
    pvp.save(tmp_path)
    assert {name: tuple(t.shape) for name, t in stored(tmp_path / PART).items()} == expected


@pytest.mark.parametrize("name", [name for name in METHODS if name != "full"])
def test_an_interrupted_tuning_resumes_to_the_same_parameters(
    sharp: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    whole, stopped, resumed = (a_pvp(sharp("bert"), name) for _ in range(3))
    for pvp in (whole, stopped, resumed):
        pvp.lm.compute = replace(CPU, checkpoint_seconds=0)
    loss = tune(whole, 4)
    original, calls = MaskedLM.label_scores_and_states, iter(range(9))

    def scores(*args: Any, **options: Any) -> Any:
        if next(calls) == 2:
            raise InterruptedError
        return original(*args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(MaskedLM, "label_scores_and_states", scores)
        with pytest.raises(InterruptedError):
            tune(stopped, 4, tmp_path)
    assert (tmp_path / CHECKPOINT).exists()
    assert tune(resumed, 4, tmp_path) == loss
    for key, parameter in whole.lm.model.named_parameters():
        assert torch.equal(parameter, resumed.lm.model.get_parameter(key)), key


@pytest.mark.parametrize("name", ["lora", "p_tuning", "prefix_tuning"])
def test_a_start_is_decided_by_its_seed(sharp: Folder, name: str) -> None:
    base, how = ModelFolder(sharp("bert")), a_method(name)
    starts = [
        parameters(
            Pvp.load(base, a_pattern(), max_tokens=48, method=how, seed=s, compute=CPU).lm.model
        )
        for s in (1, 1, 2)
    ]
    assert all(torch.equal(starts[0][key], starts[1][key]) for key in starts[0])
    assert any(not torch.equal(starts[0][key], starts[2][key]) for key in starts[0])


@pytest.mark.parametrize("name", ["full", "lora", *SOFT_METHODS])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_gradient_checkpointing_gives_the_same_gradients(
    sharp: Folder, encoder: str, name: str
) -> None:
    pvp = a_pvp(sharp(encoder), name)
    model = pvp.lm.model.train()
    if not model.supports_gradient_checkpointing:
        pytest.skip("transformers has none of it for this architecture")
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    inside = next(m for m in encoder_layers(model)[0].modules() if isinstance(m, torch.nn.Linear))
    rows, calls = pvp.encoder.encode(ROWS), []
    inside.register_forward_hook(lambda *_: calls.append(1))

    def gradients() -> dict[str, Tensor]:
        calls.clear()
        model.zero_grad()
        scores = pvp.lm.label_scores(rows, pvp.encoder.words)
        functional.cross_entropy(scores, torch.tensor(GOLD)).backward()
        return {key: p.grad.clone() for key, p in model.named_parameters() if p.grad is not None}

    expected = gradients()
    assert len(calls) == 1
    model.activation_checkpointing_enable()
    found = gradients()
    assert len(calls) == 2  # the layer was computed again
    assert trained_names(model, name) <= expected.keys()
    assert max(gradient.abs().max() for gradient in expected.values()) > 1e-4
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


# Where prompts start


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_shallow_prompt_scores_at_first_as_its_words_do(
    sharp: Folder, plain: Loaded, encoder: str
) -> None:
    expected = Pvp.of(plain(encoder), a_pattern(), 48).scores(ROWS)
    words = a_pvp(sharp(encoder), "prompt_tuning", "{text} {soft:it was} {mask}.")
    assert len(words.encoder.soft_starts) >= 2
    assert np.array_equal(words.scores(ROWS), expected)
    for deep in (True, False):
        template = a_pvp(sharp(encoder), a_method("soft", deep=deep))
        assert np.array_equal(template.scores(ROWS), expected)
    encoded = a_pvp(sharp(encoder), "p_tuning", "{text} {soft:it was} {mask}.")
    assert np.abs(encoded.scores(ROWS) - expected).max() > 1e-3


@pytest.mark.parametrize("name", ["p_tuning_v2", "prefix_tuning"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_deep_prompt_starts_at_the_states_of_its_words(
    sharp: Folder, encoder: str, name: str
) -> None:
    pvp = a_pvp(sharp(encoder), a_method(name, SoftTokens(words="it was so")))
    prompt = part_of(pvp).prompt
    assert prompt
    prompt.detach(pvp.lm.model)
    read = pvp.lm.tokenizer("it was so", return_tensors="pt")
    with torch.no_grad():
        states = pvp.lm.model.base_model(**read, output_hidden_states=True).hidden_states
        found = prompt.layer_vectors()
    expected = torch.stack(states[:-1])[:, 0, 1:-1]
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", SOFT_METHODS)
@pytest.mark.parametrize("encoder", ["bert", "albert"])
def test_a_prompt_without_tokens_scores_as_no_prompt(
    sharp: Folder, encoder: str, name: str
) -> None:
    template = "{text} {mask}"
    plain = a_pvp(sharp(encoder), "full", template)
    empty = a_pvp(sharp(encoder), a_method(name, SoftTokens(length=0)), template)
    assert empty.encoder.soft_starts == []
    assert np.array_equal(empty.scores(ROWS), plain.scores(ROWS))


def test_a_sampled_start_is_of_words_and_decided_by_its_seed(sharp: Folder) -> None:
    encoder = a_pvp(sharp("bert"), a_method("prompt_tuning", SoftTokens(length=40))).encoder
    ids = [prompt_start.start_ids(encoder, "vocabulary", seed) for seed in (0, 0, 1)]
    assert ids[0] == ids[1] != ids[2]
    assert len(set(ids[0])) == 40
    tokens = encoder.tokenizer.convert_ids_to_tokens(ids[0])
    assert all(any(c.isalpha() for c in token) for token in tokens)
    assert not set(ids[0]) & set(encoder.tokenizer.all_special_ids)


def test_a_start_at_labels_takes_their_words_in_turn(sharp: Folder) -> None:
    pvp = a_pvp(sharp("bert"), "prompt_tuning", "{soft:4} {text} {soft:it was} {mask}")
    ids = prompt_start.start_ids(pvp.encoder, "labels", 0)
    tokens = pvp.encoder.tokenizer.convert_ids_to_tokens(ids)
    assert tokens == ["terrible", "great", "good", "terrible", "it", "was"]


# Adapters are peft's


def peft_model(folder: Path, config: Any) -> Any:
    model = MaskedLM.load(ModelFolder(folder), CPU).model.requires_grad_(False)
    inject_adapter_in_model(config, model.base_model)
    return model


def assert_same_as_peft(pvp: Pvp, other: Any) -> None:
    own = part_of(shaken(pvp)).parameters
    theirs = {name: p for name, p in other.named_parameters() if p.requires_grad}
    assert {n: p.shape for n, p in own.items()} == {n: p.shape for n, p in theirs.items()}
    inputs = pvp.lm.inputs(pvp.encoder.encode(ROWS))
    with torch.no_grad():
        base = other(**inputs).logits
        for name, parameter in theirs.items():
            parameter.copy_(own[name])
        expected = other(**inputs).logits
        found = pvp.lm.model(**inputs).logits
    assert (expected - base).abs().max() > 1e-2
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_lora_is_that_of_peft_on_all_linear_layers(sharp: Folder, encoder: str) -> None:
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear")
    assert_same_as_peft(a_pvp(sharp(encoder), "lora"), peft_model(sharp(encoder), config))


@pytest.mark.parametrize("encoder", ["bert", "roberta", "deberta-v2"])
def test_ia3_is_that_of_peft_but_for_the_output_of_attention(sharp: Folder, encoder: str) -> None:
    # peft's targets match the projection after attention too, which 2205.05638 does not scale.
    config = IA3Config(exclude_modules=r".*attention\.output\.dense")
    other = peft_model(sharp(encoder), config)
    pvp = a_pvp(sharp(encoder), "ia3")
    assert_same_as_peft(pvp, other)
    assert sum(p.numel() for p in part_of(pvp).parameters.values()) == 2 * (32 + 32 + 64)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_ia3_scales_keys_values_and_activations_once_per_layer(sharp: Folder, encoder: str) -> None:
    adapted = [
        module for module in a_pvp(sharp(encoder), "ia3").lm.model.modules()
        if isinstance(module, BaseTunerLayer)
    ]  # fmt: skip
    layers = 1 if encoder == "albert" else 2
    joint = encoder == "modernbert"  # queries, keys and values are one layer
    assert [module.is_feedforward for module in adapted].count(True) == layers
    assert [module.is_feedforward for module in adapted].count(False) == layers * (
        1 if joint else 2
    )


# What does not work is said


def fails(match: str) -> Any:
    return pytest.raises(UserError, match=match)


def test_bitfit_without_biases_is_an_error_that_names_layernorm(sharp: Folder) -> None:
    lm = MaskedLM.load(ModelFolder(sharp("modernbert")), CPU)
    with fails("bitfit .* modernbert has none; 'layernorm'"):
        trainable_count(lm, Method("bitfit"))
    with fails("layernorm"):
        a_pvp(sharp("modernbert"), "bitfit")


def test_ia3_of_unknown_layers_is_an_error_that_names_lora(sharp: Folder) -> None:
    lm = MaskedLM.load(ModelFolder(sharp("bert")), CPU)
    for layer in lm.model.bert.encoder.layer:
        layer.attention.self.own_key = layer.attention.self.key
        layer.attention.self.own_value = layer.attention.self.value
        del layer.attention.self.key, layer.attention.self.value
    with fails("ia3 does not know the layers of a bert; 'lora'"):
        trainable_count(lm, Method("ia3"))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_what_a_method_trains_of_a_model_is_counted(plain: Loaded, encoder: str, name: str) -> None:
    lm = plain(encoder).copy()
    model = lm.model
    if (encoder, name) not in COMBINATIONS:
        with fails(name):
            trainable_count(lm, a_method(name))
        return
    count = trainable_count(lm, a_method(name))
    names = trained_names(model, name)
    counted = sum(p.numel() for key, p in model.named_parameters() if key in names)
    assert count == (None if name in ("full", *SOFT_METHODS) else counted)


@pytest.mark.parametrize("name", SOFT_METHODS)
def test_a_start_that_is_not_there_is_found_before_tuning(
    plain: Loaded, tmp_path: Path, name: str
) -> None:
    with fails(f"{PART}: not a trained part"):
        trainable_count(plain("bert"), a_method(name, source=tmp_path / PART))


@pytest.mark.parametrize("name", [name for name in METHODS if name != "full"])
@pytest.mark.parametrize("sizes", [{"hidden_size": 48}, {"num_hidden_layers": 1}], ids=str)
def test_a_part_of_a_model_of_another_size_is_an_error(
    sharp: Folder, tmp_path: Path, name: str, sizes: dict[str, int]
) -> None:
    if sizes == {"num_hidden_layers": 1} and name in ("head", "prompt_tuning", "p_tuning"):
        pytest.skip("it does not depend on the number of layers")
    tuned, other = a_pvp(sharp("bert"), name), resized(sharp("bert"), sizes)
    tuned.save(tmp_path)
    with fails("was trained on another model"):
        TrainedPart.load(other, tmp_path / PART)


@pytest.mark.parametrize("name", ["bitfit", "layernorm", "lora", "ia3", "p_tuning_v2", "soft"])
def test_a_part_of_a_model_with_fewer_layers_is_an_error(
    sharp: Folder, tmp_path: Path, name: str
) -> None:
    a_pvp(sharp("bert"), name).save(tmp_path)
    with fails("was trained on another model"):
        TrainedPart.load(resized(sharp("bert"), {"num_hidden_layers": 3}), tmp_path / PART)


def resized(folder: Path, sizes: dict[str, int]) -> MaskedLM:
    lm = MaskedLM.load(ModelFolder(folder), CPU)
    config = lm.model.config.__class__(**{**lm.model.config.to_dict(), **sizes})
    return MaskedLM(type(lm.model)(config), lm.tokenizer, CPU)


@pytest.mark.parametrize("content", [b"", b"not tensors at all", None], ids=str)
def test_a_damaged_part_is_an_error(sharp: Folder, tmp_path: Path, content: bytes | None) -> None:
    a_pvp(sharp("bert"), "bitfit").save(tmp_path)
    file = tmp_path / PART
    file.write_bytes(file.read_bytes()[:-8] if content is None else content)
    lm = MaskedLM.load(ModelFolder(sharp("bert")), CPU)
    with fails(f"{PART}: not a trained part"):
        Pvp.of(lm, a_pattern(), 48, part=file)
    file.unlink()
    with fails(f"{PART}: not a trained part"):
        read_part(file)


@pytest.mark.parametrize("metadata", [None, {"part": "{"}, {"more": "{}"}], ids=str)
def test_tensors_that_no_method_wrote_are_an_error(
    sharp: Folder, tmp_path: Path, metadata: dict[str, str] | None
) -> None:
    file = tmp_path / PART
    save_file({"tokens": torch.zeros(3, 32)}, file, metadata=metadata)
    lm = MaskedLM.load(ModelFolder(sharp("bert")), CPU)
    with fails(f"{PART}: not a trained part"):
        TrainedPart.load(lm, file)


# Prompts from another PVP


@pytest.mark.parametrize("name", SOFT_METHODS)
def test_a_transferred_prompt_scores_as_it_did(sharp: Folder, tmp_path: Path, name: str) -> None:
    pvp = shaken(a_pvp(sharp("bert"), name))
    pvp.save(tmp_path)
    again = a_pvp(sharp("bert"), a_method(name, source=tmp_path / PART))
    np.testing.assert_allclose(again.scores(ROWS), pvp.scores(ROWS), atol=1e-4)
    tune(again, 2)
    assert np.abs(again.scores(ROWS) - pvp.scores(ROWS)).max() > 1e-3


@pytest.mark.parametrize("name", SOFT_METHODS)
def test_a_prompt_of_another_length_is_an_error(sharp: Folder, tmp_path: Path, name: str) -> None:
    a_pvp(sharp("bert"), name).save(tmp_path)
    how = a_method(name, source=tmp_path / PART)
    with fails("has 3 soft tokens, pattern 'p' has 5"):
        a_pvp(sharp("bert"), how, "{text} {soft:5} {mask}" if name != "soft" else LONGER)


def test_a_part_without_prompt_is_no_start_of_one(sharp: Folder, tmp_path: Path) -> None:
    a_pvp(sharp("bert"), "bitfit").save(tmp_path)
    with fails("has no prompt, but bitfit"):
        a_pvp(sharp("bert"), a_method("prompt_tuning", source=tmp_path / PART))


# Gradients


def test_a_parameter_that_is_not_used_stops_at_the_first_step(sharp: Folder) -> None:
    pvp = a_pvp(sharp("bert"), "prompt_tuning")
    prompt = part_of(pvp).prompt
    assert prompt
    prompt.register_parameter("unused", torch.nn.Parameter(torch.zeros(2)))
    before = parameters(pvp.lm.model)
    with fails("no gradient reaches soft_prompt.unused of this bert model"):
        tune(pvp)
    after = parameters(pvp.lm.model)
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("name", ["prompt_tuning", "p_tuning_v2"])
def test_a_prompt_that_no_input_has_stops_at_the_first_step(sharp: Folder, name: str) -> None:
    pvp = a_pvp(sharp("bert"), name)
    prompt = part_of(pvp).prompt
    assert prompt
    for hook in prompt._hooks[1:]:  # all but the one that finds the soft tokens
        hook.remove()
    with pytest.raises((UserError, RuntimeError), match=r"no gradient|does not require grad"):
        tune(pvp)


# Merging


@pytest.mark.parametrize("name", MERGED)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_merged_model_is_plain_and_scores_the_same(
    sharp: Folder, plain: Loaded, tmp_path: Path, encoder: str, name: str
) -> None:
    if (encoder, name) not in COMBINATIONS:
        pytest.skip("no such method of this architecture")
    pvp = shaken(a_pvp(sharp(encoder), name), 0.05)
    expected = pvp.scores(ROWS)
    names = {key for key, _ in plain(encoder).model.named_parameters()}
    part_of(pvp).merge()
    model = pvp.lm.model
    assert not any(isinstance(module, BaseTunerLayer) for module in model.modules())
    assert {key for key, _ in model.named_parameters()} == names
    np.testing.assert_allclose(pvp.scores(ROWS), expected, atol=1e-3)
    if encoder != "bert":
        return
    model.save_pretrained(tmp_path)
    pvp.lm.tokenizer.save_pretrained(tmp_path)
    again = Pvp.of(MaskedLM.load(ModelFolder(tmp_path), CPU), a_pattern(), 48)
    np.testing.assert_allclose(again.scores(ROWS), expected, atol=1e-3)


@pytest.mark.parametrize("name", MERGED)
def test_merging_a_copy_leaves_its_base_as_it_was(sharp: Folder, tmp_path: Path, name: str) -> None:
    shaken(a_pvp(sharp("bert"), name)).save(tmp_path)
    lm = MaskedLM.load(ModelFolder(sharp("bert")), CPU)
    before = parameters(lm.model)
    pvp = Pvp.of(lm, a_pattern(), 48, part=tmp_path / PART)
    expected = pvp.scores(ROWS)
    part_of(pvp).merge()
    np.testing.assert_allclose(pvp.scores(ROWS), expected, atol=1e-3)
    assert all(torch.equal(p, before[key]) for key, p in lm.model.named_parameters())


@pytest.mark.parametrize("name", SOFT_METHODS)
def test_a_prompt_cannot_be_merged(sharp: Folder, name: str) -> None:
    pvp = a_pvp(sharp("bert"), name)
    with fails(f"a prompt of {name} is not a part of the model"):
        part_of(pvp).merge()


# A prompt with the model


@pytest.mark.parametrize("name", SOFT_METHODS)
def test_prompt_and_model_are_tuned_together_each_at_its_rate(
    sharp: Folder, tmp_path: Path, name: str
) -> None:
    pvp = a_pvp(sharp("bert"), a_method(name, model_rate=1e-4))
    optimisation = replace(OPTIMISATION, weight_decay=0.5)
    before = parameters(pvp.lm.model)
    names = {id(p): key for key, p in pvp.lm.model.named_parameters()}
    rates = {
        names[id(p)]: (group.learning_rate, group.weight_decay)
        for group in part_of(pvp).groups(optimisation)
        for p in group.parameters
    }
    prompt = trained_names(pvp.lm.model, name)
    for key, parameter in pvp.lm.model.named_parameters():
        if key in prompt:
            assert rates.pop(key) == (optimisation.learning_rate, 0.0)
        elif "word_embeddings" not in key and key != "soft_prompt.layers":
            assert rates.pop(key) == (1e-4, 0.5 if parameter.ndim > 1 else 0.0), key
    assert not rates
    tune(pvp)
    moved = {key for key, p in pvp.lm.model.named_parameters() if not torch.equal(p, before[key])}
    assert moved == prompt | {key for key in before if "soft_prompt" not in key} - {
        "bert.embeddings.word_embeddings.weight"
    }
    expected = pvp.scores(ROWS)
    pvp.save(tmp_path)
    assert np.array_equal(pvp.scores(ROWS), pvp.scores(ROWS))
    lm = MaskedLM.load(ModelFolder(tmp_path), CPU)
    soft = part_of(pvp).method.soft_tokens
    again = Pvp.of(lm, a_pattern(), 48, soft=soft, part=tmp_path / PART)
    np.testing.assert_allclose(again.scores(ROWS), expected, atol=1e-4)
    np.testing.assert_allclose(pvp.scores(ROWS), expected, atol=1e-4)  # it is still of use


def test_embeddings_are_tuned_with_the_model_if_they_are_not_frozen(sharp: Folder) -> None:
    pvp = a_pvp(sharp("bert"), a_method("prompt_tuning", model_rate=1e-4))
    before = parameters(pvp.lm.model)
    tune(pvp, frozen_embeddings=False)
    after = parameters(pvp.lm.model)
    assert all(not torch.equal(after[key], before[key]) for key in before)


@pytest.mark.parametrize("name", ["ia3", "lora", "bitfit"])
def test_only_matrices_decay(sharp: Folder, name: str) -> None:
    groups = part_of(a_pvp(sharp("bert"), name)).groups(replace(OPTIMISATION, weight_decay=0.5))
    assert {group.weight_decay for group in groups} == {0.5 if name == "lora" else 0.0}


def test_a_part_says_its_method_and_what_is_told_of_it(sharp: Folder, tmp_path: Path) -> None:
    a_pvp(sharp("bert"), "lora").save(tmp_path, {"base": "somewhere"})
    _, about = read_part(tmp_path / PART)
    assert about == {
        "method": "lora",
        "lora_rank": 4,
        "added": False,
        "model_rate": 0.0,
        "base": "somewhere",
    }
    assert json.loads(json.dumps(about)) == about


def test_layers_that_hooks_do_not_reach_are_an_error_before_tuning(sharp: Folder) -> None:
    lm = MaskedLM.load(ModelFolder(sharp("bert")), CPU)
    lm.model.config.num_hidden_layers = 3  # so that the two layers count as shared ones
    with fails("in front of every layer are not possible with a bert"):
        trainable_count(lm, a_method("p_tuning_v2"))
    assert trainable_count(lm, a_method("prompt_tuning")) is None


def test_a_part_with_another_number_of_soft_tokens_is_an_error(
    plain: Loaded, sharp: Folder, tmp_path: Path
) -> None:
    a_pvp(sharp("bert"), a_method("prompt_tuning", SoftTokens(length=2))).save(tmp_path)
    for soft, found in ((SoftTokens(length=3), 3), (None, 0)):
        with fails(f"'p': has {found} soft tokens, and .*{PART} has 2"):
            Pvp.of(plain("bert"), a_pattern(), 48, soft=soft, part=tmp_path / PART)
    with fails("'p': has 3 soft tokens, and the model has 0"):
        Pvp.of(plain("bert"), a_pattern(), 48, soft=SoftTokens(length=3))


def test_a_prompt_of_another_kind_is_no_start(sharp: Folder, tmp_path: Path) -> None:
    a_pvp(sharp("bert"), a_method("p_tuning_v2", SoftTokens(length=2))).save(tmp_path)
    with fails("has a prompt of p_tuning_v2, which is not of the kind"):
        a_pvp(
            sharp("bert"), a_method("prompt_tuning", SoftTokens(length=2), source=tmp_path / PART)
        )


def test_a_model_with_a_prompt_is_not_copied(sharp: Folder) -> None:
    pvp = a_pvp(sharp("bert"), a_method("p_tuning_v2", SoftTokens(length=2)))
    with pytest.raises(ValueError, match="detach the prompt first"):
        pvp.lm.copy()
