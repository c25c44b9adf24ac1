"""Files in, a file out: fusing streams block by block, so the models need not fit in memory."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from merging.files.checkpoints.by_name import is_torch_name, write_torch
from merging.files.checkpoints.read import (
    OpenCheckpoint,
    TensorSpec,
    open_checkpoint,
    stream_checkpoint,
)
from merging.files.checkpoints.second_moment import open_second_moment
from merging.fusion.blocks import block_by_block
from merging.fusion.curvature.adam_moments import Curvatures, curvatures_from_moments
from merging.fusion.fuse import start
from merging.fusion.model_card import write_card
from merging.fusion.problem import FusionProblem
from merging.fusion.rule import Buffers
from merging.fusion.tensor_by_tensor import Walk
from merging.schema.cards.fusion.curvature import MOMENT_SCALE
from merging.schema.cards.fusion.table import find_card, read_rule_options
from merging.schema.errors import MergingError, StoreError
from merging.schema.progress import Progress

FilePath = str | os.PathLike[str]
SHARD_BYTES = 5_000_000_000


@dataclass(frozen=True)
class FusedFiles:
    """What was written.

    Attributes:
        files: The files of weights, in order.
        card: The model card, as `README.md` has it.
        recipe: How the model came to be; also in the files' metadata, as JSON.
        notes: What the rule found out on the way.
    """

    files: tuple[Path, ...]
    card: str
    recipe: Mapping[str, Any]
    notes: Mapping[str, Any]


def fuse_files(
    rule: str,
    paths: Sequence[FilePath],
    out: FilePath,
    *,
    base: FilePath | None = None,
    weights: Sequence[float] | None = None,
    fishers: Sequence[FilePath] | Literal["optimizer"] | None = None,
    base_fisher: FilePath | None = None,
    moment_scale: float = MOMENT_SCALE,
    sizes: Sequence[float] | None = None,
    options: Mapping[str, Any] | None = None,
    buffers: Buffers = "mean",
    dtype: torch.dtype | None = None,
    shard_bytes: int = SHARD_BYTES,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> FusedFiles:
    """Fuse checkpoints on disk, one tensor at a time.

    Memory holds a megabyte of every model and little more; TIES holds one tensor, in float32. What
    is written is there whole or not at all, also when it is stopped or the power fails; its names
    are those of the first model's file. Rules that need examples or Gram matrices need the models
    in memory: `fuse`.

    Args:
        rule: A name in `RULES`.
        paths: Files and folders, as `open_checkpoint` takes them; of a run, in order.
        out: A new `.safetensors` file; a new PyTorch file (`.pt`, `.pth`, `.bin`), for which the
            result has to fit in memory, and which has no metadata; or a new folder, which gets the
            weights, a model card, and the first model's `config.json` if it has one.
        base: What the models were fine-tuned from.
        weights: One number per model.
        fishers: Files with the curvature of every model, on the scale of the sum; or
            `"optimizer"` for Adam's second moments in the models' files, and in the base's where
            the rule needs it (`adam_second_moment`).
        base_fisher: The base's curvature.
        moment_scale: What second moments are multiplied by: training examples times examples in a
            batch.
        sizes: How many examples each model was trained on.
        options: Options of the rule, by name.
        buffers: What becomes of running statistics, as in `fuse`.
        dtype: The type of floating tensors in `out`; the first model's unless given.
        shard_bytes: Bytes of weights in one file of a folder, at most (but one tensor at the
            least). Where the first model is in shards, there are about as many.
        seed: For rules that draw at random.
        on_progress: Called with `(done, total, note)`, after every tensor at the least; may raise
            `StoppedError`.

    Returns:
        What was written.

    Raises:
        UnknownNameError: If there is no such rule, option or policy.
        CheckpointError: If a file cannot be read.
        MergingError: If models do not fit, the rule lacks what it needs, or `out` is there.
        StoreError: If the disk refuses.
        StoppedError: If `on_progress` raises it.

    Example:
        >>> import tempfile
        >>> from merging import read_checkpoint, write_checkpoint
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for k in (1, 2):
        ...         write_checkpoint(f"{folder}/{k}.safetensors", {"w": torch.tensor([float(k)])})
        ...     parts = [f"{folder}/1.safetensors", f"{folder}/2.safetensors"]
        ...     done = fuse_files("average", parts, f"{folder}/mean.safetensors")
        ...     read_checkpoint(done.files[0])[0]
        {'w': tensor([1.5000])}
    """
    target = Path(out)
    is_torch_name(target)  # a name that promises another kind of file is refused
    if target.exists():
        raise MergingError(f"{target.name}: this is there already; choose another file or folder")
    if shard_bytes < 1:
        raise MergingError(f"the bytes of a shard must be positive, not {shard_bytes}")
    with block_by_block(), ExitStack() as files:
        models = [files.enter_context(open_checkpoint(path)) for path in paths]
        if fishers == "optimizer":
            ends = [base] if base is not None and find_card(rule).needs_base_fisher else []
            found = _from_optimizers([*paths, *ends], models, moment_scale, files)
        else:
            opened = [files.enter_context(open_checkpoint(path)) for path in fishers or ()]
            found = Curvatures(opened if fishers is not None else None, _opened(base_fisher, files))
        given = FusionProblem(
            models=models,
            base=_opened(base, files),
            fishers=found.fishers,
            base_fisher=found.base_fisher,
            sizes=sizes,
            seed=seed,
        )
        walk = start(
            rule, given, weights=weights, options=options, buffers=buffers, on_progress=on_progress
        )
        recipe = {
            "rule": rule,
            "models": [Path(path).name for path in paths],
            "base": Path(base).name if base is not None else None,
            "weights": list(weights) if weights is not None else None,
            "sizes": list(sizes) if sizes is not None else None,
            "options": asdict(read_rule_options(find_card(rule), options)),
            "curvature": "optimizer" if fishers == "optimizer" else None,
            "moment_scale": moment_scale if fishers == "optimizer" else None,
            "buffers": buffers,
            "dtype": str(dtype).removeprefix("torch.") if dtype is not None else None,
            "seed": seed,
        }
        return _written(walk, models[0], target, recipe, dtype, shard_bytes)


def _opened(path: FilePath | None, files: ExitStack) -> OpenCheckpoint | None:
    return None if path is None else files.enter_context(open_checkpoint(path))


def _from_optimizers(
    paths: Sequence[FilePath], models: Sequence[OpenCheckpoint], scale: float, files: ExitStack
) -> Curvatures:
    """Return curvatures from Adam's second moments: the models', then the base's if asked."""
    moments = [files.enter_context(open_second_moment(path)) for path in paths]
    base = moments[len(models)] if len(moments) > len(models) else None
    return curvatures_from_moments(moments[: len(models)], models[0], base=base, scale=scale)


def _written(
    walk: Walk,
    first: OpenCheckpoint,
    target: Path,
    recipe: Mapping[str, Any],
    dtype: torch.dtype | None,
    shard_bytes: int,
) -> FusedFiles:
    def type_of(name: str) -> torch.dtype:
        own = first.specs[name].dtype
        return dtype if dtype is not None and own.is_floating_point else own

    def tensor(written: str) -> Iterator[Tensor]:
        name = written.removeprefix(prefix)
        return (block.to(type_of(name)) for block in walk.blocks(name))

    # Whatever wraps the model looks for the names that its own file had.
    prefix = first.meta.get("stripped_prefix", "")
    specs = {prefix + name: TensorSpec(first.specs[name].shape, type_of(name)) for name in first}
    meta = {"format": "pt", "recipe": json.dumps(recipe)}
    if target.suffix == ".safetensors" or is_torch_name(target):
        if is_torch_name(target):
            own = {prefix + name: name for name in first}
            write_torch(target, {k: walk.tensor(n).to(type_of(n)) for k, n in own.items()})
        else:
            stream_checkpoint(target, specs, tensor, meta)
        return FusedFiles(
            files=(target,), card=write_card(recipe, walk.notes), recipe=recipe, notes=walk.notes
        )
    total = sum(spec.nbytes for spec in specs.values())
    shards = _shards(specs, total, int(first.meta.get("shards", 1)), shard_bytes)
    draft = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        draft.mkdir()
        for file, names in shards.items():
            stream_checkpoint(draft / file, {n: specs[n] for n in names}, tensor, meta)
        card = write_card(recipe, walk.notes)
        _write_rest(draft, shards, total, card, first.meta.get("config"))
        draft.rename(target)
    except OSError as error:
        raise StoreError(
            f"{target.name}: the model cannot be written ({error}); check that its folder exists, "
            "that it may be written to, and that the disk has room"
        ) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return FusedFiles(
        files=tuple(target / file for file in shards), card=card, recipe=recipe, notes=walk.notes
    )


def _shards(
    specs: Mapping[str, TensorSpec], total: int, parts: int, most: int
) -> dict[str, list[str]]:
    """Map files to the names of their tensors, in order: so many parts, or more for large ones."""
    groups: list[list[str]] = [[]]
    part = held = at = 0
    for name, spec in specs.items():
        due = at * parts // max(1, total)
        if groups[-1] and (due > part or held + spec.nbytes > most):
            groups.append([])
            held = 0
        groups[-1].append(name)
        part, held, at = due, held + spec.nbytes, at + spec.nbytes
    if len(groups) == 1:
        return {"model.safetensors": groups[0]}
    return {
        f"model-{k:05}-of-{len(groups):05}.safetensors": names
        for k, names in enumerate(groups, start=1)
    }


def _write_rest(
    folder: Path, shards: Mapping[str, list[str]], total: int, card: str, config: str | None
) -> None:
    (folder / "README.md").write_text(card, "utf-8")
    if config:
        (folder / "config.json").write_text(config, "utf-8")
    if len(shards) > 1:
        homes = {name: file for file, names in shards.items() for name in names}
        index = {"metadata": {"total_size": total}, "weight_map": homes}
        text = json.dumps(index, indent=1, sort_keys=True)
        (folder / "model.safetensors.index.json").write_text(text, "utf-8")
