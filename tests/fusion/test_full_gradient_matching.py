"""Gradient matching with curvature beyond its diagonal, against dense solves and joint models."""

from __future__ import annotations

import sys
from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, jacrev

from merging.files.data.batches import Batches
from merging.fusion import diagonal_fisher, fuse
from merging.fusion.curvature.operators import (
    diagonal_curvature,
    gauss_newton_curvature,
    kronecker_curvature,
    scaled_curvature,
)
from merging.fusion.full_gradient_matching import match_gradients
from merging.schema.errors import DataError, MergingError, StoppedError
from tests.fusion.given import BASE, BASE_FISHER, FISHERS, MODELS, assert_equal, state

ALPHAS = (0.9, 0.4, 1.3)
DELTA = 0.3


needs_curvlinops = pytest.mark.skipif(
    find_spec("curvlinops") is None, reason="curvlinops is not installed"
)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3))


def drawn(model: nn.Module, seed: int) -> dict[str, Tensor]:
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    return {n: normal(100 * seed + k, *shape) for k, (n, shape) in enumerate(shapes.items())}


def examples(seed: int, count: int = 30, width: int = 3) -> Batches:
    return Batches(normal(seed, count, width), torch.arange(count) % 3, 11)


def flat(step: dict[str, Tensor]) -> Tensor:
    return torch.cat([value.reshape(-1) for value in step.values()])


def shaped(vector: Tensor, like: dict[str, Tensor]) -> dict[str, Tensor]:
    parts = vector.split([value.numel() for value in like.values()])
    return {n: p.view(v.shape) for (n, v), p in zip(like.items(), parts, strict=True)}


def dense(times, like: dict[str, Tensor]) -> Tensor:
    """The matrix of an operator, column by column."""
    size = sum(value.numel() for value in like.values())
    return torch.stack([flat(times(shaped(row, like))) for row in torch.eye(size).double()], 1)


def by_solving(matrices: list[Tensor], base: Tensor, models: list[Tensor], alphas=ALPHAS) -> Tensor:
    """Eq. 12 with matrices, the base's first."""
    first = matrices[0] + DELTA * torch.eye(len(base)).double()
    total = first + sum(a * h for a, h in zip(alphas, matrices[1:], strict=True))
    wanted = sum(
        a * (first + h) @ (m - base) for a, h, m in zip(alphas, matrices[1:], models, strict=True)
    )
    return base + torch.linalg.solve(total, wanted)


def gauss_newton(model, params, data) -> Tensor:
    """The mean of J^T (diag p - p p^T) J, example by example."""
    total = torch.zeros(())
    for x in data.inputs:
        outputs = functional_call(model, params, (x[None],))[0]
        p = outputs.softmax(0)
        found = jacrev(lambda own, x=x: functional_call(model, own, (x[None],))[0])(params)
        j = torch.cat([value.reshape(3, -1) for value in found.values()], 1)
        total = total + j.T @ (torch.diag(p) - torch.outer(p, p)) @ j
    return (total / len(data.inputs)).detach()


def kronecker(model, params, data) -> Tensor:
    """One Kronecker product for each of the two layers, from their own derivatives."""
    x = data.inputs
    hidden = torch.tanh(x @ params["0.weight"].T + params["0.bias"])
    p = (hidden @ params["2.weight"].T + params["2.bias"]).softmax(1)
    at_outputs = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    back = params["2.weight"][None] * (1 - hidden**2)[:, None, :]  # d outputs / d first layer
    at_hidden = back.transpose(1, 2) @ at_outputs @ back
    blocks = []
    for read, wanted in ((x, at_hidden), (hidden, at_outputs)):
        whole = torch.cat([read, torch.ones(len(read), 1)], 1)
        # Weight and bias follow one another by units here, and are parted below.
        joint = torch.kron(wanted.mean(0), whole.T @ whole / len(whole))
        n, m = wanted.shape[1], whole.shape[1]
        order = [i * m + j for i in range(n) for j in range(m - 1)]
        order += [i * m + m - 1 for i in range(n)]
        blocks.append(joint[order][:, order])
    return torch.block_diag(*blocks)


KINDS = {
    "kronecker": (kronecker_curvature, kronecker),
    "gauss-newton": (gauss_newton_curvature, gauss_newton),
}


@needs_curvlinops
@pytest.mark.parametrize("kind", KINDS)
def test_curvatures_are_what_their_definitions_say(kind):
    model, data = network().double(), examples(1)
    params = drawn(model, 3)
    made, expected = KINDS[kind]
    found = dense(made(model, params, data), params)
    torch.testing.assert_close(found, expected(model, params, data), atol=1e-10, rtol=1e-8)


@needs_curvlinops
@pytest.mark.parametrize("kind", KINDS)
def test_a_merge_solves_the_dense_system(kind):
    model = network().double()
    states, sets = [drawn(model, k) for k in range(4)], [examples(k) for k in range(4)]
    made, expected = KINDS[kind]
    curvatures = [
        scaled_curvature(made(model, s, d), 30) for s, d in zip(states, sets, strict=True)
    ]
    found = match_gradients(
        states[1:], states[0], curvatures[1:], curvatures[0],
        weights=ALPHAS, delta=DELTA, tolerance=1e-13,
    )  # fmt: skip
    matrices = [30 * expected(model, s, d) for s, d in zip(states, sets, strict=True)]
    wanted = by_solving(matrices, flat(states[0]), [flat(s) for s in states[1:]])
    torch.testing.assert_close(flat(found.params), wanted, atol=1e-8, rtol=1e-8)
    assert found.converged
    assert found.residual < 1e-13


def test_it_is_the_joint_solution_of_linear_regressions_with_correlated_features():
    parts = [(normal(k, 40, 5) @ normal(90 + k, 5, 5), normal(20 + k, 40)) for k in range(4)]

    def ridge(chosen):
        x, y = (torch.cat(column) for column in zip(*chosen, strict=True))
        return {"w": torch.linalg.solve(x.T @ x + DELTA * torch.eye(5).double(), x.T @ y)}

    def hessian(x):
        return lambda step: {"w": x.T @ (x @ step["w"])}

    base = ridge(parts[:1])
    models = [ridge([parts[0], part]) for part in parts[1:]]
    joint = ridge(parts)["w"]
    operators = [hessian(x) for x, _ in parts]
    found = match_gradients(models, base, operators[1:], operators[0], delta=DELTA, tolerance=1e-14)
    torch.testing.assert_close(found.params["w"], joint, atol=1e-10, rtol=0)
    diagonals = [{"w": x.square().sum(0)} for x, _ in parts]
    rough = fuse(
        "gradient_matching", models=models, base=base, fishers=diagonals[1:],
        base_fisher=diagonals[0], options={"delta": DELTA},
    )  # fmt: skip
    assert (rough["w"] - joint).norm() > 0.05


@needs_curvlinops
@pytest.mark.parametrize("seed", range(3))
def test_on_softmax_regressions_it_is_nearer_to_the_joint_model_than_the_diagonal(seed):
    torch.manual_seed(0)
    model = nn.Linear(4, 3).double()
    mixed = normal(seed + 70, 4, 4)
    sets = []
    for k in range(4):
        x = normal(100 * seed + k, 800, 4) @ mixed
        truth = normal(100 * seed + 50, 4, 3) + 0.03 * normal(100 * seed + 60 + k, 4, 3)
        sets.append(Batches(x, (x @ truth + normal(100 * seed + 80 + k, 800, 3)).argmax(1), 800))

    def fitted(chosen):
        params = [nn.Parameter(torch.zeros_like(p)) for p in model.parameters()]
        solver = torch.optim.LBFGS(params, max_iter=500, tolerance_grad=1e-10, tolerance_change=0,
                                   line_search_fn="strong_wolfe")  # fmt: skip

        def loss():
            solver.zero_grad()
            total = sum((p**2).sum() for p in params) * DELTA / 2
            for data in chosen:
                outputs = F.linear(data.inputs, *params)
                total = total + F.cross_entropy(outputs, data.targets, reduction="sum")
            total.backward()
            return total

        solver.step(loss)
        return {"weight": params[0].detach(), "bias": params[1].detach()}

    base, joint = fitted(sets[:1]), fitted(sets)
    models = [fitted([sets[0], data]) for data in sets[1:]]
    states = [base, *models]
    whole = [
        scaled_curvature(gauss_newton_curvature(model, s, d), 800)
        for s, d in zip(states, sets, strict=True)
    ]
    found = match_gradients(models, base, whole[1:], whole[0], delta=DELTA, tolerance=1e-10)
    matrices = [800 * gauss_newton(model, s, d) for s, d in zip(states, sets, strict=True)]
    diagonals = [diagonal_curvature(shaped(m.diagonal(), base)) for m in matrices]
    rough = match_gradients(models, base, diagonals[1:], diagonals[0], delta=DELTA)

    def distance(params):
        return float((flat(params) - flat(joint)).norm())

    added = fuse("task_arithmetic", models=models, base=base)
    assert distance(found.params) < distance(rough.params) / 8
    assert distance(found.params) < distance(added) / 50


def test_with_diagonals_it_is_the_rule_of_fuse():
    operators = [diagonal_curvature(fisher) for fisher in FISHERS]
    found = match_gradients(
        MODELS, BASE, operators, diagonal_curvature(BASE_FISHER),
        weights=ALPHAS, delta=DELTA, tolerance=1e-14,
    )  # fmt: skip
    expected = fuse(
        "gradient_matching", models=MODELS, base=BASE, weights=ALPHAS, fishers=FISHERS,
        base_fisher=BASE_FISHER, options={"delta": DELTA},
    )  # fmt: skip
    assert_equal(found.params, expected, 1e-9)
    assert found.params["norm.num_batches_tracked"] == expected["norm.num_batches_tracked"]


def test_without_any_curvature_it_is_task_arithmetic_and_nothing_is_written_to():
    before = [{n: v.clone() for n, v in params.items()} for params in (BASE, *MODELS)]
    nothing = diagonal_curvature({})
    found = match_gradients(MODELS, BASE, [nothing] * 3, nothing, weights=ALPHAS)
    assert_equal(found.params, fuse("task_arithmetic", models=MODELS, base=BASE, weights=ALPHAS))
    assert found.steps == 0
    for one, other in zip(before, (BASE, *MODELS), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_types_are_the_first_models():
    half = [state(k, torch.bfloat16) for k in range(3)]
    nothing = diagonal_curvature({})
    found = match_gradients(half[1:], half[0], [nothing] * 2, nothing)
    assert {n: v.dtype for n, v in found.params.items()} == {n: v.dtype for n, v in half[0].items()}


class Mixed(nn.Module):
    """A convolution, a norm, a layer that is used twice, and one that is not used by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(1, 2, 1), nn.LayerNorm(4)
        self.image, self.apart = nn.Conv2d(1, 2, 2), nn.Conv2d(2, 2, 1, groups=2)
        self.twice, self.attention = nn.Linear(4, 4), nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.apart(self.image(x[:, None])).mean((2, 3))
        x = self.norm(torch.cat([x, -x], 1))
        x = self.twice(torch.relu(self.twice(x)))[:, None]
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(self.conv(x)[:, 0])


@needs_curvlinops
def test_layers_that_kronecker_products_do_not_fit_have_the_diagonal():
    torch.manual_seed(0)
    model = Mixed().double()
    data = Batches(normal(3, 12, 3, 3), torch.arange(12) % 3, 12)
    params = dict(model.state_dict())
    times = kronecker_curvature(model, params, data, seed=5)
    step = drawn(model, 1)
    found = times(step)
    fisher = diagonal_fisher(model, params, data, seed=5)
    plain = {n for n in params if torch.allclose(found[n], fisher[n] * step[n], 1e-6, 1e-15)}
    assert set(params) - plain == {"image.weight", "image.bias", "head.weight", "head.bias"}


@needs_curvlinops
def test_only_so_many_examples_are_taken():
    model, data = network().double(), examples(1)
    params, step = drawn(model, 3), drawn(model, 4)
    found = kronecker_curvature(model, params, data, examples=13)(step)
    some = Batches(data.inputs[:13], data.targets[:13], 13)
    expected = kronecker_curvature(model, params, some)(step)
    torch.testing.assert_close(flat(found), flat(expected))


def test_it_tells_how_far_it_is_and_can_be_stopped():
    told = []

    def stop(done: float, total: float, note: str) -> None:
        told.append((done, total, note))
        if done == 2:
            raise StoppedError("stopped")

    operators = [diagonal_curvature(fisher) for fisher in FISHERS]
    prior = diagonal_curvature(BASE_FISHER)
    with pytest.raises(StoppedError, match="stopped"):
        match_gradients(MODELS, BASE, operators, prior, most_steps=9, on_progress=stop)
    assert [(done, total) for done, total, _ in told] == [(1, 9), (2, 9)]
    short = match_gradients(MODELS, BASE, operators, prior, most_steps=2)
    assert (short.steps, short.converged) == (2, False)
    assert short.residual > 1e-6


def test_what_cannot_be_solved_is_refused():
    flat_one = diagonal_curvature({})
    with pytest.raises(MergingError, match="3 models have 2 curvatures; give one each"):
        match_gradients(MODELS, BASE, [flat_one] * 2, flat_one)
    steep = diagonal_curvature(FISHERS[0])
    with pytest.raises(MergingError, match="do not add up to a positive one; use positive weights"):
        match_gradients(MODELS, BASE, [steep] * 3, flat_one, weights=[-3.0, -3.0, 1.0])
    with pytest.raises(MergingError, match="must be positive, not 0"):
        scaled_curvature(steep, 0)


@needs_curvlinops
@pytest.mark.parametrize("made", [kronecker_curvature, gauss_newton_curvature])
def test_examples_that_are_none_are_refused(made):
    model = network()
    with pytest.raises(DataError, match="curvature needs examples, and none were given"):
        made(model, model.state_dict(), [])
    numbers = Batches(torch.zeros(2, 3), torch.zeros(2, 3))
    with pytest.raises(DataError, match="curvature needs class numbers"):
        made(model, model.state_dict(), numbers)


def test_without_curvlinops_it_is_said_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "curvlinops", None)
    model = network()
    with pytest.raises(MergingError, match=r"pip install --no-deps -r requirements-curvature.txt"):
        kronecker_curvature(model, model.state_dict(), examples(1))
