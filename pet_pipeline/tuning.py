"""What of a masked language model is trained and put back: parameters, adapters, a prompt."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pet_pipeline.encoding import PatternEncoder
from pet_pipeline.errors import UserError
from pet_pipeline.mlm import MaskedLM
from pet_pipeline.optimisation import PART, Method, Optimisation, Prompt
from pet_pipeline.parts import read_part
from pet_pipeline.prompt_start import check_architecture, check_prompt, new_prompt, vectors_of
from pet_pipeline.seeds import seed_from
from pet_pipeline.soft_prompt import SoftPrompt
from pet_pipeline.soft_tokens import SoftTokens
from pet_pipeline.training import ParameterGroup, grouped

if TYPE_CHECKING:
    from peft import IA3Config, LoraConfig

# By the names that architectures give them, below a layer: keys and values, or all three in one
KEYS_AND_VALUES = re.compile(
    r"(^|\.)(key|value|key_proj|value_proj|k_lin|v_lin|attn\.k|attn\.v|Wqkv)$"
)
# The layer behind the feed-forward activations
FEED_FORWARD = re.compile(r"(^|\.)(ffn_output|ffn\.lin2|mlp\.Wo|(?<!attention\.)output\.dense)$")


@dataclass(frozen=True)
class TrainedPart:
    """The part of a masked LM that a method trains; the rest is frozen.

    prompt: attached to the model, if the method trains one
    """

    lm: MaskedLM
    method: Method
    prompt: SoftPrompt | None = None

    @classmethod
    def of(cls, lm: MaskedLM, method: Method, encoder: PatternEncoder, *, seed: int = 0) -> Self:
        """Make a model ready to be trained in a way; encoder: of the pattern, with its soft tokens.

        Raises `UserError` if the architecture does not allow it.
        """
        torch.manual_seed(seed_from("start", seed))
        for parameter in lm.model.parameters():
            parameter.requires_grad_(method.tunes_model)
        prompt = None
        if method.prompt:
            prompt = new_prompt(lm, method.name, method.prompt, encoder, seed)
            prompt.to(lm.device)
            prompt.attach(lm.model)
        elif method.name in ADAPTERS:
            _inject(lm.model, method)
        elif method.name != "full":
            for _, parameter in _selected(lm.model, method.name):
                parameter.requires_grad_(True)
        return cls(lm, method, prompt)

    @classmethod
    def load(cls, lm: MaskedLM, file: Path) -> Self:
        """Put what `save` wrote into its base; the parameters of others of the base stay.

        Raises `UserError` if the file is damaged, or the model is another one.
        """
        tensors, description = read_part(file)
        method = Method(description["method"], lora_rank=description["lora_rank"])
        model, prompt = lm.model, None
        model.requires_grad_(False)
        if "tokens" in tensors or "layers" in tensors:
            prompt = SoftPrompt(
                tensors.get("tokens"), tensors.get("layers"), added=description["added"]
            )
            check_prompt(prompt, lm, file)
            prompt.to(lm.device).eval()
            prompt.attach(model)
            how = Prompt(SoftTokens(), model_rate=description["model_rate"])
            return cls(lm, replace(method, prompt=how), prompt)
        if method.name in ADAPTERS:
            _inject(model, method)
        own = _trained_by(method, model)
        for name in sorted(own.keys() | tensors.keys()):
            if name not in own or name not in tensors or own[name].shape != tensors[name].shape:
                raise UserError(f"{file}: was trained on another model ({name} does not fit)")
        for name, value in tensors.items():
            _replace(model, own[name], value.to(own[name].device))
        return cls(lm, method)

    @property
    def n_soft(self) -> int:
        """How many soft tokens the prompt has; 0 without one."""
        return self.prompt.count if self.prompt else 0

    @property
    def parameters(self) -> dict[str, nn.Parameter]:
        """What is trained, by name."""
        return {n: p for n, p in self.lm.model.named_parameters() if p.requires_grad}

    def groups(self, optimisation: Optimisation) -> list[ParameterGroup]:
        """The parameters with their rates; a prompt has no weight decay."""
        if self.method.tunes_model:
            self.lm.model.get_input_embeddings().requires_grad_(not optimisation.frozen_embeddings)
        prompt = [p for p in self.prompt.parameters() if p.requires_grad] if self.prompt else []
        among = {id(parameter) for parameter in prompt}
        others = [p for p in self.parameters.values() if id(p) not in among]
        rate = optimisation.learning_rate
        model_rate = self.method.prompt.model_rate if self.method.prompt else rate
        # IA3's factors start at 1 and are vectors, though peft has them as matrices
        decay = 0.0 if self.method.name == "ia3" else optimisation.weight_decay
        groups = grouped(others, model_rate, decay)
        return [*groups, ParameterGroup(prompt, rate, 0.0)] if prompt else groups

    def save(self, folder: Path, about: Mapping[str, str]) -> None:
        """Write what was trained, and `about` it; nothing if that is the whole model."""
        tensors: dict[str, Tensor] = {}
        if self.prompt:
            self.prompt.fold()
            tensors = {name: p.detach() for name, p in self.prompt.named_parameters()}
        elif self.method.name != "full":
            own = _trained_by(self.method, self.lm.model)
            tensors = {name: p.detach() for name, p in own.items()}
        if not tensors:
            return
        description = {
            "method": self.method.name,
            "lora_rank": self.method.lora_rank,
            "added": bool(self.prompt and self.prompt.added),
            "model_rate": self.method.prompt.model_rate if self.method.prompt else 0.0,
            **about,
        }
        copies = {name: tensor.contiguous().cpu() for name, tensor in tensors.items()}
        save_file(copies, folder / PART, metadata={"part": json.dumps(description)})

    def merge(self) -> None:
        """Make a plain masked LM of a model with adapters, which reads faster.

        Raises `UserError` if there is a prompt.
        """
        if self.prompt:
            raise UserError(
                f"a prompt of {self.method.name} is not a part of the model and cannot be merged "
                "into it; the methods full, bitfit, layernorm, head, lora and ia3 can"
            )
        if self.method.name not in ADAPTERS:
            return
        from peft.tuners.tuners_utils import BaseTunerLayer

        for name, module in list(self.lm.model.named_modules()):
            if isinstance(module, BaseTunerLayer):
                base = module.get_base_layer()
                for parameter in list(base.parameters()):  # which other models may share
                    _replace(base, parameter, parameter.detach().clone())
                module.merge()
                parent, _, child = name.rpartition(".")
                setattr(self.lm.model.get_submodule(parent), child, base)


def trainable_count(lm: MaskedLM, method: Method) -> int | None:
    """How many parameters of a model a method trains; None if that is up to the pattern, or all.

    The model may be changed: it is for this only. Raises `UserError` if the architecture does not
    allow the method, or there is no prompt to start at.
    """
    if method.prompt:
        if method.prompt.source:
            read_part(method.prompt.source)
        check_architecture(lm, vectors_of(method.name, method.prompt))
    if method.prompt or method.name == "full":
        return None
    if method.name in ADAPTERS:
        _inject(lm.model, method)
    return sum(parameter.numel() for parameter in _trained_by(method, lm.model).values())


def _trained_by(method: Method, model: Any) -> dict[str, nn.Parameter]:
    """The parameters of a model that a method without prompt trains, by name."""
    if method.name in ADAPTERS:
        return {n: p for n, p in model.named_parameters() if f".{method.name}_" in n}
    return dict(_selected(model, method.name))


def _selected(model: Any, name: str) -> list[tuple[str, nn.Parameter]]:
    """The parameters of a model that a method trains; raises `UserError` if it has none."""
    inside = {id(parameter) for parameter in model.base_model.parameters()}
    if name == "bitfit":  # 2106.10199
        chosen = [(n, p) for n, p in model.named_parameters() if n.endswith("bias")]
        if not any(id(parameter) in inside for _, parameter in chosen):
            raise UserError(
                f"finetune.method: bitfit trains biases, and the encoder of a "
                f"{model.config.model_type} has none; 'layernorm' trains the scales of its "
                "normalisation layers"
            )
    elif name == "layernorm":
        norms = [module for module in model.modules() if type(module).__name__.endswith("Norm")]
        own = {id(parameter) for norm in norms for parameter in norm.parameters()}
        chosen = [(n, p) for n, p in model.named_parameters() if id(p) in own]
    else:
        chosen = [(n, p) for n, p in model.named_parameters() if id(p) not in inside]
        decoder = model.get_output_embeddings()
        # Where it is not tied to the embeddings; some heads name another layer (DeBERTa-v2's newer)
        if decoder is not None and len(decoder.weight) == model.config.vocab_size:
            chosen = [(n, p) for n, p in chosen if p is not decoder.weight]
    return chosen


def _lora(model: Any, method: Method) -> LoraConfig:
    """LoRA on all linear layers of the encoder (2106.09685)."""
    from peft import LoraConfig  # takes seconds, which other methods need not wait

    names = [n for n, m in model.base_model.named_modules() if isinstance(m, nn.Linear)]
    rank = method.lora_rank
    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names)


def _ia3(model: Any, method: Method) -> IA3Config:
    """IA3 on keys, values and feed-forward activations (2205.05638, section 3.3)."""
    from peft import IA3Config

    names = [n for n, m in model.base_model.named_modules() if isinstance(m, nn.Linear)]
    behind = [name for name in names if FEED_FORWARD.search(name)]
    scaled = [name for name in names if KEYS_AND_VALUES.search(name)]
    if not behind or not scaled:
        raise UserError(
            f"finetune.method: ia3 does not know the layers of a {model.config.model_type}; "
            "'lora' works with any"
        )
    return IA3Config(target_modules=scaled + behind, feedforward_modules=behind)


ADAPTERS = {"lora": _lora, "ia3": _ia3}


def _inject(model: Any, method: Method) -> None:
    """Put adapters into the encoder; only they are trained."""
    from peft import inject_adapter_in_model

    inject_adapter_in_model(ADAPTERS[method.name](model, method), model.base_model)


def _replace(model: Any, old: nn.Parameter, value: Tensor) -> None:
    """Another parameter in all places of one, which stays as it is for other models."""
    new = nn.Parameter(value, requires_grad=False)
    for module in model.modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is old:
                module._parameters[name] = new
