"""The ways of tuning a masked language model: their names and what they need by default."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MethodDefaults:
    """The rate and the number of updates that a way of tuning needs.

    learning_rate: for a small model, and in proportion to the rate of `full` for others, but of a
    soft prompt for any; None: that of `full`, which follows the model's size
    """

    learning_rate: float | None = None
    steps: int = 60


METHODS = {
    "full": MethodDefaults(),
    "bitfit": MethodDefaults(1e-2),
    "layernorm": MethodDefaults(1e-2),
    "head": MethodDefaults(3e-3),
    "lora": MethodDefaults(3e-3),
    "ia3": MethodDefaults(3e-2),
    "prompt_tuning": MethodDefaults(3e-2, 200),
    "p_tuning": MethodDefaults(3e-3, 200),
    "p_tuning_v2": MethodDefaults(5e-2, 200),
    "prefix_tuning": MethodDefaults(3e-3, 200),
    "soft": MethodDefaults(3e-2, 200),
}
SOFT_METHODS = ("prompt_tuning", "p_tuning", "p_tuning_v2", "prefix_tuning", "soft")
