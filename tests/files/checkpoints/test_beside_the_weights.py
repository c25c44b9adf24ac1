"""What lies beside the weights, and under which key they lie."""

from __future__ import annotations

import dataclasses
import enum
import functools
import io
import os

import pytest
import torch
from torch import nn

from merging.files.checkpoints.read import read_checkpoint_bytes
from merging.schema.errors import CheckpointError


@dataclasses.dataclass
class Settings:
    layers: int = 2
    rates: list[float] = dataclasses.field(default_factory=lambda: [0.1])

    def __setstate__(self, state):
        raise AssertionError("a settings class was made")


class Stage(enum.Enum):
    fit = 1


class Harm:
    def __reduce__(self):
        return os.getenv, ("HOME",)


def scheduler():
    return torch.optim.lr_scheduler.StepLR(torch.optim.SGD(nn.Linear(2, 2).parameters(), 0.1), 3)


WEIGHTS = nn.Linear(3, 2).state_dict()
BESIDE = {
    "version": lambda: torch.torch_version.TorchVersion("2.9"),
    "config": Settings,
    "stage": lambda: Stage.fit,
    "loss": nn.CrossEntropyLoss,
    "schedule": lambda: functools.partial(int),
    "scheduler": scheduler,
    "several": lambda: [Settings(), {"deep": (Stage.fit, Settings())}],
    "a whole module": lambda: nn.Sequential(nn.Linear(2, 2), nn.ReLU()),
}


def saved(value):
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


@pytest.mark.parametrize("key", BESIDE)
def test_classes_beside_the_weights_are_ignored_and_said(key):
    params, meta = read_checkpoint_bytes(saved({"state_dict": WEIGHTS, key: BESIDE[key]()}), "mine")
    assert all(torch.equal(params[name], WEIGHTS[name]) for name in WEIGHTS)
    assert meta["found_under"] == "state_dict"
    assert key in meta["ignored"]


def test_what_only_harms_is_refused_beside_weights_too():
    with pytest.raises(CheckpointError, match=r"'os.getenv', which is not a tensor and could run"):
        read_checkpoint_bytes(saved({"state_dict": WEIGHTS, "x": Harm()}), "mine")


@pytest.mark.parametrize("place", ["alone", "among the weights"])
def test_a_class_in_the_place_of_weights_is_refused(place):
    value = Settings() if place == "alone" else {**WEIGHTS, "config": Settings()}
    with pytest.raises(CheckpointError, match=r"Settings', (which is|not a tensor)"):
        read_checkpoint_bytes(saved(value), "mine")


@pytest.mark.parametrize(
    ("value", "under"),
    [
        ({"epoch": 3, "state_dict_ema": WEIGHTS}, "state_dict_ema"),
        ({"epoch": 1, "generator": WEIGHTS}, "generator"),
        ({"epoch": 1, "netG": WEIGHTS, "optG": torch.optim.Adam(nn.Linear(2, 2).parameters())
          .state_dict()}, "netG"),
        ({"checkpoint": {"model": WEIGHTS}}, "checkpoint.model"),
        ({"model": WEIGHTS, "ema": WEIGHTS}, "model"),
    ],
)  # fmt: skip
def test_weights_are_found_under_any_one_key(value, under):
    params, meta = read_checkpoint_bytes(saved(value), "mine")
    assert set(params) == set(WEIGHTS)
    assert meta["found_under"] == under


def test_of_several_keys_with_weights_none_is_taken_for_the_right_one():
    value = {"epoch": 3, "netG": WEIGHTS, "netD": WEIGHTS}
    with pytest.raises(CheckpointError, match=r"weights under 'netG', 'netD'.*save one alone"):
        read_checkpoint_bytes(saved(value), "mine")


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.SGD])
def test_the_file_of_an_optimizer_is_called_one(kind):
    optimizer = kind(nn.Linear(3, 2).parameters())
    with pytest.raises(CheckpointError, match=r"this is the state of an optimizer"):
        read_checkpoint_bytes(saved(optimizer.state_dict()), "mine")
