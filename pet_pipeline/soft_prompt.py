"""Trainable prompts: vectors at the input, and in front of every layer, at an input's soft tokens.

Soft tokens have the ids -1, -2 and so on, so that whatever splices, pads or copies inputs carries
them along. Hooks on the word embeddings and on the layers put the vectors in, whatever the
architecture: the model sees an input of the same length, with its own positions and segments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Reparametrisation = Callable[[Tensor], Tensor]

PROMPT = "soft_prompt"  # the prompt's name among the parts of a model
MIDDLE = 512  # width of prefix tuning's MLP (2101.00190, appendix)
DROPOUT = 0.0  # of the LSTM; none, as nothing else of the prompt has any


class SoftPrompt(nn.Module):
    """The vectors of a prompt's soft tokens, and how they get into a model.

    tokens: (tokens, embedding size) at the input, or None
    layers: (layers, tokens, hidden size) in front of every layer, or None
    added: whether those are added to the states there; else they replace them
    """

    def __init__(self, tokens: Tensor | None, layers: Tensor | None = None, *, added: bool = False):
        super().__init__()
        self.tokens = None if tokens is None else nn.Parameter(tokens.clone())
        self.layers = None if layers is None else nn.Parameter(layers.clone())
        self.added = added
        self.encoder: nn.Module | None = None  # of the tokens, or of the layers
        self._hooks: list[Any] = []
        self._where: Tensor | None = None  # (rows, tokens) which are soft, of the last input
        self._numbers: Tensor | None = None  # (rows, tokens) their numbers, 0 elsewhere
        self._layers: Tensor | None = None  # the vectors of this forward pass
        self._calls = 0  # of shared layers, in this forward pass

    @property
    def count(self) -> int:
        """How many soft tokens it has."""
        vectors = self.layers if self.tokens is None else self.tokens
        return 0 if vectors is None else int(vectors.shape[-2])

    def attach(self, model: Any) -> None:
        """Put the vectors into all that a masked LM reads from here on."""
        model.add_module(PROMPT, self)  # trained, moved and checkpointed with the model
        embeddings = model.get_input_embeddings()
        self._hooks = [
            embeddings.register_forward_pre_hook(self._find),
            embeddings.register_forward_hook(self._at_input),
        ]
        if self.layers is not None:
            layers = encoder_layers(model)
            shared = len(layers) < model.config.num_hidden_layers
            self._hooks += [
                layer.register_forward_pre_hook(
                    self._in_front_of(None if shared else number), with_kwargs=True
                )
                for number, layer in enumerate(layers)
            ]

    def detach(self, model: Any) -> None:
        """Leave a model as it was."""
        del model._modules[PROMPT]
        for hook in self._hooks:
            hook.remove()
        self._hooks = []

    def fold(self) -> None:
        """Keep what the encoder makes of the vectors, and the encoder no longer."""
        if self.encoder is None:
            return
        with torch.no_grad():
            if self.layers is None:
                self.tokens = nn.Parameter(self.input_vectors().clone())
            else:
                self.layers = nn.Parameter(self.layer_vectors().clone())
        self.encoder = None

    def input_vectors(self) -> Tensor:
        """The vectors (tokens, embedding size) at the input."""
        assert self.tokens is not None
        if self.encoder is None or self.layers is not None:
            return self.tokens
        vectors: Tensor = self.encoder(self.tokens)
        return vectors

    def layer_vectors(self) -> Tensor:
        """The vectors (layers, tokens, hidden size) in front of every layer."""
        assert self.layers is not None
        if self.encoder is None:
            return self.layers
        vectors: Tensor = self.encoder(self.layers)
        return vectors

    def _find(self, _module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        ids = args[0]
        self._where = (ids < 0).unsqueeze(-1)
        self._numbers = (-1 - ids).clamp(min=0)
        self._calls = 0
        self._layers = None if self.layers is None else self.layer_vectors()
        return (ids.clamp(min=0), *args[1:])

    def _at_input(self, _module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        return output if self.tokens is None else self._put(self.input_vectors(), output)

    def _in_front_of(self, number: int | None) -> Callable[..., Any]:
        """A hook in front of the layer of a number; without one, of shared layers in turn."""

        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            assert self._layers is not None
            vectors = self._layers[self._calls if number is None else number]
            self._calls += 1
            if args:
                return (self._changed(vectors, args[0]), *args[1:]), kwargs
            changed = self._changed(vectors, kwargs["hidden_states"])
            return args, {**kwargs, "hidden_states": changed}

        return hook

    def _changed(self, vectors: Tensor, states: Tensor) -> Tensor:
        if not self.added:
            return self._put(vectors, states)
        return states + self._put(vectors, torch.zeros_like(states))

    def _put(self, vectors: Tensor, states: Tensor) -> Tensor:
        """States (rows, tokens, width) with the vectors (soft tokens, width) at the soft tokens."""
        assert self._where is not None
        assert self._numbers is not None
        if not len(vectors):
            return states
        return torch.where(self._where, vectors.to(states.dtype)[self._numbers], states)


class PromptEncoder(nn.Module):
    """P-tuning's encoder of a prompt: a bidirectional LSTM or nothing, then two linear layers.

    2103.10385, section 3.2: the tokens of a prompt depend on one another.
    """

    def __init__(self, width: int, kind: str):
        super().__init__()
        half = max(1, width // 2)
        self.lstm = (
            nn.LSTM(width, half, num_layers=2, bidirectional=True, dropout=DROPOUT)
            if kind == "lstm"
            else None
        )
        self.layers = nn.Sequential(
            nn.Linear(2 * half if self.lstm else width, width), nn.ReLU(), nn.Linear(width, width)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """Vectors (tokens, width) of trained ones (tokens, width)."""
        if not len(tokens):  # an LSTM reads at least one
            return tokens
        with torch.autocast(tokens.device.type, enabled=False):
            hidden = tokens if self.lstm is None else self.lstm(tokens)[0]
            vectors: Tensor = self.layers(hidden)
            return vectors


class PrefixEncoder(nn.Module):
    """Prefix tuning's reparametrisation (2101.00190, section 4.3): an MLP over a smaller table.

    Its output, 0 at first, is added to the states that the prompt starts at.
    """

    def __init__(self, n_layers: int, n_tokens: int, width: int):
        super().__init__()
        self.table = nn.Parameter(torch.randn(n_tokens, width) * 0.02)
        last = nn.Linear(MIDDLE, n_layers * width)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(nn.Linear(width, MIDDLE), nn.Tanh(), last)
        self.n_layers = n_layers

    def forward(self, start: Tensor) -> Tensor:
        """Vectors (layers, tokens, width); start: those without the MLP."""
        with torch.autocast(start.device.type, enabled=False):
            change: Tensor = self.layers(self.table)
            by_token = change.view(len(self.table), self.n_layers, start.shape[-1])
            return start + by_token.transpose(0, 1)


def encoder_layers(model: Any) -> list[nn.Module]:
    """The layers of a model's encoder, in order; fewer than it has if they are shared (ALBERT)."""
    lists = [m for m in model.base_model.modules() if isinstance(m, nn.ModuleList)]
    whole = [m for m in lists if len(m) == model.config.num_hidden_layers]
    return list((whole or lists)[0])


@torch.no_grad()
def layer_inputs(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """What comes into every layer (layers, rows, tokens, hidden size), for some inputs."""
    states: list[Tensor] = []

    def keep(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        states.append((args[0] if args else kwargs["hidden_states"]).float().clone())

    hooks = [
        layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in encoder_layers(model)
    ]
    try:
        model.base_model(**inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(states)
