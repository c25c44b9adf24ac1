"""Adam's second moment in a training checkpoint, as a curvature with the model's names.

Adam keeps a running mean of squared gradients of every parameter, by number. The numbers are
those of the order in which the optimizer was given the parameters, which is the model's order in
most programs; groups (with and without weight decay, say) keep it inside of each. Here names and
numbers are matched by that order and by shapes. Where more than one matching would do, none is
taken: a wrong one would be seen in no shape and no error, only in bad merges.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

import torch
from torch import Tensor, nn

from merging.files.checkpoints.adam_state import AdamEntry, AdamGroup, checked_step
from merging.files.checkpoints.lazy_params import LazyParams, Params
from merging.files.checkpoints.limits import DEFAULT_LIMITS, Limits, first_few, short
from merging.files.checkpoints.open import OpenCheckpoint, open_adam, open_checkpoint
from merging.files.checkpoints.tensor_spec import TensorSpec
from merging.schema.errors import CheckpointError
from merging.schema.running_statistics import is_running_statistic

Shape = tuple[int, ...]
Order = Mapping[str, Shape]

_WHAT_TO_DO = (
    "make the optimizer from model.named_parameters(), whose names PyTorch keeps, or compute "
    "curvature from examples"
)


class OpenSecondMoment(LazyParams):
    """Second moments that are read, and corrected, when they are asked for; a curvature.

    Made by `open_second_moment`. Close it, or use it in a `with` statement.

    Attributes:
        specs: Name → shape and dtype of each tensor.
    """

    def __init__(
        self, name: str, file: OpenCheckpoint, entries: Mapping[str, tuple[AdamEntry, float]]
    ) -> None:
        self.specs = {key: TensorSpec(e.shape, torch.float32) for key, (e, _) in entries.items()}
        self._name, self._file, self._entries = name, file, dict(entries)
        super().__init__(self._entries, self._read)

    def _read(self, name: str) -> Tensor:
        return self._corrected(self._file[self._entries[name][0].key], name)

    def blocks(self, name: str, entries: int) -> Iterator[Tensor]:
        """Read and correct one tensor in blocks.

        Args:
            name: One of `specs`.
            entries: How many entries a block has; the last has what is left.

        Yields:
            Blocks `[n]` in the order of the entries.

        Raises:
            CheckpointError: If an entry is negative or not finite, or the file cannot be read.
        """
        for block in self._file.blocks(self._entries[name][0].key, entries):
            yield self._corrected(block, name)

    def _corrected(self, square: Tensor, name: str) -> Tensor:
        entry, beta2 = self._entries[name]
        step = entry.step
        if isinstance(step, str):
            step = checked_step(float(self._file[step].reshape(())), entry.key, self._name)
        mean = square.float() / (1 - beta2**step)
        if not bool((mean >= 0).all()) or bool(mean.isinf().any()):
            raise CheckpointError(
                f"{self._name}: Adam's second moment of {short(name)} has entries that are "
                "negative or not finite; the training probably diverged, choose an earlier "
                "checkpoint"
            )
        return mean

    def close(self) -> None:
        """Close the file; tensors that were read stay."""
        self._file.close()

    def __enter__(self) -> OpenSecondMoment:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def adam_second_moment(
    path: str | os.PathLike[str],
    *,
    model: nn.Module | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Params:
    """Read Adam's second moment from a training checkpoint, to use as a diagonal curvature.

    It is the running mean of squared gradients, divided by `1 - beta2 ** step` (Kingma and Ba
    2015, §3). These are gradients of *means over minibatches*. Near a minimum, where the mean
    gradient is small, their square is that of single examples divided by the size of the batch: so
    the curvature on the scale of the sum, which fusing needs, is this times *examples in the
    training set × examples in a batch* (`on_sum_scale(moment, examples * batch)`). Factors that all
    models share cancel out of Fisher averaging, and out of gradient matching but for δ. It is no
    `diagonal_fisher`: labels are the data's, and dropout, augmentation, clipped gradients and
    Adam's own weight decay (not AdamW's) are in it. AMSGrad's maximum is not used.

    Args:
        path: A file of `torch.save` or Lightning that holds the weights and the optimizer's
            `state_dict()`; with `model`, a file with that alone will do.
        model: The architecture, which says the order of the parameters. Without it, the order of
            the weights in the file does, where that leaves no doubt.
        limits: The most that the file may hold.

    Returns:
        float32 tensors, by the names of the state dict; tied ones under all of their names.
        Parameters that were frozen, or never had a gradient, are not there, and neither are
        buffers.

    Raises:
        CheckpointError: If the file cannot be read or holds no state of Adam, or numbers and names
            cannot be matched for certain.

    Example:
        >>> import tempfile
        >>> layer = nn.Linear(2, 1)
        >>> optimizer = torch.optim.Adam(layer.parameters())
        >>> layer(torch.tensor([[1.0, 2.0]])).sum().backward()
        >>> optimizer.step()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     whole = {"model": layer.state_dict(), "optimizer": optimizer.state_dict()}
        ...     torch.save(whole, f"{folder}/epoch-1.pt")
        ...     adam_second_moment(f"{folder}/epoch-1.pt")["weight"]
        tensor([[1., 4.]])
    """
    with open_second_moment(path, model=model, limits=limits) as moment:
        return dict(moment)


def open_second_moment(
    source: str | os.PathLike[str] | bytes,
    name: str | None = None,
    *,
    model: nn.Module | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> OpenSecondMoment:
    """Open Adam's second moment to read it one tensor at a time, as `adam_second_moment` does.

    Args:
        source: A file on this machine, or a whole file as bytes.
        name: What to call it in messages; the path's last part unless given.
        model: The architecture.
        limits: The most that the file may hold.

    Returns:
        The open second moment.

    Raises:
        CheckpointError: If the file cannot be read or holds no state of Adam, or numbers and names
            cannot be matched for certain.
    """
    file, state = open_adam(source, name, limits=limits)
    called = file.name
    try:
        if model is not None:
            first = _first_of_model(model)
            order = {key: tuple(p.shape) for key, p in model.named_parameters()}
        elif not state.found_under:
            raise CheckpointError(
                f"{called}: holds an optimizer's state and no model; give the architecture "
                "(`model`), or a checkpoint with both"
            )
        else:
            first, order = _order_in_file(source, name, limits)
        found = _matched(state.groups, order, called)
        entries = {key: found[own] for key, own in first.items() if own in found}
        return OpenSecondMoment(called, file, entries)
    except BaseException:
        file.close()
        raise


def _first_of_model(model: nn.Module) -> dict[str, str]:
    first: dict[int, str] = {}
    named = model.named_parameters(remove_duplicate=False)
    return {key: first.setdefault(id(value), key) for key, value in named}


def _order_in_file(
    source: str | os.PathLike[str] | bytes, name: str | None, limits: Limits
) -> tuple[dict[str, str], dict[str, Shape]]:
    """Return the names that may be parameters, of tied ones the first, and the shapes."""
    with open_checkpoint(source, name, limits=limits) as weights:
        first = {
            key: own
            for key, own in weights.first_names().items()
            if weights.specs[key].dtype.is_floating_point and not is_running_statistic(key)
        }
        order = {own: weights.specs[own].shape for own in first.values()}
        return first, order


def _matched(
    groups: Sequence[AdamGroup], order: Order, name: str
) -> dict[str, tuple[AdamEntry, float]]:
    """Return which parameter every entry belongs to."""
    used = [group for group in groups if group.entries]
    if any(group.names for group in used):
        return _by_name(used, order, name)
    _check_shapes_apart(used, name)
    found: dict[str, tuple[AdamEntry, float]] = {}
    for k, group in enumerate(used):
        # Where nothing is remembered, the shape is not known: with several groups, neither is
        # whose turn it is.
        entries = group.entries if len(used) == 1 else tuple(e for e in group.entries if e)
        for key, entry in _by_order(entries, order, k, name).items():
            found[key] = (entry, group.beta2)
    return found


def _by_name(
    groups: Sequence[AdamGroup], order: Order, name: str
) -> dict[str, tuple[AdamEntry, float]]:
    given = [key for group in groups for key in group.names or [""] * len(group.entries)]
    wrapped = _prefix(given, order)
    own = [key.removeprefix(wrapped) for key in given]
    entries = [(entry, group.beta2) for group in groups for entry in group.entries]
    found: dict[str, tuple[AdamEntry, float]] = {}
    for key, (entry, beta2) in zip(own, entries, strict=True):
        if entry is None:
            continue
        if order.get(key) != entry.shape or key in found:
            there = f"with shape {list(order[key])}" if key in order else "not"
            raise CheckpointError(
                f"{name}: the optimizer names a parameter {short(key)} of shape "
                f"{list(entry.shape)}, which the model has {there}, or it names it twice; compute "
                "curvature from examples"
            )
        found[key] = (entry, beta2)
    return found


def _prefix(names: Sequence[str], order: Order) -> str:
    """Return what a wrapper put before all names."""
    parts = names[0].split(".")
    candidates = ["".join(f"{part}." for part in parts[:k]) for k in range(len(parts))]
    fits = (p for p in candidates if all(n.startswith(p) and n[len(p) :] in order for n in names))
    return next(fits, "")


def _check_shapes_apart(groups: Sequence[AdamGroup], name: str) -> None:
    """Make sure that no two groups have parameters of one shape: how they mix is not known.

    Raises:
        CheckpointError: If two have.
    """
    seen: dict[Shape, int] = {}
    for k, group in enumerate(groups):
        for shape in {entry.shape for entry in group.entries if entry is not None}:
            if shape in seen:
                _refuse(
                    name,
                    f"two of its groups have parameters of shape {list(shape)}, and how they "
                    "alternate is not known",
                )
            seen[shape] = k


def _by_order(
    entries: Sequence[AdamEntry | None], order: Order, group: int, name: str
) -> dict[str, AdamEntry]:
    """Match entries with parameters in the same order, if that can be done in one way only."""
    names, shapes = list(order), list(order.values())
    wanted = [None if entry is None else entry.shape for entry in entries]
    first = _first_places(wanted, shapes)
    if len(first) < len(wanted):
        stuck = wanted[len(first)]
        what = "one of which nothing is remembered" if stuck is None else f"of shape {list(stuck)}"
        _refuse(
            name,
            f"its group {group + 1} has {len(wanted)} parameters, the model has {len(shapes)} "
            f"({first_few([f'{n} {list(s)}' for n, s in order.items()])}), and the "
            f"optimizer's number {len(first) + 1}, {what}, does not follow in that order",
        )
    backwards = _first_places(wanted[::-1], shapes[::-1])
    last = [len(shapes) - 1 - place for place in reversed(backwards)]
    for entry, one, other in zip(entries, first, last, strict=True):
        if entry is not None and one != other:
            _refuse(
                name,
                f"a parameter of shape {list(entry.shape)} could be {short(names[one])} or "
                f"{short(names[other])}: the optimizer has {len(wanted)} in this group, and the "
                f"model {len(shapes)}",
            )
    return {names[k]: entry for k, entry in zip(first, entries, strict=True) if entry is not None}


def _first_places(wanted: Sequence[Shape | None], shapes: Sequence[Shape]) -> list[int]:
    """Return the first places where shapes follow one another in order; fewer if they do not."""
    places: list[int] = []
    waiting = iter(enumerate(shapes))
    for shape in wanted:
        place = next((k for k, there in waiting if shape is None or there == shape), None)
        if place is None:
            break
        places.append(place)
    return places


def _refuse(name: str, why: str) -> NoReturn:
    raise CheckpointError(
        f"{name}: the order of the optimizer's parameters cannot be matched with the model's: "
        f"{why}; {_WHAT_TO_DO}"
    )
