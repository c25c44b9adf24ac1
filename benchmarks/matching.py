"""Weight matching against a plain coordinate descent that solves every group in every sweep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

import merging
from benchmarks.timing import compare, seconds
from merging.models.architectures.registry import build_model
from merging.symmetry.spec import PermutationSpec


def plain_descent(spec: PermutationSpec, a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    """Run Algorithm 1 as one would write it down for an MLP; return its objective."""
    a = {name: value.double() for name, value in a.items()}
    b = {name: value.double() for name, value in b.items()}
    places = spec.places()
    groups = list(places)
    perms = {group: torch.arange(n) for group, n in spec.sizes.items()}
    # The order of the groups that `match` takes with seed 0, so that both do the same descent.
    first = torch.randint(2**62, (1,), generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(int(first))
    while True:
        progress = False
        for k in torch.randperm(len(groups), generator=generator).tolist():
            group = groups[k]
            n = len(perms[group])
            matrix = torch.zeros(n, n, dtype=torch.float64)
            for name, axis in places[group]:
                value = b[name]
                for other, expression in enumerate(spec.axes[name]):
                    if other != axis and expression.group is not None:
                        value = value.index_select(other, perms[expression.group])
                left = a[name].movedim(axis, 0).reshape(n, -1)
                matrix += left @ value.movedim(axis, 0).reshape(n, -1).T
            best = torch.from_numpy(linear_sum_assignment(matrix.numpy(), maximize=True)[1])
            rows = torch.arange(n)
            gain = matrix[rows, best].sum() - matrix[rows, perms[group]].sum()
            progress |= bool(gain > 1e-12)
            perms[group] = best
        if not progress:
            return _objective(spec, a, merging.permute(spec, perms, b))


def _objective(spec: PermutationSpec, a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> float:
    return sum(
        float((a[name] * b[name]).sum())
        for name, axes in spec.axes.items()
        if any(expression.groups for expression in axes)
    )


def measure() -> Iterator[str]:
    """Yield lines with the figures."""
    pair = merging.load_pair("mnist-mlp-512")
    inputs = (pair.data.test.inputs[:2],)
    spec = merging.find_symmetry(pair.model, inputs)
    found = {}

    def ours(restarts: int = 1) -> None:
        found["ours"] = merging.match(
            "weight",
            pair.model,
            pair.params_a,
            pair.params_b,
            spec=spec,
            options={"restarts": restarts},
        ).objective[-1]

    def theirs() -> None:
        found["theirs"] = plain_descent(spec, pair.params_a, pair.params_b)

    a, b, ratio = compare(ours, theirs, repetitions=5)
    yield f"3 x 512, one run: {a:.2f} s, plain {b:.2f} s, ratio {ratio:.2f} (wanted: at least 1)"
    yield f"objective {found['ours']:.3f}, plain {found['theirs']:.3f}"
    three = seconds(lambda: ours(3))
    best = found["ours"]
    yield f"best of three runs: {three:.2f} s, objective {best:.3f} (wanted: under 1 s)"
    models = [
        build_model({"architecture": "mlp", "widths": [784, 1024, 1024, 1024, 10]}, seed=seed)
        for seed in (1, 2)
    ]
    wide = merging.find_symmetry(models[0], (torch.randn(2, 784),))
    states = [model.state_dict() for model in models]
    took = seconds(
        lambda: merging.match("weight", models[0], *states, spec=wide, options={"restarts": 1})
    )
    yield f"3 x 1024 (untrained, the slowest case), one run: {took:.2f} s (wanted: under 5 s)"
