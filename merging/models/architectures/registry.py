"""The architectures that come with the app, in one table.

A config is a plain dict that JSON can carry: `{"architecture": name, **sizes}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from merging.models.architectures.convolutional import (
    CNN,
    VGG,
    SequenceCNN,
    infer_cnn,
    infer_sequence_cnn,
    infer_vgg,
)
from merging.models.architectures.mlp import MLP, Shapes, infer_mlp
from merging.models.architectures.resnet import ResNet, infer_resnet
from merging.models.architectures.vit import ViT, infer_vit
from merging.schema.errors import ArchitectureMismatchError, UnknownNameError

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Architecture:
    """One family of networks.

    Attributes:
        name: What configs call it.
        title: What screens call it.
        build: Makes the network from its sizes.
        infer: Reads the sizes off a state dict's shapes; None if it is another family.
        input_shape: Shape of one example, from the sizes.
    """

    name: str
    title: str
    build: Callable[..., nn.Module]
    infer: Callable[[Shapes], dict[str, Any] | None]
    input_shape: Callable[[Config], tuple[int, ...]]


def _image(config: Config) -> tuple[int, ...]:
    return (1, config.get("side", 28), config.get("side", 28))


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType({
    architecture.name: architecture
    for architecture in (
        Architecture(
            name="mlp",
            title="Multi-layer perceptron",
            build=MLP,
            infer=infer_mlp,
            input_shape=lambda c: (c["widths"][0],),
        ),
        Architecture(
            name="cnn",
            title="Convolutional network",
            build=CNN,
            infer=infer_cnn,
            input_shape=_image,
        ),
        Architecture(
            name="vgg", title="VGG with LayerNorm", build=VGG, infer=infer_vgg, input_shape=_image
        ),
        Architecture(
            name="resnet", title="ResNet", build=ResNet, infer=infer_resnet, input_shape=_image
        ),
        Architecture(
            name="vit", title="Vision transformer", build=ViT, infer=infer_vit, input_shape=_image
        ),
        Architecture(
            name="sequence-cnn",
            title="1-D convolutional network",
            build=SequenceCNN,
            infer=infer_sequence_cnn,
            input_shape=lambda c: (1, c["length"]),
        ),
    )
})


def architecture_of(config: Config) -> Architecture:
    """Return the architecture that a config names.

    Raises:
        UnknownNameError: If no architecture has that name.
    """
    name = str(config.get("architecture"))
    if name not in ARCHITECTURES:
        choices = ", ".join(ARCHITECTURES)
        raise UnknownNameError(f"unknown architecture {name!r}; choose from {choices}")
    return ARCHITECTURES[name]


def build_model(config: Config, *, seed: int = 0) -> nn.Module:
    """Make the network of a config, freshly initialised from a seed, in evaluation mode.

    Args:
        config: `{"architecture": name, **sizes}`.
        seed: Seed of the initialisation; the global random state is left as it was.

    Returns:
        The network.

    Raises:
        UnknownNameError: If no architecture has that name.

    Example:
        >>> build_model({"architecture": "mlp", "widths": [4, 3, 2]})
        MLP(
          (layers): ModuleList(
            (0): Linear(in_features=4, out_features=3, bias=True)
            (1): Linear(in_features=3, out_features=2, bias=True)
          )
        )
    """
    sizes = {key: value for key, value in config.items() if key != "architecture"}
    architecture = architecture_of(config)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return architecture.build(**sizes).eval()


def example_inputs(config: Config, n: int = 2, *, seed: int = 0) -> tuple[Tensor, ...]:
    """Draw random inputs of the right shape, `[n, ...]` float32.

    Raises:
        UnknownNameError: If the config names no architecture.
    """
    shape = architecture_of(config).input_shape(config)
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(n, *shape, generator=generator),)


def infer_config(params: Mapping[str, Tensor], name: str = "the checkpoint") -> dict[str, Any]:
    """Find the bundled architecture, and its sizes, that a state dict belongs to.

    Args:
        params: The state dict.
        name: What the message calls it.

    Returns:
        The config.

    Raises:
        ArchitectureMismatchError: If no bundled architecture has these names and shapes.
    """
    shapes = {key: tuple(value.shape) for key, value in params.items()}
    for architecture in ARCHITECTURES.values():
        try:
            sizes = architecture.infer(shapes)
        except (ValueError, IndexError, ZeroDivisionError):
            continue  # names of this family with shapes that it cannot have
        if sizes is None:
            continue
        config = {"architecture": architecture.name, **sizes}
        if _shapes_of(config) == shapes:
            return config
    first = ", ".join(f"{key} {list(shape)}" for key, shape in list(shapes.items())[:4])
    titles = ", ".join(a.title for a in ARCHITECTURES.values())
    raise ArchitectureMismatchError(
        f"{name} belongs to no bundled architecture: it has {len(shapes)} tensors ({first}, …). "
        f"Known architectures: {titles}. Their tensor names are listed in docs/methods.md"
    )


def _shapes_of(config: Config) -> dict[str, tuple[int, ...]] | None:
    try:
        with torch.device("meta"):
            state = build_model(config).state_dict()
    except (ValueError, RuntimeError, ZeroDivisionError, TypeError):
        return None  # sizes that no network can have
    return {key: tuple(value.shape) for key, value in state.items()}
