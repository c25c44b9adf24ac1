"""Names of files and of networks that differ by wrappers, conversions, or what lies beside."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from merging.models.names import fit_names
from merging.models.network import Network
from merging.models.read_model import _file_model
from merging.schema.errors import ArchitectureMismatchError


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(weight_norm(nn.Linear(6, 8)), nn.BatchNorm1d(8))
        self.head = nn.Linear(8, 3)


NET = Net().eval()
STATE = NET.state_dict()
NETWORK = Network(NET, (), "the network")


def before(prefix):
    return {prefix + key: value for key, value in STATE.items()}


def replaced(old, new):
    return {key.replace(old, new): value for key, value in STATE.items()}


def old_names():
    short = {"parametrizations.weight.original0": "weight_g",
             "parametrizations.weight.original1": "weight_v"}  # fmt: skip
    found = dict(STATE)
    for new, old in short.items():
        found = {key.replace(new, old): value for key, value in found.items()}
    return found


FORMS = {
    "AveragedModel": (torch.optim.swa_utils.AveragedModel(NET).state_dict(), ["n_averaged"]),
    "DDP of a part": (replaced("encoder.", "encoder.module."), []),
    "compile of a part": (replaced("encoder.", "encoder._orig_mod."), []),
    "FSDP": (before("_fsdp_wrapped_module."), []),
    "FSDP, inner": (replaced("head.", "head._fsdp_wrapped_module."), []),
    "wrapped twice": (before("module._orig_mod."), []),
    "a loss's weight": ({**STATE, "criterion.weight": torch.ones(3)}, ["criterion.weight"]),
    "Lightning, loss": ({**before("model."), "criterion.pos_weight": torch.ones(1)},
                        ["criterion.pos_weight"]),
    "Lightning, metric": ({**before("net."), "val_acc.tp": torch.tensor(0)}, ["val_acc.tp"]),
    "Lightning, another network": ({**before("student."), "teacher.w": torch.ones(2)},
                                   ["teacher.w"]),
    "weight_g and weight_v": (old_names(), []),
    "no counters": ({k: v for k, v in STATE.items() if "num_batches" not in k}, []),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_the_network_is_found_whatever_wraps_it(form):
    weights, ignored = FORMS[form]
    found = _file_model(weights, NETWORK, "", "mine")
    assert list(found.params) == list(STATE)
    assert all(torch.equal(found.params[name], STATE[name]) for name in STATE)
    assert sorted(fit_names(weights, NETWORK).ignored) == sorted(ignored)


@pytest.mark.parametrize(
    "weights",
    [
        {**STATE, "encoder.2.weight": torch.ones(8)},
        {**STATE, "adapter.weight": torch.ones(8)},
        {**before("model."), "model.encoder.2.weight": torch.ones(8)},
        {**before("a."), **before("b.")},
        {key: value for key, value in before("module.").items() if "head.bias" not in key},
    ],
)
def test_a_file_of_another_network_is_refused(weights):
    with pytest.raises(ArchitectureMismatchError, match="mine does not fit the network"):
        _file_model(weights, NETWORK, "", "mine")
