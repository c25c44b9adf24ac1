"""SWAG's moments against a loop over the checkpoints, and its samples against its moments."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from merging.landscape import Swag, collect_swag, swag_moments
from merging.models.state_dict import distance
from merging.schema.errors import MergingError, StoppedError
from tests.cases import architecture, random_state, synthetic_batches

OPTIONS = {"snapshots": 3, "every": 2, "lr": 0.01, "rank": 2}


def test_moments_are_those_of_a_loop_over_the_checkpoints():
    model = architecture("mlp")
    run = [random_state(model, k) for k in range(5)]
    found = swag_moments(iter(run), rank=3)
    for name in run[0]:
        stacked = torch.stack([params[name].double() for params in run])
        means = [stacked[: k + 1].mean(0) for k in range(5)]
        torch.testing.assert_close(found.mean[name].double(), means[-1], rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(
            found.variance[name].double(), stacked.var(0, correction=0), rtol=1e-5, atol=1e-6
        )
        for deviation, k in zip(found.deviations, (2, 3, 4), strict=True):
            torch.testing.assert_close(
                deviation[name].double(), stacked[k] - means[k], rtol=1e-5, atol=1e-6
            )
    assert found.snapshots == 5


def test_samples_have_the_moments_of_the_formula():
    deviations = tuple({"w": torch.tensor(row)} for row in ([1.0, 0.0], [0.0, 2.0], [1.0, 1.0]))
    swag = Swag({"w": torch.tensor([5.0, -5.0])}, {"w": torch.tensor([4.0, 1.0])}, deviations, 9)
    generator = torch.Generator().manual_seed(0)
    drawn = np.stack([swag.sample(generator)["w"].numpy() for _ in range(20_000)])
    low_rank = np.stack([d["w"].numpy() for d in deviations], axis=1)
    expected = 0.5 * np.diag([4.0, 1.0]) + low_rank @ low_rank.T / (2 * (3 - 1))
    np.testing.assert_allclose(drawn.mean(0), [5, -5], atol=0.05)
    np.testing.assert_allclose(np.cov(drawn.T), expected, atol=0.08)


def test_snapshots_are_those_of_sgd_with_momentum():
    model, batches = architecture("mlp"), synthetic_batches("mlp")
    params = random_state(model, 1)
    found = collect_swag(model, params, batches, OPTIONS | {"batch_size": 24}, seed=3)
    net = architecture("mlp").train()
    values = {name: v.clone().requires_grad_() for name, v in params.items()}
    optimiser = torch.optim.SGD(list(values.values()), 0.01, momentum=0.9)
    run = []
    for step in range(1, 7):
        logits = torch.func.functional_call(net, values, (batches.inputs,))
        loss = torch.nn.functional.cross_entropy(logits, batches.targets)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if step % 2 == 0:
            run.append({name: v.detach().clone() for name, v in values.items()})
    expected = swag_moments(run)
    assert distance(found.mean, expected.mean) < 1e-4
    assert distance(found.deviations[-1], expected.deviations[-1]) < 1e-4


def test_a_seed_gives_one_gaussian_and_the_model_stays_as_it_was():
    model, batches = architecture("mlp"), synthetic_batches("mlp")
    params = random_state(model, 1)
    kept = {name: value.clone() for name, value in params.items()}
    options = OPTIONS | {"batch_size": 8}
    one, two, other = (collect_swag(model, params, batches, options, s) for s in (1, 1, 2))
    assert distance(one.mean, two.mean) == 0 < distance(one.mean, other.mean)
    assert all(torch.equal(params[name], kept[name]) for name in kept)


@pytest.mark.parametrize(("after", "kept"), [(3, None), (5, 2)])
def test_a_stop_hands_over_two_snapshots_or_more(after, kept):
    model, batches = architecture("mlp"), synthetic_batches("mlp")

    def stop(done, total, note):
        if done == after:
            raise StoppedError("stopped as asked")

    if kept is None:
        with pytest.raises(StoppedError, match="as asked"):
            collect_swag(model, random_state(model, 1), batches, OPTIONS, on_progress=stop)
    else:
        found = collect_swag(model, random_state(model, 1), batches, OPTIONS, on_progress=stop)
        assert found.stopped
        assert found.snapshots == kept


def test_one_checkpoint_has_no_spread():
    with pytest.raises(MergingError, match="at least two checkpoints of a run, and got 1"):
        swag_moments([random_state(architecture("mlp"), 1)])
