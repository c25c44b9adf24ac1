"""Linear assignment and optimal transport: the only place that uses SciPy's solvers."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linear_sum_assignment, linprog
from torch import Tensor

Array = NDArray[np.float64]

# Rows of the assignment that a transport between different numbers of units may become.
_MOST_COPIES = 1024


def solve_assignment(similarity: Tensor) -> Tensor:
    """Pair each row with a column so that the summed similarity is largest.

    Args:
        similarity: `[n, n]`; entry `(i, j)` scores unit `i` of model A against unit `j` of
            model B. Any real dtype, any device; solved in float64.

    Returns:
        int64 `[n]` on the CPU: entry `i` is the column paired with row `i`.

    Raises:
        ValueError: If `similarity` is not square, or holds NaN or infinity.

    Example:
        >>> solve_assignment(torch.tensor([[0.1, 0.9], [0.8, 0.2]])).tolist()
        [1, 0]
    """
    scores = _checked(similarity)
    # What every pairing of a row, or of a column, has in common decides nothing, and taken away
    # it leaves the solver shorter paths to look through: a fifth less time on real similarities.
    costs = scores.max(axis=1, keepdims=True, initial=-np.inf) - scores
    costs -= costs.min(axis=0, initial=np.inf)
    return torch.from_numpy(linear_sum_assignment(costs)[1])


def solve_transport(costs: Tensor) -> Tensor:
    """Carry equal weights of `n` units to equal weights of `m` units as cheaply as can be.

    Between equal numbers it is an assignment; else every unit is taken so many times that both
    sides have the same number, or, where those would be too many, it is a linear programme.

    Args:
        costs: `[n, m]`; entry `(i, j)` is what it costs to carry all of `i` to `j`.

    Returns:
        float64 `[n, m]`, not negative; rows sum to `1 / n`, columns to `1 / m`.

    Raises:
        ValueError: If `costs` is not a matrix, or holds NaN or infinity.

    Example:
        >>> solve_transport(torch.tensor([[0.0, 0.1, 9.0, 8.0], [7.0, 9.0, 0.0, 0.2]])).tolist()
        [[0.25, 0.25, 0.0, 0.0], [0.0, 0.0, 0.25, 0.25]]
    """
    if costs.dim() != 2 or not costs.numel() or not bool(costs.isfinite().all()):
        raise ValueError(f"costs must be a finite matrix, not {list(costs.shape)} with NaN or inf")
    table: Array = costs.detach().to("cpu", torch.float64).numpy()
    n, m = table.shape
    total = math.lcm(n, m)
    if total > max(n, m, _MOST_COPIES):
        return torch.from_numpy(_programme(table))
    copied = table.repeat(total // n, axis=0).repeat(total // m, axis=1)
    rows, columns = linear_sum_assignment(copied)
    plan = np.zeros((n, m))
    np.add.at(plan, (rows // (total // n), columns // (total // m)), 1 / total)
    return torch.from_numpy(plan)


def solve_assignments(similarities: Tensor) -> Tensor:
    """Solve many small assignment problems, each by itself.

    Args:
        similarities: `[..., n, n]`.

    Returns:
        int64 `[..., n]`.

    Raises:
        ValueError: If the similarities are not square, or hold NaN or infinity.
    """
    *above, n, columns = similarities.shape
    if n != columns:
        raise ValueError(f"a similarity must be square, not {[n, columns]}")
    if n == 2:  # by far the most in number, where there are many
        kept = similarities.diagonal(dim1=-2, dim2=-1).sum(-1)
        swapped = similarities.flip(-1).diagonal(dim1=-2, dim2=-1).sum(-1)
        first = (swapped > kept).long()
        return torch.stack((first, 1 - first), -1)
    rows = [solve_assignment(matrix) for matrix in similarities.reshape(-1, n, n)]
    return torch.stack(rows).reshape(*above, n) if rows else torch.zeros(*above, n).long()


class AssignmentSeries:
    """One assignment problem solved again and again while its similarity changes a little.

    Prices of the columns (the dual variables) are kept between solves. Taking any prices off
    changes no solution, and prices that nearly fit spare the solver most of its search.
    """

    _PASSES = 2  # more fit better, and cost what they save

    def __init__(self) -> None:
        self._prices: Array | None = None

    def solve(self, similarity: Tensor, current: Tensor) -> Tensor:
        """Pair each row with a column, as `solve_assignment` does.

        Args:
            similarity: `[n, n]`, of the same `n` every time.
            current: int64 `[n]`, the pairing so far: the better it is, the faster this is.

        Returns:
            int64 `[n]`: a pairing whose summed similarity is largest.

        Raises:
            ValueError: If `similarity` is not square, or holds NaN or infinity.
        """
        scores, columns = _checked(similarity), current.numpy()
        prices = self._prices
        if prices is None:
            prices = (scores.max(1, keepdims=True) - scores).min(0)
        paired = scores[np.arange(len(columns)), columns]
        costs = np.empty_like(scores)
        for _ in range(self._PASSES):  # Bellman–Ford steps from the current pairing
            np.subtract((paired + prices[columns])[:, None], scores, out=costs)
            prices = costs.min(0)
        self._prices = prices
        np.add(scores, prices, out=costs)
        np.subtract(costs.max(1, keepdims=True), costs, out=costs)
        return torch.from_numpy(linear_sum_assignment(costs)[1])


def _programme(costs: Array) -> Array:
    """Transport of uniform weights as a linear programme."""
    n, m = costs.shape
    leaving = sparse.kron(sparse.eye(n), np.ones((1, m)))
    arriving = sparse.kron(np.ones((1, n)), sparse.eye(m))
    weights = np.concatenate([np.full(n, 1 / n), np.full(m, 1 / m)])
    found = linprog(costs.ravel(), A_eq=sparse.vstack([leaving, arriving]).tocsr(), b_eq=weights)
    plan: Array = found.x.reshape(n, m)
    return plan


def _checked(similarity: Tensor) -> Array:
    if similarity.dim() != 2 or similarity.shape[0] != similarity.shape[1]:
        raise ValueError(f"a similarity must be square, not {list(similarity.shape)}")
    scores: Array = similarity.detach().to("cpu", torch.float64).numpy()
    if not np.isfinite(scores).all():
        raise ValueError("a similarity must not hold NaN or infinity")
    return scores
