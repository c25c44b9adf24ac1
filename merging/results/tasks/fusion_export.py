"""Fused models as files: weights alone, or with a model card and the recipe."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

from merging.files.checkpoints.lazy_params import Params
from merging.files.checkpoints.write import checkpoint_bytes
from merging.fusion.model_card import write_card
from merging.models.dtypes import form_notes, in_form
from merging.results import requests
from merging.results.compute.run_piece import Context
from merging.results.requests.alignment import Download
from merging.results.tasks.load_family import load_members
from merging.results.tasks.merged_model import merge
from merging.results.tasks.task import Part


def write_fused(request: requests.FusionExportRequest, part: Part, context: Context) -> Download:
    """Write what was merged in the form of the first model's file."""
    fusion = request.fusion
    members = load_members(fusion.family, context.store)
    merged = merge(fusion, members, context)
    heads = merged.made.heads
    recipe = requests.canonical(fusion.payload)
    meta = {"made_by": "One Basin", "what": "merged", "recipe": recipe}
    stem = f"merged-{fusion.rule}-{request.key[:8]}"
    prefix = request.prefix if request.what == "folder" or merged.is_one else ""
    written = [in_form(head, members.dtypes, prefix) for head in heads]
    if request.what == "weights":
        name, data = f"{stem}.safetensors", checkpoint_bytes(_together(written), meta)
    else:
        card = write_card(_about(fusion), merged.made.notes)
        weights = [checkpoint_bytes(params, meta) for params in written]
        name, data = f"{stem}.zip", _zipped(weights, {"README.md": card, "recipe.json": recipe})
    notes = [*_counted(heads, request.what), *form_notes(members.dtypes, prefix)]
    return Download(name, data, tuple(notes))


def _together(heads: Sequence[Params]) -> Params:
    """Return one model; or several with the names that `fusion.multi_head` gives them."""
    if len(heads) == 1:
        return heads[0]
    return {f"heads.{k}.{name}": v for k, head in enumerate(heads) for name, v in head.items()}


def _counted(heads: Sequence[Params], what: str) -> list[str]:
    """Return what the file holds."""
    numbers = sum(value.numel() for value in heads[0].values())
    notes = [f"{len(heads[0])} tensors, {numbers:,} numbers."]
    if len(heads) > 1:
        where = "in a file of its own" if what == "folder" else "as `fusion.multi_head` names them"
        notes.append(f"So many of each of {len(heads)} models with a common trunk, {where}.")
    return notes


def _about(fusion: requests.FusionRequest) -> dict[str, Any]:
    """Return what the model card says of how it was made."""
    return {
        "rule": fusion.rule,
        "models": fusion.family.models,
        "base": fusion.family.base,
        "weights": fusion.weights,
        "options": json.loads(fusion.options),
        "order": "as they are" if fusion.order is None else fusion.order.kind,
        "statistics": fusion.statistics,
        "seed": fusion.seed,
        "curvature": "" if fusion.moments is None else "optimizer",
        "moment_scale": None if fusion.moments is None else fusion.moments.scale,
    }


def _zipped(weights: Sequence[bytes], texts: Mapping[str, str]) -> bytes:
    """Return a zip file of one model, or of several heads, beside some texts."""
    names = [f"head-{k + 1}" for k in range(len(weights))] if len(weights) > 1 else ["model"]
    models = zip(names, weights, strict=True)
    parts = {f"{name}.safetensors": data for name, data in models}
    parts |= {name: text.encode() for name, text in texts.items()}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in parts.items():
            # Without a time of its own, so that the same model makes the same file.
            archive.writestr(zipfile.ZipInfo(name), data)
    return file.getvalue()
