"""What the certificate refuses, detects, freezes and reports."""

import copy
import importlib
from types import MappingProxyType

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from merging.models.zoo.pairs import load_pair
from merging.schema.errors import MergingError, SymmetryError
from merging.symmetry import certify, find_symmetry
from merging.symmetry.permutation import permute
from merging.symmetry.spec import AxisExpression, PermutationSpec
from tests.cases import Net, network, network_inputs, perceptron, random_state, weight
from tests.oracles import moving_permutations, outputs, relative_difference


def two_layers(forward, **parts):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Net(forward, fc=nn.Linear(4, 6), head=nn.Linear(6, 2), **parts)
    return net.eval()


def summing():
    """Six units, then five that are summed up one after the other."""
    return Net(
        lambda m, x: m.head(torch.cumsum(F.relu(m.mix(F.relu(m.fc(x)))), dim=1)),
        fc=nn.Linear(4, 6), mix=nn.Linear(6, 5), head=nn.Linear(5, 2),
    ).eval()  # fmt: skip


def hand_written(model, **axes):
    """A spec from `{name with _ for .: groups per axis}`."""
    written = {name.replace("__", "."): groups for name, groups in axes.items()}
    return PermutationSpec({
        name: tuple(
            AxisExpression(n, group)
            for n, group in zip(value.shape, written.get(name, [None] * value.dim()), strict=True)
        )
        for name, value in model.state_dict().items()
    })


def replace_rule(monkeypatch, operator, rule):
    module = importlib.import_module("merging.symmetry.derive")
    monkeypatch.setattr(module, "RULES", MappingProxyType({**module.RULES, operator: rule}))


@pytest.mark.parametrize(
    "forward",
    [
        lambda m, x: m.head(F.dropout(F.relu(m.fc(x)), 0.5, training=True)),
        lambda m, x: m.head(m.fc(x) + torch.randn(6)),
    ],
    ids=["dropout", "noise"],
)
def test_a_model_that_is_random_in_evaluation_mode_is_refused(forward):
    with pytest.raises(SymmetryError, match="different outputs for the same input"):
        find_symmetry(two_layers(forward), (torch.randn(3, 4),))


def test_dropout_in_evaluation_mode_is_no_randomness():
    model = nn.Sequential(nn.Linear(4, 5), nn.Dropout(0.5), nn.Linear(5, 2)).train()
    assert find_symmetry(model, (torch.randn(3, 4),)).sizes == {"0.weight[0]": 5}
    assert model.training


def test_a_model_that_cannot_be_exported_is_refused_with_the_reason():
    model = two_layers(lambda m, x: m.head(m.fc(x)) if x.sum() > 0 else m.head(-m.fc(x)))
    with pytest.raises(MergingError, match="cannot be exported to a graph"):
        find_symmetry(model, (torch.randn(3, 4),))


@pytest.mark.parametrize(
    ("operator", "use"),
    [
        ("linalg_inv", lambda m, x: F.relu(m.mix(x)) @ torch.linalg.inv(m.square + torch.eye(5))),
        ("fft_rfft", lambda m, x: torch.fft.rfft(F.relu(m.mix(x)), n=8).abs()),
        ("renorm", lambda m, x: F.relu(m.mix(x)).renorm(2, 1, 0.5)),
    ],
)
def test_an_operator_without_a_rule_is_named_and_its_axes_are_fixed(operator, use):
    model = Net(
        lambda m, x: m.head(use(m, F.relu(m.fc(x)))),
        fc=nn.Linear(4, 6), mix=nn.Linear(6, 5), head=nn.Linear(5, 2),
    ).eval()  # fmt: skip
    if operator == "linalg_inv":
        model.square = weight(5, 5)
    x = (torch.randn(3, 4),)
    spec = find_symmetry(model, x)
    assert spec.report.unknown_operators == (operator,)
    # The six units before it stay free; the five that it reads do not.
    assert spec.sizes == {"fc.weight[0]": 6}
    reasons = {(f.parameter, f.axis): f.reason for f in spec.report.frozen}
    assert operator in reasons["mix.weight", 0]
    assert certify(model, spec, x).ok
    wide = copy.deepcopy(model).double()
    params = random_state(wide, 1)
    moved = permute(spec, moving_permutations(spec.shapes, 1), params)
    inputs = torch.randn(5, 4, dtype=torch.float64)
    before = outputs(wide, params, inputs)
    assert relative_difference(before, outputs(wide, moved, inputs)) < 1e-9


def test_a_known_operator_that_reads_positions_fixes_only_what_it_reads():
    model = summing()
    spec = find_symmetry(model, (torch.randn(3, 4),))
    assert spec.report.unknown_operators == ()
    assert spec.sizes == {"fc.weight[0]": 6}
    frozen = {(f.parameter, f.axis): f.reason for f in spec.report.frozen}
    assert "read by position at cumsum" in frozen["mix.weight", 0]


def test_embedding_rows_inputs_and_outputs_keep_their_order_and_say_why():
    spec = find_symmetry(network("tied embeddings"), network_inputs("tied embeddings"))
    reasons = {(f.parameter, f.axis): f.reason for f in spec.report.frozen}
    assert "rows are looked up" in reasons["embed.weight", 0]
    spec = find_symmetry(perceptron(4, 5, 2), (torch.randn(3, 4),))
    reasons = {(f.parameter, f.axis): f.reason for f in spec.report.frozen}
    assert reasons["layers.0.weight", 1] == "axis of the input"
    assert reasons["layers.1.bias", 0] == "axis of the output"


def test_a_wrong_rule_is_frozen_and_the_operator_is_named(monkeypatch):
    replace_rule(monkeypatch, "cumsum", lambda call: call.axes("self"))
    model = summing()
    x = (torch.randn(3, 4),)
    spec = find_symmetry(model, x)
    assert spec.sizes == {"fc.weight[0]": 6}
    reasons = {(f.parameter, f.axis): f.reason for f in spec.report.frozen}
    assert "cumsum" in reasons["mix.weight", 0]
    assert "changes the function" in reasons["mix.weight", 0]
    assert certify(model, spec, x).ok


def test_a_wrong_rule_that_loses_a_bias_is_frozen(monkeypatch):
    def forgets_the_bias(call):
        axes, weights = call.axes("input"), call.axes("weight")
        call.same(axes[-1], weights[1])
        return [*axes[:-1], weights[0]]

    replace_rule(monkeypatch, "linear", forgets_the_bias)
    model = perceptron(4, 5, 3)
    spec = find_symmetry(model, (torch.randn(6, 4),))
    assert "layers.0.weight[0]" not in spec.sizes
    assert certify(model, spec, (torch.randn(6, 4),)).ok


def test_the_certificate_refuses_a_spec_of_another_model():
    spec = find_symmetry(perceptron(4, 5, 3), (torch.randn(3, 4),))
    with pytest.raises(SymmetryError, match=r"'layers.0.weight' has shape \[6, 4\]"):
        certify(perceptron(4, 6, 3), spec, (torch.randn(3, 4),))


def test_parameters_that_are_constant_along_an_axis_hide_no_mistake():
    model = two_layers(lambda m, x: m.head(m.norm(m.fc(x))), norm=nn.LayerNorm(6))
    nn.init.zeros_(model.fc.bias)
    groups = {"fc__weight": ["P", None], "fc__bias": ["P"], "head__weight": [None, "P"]}
    both = {"norm__weight": ["P"], "norm__bias": ["P"]}
    x = (torch.randn(8, 4),)
    assert certify(model, hand_written(model, **groups, **both), x).ok
    assert not certify(model, hand_written(model, **groups), x).ok
    assert not certify(model, hand_written(model, **{**groups, "fc__bias": [None]}, **both), x).ok


def test_a_model_that_casts_inside_is_certified_in_float64_throughout():
    model = two_layers(
        lambda m, x: m.head(m.scale * F.relu(m.fc(x)).to(torch.float32)), scale=weight(6)
    )
    certificate = certify(model, find_symmetry(model, (torch.randn(3, 4),)), (torch.randn(3, 4),))
    assert certificate.tolerance == 1e-9
    assert certificate.ok


def test_a_model_without_symmetry_has_an_empty_certified_spec():
    model = nn.Linear(4, 2)
    spec = find_symmetry(model, (torch.randn(3, 4),))
    certificate = certify(model, spec, (torch.randn(3, 4),))
    assert spec.sizes == {}
    assert spec.log10_orderings == 0.0
    assert (certificate.ok, certificate.units, certificate.share_moved) == (True, 0, 0.0)


def test_models_with_several_outputs_are_certified_on_the_first():
    model = two_layers(lambda m, x: {"logits": m.head(F.relu(m.fc(x)))})
    assert find_symmetry(model, (torch.randn(3, 4),)).sizes == {"fc.weight[0]": 6}
    model = two_layers(lambda m, x: (m.head(F.relu(m.fc(x))), m.fc(x)))
    assert find_symmetry(model, (torch.randn(3, 4),)).sizes == {}


def test_in_place_operators_have_the_rules_of_their_copies():
    model = two_layers(lambda m, x: m.head(m.fc(x).relu_().mul_(2).add_(1)))
    spec = find_symmetry(model, (torch.randn(3, 4),))
    assert spec.sizes == {"fc.weight[0]": 6}
    assert spec.report.unknown_operators == ()


def test_assigning_to_a_position_fixes_what_it_touches():
    def assign(m, x):
        hidden = m.fc(x).clone()
        hidden[:, 0] = 0.0
        return m.head(hidden)

    model = two_layers(assign)
    spec = find_symmetry(model, (torch.randn(3, 4),))
    assert spec.sizes == {}
    assert certify(model, spec, (torch.randn(3, 4),)).ok


def test_tied_parameters_are_one_group_and_stay_equal():
    name = "tied embeddings"
    spec = find_symmetry(network(name), network_inputs(name))
    (places,) = spec.places().values()
    assert {("embed.weight", 1), ("unembed.weight", 1)} <= set(places)
    params = random_state(network(name), 0)
    moved = permute(spec, moving_permutations(spec.shapes, 0), params)
    assert torch.equal(moved["embed.weight"], moved["unembed.weight"])


def test_a_hand_written_spec_that_moves_one_name_of_a_tied_tensor_fails():
    model = network("tied embeddings")
    wrong = hand_written(
        model, embed__weight=[None, "P"], fc__weight=["P", "P"], fc__bias=["P"]
    )  # unembed.weight, the same tensor, is left out
    with pytest.raises(SymmetryError, match="are one tied tensor"):
        certify(model, wrong, network_inputs("tied embeddings", 16), seed=1)


def test_a_mistake_on_a_group_of_two_is_found_with_every_seed():
    model = perceptron(4, 2, 3)
    wrong = hand_written(
        model, layers__0__weight=["P", None], layers__1__weight=[None, "P"]
    )  # the bias is left out
    x = (torch.randn(32, 4),)
    assert not any(certify(model, wrong, x, seed=seed).ok for seed in range(20))


def test_a_mistake_is_found_although_only_one_example_is_given():
    wrong_ones = []
    for seed in range(12):
        model = perceptron(4, 3, 1, seed=seed)
        wrong = hand_written(model, layers__0__weight=["P", None], layers__0__bias=["P"])
        wrong_ones.append(certify(model, wrong, (torch.randn(1, 4),), seed=seed).ok)
    assert not any(wrong_ones)


def test_grouped_queries_with_as_many_key_heads_share_their_heads():
    def attend(m, x):
        q, k, v = (p(x).unflatten(-1, (2, 3)).transpose(1, 2) for p in (m.q, m.k, m.v))
        y = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        return m.out(y.transpose(1, 2).flatten(2)).mean(1)

    torch.manual_seed(0)
    names = ("q", "k", "v")
    model = Net(attend, **{n: nn.Linear(4, 6) for n in names}, out=nn.Linear(6, 2)).eval()
    spec = find_symmetry(model, (torch.randn(3, 5, 4),))
    assert sorted(spec.sizes.values()) == [2, 3, 3]


def test_sorting_fixes_what_it_sorts():
    model = two_layers(lambda m, x: m.head(torch.sort(F.relu(m.fc(x)), dim=1).values))
    spec = find_symmetry(model, (torch.randn(3, 4),))
    assert certify(model, spec, (torch.randn(3, 4),)).ok


def test_einsum_with_an_ellipsis_is_sound():
    model = two_layers(
        lambda m, x: m.last(torch.einsum("...i,ji->...j", F.relu(m.fc(x)), m.mix)),
        mix=weight(5, 6), last=nn.Linear(5, 2),
    )  # fmt: skip
    spec = find_symmetry(model, (torch.randn(3, 4),))
    assert certify(model, spec, (torch.randn(3, 4),)).ok


def test_einsum_without_an_arrow_is_sound():
    model = two_layers(
        lambda m, x: m.last(torch.einsum("bi,ij", F.relu(m.fc(x)), m.mix)),
        mix=weight(6, 5), last=nn.Linear(5, 2),
    )  # fmt: skip
    spec = find_symmetry(model, (torch.randn(3, 4),))
    assert certify(model, spec, (torch.randn(3, 4),)).ok


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_of_pytorch_are_certified(kind):
    torch.manual_seed(0)
    model = Net(
        lambda m, x: m.head(m.cells(x)[0].mean(1)),
        cells=kind(4, 5, batch_first=True), head=nn.Linear(5, 2),
    ).eval()  # fmt: skip
    spec = find_symmetry(model, (torch.randn(3, 4, 4),))
    assert certify(model, spec, (torch.randn(3, 4, 4),)).ok


def test_a_forward_with_any_number_of_inputs_is_exported():
    class Any(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.head = nn.Linear(4, 5), nn.Linear(5, 2)

        def forward(self, *inputs):
            return self.head(F.relu(self.fc(inputs[0])))

    assert find_symmetry(Any(), (torch.randn(3, 4),)).sizes == {"fc.weight[0]": 5}


def test_a_model_that_casts_its_input_is_certified():
    model = two_layers(lambda m, x: m.head(F.relu(m.fc(x.float() / 255))))
    pixels = torch.randint(0, 256, (5, 4), dtype=torch.uint8)
    assert find_symmetry(model, (pixels,)).sizes == {"fc.weight[0]": 6}
    model = two_layers(lambda m, x: m.head(F.relu(m.fc(x).to(torch.float32))))
    assert find_symmetry(model, (torch.randn(3, 4),)).sizes == {"fc.weight[0]": 6}


def test_a_mistake_on_the_bundled_two_unit_networks_is_found_with_every_seed():
    pair = load_pair("two-unit-counterexample")
    wrong = hand_written(pair.model, layers__0__weight=["P", None], layers__0__bias=["P"])
    x = (pair.data.test.inputs[:2],)
    assert not any(certify(pair.model, wrong, x, seed=seed).ok for seed in range(8))


def test_a_hand_written_spec_that_moves_only_the_name_that_is_read_fails():
    model = network("tied embeddings")
    wrong = hand_written(model, unembed__weight=[None, "P"], fc__weight=["P", "P"], fc__bias=["P"])
    with pytest.raises(SymmetryError, match="are one tied tensor"):
        certify(model, wrong, network_inputs("tied embeddings", 16), seed=1)
