import pytest
import torch
from torch import nn

from merging.files.data.batches import Batches
from merging.models.architectures.registry import build_model
from merging.models.zoo.training import Recipe, train

CONFIG = {"architecture": "mlp", "widths": [4, 8, 3]}


def data(n=30):
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(n, 4, generator=generator)
    return Batches(inputs, inputs[:, :3].argmax(1))


def accuracy(params):
    model = build_model(CONFIG)
    model.load_state_dict(params)
    with torch.no_grad():
        return float((model(data().inputs).argmax(1) == data().targets).float().mean())


@pytest.mark.parametrize(
    "recipe",
    [
        Recipe("adam", 0.02, 60, 10),
        Recipe("sgd", 0.1, 60, 10),
        Recipe("sgd", 0.3, 60, 10, "one-cycle", 1e-4),
    ],
)
def test_training_learns_what_can_be_learned(recipe):
    assert accuracy(train(CONFIG, recipe, data(), seed=0)) > 0.9


def test_the_same_seed_trains_the_same_model_whatever_the_global_state():
    recipe = Recipe("adam", 0.01, 2, 7)
    one = train(CONFIG, recipe, data(), seed=3)
    torch.manual_seed(77)
    two = train(CONFIG, recipe, data(), seed=3)
    other = train(CONFIG, recipe, data(), seed=4)
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_training_leaves_the_global_random_state_alone():
    before = torch.random.get_rng_state()
    train(CONFIG, Recipe("sgd", 0.1, 2, 7, "one-cycle"), data(), seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_progress_is_reported_after_every_epoch_and_can_stop_training():
    seen = []
    train(CONFIG, Recipe("adam", 0.01, 3, 7), data(), seed=0, on_progress=lambda *a: seen.append(a))
    assert [(done, total) for done, total, _ in seen] == [(1, 3), (2, 3), (3, 3)]
    assert all(note.startswith("training loss ") for *_, note in seen)

    def stop(done, total, note):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(CONFIG, Recipe("adam", 0.01, 3, 7), data(), seed=0, on_progress=stop)


def test_one_step_of_sgd_is_the_gradient_step_by_hand():
    recipe = Recipe("sgd", 0.5, 1, 30, weight_decay=0.1)
    trained = train(CONFIG, recipe, data(), seed=1)
    model = build_model(CONFIG, seed=1)
    nn.functional.cross_entropy(model(data().inputs), data().targets).backward()
    for name, value in model.named_parameters():
        expected = value - 0.5 * (value.grad + 0.1 * value)
        torch.testing.assert_close(trained[name], expected.detach())


def test_running_statistics_and_shifted_images_are_trained():
    config = {
        "architecture": "resnet", "width": 2, "blocks": 1, "classes": 2, "norm": "batch",
        "stem_stride": 2,
    }  # fmt: skip
    images = Batches(torch.rand(12, 1, 8, 8), torch.arange(12) % 2)
    before = images.inputs.clone()
    params = train(config, Recipe("sgd", 0.05, 2, 5, "one-cycle", 5e-4, shift=2), images, seed=0)
    assert params["stem_norm.num_batches_tracked"] == 6
    assert not torch.equal(params["stem_norm.running_mean"], torch.zeros(2))
    assert torch.equal(images.inputs, before)
    assert not any(value.requires_grad for value in params.values())


def test_training_goes_on_from_a_start_and_leaves_it_as_it_is():
    start = build_model(CONFIG, seed=5).state_dict()
    before = {name: value.clone() for name, value in start.items()}
    still = train(CONFIG, Recipe("sgd", 0.0, 1, 10), data(), seed=0, start=start)
    moved = train(CONFIG, Recipe("sgd", 0.1, 1, 10), data(), seed=0, start=start)
    assert all(torch.equal(still[name], before[name]) for name in before)
    assert all(torch.equal(start[name], before[name]) for name in before)
    assert any(not torch.equal(moved[name], before[name]) for name in before)


def test_the_model_after_every_epoch_is_that_of_a_shorter_training():
    seen = {}
    recipe = Recipe("adam", 0.01, 3, 7)
    last = train(CONFIG, recipe, data(), seed=2, on_epoch=seen.__setitem__)
    shorter = train(CONFIG, Recipe("adam", 0.01, 2, 7), data(), seed=2)
    assert list(seen) == [1, 2, 3]
    for name, value in last.items():
        assert torch.equal(seen[3][name], value)
        assert torch.equal(seen[2][name], shorter[name])
