"""Adam's state in a training checkpoint, as the file describes it: nothing is in memory.

`optimizer.state_dict()` numbers the parameters: `state[i]` is what is remembered of parameter `i`,
and the groups list the numbers in the order in which the optimizer was given the parameters. Which
parameter has which number is not said; `second_moment` finds that out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from merging.files.checkpoints.limits import Limits, first_few, short
from merging.files.checkpoints.torch_pickle import View
from merging.schema.errors import CheckpointError

SQUARES = "exp_avg_sq"
_KEYS = (
    "optimizer_state_dict", "optimizer_state", "optimizer", "optimizer_states", "optim", "opt",
)  # fmt: skip
_HOW = "save {'model': model.state_dict(), 'optimizer': optimizer.state_dict()} while training"


@dataclass(frozen=True)
class AdamEntry:
    """Adam's state of one parameter.

    Attributes:
        key: Name of the mean of squared gradients among the views.
        shape: Of the parameter.
        step: Steps that were taken, or the name of the view that holds them.
    """

    key: str
    shape: tuple[int, ...]
    step: float | str


@dataclass(frozen=True)
class AdamGroup:
    """Parameters that were given to Adam together.

    Attributes:
        beta2: What is kept of the mean of squared gradients at every step.
        entries: In the order in which they were given; None where nothing is remembered, since the
            parameter was frozen or never had a gradient.
        names: The parameters' names, if the optimizer was told them.
    """

    beta2: float
    entries: tuple[AdamEntry | None, ...]
    names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class AdamState:
    """Adam's state in a file.

    Attributes:
        found_under: The key that it is under; empty if it is the whole file.
        views: Its tensors, by the names that the entries have for them.
        groups: The groups, in order.
    """

    found_under: str
    views: Mapping[str, View]
    groups: tuple[AdamGroup, ...]


def find_optimizer(loaded: object) -> tuple[str, Mapping[Any, Any]] | None:
    """Look for the state of an optimizer beside the weights.

    Args:
        loaded: What a pickle describes.

    Returns:
        The key that it is under (empty if it is the whole file), and the state; None without one.

    Example:
        >>> find_optimizer({"model": {}, "optimizer": {"state": {}, "param_groups": []}})[0]
        'optimizer'
    """
    if not isinstance(loaded, dict):
        return None
    for key in ("", *_KEYS):
        value: object = loaded.get(key) if key else loaded
        if isinstance(value, list) and len(value) == 1:  # as Lightning keeps them
            value = value[0]
        if isinstance(value, dict) and "state" in value and "param_groups" in value:
            return key, value
    return None


def read_adam(loaded: object, name: str, limits: Limits) -> AdamState:
    """Find Adam's second moments in what a pickle describes.

    Args:
        loaded: What the pickle describes.
        name: What to call the file in messages.
        limits: The most that the file may hold.

    Returns:
        Adam's state.

    Raises:
        CheckpointError: If there is no optimizer, it is not Adam, or its state is not as PyTorch
            writes it.
    """
    found = find_optimizer(loaded)
    if found is None:
        _refuse_without(loaded, name)
    key, optimizer = found
    state, groups = optimizer["state"], optimizer["param_groups"]
    if not isinstance(state, dict) or not isinstance(groups, list):
        _damaged(name, "its state is not a dict, or its groups are not a list")
    _check_numbers(state, groups, name, limits)
    views: dict[str, View] = {}
    read = tuple(_group(group, state, views, name) for group in groups)
    if not views:
        raise CheckpointError(
            f"{name}: Adam's state is empty; save the checkpoint after a training step"
        )
    return AdamState(key, views, read)


def _refuse_without(loaded: object, name: str) -> NoReturn:
    several = isinstance(loaded, dict) and any(
        isinstance(loaded.get(key), list) and len(loaded[key]) > 1 for key in _KEYS
    )
    if several:
        raise CheckpointError(
            f"{name}: holds several optimizers, and which one counts cannot be known; compute "
            "curvature from examples"
        )
    raise CheckpointError(f"{name}: holds no state of an optimizer; {_HOW}")


def _check_numbers(
    state: Mapping[Any, Any], groups: Sequence[Any], name: str, limits: Limits
) -> None:
    """Make sure that the groups list every number once, and all that the state has.

    Raises:
        CheckpointError: If they do not.
    """
    listed: list[object] = []
    for group in groups:
        numbers = group.get("params") if isinstance(group, dict) else None
        if not isinstance(numbers, list):
            _damaged(name, "a group does not list its parameters")
        listed += numbers
        if len(listed) > limits.max_tensors:
            _damaged(name, f"it lists more than {limits.max_tensors:,} parameters")
    if not all(_is_number(number, limits) for number in listed):
        _damaged(name, "a parameter's number is not a whole number from 0 on, or much too large")
    known = set(listed)
    if len(known) < len(listed):
        _damaged(name, "a parameter is listed twice")
    if strangers := [repr(key)[:40] for key in state if key not in known]:
        _damaged(name, f"no group lists {first_few(strangers)}, of which it has a state")


def _is_number(number: object, limits: Limits) -> bool:
    # Sharded training writes names in place of numbers.
    if isinstance(number, str):
        return 0 < len(number) <= limits.max_name
    return type(number) is int and 0 <= number < limits.max_tensors


def _group(
    group: Mapping[Any, Any], state: Mapping[Any, Any], views: dict[str, View], name: str
) -> AdamGroup:
    numbers = group["params"]
    entries = tuple(_entry(number, state.get(number), views, name) for number in numbers)
    names = group.get("param_names", numbers)
    if not isinstance(names, list) or len(names) != len(numbers):
        _damaged(name, "a group does not name each of its parameters")
    whole = all(isinstance(given, str) for given in names)
    beta2 = _beta2(group.get("betas"), name) if any(entries) else 0.0
    return AdamGroup(beta2, entries, tuple(names) if whole and names else None)


def _beta2(betas: object, name: str) -> float:
    match betas:
        case (_, float() | int() as beta2) | [_, float() | int() as beta2] if 0 <= beta2 < 1:
            return float(beta2)
    _damaged(name, "a group of Adam's has no second beta from 0 to below 1")


def _entry(
    number: int | str, remembered: object, views: dict[str, View], name: str
) -> AdamEntry | None:
    if remembered is None or remembered == {}:
        return None
    if not isinstance(remembered, dict):
        _damaged(name, f"the state of parameter {number!r} is not a dict")
    square, step = remembered.get(SQUARES), remembered.get("step")
    if square is None:
        there = [short(str(key)) for key in remembered]
        raise CheckpointError(
            f"{name}: the optimizer is not Adam: of parameter {number!r} it holds "
            f"{first_few(there)}, and no {SQUARES!r}; compute curvature from examples"
        )
    if not isinstance(square, View) or not square.storage.dtype.is_floating_point:
        _damaged(name, f"{SQUARES!r} of parameter {number!r} is not a floating tensor")
    key = f"{SQUARES} of {number!r}"
    views[key] = square
    if isinstance(step, View):
        if math.prod(step.shape) != 1:
            _damaged(name, f"the step of parameter {number!r} is not one number")
        views[f"step of {number!r}"] = step
        return AdamEntry(key, square.shape, f"step of {number!r}")
    if not isinstance(step, int | float):
        _damaged(name, f"the step of parameter {number!r} is not a number")
    return AdamEntry(key, square.shape, checked_step(step, key, name))


def checked_step(step: float, key: str, name: str) -> float:
    """Make sure that a number of steps is one.

    Args:
        step: The number.
        key: What it is of, for the message.
        name: What to call the file in the message.

    Returns:
        The number.

    Raises:
        CheckpointError: If it is not.
    """
    if not 1 <= step < math.inf:
        _damaged(name, f"{key} was taken over {step!r} steps")
    return float(step)


def _damaged(name: str, why: str) -> NoReturn:
    raise CheckpointError(
        f"{name}: the optimizer's state is damaged, or not as PyTorch writes it ({why}); save the "
        "checkpoint again, or compute curvature from examples"
    )
