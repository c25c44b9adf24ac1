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

import difflib
import importlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from merging.errors import ArchitectureMismatchError, MergingError, UnknownNameError
from merging.legible import legible
from merging.models import hub_config
from merging.models.blueprint import ExportedModel
from merging.models.registry import ARCHITECTURES, architecture_of, build_model, example_inputs
from merging.own_code import OWN_MODEL, PACKAGES, call_named, call_own
from merging.params import Params

Config = Mapping[str, Any]
LIBRARIES = ("torchvision", "timm", "transformers")

_TOKENS = 16
_SIDE = 224  # of an image, where the package does not say
_SHOWN = 6


@dataclass(frozen=True)
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


def build_network(config: Config, *, blueprints: Callable[[str], Path] | None = None) -> Network:
    """Make the network of a config.

    Args:
        config: `{"architecture": …, …}`, as the table above.
        blueprints: Where the file of a blueprint is, by its fingerprint.

    Returns:
        The network; the weights that it holds mean nothing.

    Raises:
        UnknownNameError: If the config names nothing that is known here.
        MergingError: If its package is not installed, or cannot make it.
    """
    kind = str(config.get("architecture"))
    if kind == "exported":
        if blueprints is None:
            raise MergingError("a blueprint needs the store that holds it")
        return _from_blueprint(blueprints(config["blueprint"]))
    if kind == "own":
        return own_network(config["function"])
    if kind in LIBRARIES:
        return _from_library(kind, config)
    title = architecture_of(config).title
    return Network(build_model(config), example_inputs(config), title)


def is_bundled(config: Config) -> bool:
    """Whether the architecture is one of the app's own."""
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
    places: dict[tuple[int, tuple[int, ...]], list[str]] = {}
    for name, value in network.model.state_dict(keep_vars=True).items():
        if value.numel():
            places.setdefault((value.data_ptr(), tuple(value.shape)), []).append(name)
    whole = dict(params)
    for names in places.values():
        known = next((name for name in names if name in params), None)
        if known is not None:
            whole.update((name, params[known]) for name in names if name not in params)
    return whole


# Blueprints


def blueprint_bytes(text: str, constants: Params, weights: Mapping[str, Tensor]) -> bytes:
    """A file of an architecture alone: graph, constants, and the shapes of its weights."""
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


# The function of whoever started this process


def own_network(function: str) -> Network:
    """The model that a function of the server's own makes.

    Args:
        function: `package.module:function`, as `$ONE_BASIN_MODEL` names it.

    Returns:
        The network.

    Raises:
        MergingError: If it is another one, or returns no model.
    """
    return _returned(call_own(function, OWN_MODEL), function)


def named_network(function: str) -> Network:
    """The model that a function makes; only for callers who may run any code anyway.

    Args:
        function: `package.module:function`.

    Returns:
        What the function returns: a module and its example inputs.

    Raises:
        MergingError: If it cannot be imported, or returns something else.
    """
    return _returned(call_named(function, "--model"), function)


def _returned(found: Any, function: str) -> Network:
    model, *inputs = found if isinstance(found, (tuple, list)) else (found,)
    if len(inputs) == 1 and isinstance(inputs[0], (tuple, list)):
        inputs = list(inputs[0])
    if not isinstance(model, nn.Module) or not inputs or not all(map(torch.is_tensor, inputs)):
        raise MergingError(
            f"{function} returned {type(found).__name__}; it has to return the model and its "
            "example inputs: `return model, (torch.zeros(2, 3, 224, 224),)`"
        )
    return Network(model.eval(), tuple(inputs), f"{type(model).__name__} of {function}")


# Packages of architectures


def library_config(name: str, params: Mapping[str, Tensor]) -> dict[str, Any]:
    """Config of `torchvision:resnet18` or `timm:…`, with as many classes as the weights have.

    Args:
        name: The package, a colon, and the model's name there.
        params: The state dict, in any order; only names and shapes are looked at.

    Returns:
        The config; its `classes` is None where the weights have the package's own number.

    Raises:
        UnknownNameError: If the name is not of that form, or the package has no such model.
        MergingError: If the package is not installed.
    """
    library, _, model = name.partition(":")
    if library not in PACKAGES or not model:
        raise UnknownNameError(
            f"unknown architecture {legible(name, most=80)!r}; write torchvision:resnet18 or "
            "timm:resnet18, or give a .pt2 archive or a Hugging Face folder"
        )
    config = {"architecture": library, "name": model, "classes": None}
    usual = _from_library(library, config).model.state_dict()
    # Heads are what has another length along its first axis, and only there.
    lengths = {
        int(value.shape[0])
        for key, value in params.items()
        if key in usual
        and value.dim() == usual[key].dim() > 0
        and value.shape[0] != usual[key].shape[0]
        and value.shape[1:] == usual[key].shape[1:]
    }
    return config | {"classes": lengths.pop() if len(lengths) == 1 else None}


def transformers_config(text: str, name: str) -> dict[str, Any]:
    """Config of a Hugging Face folder's `config.json`.

    Raises:
        MergingError: If it names no architecture that is known, or a setting is refused.
    """
    return {"architecture": "transformers", **hub_config.read_settings(text, name)}


def _from_library(kind: str, config: Config) -> Network:
    library = _import(kind)
    build = {"transformers": _transformers, "torchvision": _torchvision, "timm": _timm}[kind]
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            network = build(library, config)
    except MergingError:
        raise
    except Exception as error:  # a package may raise anything on sizes that it cannot have
        raise MergingError(
            f"{kind} cannot make this model: {type(error).__name__}: {error}"
        ) from error
    network.model.eval()
    return network


def _import(kind: str) -> ModuleType:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # architectures only: nothing is asked of a hub
    try:
        return importlib.import_module(f"{kind}.models" if kind == "torchvision" else kind)
    except ImportError as error:
        raise MergingError(
            f"this architecture is {kind}'s, which is not installed here; pip install {kind}, or "
            "bring the model as a .pt2 archive"
        ) from error


def _torchvision(library: Any, config: Config) -> Network:
    name = config["name"]
    _check_listed(name, library.list_models(module=library), "torchvision")
    model = library.get_model(name, weights=None, **_classes(config))
    return Network(model, (torch.randn(2, 3, _SIDE, _SIDE),), f"torchvision's {name}")


def _timm(library: Any, config: Config) -> Network:
    name = config["name"]
    _check_listed(name, library.list_models(), "timm")
    model = library.create_model(name, pretrained=False, **_classes(config))
    size = model.default_cfg.get("input_size", (3, _SIDE, _SIDE))
    return Network(model, (torch.randn(2, *size),), f"timm's {name}")


def _classes(config: Config) -> dict[str, int]:
    return {} if config["classes"] is None else {"num_classes": config["classes"]}


def _check_listed(name: str, known: Sequence[str], library: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known)
        hint = f"; it has {', '.join(near)}" if near else ""
        raise UnknownNameError(
            f"{library} has no image classifier {legible(name, most=80)!r}{hint}"
        )


def _transformers(library: Any, config: Config) -> Network:
    known = hub_config.checked(config, "transformers")
    name = known["class"]
    cls = getattr(library, name, None)
    if not (isinstance(cls, type) and issubclass(cls, library.PreTrainedModel)):
        raise UnknownNameError(f"transformers has no model class {name!r}")
    kind = type(library.AutoConfig.for_model(known["model_type"]))
    if getattr(cls, "config_class", None) is not kind:
        raise UnknownNameError(
            f"{name} is no class of the model type {known['model_type']!r}; save the model again "
            "with save_pretrained"
        )
    settings = kind(**hub_config.own_settings(kind, known["config"]))
    settings.use_cache = False
    with torch.device("meta"):
        hub_config.check_bytes(cls(settings), name)
    model = cls(settings)
    return Network(model, (_main_input(model, settings),), f"transformers' {name}")


def _main_input(model: Any, settings: Any) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    if model.main_input_name == "pixel_values":
        side = getattr(settings, "image_size", _SIDE)
        sides = tuple(side) if isinstance(side, (list, tuple)) else (side, side)
        shape = (2, settings.num_channels, *sides)
        hub_config.check_pixels(shape, type(model).__name__)
        return torch.randn(shape, generator=generator)
    if model.main_input_name != "input_ids":
        raise MergingError(
            f"{type(model).__name__} reads {model.main_input_name!r}, for which no example can be "
            "made here; bring it as a .pt2 archive"
        )
    longest = int(getattr(settings, "max_position_embeddings", _TOKENS) or _TOKENS)
    shape = (2, min(_TOKENS, longest))
    return torch.randint(0, int(settings.vocab_size), shape, generator=generator)
