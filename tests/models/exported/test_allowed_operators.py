"""The table of operators that a stranger's graph may call, and the networks that need it."""

from __future__ import annotations

import inspect
import re

import pytest
import torch

from benchmarks import fuzz_operators
from merging.models.exported.allowed_operators import ALLOWED, find_operator
from merging.models.exported.call_arguments import check_arguments
from merging.models.exported.size_arithmetic import FUNCTIONS
from merging.symmetry.derive import RULES
from tests.cases import (
    CONFIGS,
    NETWORKS,
    architecture,
    architecture_inputs,
    network,
    network_inputs,
)
from tests.symmetry.networks import CATALOG
from tests.symmetry.networks.transformer import CATALOG as TRANSFORMERS

# With a rule, because models in Python may have them, and not for strangers; each has its reason.
LEFT_OUT = {
    "empty": "shows what the memory held before",
    "new_empty": "shows what the memory held before",
    "double": "no operator of graphs",
    "float": "no operator of graphs",
    "half": "no operator of graphs",
    "softsign": "no operator of graphs",
}
UNSAFE = r"backward|unsafe|sparse|quantize|storage|resize|set_|random|bernoulli|normal|save|seed"


def test_every_operator_with_a_rule_may_be_called_or_is_left_out_for_a_reason():
    names = {name.partition(".")[0] for name in ALLOWED}
    assert {name for name in RULES if name not in names} == set(LEFT_OUT)


def test_every_name_in_the_table_is_an_operator():
    assert [name for name in ALLOWED if find_operator(name) is None] == []


def test_operators_take_and_give_plain_values_and_write_only_where_their_names_say():
    for name in ALLOWED:
        schema = find_operator(name)._schema
        packet = name.partition(".")[0]
        kinds = {str(value.real_type) for value in (*schema.arguments, *schema.returns)}
        assert not re.search(r"Dimname|Storage|Stream|Dict|complex|Any", " ".join(kinds)), name
        assert not any(a.is_out for a in schema.arguments), name
        assert not re.search(UNSAFE, name.replace("_unsafe_view", "")), name
        changed = [a for a in schema.arguments if a.alias_info and a.alias_info.is_write]
        in_place = packet.startswith("__i") or (packet.endswith("_") and packet[:2] != "__")
        assert bool(changed) == in_place, name


def _targets(model, inputs):
    batches = tuple(torch.cat([x, x]) if x.shape[0] == 1 else x for x in inputs)
    dynamic = tuple({0: torch.export.Dim.AUTO} for _ in batches)
    kinds = [p.kind for p in inspect.signature(model.forward).parameters.values()]
    if inspect.Parameter.VAR_POSITIONAL in kinds:
        dynamic = (dynamic,)
    program = torch.export.export(model.eval(), batches, dynamic_shapes=dynamic)
    for module in program.graph_module.modules():
        for node in getattr(module, "graph", torch.fx.Graph()).nodes:
            if node.op == "call_function" and "higher_order" not in str(type(node.target)):
                yield node.target


def _names(targets):
    for target in targets:
        if hasattr(target, "_schema"):
            yield str(target).removeprefix("aten.")
        elif target.__module__ == "_operator":  # lists are taken apart when an archive is written
            yield from () if target.__name__ == "getitem" else [f"_operator.{target.__name__}"]


EVERY = {
    **{name: lambda name=name: (network(name), network_inputs(name)) for name in NETWORKS},
    **{name: lambda name=name: (architecture(name), architecture_inputs(name)) for name in CONFIGS},
    **{f"{name}, small": lambda name=name: CATALOG[name](small=True) for name in CATALOG},
    **{f"{name}, tiny": lambda name=name: TRANSFORMERS[name](small=True) for name in TRANSFORMERS},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERY)
@pytest.mark.filterwarnings("ignore")
def test_every_architecture_here_can_be_given_as_an_archive(name):
    model, inputs = EVERY[name]()
    inputs = inputs if isinstance(inputs, (tuple, list)) else (inputs,)
    missing = set(_names(_targets(model, inputs))) - ALLOWED - set(FUNCTIONS)
    assert missing == set()


@pytest.mark.parametrize(
    ("name", "args", "match"),
    [
        ("relu.default", (torch.zeros(1),), "where Tensor is expected"),
        ("max_pool2d.default", (1.0, [1 << 31]), "'kernel_size'"),
        ("gelu.default", (1.0,), None),
        ("slice.Tensor", (1.0, 0, 0, (1 << 63) - 1), None),
        ("dropout.default", (1.0, 0.5, True), r"model\.eval"),
        ("einsum.default", ("ij;import os", [1.0]), "'equation'"),
    ],
)
def test_arguments_are_those_of_the_schema(name, args, match):
    if match is None:
        check_arguments(find_operator(name), args, {}, lambda _: True)
        return
    with pytest.raises(ValueError, match=match):
        check_arguments(find_operator(name), args, {}, lambda _: True)


@pytest.mark.slow
def test_hostile_arguments_end_no_process_and_change_nothing_else():
    lines = list(fuzz_operators.measure(20))
    assert re.fullmatch(r"seed \d+, [\d,]+ calls", lines[-1])
