"""Names that a network ties, and files in which they differ."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

import merging
from merging.files.checkpoints.read import read_checkpoint_bytes
from merging.files.checkpoints.write import checkpoint_bytes
from merging.models.network import Network, check_tied
from merging.schema.errors import ArchitectureMismatchError, CheckpointError


class Language(nn.Module):
    def __init__(self, tied=True):
        super().__init__()
        self.emb, self.fc = nn.Embedding(11, 8), nn.Linear(8, 8)
        self.lm_head = nn.Linear(8, 11, bias=False)
        if tied:
            self.lm_head.weight = self.emb.weight

    def forward(self, tokens):
        return self.lm_head(torch.relu(self.fc(self.emb(tokens))))


def network():
    return Language(), (torch.zeros(2, 5, dtype=torch.long),)


@pytest.fixture
def function(monkeypatch):
    module = ModuleType("tied_language")
    module.network = network
    monkeypatch.setitem(sys.modules, "tied_language", module)
    return "tied_language:network"


def test_a_file_in_which_tied_names_differ_is_refused_and_both_are_named(function, tmp_path):
    torch.save(Language(tied=False).state_dict(), tmp_path / "own.pt")
    with pytest.raises(
        ArchitectureMismatchError, match=r"own.pt: emb.weight and lm_head.weight differ.*ties them"
    ):
        merging.read_model(tmp_path / "own.pt", architecture=function)


def test_one_entry_that_differs_is_enough(function, tmp_path):
    weights = {key: value.clone() for key, value in Language().state_dict().items()}
    weights["lm_head.weight"][10, 7] += 1
    merging.write_checkpoint(tmp_path / "own.safetensors", weights)
    with pytest.raises(ArchitectureMismatchError, match=r"emb.weight and lm_head.weight differ"):
        merging.read_model(tmp_path / "own.safetensors", architecture=function)


@pytest.mark.parametrize("left_out", ["", "emb.weight", "lm_head.weight"])
def test_tied_names_with_one_value_are_read(function, tmp_path, left_out):
    weights = {key: v.clone() for key, v in Language().state_dict().items() if key != left_out}
    torch.save(weights, tmp_path / "own.pt")
    found = merging.read_model(tmp_path / "own.pt", architecture=function)
    assert torch.equal(found.params["emb.weight"], found.params["lm_head.weight"])


def test_of_three_names_the_one_that_differs_is_named():
    first = nn.Linear(3, 3)
    model = nn.ModuleList([first, first, first])
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    weights["2.bias"] += 1
    with pytest.raises(ArchitectureMismatchError, match=r"mine: 0.bias and 2.bias differ"):
        check_tied(weights, Network(model, (), "a loop"), "mine")


def test_what_to_do_with_complex_weights_keeps_the_imaginary_part():
    weights = {"w": torch.ones(2, dtype=torch.complex64)}
    with pytest.raises(CheckpointError, match=r"complex64.*view_as_real"):
        checkpoint_bytes(weights)
    real = {"w": torch.view_as_real(weights["w"])}
    assert read_checkpoint_bytes(checkpoint_bytes(real), "mine")[0]["w"].shape == (2, 2)
