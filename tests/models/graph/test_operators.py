"""Names of operators, whatever form of a call a graph holds."""

from __future__ import annotations

import operator

import pytest
import torch
from torch import fx

from merging.models.graph.operators import operator_name


@pytest.mark.parametrize(
    ("target", "name"),
    [
        (torch.ops.aten.add.Tensor, "add"),
        (torch.ops.aten.add_.Tensor, "add"),
        (torch.ops.aten.conv2d.padding, "conv2d"),
        (torch.ops.aten.__and__.Tensor, "__and__"),
        (torch.ops.higher_order.wrap_with_set_grad_enabled, "wrap_with_set_grad_enabled"),
        (operator.getitem, "getitem"),
    ],
)
def test_overload_and_writing_in_place_are_no_part_of_a_name(target, name):
    graph = fx.Graph()
    assert operator_name(graph.call_function(target)) == name


def test_a_parameter_calls_nothing():
    assert operator_name(fx.Graph().placeholder("relu")) == ""
