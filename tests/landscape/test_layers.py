import math

import numpy as np
import pytest
import torch

from merging.landscape import evaluate, layer_barriers, layer_distances, variance_ratios
from merging.landscape.layers import layer_names
from merging.models.state_dict import lerp
from merging.schema.errors import ArchitectureMismatchError, StoppedError
from tests.cases import (
    CONFIGS,
    architecture,
    perceptron,
    random_state,
    synthetic_batches,
)


def pair(name):
    model = architecture(name)
    return model, random_state(model, 1, scale=0.3), random_state(model, 2, scale=0.3)


def test_layers_hold_the_parameters_and_buffers_of_one_module():
    names = ("a.weight", "a.bias", "a.running_mean", "b.c.weight", "lonely")
    assert layer_names({name: torch.zeros(1) for name in names}) == {
        "a": ["a.weight", "a.bias", "a.running_mean"],
        "b.c": ["b.c.weight"],
        "lonely": ["lonely"],
    }


@pytest.mark.parametrize("name", CONFIGS)
def test_distances_and_angles_are_those_of_the_flattened_layers(name):
    _, a, b = pair(name)
    for layer, (length, cosine) in layer_distances(a, b).items():
        names = [n for n in a if n.rpartition(".")[0] == layer or n == layer]
        u, v = (
            np.concatenate([p[n].double().numpy().ravel() for n in names
                            if p[n].is_floating_point()])
            for p in (a, b)
        )  # fmt: skip
        assert length == pytest.approx(float(np.linalg.norm(u - v)))
        assert cosine == pytest.approx(float(u @ v / np.linalg.norm(u) / np.linalg.norm(v)))


def test_a_layer_of_zeros_has_no_angle():
    a = {"fc.weight": torch.zeros(2, 2)}
    ((length, cosine),) = layer_distances(a, {"fc.weight": torch.ones(2, 2)}).values()
    assert length == 2.0
    assert math.isnan(cosine)


def test_distances_of_other_architectures_are_refused():
    with pytest.raises(ArchitectureMismatchError, match="shapes of the two models differ"):
        layer_distances(random_state(perceptron(4, 5, 2), 1), random_state(perceptron(4, 6, 2), 1))


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet-batch", "vit"])
def test_the_barrier_of_a_layer_is_that_of_moving_it_alone(name):
    model, a, b = pair(name)
    batches = synthetic_batches(name, 9, batch_size=5)
    found = layer_barriers(model, a, b, batches, lams=4)
    ends = (evaluate(model, a, batches).loss[0] + evaluate(model, b, batches).loss[0]) / 2
    assert list(found) == list(layer_names(a))
    for layer, names in list(layer_names(a).items())[:6]:
        losses = []
        for lam in (0, 1 / 3, 2 / 3, 1):
            between = lerp(a, b, lam)
            mixed = {n: between[n] if n in names else a[n] for n in a}
            losses.append(evaluate(model, mixed, batches).loss[0])
        assert found[layer] == pytest.approx(max(losses) - ends, rel=1e-4, abs=1e-5)


def test_barriers_report_layer_by_layer_and_can_be_stopped():
    model, a, b = pair("mlp")
    batches, seen = synthetic_batches("mlp", 5), []
    layer_barriers(model, a, b, batches, on_progress=lambda *report: seen.append(report))
    assert seen == [(1, 3, "layers.0"), (2, 3, "layers.1"), (3, 3, "layers.2")]

    def stop(*report):
        raise StoppedError("enough")

    with pytest.raises(StoppedError, match="enough"):
        layer_barriers(model, a, b, batches, on_progress=stop)


@pytest.mark.parametrize("lam", [0.5, 0.2])
def test_the_variance_of_a_linear_layer_is_the_closed_form(lam):
    model, a, b = pair("mlp")
    batches = synthetic_batches("mlp", 50)
    x = batches.inputs.double().numpy()
    z1, z2 = (
        x @ p["layers.0.weight"].double().numpy().T + p["layers.0.bias"].double().numpy()
        for p in (a, b)
    )
    s1, s2 = z1.std(0), z2.std(0)
    rho = np.array([np.corrcoef(z1[:, i], z2[:, i])[0, 1] for i in range(z1.shape[1])])
    merged = (1 - lam) ** 2 * s1**2 + lam**2 * s2**2 + 2 * lam * (1 - lam) * rho * s1 * s2
    expected = merged.mean() / ((1 - lam) * (s1**2).mean() + lam * (s2**2).mean())
    found = variance_ratios(model, a, b, batches, lam)
    assert found["layers.0"] == pytest.approx(expected, rel=1e-4)
    assert list(found) == ["layers.0", "layers.1"]


@pytest.mark.parametrize("name", [n for n in CONFIGS if n != "resnet-layer"])
def test_a_model_and_itself_keep_their_variance(name):
    model, a, _ = pair(name)
    found = variance_ratios(model, a, a, synthetic_batches(name, 20))
    assert found
    assert all(ratio == pytest.approx(1, rel=1e-3) for ratio in found.values())


def test_half_of_two_independent_units_has_half_the_variance():
    model = perceptron(40, 200, 2)
    a, b = random_state(model, 1), random_state(model, 2)
    batches = [(torch.randn(400, 40), torch.zeros(400, dtype=torch.int64))]
    found = variance_ratios(model, a, b, batches)
    assert found["layers.0"] == pytest.approx(0.5, abs=0.05)
