"""The network that a config names, wherever its architecture comes from.

| `architecture` | where from |
|---|---|
| a bundled name | `models.registry` |
| `exported` | a `.pt2` archive: its graph, kept as a blueprint file |
| `transformers` | a class and config of that package, where it is installed |
| `torchvision`, `timm` | a name in those packages' lists, where they are installed |
| `own` | a function that whoever started this process named |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from merging.models.architectures.registry import ARCHITECTURES, Config
from merging.schema.errors import ArchitectureMismatchError

_SHOWN = 6


@dataclass(frozen=True, eq=False)
class Network:
    """A model, and what it reads.

    Attributes:
        model: The module, in evaluation mode.
        example_inputs: Inputs of the right shapes, a batch of two.
        title: What screens call the architecture.
    """

    model: nn.Module
    example_inputs: tuple[Tensor, ...]
    title: str


def is_bundled(config: Config) -> bool:
    """Return whether the architecture is one of the app's own."""
    return str(config.get("architecture")) in ARCHITECTURES


def check_weights(params: Mapping[str, Tensor], network: Network, name: str) -> None:
    """Make sure that a state dict is one of a network.

    Args:
        params: The state dict.
        network: The network.
        name: What to call the file in the message.

    Raises:
        ArchitectureMismatchError: If names or shapes differ; the message names the first.
    """
    wanted = {key: tuple(value.shape) for key, value in network.model.state_dict().items()}
    given = {key: tuple(value.shape) for key, value in params.items()}
    lines = [f"lacks {key}" for key in wanted if key not in given]
    lines += [f"has {key}, which the model has not" for key in given if key not in wanted]
    lines += [
        f"{key} is {list(given[key])}, expected {list(shape)}"
        for key, shape in wanted.items()
        if key in given and given[key] != shape
    ]
    if lines:
        rest = f" and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
        raise ArchitectureMismatchError(
            f"{name} does not fit {network.title}: {'; '.join(lines[:_SHOWN])}{rest}. "
            "Give the state dict of exactly this model"
        )


def with_tied(params: Mapping[str, Tensor], network: Network) -> dict[str, Tensor]:
    """Add the names that a file leaves out because the network ties them to names that it has.

    Args:
        params: A state dict.
        network: The network that it is for.

    Returns:
        The state dict, with the tied tensors under all of their names.
    """
    whole = dict(params)
    for names in tied_names(network):
        known = next((name for name in names if name in params), None)
        if known is not None:
            whole.update((name, params[known]) for name in names if name not in params)
    return whole


def check_tied(params: Mapping[str, Tensor], network: Network, name: str) -> None:
    """Make sure that names which a network ties have one value in a file.

    Args:
        params: The state dict, as the file has it; only tied tensors are read.
        network: The network that it is for.
        name: What to call the file in the message.

    Raises:
        ArchitectureMismatchError: If two differ; the message names both.
    """
    for names in tied_names(network):
        first, *others = [key for key in names if key in params] or [""]
        for other in others:
            if not _same(params[first], params[other]):
                raise ArchitectureMismatchError(
                    f"{name}: {first} and {other} differ, and {network.title} ties them: it "
                    "computes with one tensor under both names, so one of these would be ignored. "
                    "Give an architecture that does not tie them, or a file in which they are equal"
                )


def tied_names(network: Network) -> list[list[str]]:
    """Return the names that share one tensor, for every such tensor of a network."""
    places: dict[tuple[int, tuple[int, ...]], list[str]] = {}
    for name, value in network.model.state_dict(keep_vars=True).items():
        if value.numel():
            places.setdefault((value.data_ptr(), tuple(value.shape)), []).append(name)
    return [names for names in places.values() if len(names) > 1]


def _same(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape:  # which is said elsewhere
        return True
    return bool(((a == b) | ((a != a) & (b != b))).all())  # NaN is like NaN


# Blueprints


# The function of whoever started this process


# Packages of architectures
