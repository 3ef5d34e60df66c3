"""The file of a part of a model that was trained: its tensors, and what kind of part it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from pet_pipeline.errors import UserError


def read_part(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a trained part, by name, and what kind of part it is."""
    try:
        with safe_open(file, "pt") as stored:
            names, about = stored.keys(), json.loads(stored.metadata()["part"])
            if missing := {"method", "lora_rank", "added", "model_rate"} - {*about}:
                raise ValueError(f"it does not say {sorted(missing)[0]}")
            return {name: stored.get_tensor(name) for name in names}, about
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file}: not a trained part of a PVP: {error}") from None
