"""Adam's second moment out of training checkpoints, matched with the model's names."""

from __future__ import annotations

import io
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import merging
from merging.files.checkpoints.second_moment import open_second_moment
from merging.files.data.batches import Batches
from merging.fusion.curvature.adam_moments import curvatures_from_moments
from merging.schema.errors import CheckpointError, MergingError


def saved(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def network() -> nn.Sequential:
    """Two layers of one shape, a normalization with statistics, and a head."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)
    )


NAMES = ["0.weight", "0.bias", "1.weight", "1.bias", "3.weight", "3.bias", "5.weight", "5.bias"]


def trained(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int = 3) -> list[dict]:
    """The gradients of every step."""
    generator, found = torch.Generator().manual_seed(1), []
    for _ in range(steps):
        optimizer.zero_grad()
        F.cross_entropy(
            model(torch.randn(8, 4, generator=generator)), torch.arange(8) % 3
        ).backward()
        named = model.named_parameters()
        found.append({n: p.grad.clone() for n, p in named if p.grad is not None})
        optimizer.step()
    return found


def whole(model: nn.Module, optimizer: torch.optim.Optimizer) -> bytes:
    trained(model, optimizer)
    return saved({"model": model.state_dict(), "optimizer": optimizer.state_dict()})


def read(data: bytes, **options: object) -> dict[str, Tensor]:
    with open_second_moment(data, "mine.pt", **options) as moment:
        return dict(moment)


def by_number(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, Tensor]:
    """What the optimizer itself has for every parameter, corrected."""
    beta2 = optimizer.param_groups[0]["betas"][1]
    return {
        name: optimizer.state[p]["exp_avg_sq"] / (1 - beta2 ** float(optimizer.state[p]["step"]))
        for name, p in model.named_parameters()
        if optimizer.state[p]
    }


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert set(found) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.NAdam])
def test_it_is_the_weighted_mean_of_squared_gradients(kind, amsgrad, tmp_path):
    model = network()
    options = {} if kind is torch.optim.NAdam else {"amsgrad": amsgrad}
    optimizer = kind(model.parameters(), betas=(0.8, 0.7), **options)
    gradients = trained(model, optimizer, 4)
    torch.save(
        {"state_dict": model.state_dict(), "optimizer_state_dict": optimizer.state_dict()},
        tmp_path / "epoch.pt",
    )
    found = merging.adam_second_moment(tmp_path / "epoch.pt")
    ages = [0.7 ** (3 - k) for k in range(4)]
    for name in NAMES:
        parts = zip(ages, gradients, strict=True)
        expected = sum(age * step[name] ** 2 for age, step in parts) / sum(ages)
        torch.testing.assert_close(found[name], expected)
    assert list(found) == NAMES


def test_times_the_batch_it_is_the_curvature_of_single_examples_at_a_minimum():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 3, generator=generator)
    y = (
        x @ torch.randn(3, 3, generator=generator) + torch.randn(400, 3, generator=generator)
    ).argmax(1)
    model = nn.Linear(3, 3)
    settle = torch.optim.LBFGS(model.parameters(), max_iter=200)

    def loss() -> Tensor:
        settle.zero_grad()
        value = F.cross_entropy(model(x), y)
        value.backward()
        return value

    settle.step(loss)
    still = torch.optim.Adam(model.parameters(), lr=0.0)
    for _ in range(1500):
        chosen = torch.randint(400, (10,), generator=generator)
        still.zero_grad()
        F.cross_entropy(model(x[chosen]), y[chosen]).backward()
        still.step()
    found = read(saved({"model": model.state_dict(), "optimizer": still.state_dict()}))
    data = Batches(x, y, 100)
    fisher = merging.diagonal_fisher(model, model.state_dict(), data, labels="true")
    for name, value in fisher.items():
        torch.testing.assert_close(10 * found[name], value, rtol=0.2, atol=0)


def test_groups_with_and_without_weight_decay_are_told_apart_by_shape():
    model = network()
    parts = (
        [p for p in model.parameters() if p.dim() > 1],
        [p for p in model.parameters() if p.dim() == 1],
    )
    optimizer = torch.optim.AdamW([{"params": part} for part in parts])
    assert_same(read(whole(model, optimizer)), by_number(optimizer, model))


def test_groups_that_share_a_shape_are_refused_and_names_help():
    model = network()
    parts = [list(model[:2].named_parameters()), list(model[3:].named_parameters())]
    unnamed = [{"params": [p for _, p in part]} for part in parts]
    with pytest.raises(CheckpointError, match=r"mine.pt: .* groups have parameters of shape \["):
        read(whole(model, torch.optim.AdamW(unnamed)))
    backwards = [{"params": list(model.named_parameters())[k::-1]} for k in (7,)]
    optimizer = torch.optim.AdamW(backwards)
    assert_same(read(whole(model, optimizer)), by_number(optimizer, model))


def test_names_may_have_what_a_wrapper_put_before_them():
    model = network()
    optimizer = torch.optim.AdamW(nn.ModuleDict({"module": model}).named_parameters())
    data = whole(model, optimizer)
    assert_same(read(data), by_number(optimizer, model))
    assert_same(read(data, model=model), by_number(optimizer, model))


def test_names_may_stand_in_place_of_numbers_as_sharded_training_writes_them():
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    trained(model, optimizer)
    numbered = optimizer.state_dict()
    named = {
        "state": {NAMES[k]: value for k, value in numbered["state"].items()},
        "param_groups": [{**numbered["param_groups"][0], "params": NAMES[::-1]}],
    }
    found = read(saved({"model": model.state_dict(), "optimizer": named}))
    assert_same(found, by_number(optimizer, model))


def test_names_of_another_model_are_refused():
    model = network()
    optimizer = torch.optim.AdamW(model.named_parameters())
    data = whole(model, optimizer)
    with pytest.raises(CheckpointError, match=r"names a parameter '0.weight' .* the model has not"):
        read(data, model=nn.Linear(4, 4))


def test_lightning_keeps_a_list_of_optimizers():
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    trained(model, optimizer)
    state = {f"net.{name}": value for name, value in model.state_dict().items()}
    beside = {"pytorch-lightning_version": "2.5", "state_dict": state, "epoch": 1}
    one = {**beside, "optimizer_states": [optimizer.state_dict()]}
    assert_same(read(saved(one)), by_number(optimizer, model))
    two = {**beside, "optimizer_states": [optimizer.state_dict()] * 2}
    with pytest.raises(CheckpointError, match="holds several optimizers"):
        read(saved(two))


def test_what_was_frozen_or_is_a_buffer_is_not_there():
    model = network()
    model[0].requires_grad_(requires_grad=False)
    optimizer = torch.optim.Adam(model.parameters())
    found = read(whole(model, optimizer))
    assert list(found) == NAMES[2:]
    assert_same(found, by_number(optimizer, model))


def test_an_optimizer_that_was_given_some_parameters_is_matched_if_there_is_one_way():
    model = network()
    optimizer = torch.optim.Adam(model[5].parameters())
    assert list(read(whole(model, optimizer))) == ["5.weight", "5.bias"]
    optimizer = torch.optim.Adam(model[3].parameters())
    with pytest.raises(CheckpointError, match=r"shape \[4, 4\] could be '0.weight' or '3.weight'"):
        read(whole(model, optimizer))


def test_tied_parameters_have_one_second_moment_under_both_names():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 3))
    model[2].weight = model[0].weight
    optimizer = torch.optim.Adam(model.parameters())
    data = whole(model, optimizer)
    for found in (read(data), read(data, model=model)):
        assert list(found) == list(model.state_dict())
        assert torch.equal(found["0.weight"], found["2.weight"])
        torch.testing.assert_close(found["3.bias"], by_number(optimizer, model)["3.bias"])


def test_the_optimizers_state_alone_needs_the_architecture():
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    trained(model, optimizer)
    data = saved(optimizer.state_dict())
    assert_same(read(data, model=model), by_number(optimizer, model))
    with pytest.raises(CheckpointError, match="an optimizer's state and no model; give the arch"):
        read(data)


def test_an_optimizer_of_another_model_is_refused_with_what_was_found():
    model, other = network(), nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3))
    optimizer = torch.optim.Adam(other.parameters())
    trained(other, optimizer)
    data = saved({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    with pytest.raises(
        CheckpointError,
        match=r"group 1 has 4 parameters, the model has 8 \(0.weight \[4, 4\], .* number 1, of "
        r"shape \[6, 4\], does not follow",
    ):
        read(data)


@pytest.mark.parametrize(
    ("kind", "options", "match"),
    [
        (torch.optim.SGD, {"momentum": 0.9}, "is not Adam: of parameter 0 .* 'momentum_buffer'"),
        (torch.optim.Adagrad, {}, "is not Adam: .* 'sum', and no 'exp_avg_sq'"),
    ],
)
def test_other_optimizers_are_refused(kind, options, match):
    model = network()
    with pytest.raises(CheckpointError, match=match):
        read(whole(model, kind(model.parameters(), lr=0.1, **options)))


def test_a_file_without_an_optimizer_is_refused(tmp_path):
    merging.write_checkpoint(tmp_path / "a.safetensors", network().state_dict())
    with pytest.raises(CheckpointError, match=r"a.safetensors: .* give a training checkpoint"):
        merging.adam_second_moment(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"mine.pt: holds no state of an optimizer; save"):
        read(saved(network().state_dict()))
    model = network()
    fresh = torch.optim.Adam(model.parameters()).state_dict()
    with pytest.raises(CheckpointError, match="Adam's state is empty"):
        read(saved({"model": model.state_dict(), "optimizer": fresh}))
    with pytest.raises(CheckpointError, match=r"gone.pt: there is no such file"):
        merging.adam_second_moment(tmp_path / "gone.pt")


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_a_moment_that_is_none_is_refused_when_it_is_read(value):
    model = network()
    optimizer = torch.optim.Adam(model.parameters())
    trained(model, optimizer)
    optimizer.state[model[0].weight]["exp_avg_sq"][0, 0] = value
    data = saved({"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    with open_second_moment(data, "mine.pt") as moment:
        assert moment["0.bias"].shape == (4,)
        with pytest.raises(CheckpointError, match=r"'0.weight' has entries that are negative or"):
            moment["0.weight"]
        with pytest.raises(CheckpointError, match=r"'0.weight' has entries that are negative or"):
            list(moment.blocks("0.weight", 3))


def test_blocks_of_moments_and_curvatures_are_the_whole_tensors():
    model = network()
    data = whole(model, torch.optim.Adam(model.parameters(), betas=(0.8, 0.7)))
    like = model.state_dict()
    with open_second_moment(data, "mine.pt") as moment:
        (curvature,) = curvatures_from_moments([moment], like, scale=100).fishers
        for state in (moment, curvature):
            for name in state:
                blocks = [block.clone() for block in state.blocks(name, 3)]
                assert all(len(block) == 3 for block in blocks[:-1])
                assert torch.equal(torch.cat(blocks).view(state[name].shape), state[name])
        assert "1.running_mean" in curvature  # which no optimizer remembers
        assert "1.running_mean" not in moment
    assert "0.weight" in curvature  # known without reading it: the file is closed


# --- as the curvature of several models ---------------------------------------------------------


def test_curvatures_have_zeros_for_what_nobody_trained():
    like = {"w": torch.zeros(2), "mask": torch.zeros(3), "steps": torch.tensor(3)}
    moments = [{"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 0.0])}]
    base = {"w": torch.tensor([1.0, 1.0]), "mask": torch.ones(3)}
    found = curvatures_from_moments(moments, like, base=base, scale=100)
    assert found.fishers[1]["w"].tolist() == [300, 0]
    assert found.fishers[1]["mask"].tolist() == [0, 0, 0]
    assert found.base_fisher["mask"].tolist() == [100, 100, 100]
    assert list(found.fishers[0]) == ["w", "mask"]


@pytest.mark.parametrize(
    ("moments", "options", "match"),
    [
        (
            [{"w": torch.ones(2)}, {}],
            {},
            "no second moment of 'w' in model 2, .* has one in model 1",
        ),
        ([{"w": torch.ones(2)}], {"base": {}}, "no second moment of 'w' in the base"),
        ([{"w": torch.ones(3)}], {}, r"model 1 has a tensor 'w' of shape \[3\]"),
        ([{"v": torch.ones(2)}], {}, "model 1 has a tensor 'v' .* the models lack"),
        ([{"w": torch.ones(2)}], {"scale": 0.0}, "must be positive, not 0.0"),
    ],
)
def test_curvatures_that_are_not_known_are_refused(moments, options, match):
    with pytest.raises(MergingError, match=match):
        curvatures_from_moments(moments, {"w": torch.zeros(2)}, **options)


@pytest.mark.parametrize("rule", ["fisher", "gradient_matching"])
def test_files_are_fused_with_the_moments_that_are_in_them(rule, tmp_path):
    names, states, moments = ["a.pt", "b.pt", "base.pt"], [], []
    for k, name in enumerate(names):
        model = network()
        trained(model, optimizer := torch.optim.Adam(model.parameters(), lr=0.01 * (k + 1)), k + 3)
        states.append({n: v.clone() for n, v in model.state_dict().items()})
        moments.append(by_number(optimizer, model))
        torch.save(
            {"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / name
        )
    paths = [tmp_path / name for name in names]
    done = merging.fuse_files(
        rule, paths[:2], tmp_path / "out", base=paths[2], fishers="optimizer", moment_scale=500.0
    )
    found, _ = merging.read_checkpoint(tmp_path / "out")
    fishers = [{n: 500 * v for n, v in moment.items()} for moment in moments]
    expected = merging.fuse(
        rule, models=states[:2], base=states[2], fishers=fishers[:2], base_fisher=fishers[2]
    )
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
    assert done.recipe["curvature"] == "optimizer"
    assert "- curvature: Adam's second moments, times 500" in done.card
