"""Networks that a name of another package stands for; a stand-in has that package's functions."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

from merging.files.data.arrays import ExampleArrays
from merging.models.build import build_network
from merging.models.libraries import library_config
from merging.models.network import Network, check_weights
from merging.models.read_examples import parted
from merging.schema.errors import DataError, MergingError, UnknownNameError


class Tiny(nn.Module):
    """A classifier whose head comes first by the alphabet, as in a file that sorts its names."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.a_head = nn.Linear(4, num_classes)

    def forward(self, x):
        return self.a_head(self.conv(x).relu().mean((2, 3)))


class Fixed(nn.Sequential):
    """A classifier of images of one size."""

    def __init__(self, num_classes: int = 1000) -> None:
        super().__init__(nn.Flatten(), nn.Linear(3 * 224 * 224, num_classes))


MODELS = {"tiny": Tiny, "fixed": Fixed}


@pytest.fixture
def packages(monkeypatch):
    """Stand-ins for torchvision and timm."""
    vision, models, timm = (ModuleType(n) for n in ("torchvision", "torchvision.models", "timm"))
    vision.models = models
    models.list_models = lambda module: list(MODELS) if module is models else ["mask_rcnn"]
    models.get_model = lambda name, weights, **options: MODELS[name](**options)
    timm.list_models = lambda: list(MODELS)
    timm.create_model = _create
    for module in (vision, models, timm):
        monkeypatch.setitem(sys.modules, module.__name__, module)


def _create(name, pretrained, **options):
    assert not pretrained  # nothing is fetched
    model = MODELS[name](**options)
    model.default_cfg = {"input_size": (3, 224, 224)}
    return model


def by_name_in_order(model):
    """Its state dict as safetensors files have it: sorted."""
    return dict(sorted(model.state_dict().items()))


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize("library", ["torchvision", "timm"])
@pytest.mark.parametrize(("classes", "found"), [(7, 7), (1000, None)])
def test_classes_are_counted_where_the_weights_differ_from_the_package(library, classes, found):
    weights = by_name_in_order(Tiny(classes))
    config = library_config(f"{library}:tiny", weights)
    assert config == {"architecture": library, "name": "tiny", "classes": found}
    check_weights(weights, build_network(config), "mine")


@pytest.mark.usefixtures("packages")
def test_another_architecture_is_refused_with_the_tensors_that_differ():
    weights = by_name_in_order(Tiny(7)) | {"conv.weight": torch.zeros(4, 3, 5, 5)}
    network = build_network(library_config("timm:tiny", weights))
    with pytest.raises(MergingError, match=r"conv.weight is \[4, 3, 5, 5\], expected \[4, 3, 3"):
        check_weights(weights, network, "mine")


@pytest.mark.usefixtures("packages")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("torchvision:tinyy", "no image classifier 'tinyy'; it has tiny"),
        ("torchvision:mask_rcnn", "no image classifier 'mask_rcnn'$"),
        ("timm:", "write torchvision:resnet18"),
        ("keras:tiny", "unknown architecture 'keras:tiny'"),
    ],
)
def test_names_that_stand_for_nothing_are_refused(name, words):
    with pytest.raises(UnknownNameError, match=words):
        library_config(name, {})


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MergingError, match="pip install timm, or export the model"):
        library_config("timm:resnet18", {})


def examples(side):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 3, side, side)).astype(np.float32)
    return ExampleArrays(x, np.arange(6) % 3, "classification", 3, split=3)


def network(model):
    return Network(model.eval(), (torch.randn(2, 3, 224, 224),), "tiny")


def test_images_of_another_size_are_read_by_a_network_that_can():
    x = parted(examples(32), network(Tiny(3))).x
    assert x.shape == (6, 3, 32, 32)


def test_images_of_another_size_are_refused_for_a_network_that_cannot():
    with pytest.raises(DataError, match=r"x has shape \[6, 3, 32, 32\]"):
        parted(examples(32), network(Fixed(3)))


@pytest.mark.parametrize(
    ("name", "classes"), [("torchvision:resnet18", 10), ("timm:resnet10t", 10)]
)
def test_a_real_package_counts_its_classes_too(name, classes):
    library, _, model = name.partition(":")
    pytest.importorskip(library)
    make = (
        importlib.import_module("torchvision.models").get_model
        if library == "torchvision"
        else importlib.import_module("timm").create_model
    )
    weights = by_name_in_order(make(model, num_classes=classes))
    config = library_config(name, weights)
    assert config["classes"] == classes
    check_weights(weights, build_network(config), "mine")
