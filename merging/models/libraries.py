"""Architectures that transformers, torchvision or timm define, by name or config."""

from __future__ import annotations

import difflib
import importlib
import os
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from merging.files.user_function import PACKAGES
from merging.models import hub_config
from merging.models.architectures.registry import Config
from merging.models.network import Network
from merging.schema.errors import MergingError, UnknownNameError
from merging.schema.legible import legible

LIBRARIES = ("torchvision", "timm", "transformers")


_TOKENS = 16


_SIDE = 224  # of an image, where the package does not say


def library_config(name: str, params: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return the config of `torchvision:resnet18` or `timm:…`.

    It has as many classes as the weights.

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
    """Return the config that a Hugging Face folder's `config.json` describes.

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
            "export the model as a .pt2 archive"
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
            f"{name} is not a class of the model type {known['model_type']!r}; save "
            "the model again "
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
            "made here; export it as a .pt2 archive"
        )
    longest = int(getattr(settings, "max_position_embeddings", _TOKENS) or _TOKENS)
    shape = (2, min(_TOKENS, longest))
    return torch.randint(0, int(settings.vocab_size), shape, generator=generator)
