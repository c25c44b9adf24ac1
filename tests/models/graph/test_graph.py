import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from merging.models.graph.export import trace
from merging.schema.errors import ArchitectureMismatchError, MergingError
from tests.cases import (
    CONFIGS,
    NETWORKS,
    Net,
    architecture,
    architecture_inputs,
    network,
    network_inputs,
    perceptron,
    random_state,
)
from tests.oracles import outputs


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("name", CONFIGS)
def test_the_graph_does_what_every_architecture_does(name, n):
    model, (x,) = architecture(name), architecture_inputs(name, n, seed=n)
    graph = trace(model, architecture_inputs(name))
    params = random_state(model, n)
    with torch.no_grad():
        assert torch.equal(graph.run(params, (x,)), outputs(model, params, x))
    assert graph.batched


@pytest.mark.parametrize("n", [1, 5])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_graph_does_what_every_network_does(name, n):
    model, (x,) = network(name), network_inputs(name, n, seed=n)
    graph = trace(model, network_inputs(name))
    params = random_state(model, n)
    with torch.no_grad():
        result = graph.run(params, (x,))
    torch.testing.assert_close(result, outputs(model, params, x))


def test_training_mode_is_restored_module_by_module():
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.5), nn.Linear(5, 2))
    model.train()
    model[1].eval()
    before = [module.training for module in model.modules()]
    statistics = copy.deepcopy(model.state_dict())
    trace(model, (torch.randn(3, 4),))
    assert [module.training for module in model.modules()] == before
    assert all(torch.equal(v, statistics[k]) for k, v in model.state_dict().items())


def test_training_mode_is_restored_when_the_export_fails():
    model = Net(lambda m, x: m.fc(x) if x.sum() > 0 else x, fc=nn.Linear(4, 4)).train()
    with pytest.raises(MergingError, match="Net cannot be exported to a graph"):
        trace(model, (torch.randn(3, 4),))
    assert model.training


def test_a_model_in_training_mode_is_run_as_in_evaluation():
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Dropout(0.5)).train()
    params = random_state(model, 0)
    x = torch.randn(6, 4)
    torch.testing.assert_close(trace(model, (x,)).run(params, (x,)), outputs(model, params, x))


def test_a_graph_is_made_once_per_shape():
    model = Net(lambda m, x: x.sum(-1), fc=nn.Linear(1, 1))
    first = trace(model, (torch.randn(3, 4),))
    assert trace(model, (torch.randn(8, 4),)) is first
    assert trace(model, (torch.randn(3, 5),)) is not first
    assert trace(model, (torch.randn(3, 4, dtype=torch.float64),)) is first  # cast to the model's


def test_tied_tensors_are_aliases_of_the_first_name():
    name = "tied embeddings"
    assert trace(network(name), network_inputs(name)).aliases == {"unembed.weight": "embed.weight"}
    assert trace(perceptron(4, 5, 2), (torch.randn(2, 4),)).aliases == {}


def test_sources_name_all_parameters_and_buffers():
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5))
    graph = trace(model, (torch.randn(3, 4),))
    assert set(graph.sources.values()) == set(model.state_dict())


def test_a_parameter_that_is_missing_is_named():
    model = perceptron(4, 5, 2)
    graph = trace(model, (torch.randn(3, 4),))
    params = model.state_dict()
    del params["layers.1.bias"]
    with pytest.raises(ArchitectureMismatchError, match=r"have no 'layers\.1\.bias'"):
        graph.run(params, (torch.randn(3, 4),))


def test_a_visitor_sees_every_step_in_order_and_may_replace_values():
    model = perceptron(4, 5, 2)
    x = torch.randn(3, 4)
    graph = trace(model, (x,))
    seen = []

    def zero_the_hidden(node, value):
        seen.append(node)
        return torch.zeros_like(value) if "relu" in str(node.target) else value

    with torch.no_grad():
        result = graph.run(model.state_dict(), (x,), visit=zero_the_hidden)
    assert seen == [step.node for step in graph.steps]
    torch.testing.assert_close(result, model.layers[1].bias.detach().expand(3, 2))


def test_what_remains_after_known_values_is_enough_and_no_more():
    model = perceptron(4, 5, 5, 2)
    x = torch.randn(3, 4)
    graph = trace(model, (x,))
    params = model.state_dict()
    values = {}
    with torch.no_grad():
        expected = graph.run(params, (x,), visit=lambda node, value: values.setdefault(node, value))
        first = next(node for node in values if "linear" in str(node.target))
        program = graph.remaining(frozenset({first}))
        assert {step.node for step in program} == set(list(values)[list(values).index(first) + 1 :])
        bound = {**graph.bind(params, (x,)), first: values[first]}
        assert torch.equal(graph.finish(program, bound), expected)


def test_a_graph_in_another_type_runs_with_its_constants_in_that_type():
    model = Net(lambda m, x: m.fc(x) * torch.tensor([0.1, 0.2]), fc=nn.Linear(4, 2)).eval()
    x = torch.randn(3, 4)
    graph = trace(model, (x,))
    wide = {k: v.double() for k, v in model.state_dict().items()}
    with torch.no_grad():
        result = graph.to(torch.float64).run(wide, (x.double(),))
    assert result.dtype == torch.float64
    torch.testing.assert_close(result.float(), model(x).detach())


def test_buffers_that_are_not_in_the_state_dict_are_constants():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)
            self.register_buffer("factor", torch.tensor([2.0, 3.0]), persistent=False)

        def forward(self, x):
            return self.fc(x) * self.factor

    model, x = Scaled().eval(), torch.randn(3, 4)
    graph = trace(model, (x,))
    with torch.no_grad():
        torch.testing.assert_close(graph.run(model.state_dict(), (x,)), model(x))
    assert len(graph.constants) == 1


def test_nothing_that_is_given_is_written_into():
    model = architecture("resnet-batch")
    (x,) = architecture_inputs("resnet-batch")
    params = random_state(model, 0)
    before, inputs = {k: v.clone() for k, v in params.items()}, x.clone()
    trace(model, (x,)).run(params, (x,))
    assert torch.equal(x, inputs)
    assert all(torch.equal(params[k], before[k]) for k in params)


def test_gradients_flow_through_the_graph():
    model = perceptron(4, 5, 2)
    x, y = torch.randn(6, 4), torch.tensor([0, 1, 0, 1, 0, 1])
    params = {k: v.clone().requires_grad_() for k, v in model.state_dict().items()}
    F.cross_entropy(trace(model, (x,)).run(params, (x,)), y).backward()
    F.cross_entropy(model(x), y).backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(params[name].grad, parameter.grad)


def test_a_model_whose_batch_cannot_vary_says_so():
    model = Net(lambda m, x: m.fc(x.view(3, 4)), fc=nn.Linear(4, 2)).eval()
    assert not trace(model, (torch.randn(3, 4),)).batched
    assert trace(perceptron(4, 2), (torch.randn(1, 4),)).batched


def test_a_model_that_returns_no_tensor_is_refused():
    model = Net(lambda m, x: [], fc=nn.Linear(4, 2)).eval()
    x = torch.randn(3, 4)
    with pytest.raises(MergingError, match="returns no tensor; have it return one"):
        trace(model, (x,)).run(model.state_dict(), (x,))


def test_what_is_given_is_not_written_into():
    def forward(m, x):
        x.sub_(1.0)
        m.shift.mul_(2.0)
        return m.fc(x) + m.shift

    model = Net(forward, fc=nn.Linear(4, 2), shift=nn.Parameter(torch.ones(2)))
    x = torch.randn(3, 4)
    graph = trace(model, (x,))
    params = {name: value.detach().clone() for name, value in model.state_dict().items()}
    before = {name: value.clone() for name, value in params.items()}
    given = x.clone()
    with torch.no_grad():
        found = [graph.run(params, (given,)) for _ in range(2)]
    assert torch.equal(given, x)
    assert all(torch.equal(params[name], before[name]) for name in before)
    torch.testing.assert_close(
        found[0], F.linear(x - 1, before["fc.weight"], before["fc.bias"]) + 2
    )
    assert torch.equal(*found)
