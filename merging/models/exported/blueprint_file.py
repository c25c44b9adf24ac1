"""An exported model's blueprint as a file of the store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from merging.files.checkpoints.lazy_params import Params
from merging.models.exported.blueprint import ExportedModel
from merging.models.network import Network


def blueprint_bytes(text: str, constants: Params, weights: Mapping[str, Tensor]) -> bytes:
    """Return a file of an architecture alone: graph, constants, and the shapes of its weights."""
    shapes = {
        key: [list(value.shape), str(value.dtype).removeprefix("torch.")]
        for key, value in weights.items()
    }
    return save(dict(constants), {"blueprint": text, "shapes": json.dumps(shapes)})


def _from_blueprint(path: Path) -> Network:
    with safe_open(path, framework="pt") as file:
        notes = file.metadata()
        constants = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    shapes = json.loads(notes["shapes"])
    weights = {
        key: torch.zeros(shape, dtype=getattr(torch, dtype))
        for key, (shape, dtype) in shapes.items()
    }
    model = ExportedModel(notes["blueprint"], weights, constants, "the exported model")
    return Network(model.eval(), model.example_inputs, "an exported model")
