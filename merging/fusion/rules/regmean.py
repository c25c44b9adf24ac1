"""RegMean: each linear layer answers as each task's model does on that task's inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from merging.fusion.blocks import Entries, entries_of
from merging.fusion.problem import FusionProblem
from merging.fusion.rule import Rule, weighted_mean
from merging.schema.cards.fusion.curvature import RegMeanOptions
from merging.schema.cards.fusion.table import find_card
from merging.schema.errors import MergingError
from merging.schema.progress import Progress

_RIDGE = 1e-10  # of the mean of the diagonal


def find_layers(problem: FusionProblem, _: RegMeanOptions, __: Progress) -> FusionProblem:
    """Note which tensors are solved for (`solved`) and which are averaged (`averaged`).

    Raises:
        MergingError: If no tensor has a Gram matrix.
    """
    first, grams = problem.models[0], problem.grams or ()
    names = [name for name in first if problem.is_floating(name)]
    solved = [name for name in names if all(name in gram for gram in grams)]
    if not solved:
        raise MergingError(
            "no tensor of the models has a Gram matrix in `grams` of all models; take them with "
            "gram_matrices from the same architecture"
        )
    averaged = [name for name in names if name not in solved]
    return problem.reweighted(problem.weights, solved=solved, averaged=averaged)


def regmean(problem: FusionProblem, name: str, options: RegMeanOptions) -> Entries:
    """Return `(sum_t w_t G_t)^-1 sum_t w_t G_t W_t` (Jin et al. 2023, Eq. 2); else a weighted mean.

    In directions that no model's inputs have, the solution is the weighted mean. A convolution
    is a linear layer whose inputs are patches.

    Raises:
        MergingError: If a Gram matrix does not fit its weight.
    """
    grams, mean = problem.grams or (), weighted_mean(problem, name)
    if not all(name in gram for gram in grams):
        return mean
    middle = mean.tensor(torch.float64).flatten(1)
    left = torch.zeros(middle.shape[1], middle.shape[1], dtype=torch.float64)
    right = torch.zeros_like(middle.T)
    for weight, gram, tensor in zip(problem.weights, grams, problem.tensors(name), strict=True):
        own = _shrunk(gram[name], name, middle.shape[1], options.off_diagonal)
        left.add_(own, alpha=weight)
        right.add_(own @ (tensor.tensor(torch.float64).flatten(1) - middle).T, alpha=weight)
    ridge = _RIDGE * float(left.diagonal().mean()) or 1.0
    left.diagonal().add_(ridge)
    return entries_of((middle + torch.linalg.solve(left, right).T).view(mean.shape))


def _shrunk(gram: Tensor, name: str, inputs: int, factor: float) -> Tensor:
    if tuple(gram.shape) != (inputs, inputs):
        raise MergingError(
            f"the Gram matrix of {name!r} is {list(gram.shape)}, and the layer reads {inputs} "
            "numbers; take it from the same architecture"
        )
    wide = gram.double()
    return factor * wide + (1 - factor) * torch.diag(wide.diagonal())


RULE = Rule(find_card("regmean"), regmean, find_layers)
