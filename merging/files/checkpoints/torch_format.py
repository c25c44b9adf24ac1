"""Where the tensors lie in the two kinds of checkpoint file: safetensors and PyTorch zip files.

Both are indexed by what they say about themselves, checked against what is there, before any
weight is read; then each tensor is read from its own place in the file, into memory of its own.
PyTorch's own reader is not used: the pickle in a PyTorch file is followed as data
(`pickle_guard`), so nothing of it can run, and a model can be read one tensor at a time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from merging.files.checkpoints.adam_state import AdamState, find_optimizer, read_adam
from merging.files.checkpoints.limits import (
    HOW_TO_SAVE,
    Limits,
    check_dims,
    check_dtype,
    check_names,
    first_few,
    refuse,
    short,
)
from merging.files.checkpoints.tensor_place import Index, Place
from merging.files.checkpoints.torch_pickle import View, not_read, read_records, span
from merging.files.checkpoints.torch_zip import read_pickle
from merging.files.pickle_values import Inert
from merging.files.zip_archive import Archive, ArchiveError
from merging.schema.errors import CheckpointError

_KEYS = (
    "state_dict", "model_state_dict", "model_state", "model", "params", "parameters", "weights",
    "net", "network", "module", "ema_state_dict", "state_dict_ema", "ema",
)  # fmt: skip
_DEEPEST = 3  # dicts around the weights
_LIGHTNING = "pytorch-lightning_version"
_SHARED = 16  # how many times over a small file may share its memory between tensors
_FREE = 64_000_000


def index_torch(archive: Archive, entry: str, size: int, name: str, limits: Limits) -> Index:
    """Find the tensors of a PyTorch zip file, from its entries and its pickle.

    Args:
        archive: The zip file.
        entry: The name of its pickle.
        size: Of the file, in bytes.
        name: What to call the file in messages.
        limits: The most it may hold.

    Returns:
        The tensors' places; and notes: `format`, and where they apply `found_under`, `ignored`,
        and `optimizer`, the key of an optimizer's state.

    Raises:
        CheckpointError: If the file is damaged, over the limits, or holds anything but tensors.
    """
    loaded = read_records(read_pickle(archive, entry, name), name)
    views, meta = _state_dict(loaded, name)
    if optimizer := find_optimizer(loaded):
        meta["optimizer"] = optimizer[0]
    check_names(views, name, limits)
    folder = entry.removesuffix("data.pkl") + "data/"
    places = {key: _place(archive, folder, key, views[key], name, limits) for key in views}
    _check_total(places, size, name, limits)
    return places, meta


def index_adam(
    archive: Archive, entry: str, size: int, name: str, limits: Limits
) -> tuple[dict[str, Place], AdamState]:
    """Find Adam's state in a PyTorch zip file, from its entries and its pickle.

    Args:
        archive: The zip file.
        entry: The name of its pickle.
        size: Of the file, in bytes.
        name: What to call the file in messages.
        limits: The most it may hold.

    Returns:
        The places of the tensors of Adam's state, and that state.

    Raises:
        CheckpointError: If there is no state of Adam, or the file is damaged or over the limits.
    """
    state = read_adam(read_records(read_pickle(archive, entry, name), name), name, limits)
    folder = entry.removesuffix("data.pkl") + "data/"
    views = state.views.items()
    places = {key: _place(archive, folder, key, view, name, limits) for key, view in views}
    _check_total(places, size, name, limits)
    return places, state


def _state_dict(loaded: object, name: str) -> tuple[dict[str, View], dict[str, str]]:
    lightning = isinstance(loaded, dict) and _LIGHTNING in loaded
    meta = {"format": "lightning" if lightning else "pytorch"}
    optimizer = find_optimizer(loaded)
    if optimizer is not None and not optimizer[0]:
        raise CheckpointError(
            f"{name}: this is the state of an optimizer, and holds no weights; bring the file of "
            "the model"
        )
    for _ in range(_DEEPEST):
        inner = _inside(loaded) or _elsewhere(loaded, name)
        if inner is None or not isinstance(loaded, dict):
            break
        meta["found_under"] = ".".join(filter(None, (meta.get("found_under"), inner)))
        if beside := [short(str(key)) for key in loaded if key != inner]:
            meta["ignored"] = first_few(beside)
        loaded = loaded[inner]
    if isinstance(loaded, Inert):
        raise not_read(loaded.name, name)
    if not isinstance(loaded, dict):
        raise CheckpointError(
            f"{name}: holds {_kind(loaded)}, not a dict of tensors; {HOW_TO_SAVE}"
        )
    for key, value in loaded.items():
        if not isinstance(key, str):
            raise CheckpointError(
                f"{name}: a name is {type(key).__name__}, not text; {HOW_TO_SAVE}"
            )
        if not isinstance(value, View):
            refuse(name, key, f"is {_kind(value)}, not a tensor; leave it out")
    return loaded, meta


def _kind(value: object) -> str:
    if isinstance(value, Inert):
        return short(value.name)
    return "Tensor" if isinstance(value, View) else type(value).__name__


def _inside(loaded: object) -> str | None:
    if not isinstance(loaded, dict):
        return None
    dicts = [key for key in _KEYS if isinstance(loaded.get(key), dict)]
    with_tensors = [k for k in dicts if any(isinstance(v, View) for v in loaded[k].values())]
    return next(iter(with_tensors + dicts), None)


def _elsewhere(loaded: object, name: str) -> str | None:
    """Return the one key, of any name, under which there are weights; none where they lie here.

    Raises:
        CheckpointError: If there are several; they are listed.
    """
    if not isinstance(loaded, dict) or any(isinstance(v, View) for v in loaded.values()):
        return None
    keys = [k for k, v in loaded.items() if isinstance(k, str) and _has_weights(v, _DEEPEST)]
    if len(keys) > 1:
        raise CheckpointError(
            f"{name}: holds weights under {first_few([short(key) for key in keys])}, and which "
            "count cannot be known; save one alone, with "
            f"torch.save(checkpoint[{short(keys[0])}], path)"
        )
    return keys[0] if keys else None


def _has_weights(value: object, deep: int) -> bool:
    if not isinstance(value, dict) or not deep or "param_groups" in value:
        return False
    if any(isinstance(v, View) for v in value.values()):
        return True
    return any(_has_weights(value.get(key), deep - 1) for key in _KEYS)


def _place(archive: Archive, folder: str, key: str, view: View, name: str, limits: Limits) -> Place:
    check_dtype(key, view.storage.dtype, name)
    check_dims(key, len(view.shape), name, limits)
    record, width = folder + view.storage.key, view.storage.dtype.itemsize
    if record not in archive.entries:
        refuse(name, key, f"has no values in the file ({short(record)} is missing); save it again")
    there = min(view.storage.numel * width, archive.size(record))
    claimed = math.prod(view.shape) * width
    reach = (view.offset + span(view)) * width
    if claimed > there or view.storage.numel * width > archive.size(record) or (
        claimed and reach > there
    ):  # fmt: skip
        refuse(
            name,
            key,
            f"claims {max(claimed, reach):,} bytes, but at most {there:,} are stored (an expanded "
            "view?); save its clone()",
        )
    try:
        start = archive.place(record) + view.offset * width
    except ArchiveError as error:
        raise CheckpointError(f"{name}: {error}; copy or download it again") from error
    return Place(
        dtype=view.storage.dtype,
        shape=view.shape,
        stride=view.stride,
        start=start,
        length=span(view) * width,
    )


def _check_total(places: Mapping[str, Place], size: int, name: str, limits: Limits) -> None:
    total = sum(max(place.nbytes, place.length) for place in places.values())
    limit = min(limits.max_bytes, _SHARED * size + _FREE)
    if total > limit:
        raise CheckpointError(
            f"{name}: its tensors take {total:,} bytes, more than the limit of {limit:,} for a "
            f"file of {size:,} bytes; choose a smaller model, or save each tensor's clone()"
        )
