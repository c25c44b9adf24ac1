"""What task vectors look like side by side: lengths, angles, conflicts of signs, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from merging.files.checkpoints.lazy_params import StateDict
from merging.fusion.problem import FusionProblem
from merging.fusion.rules.gradient_matching import implied_weights
from merging.models.state_dict import floating
from merging.schema.errors import MergingError


@dataclass(frozen=True, eq=False)
class TaskVectors:
    """How task vectors `theta_t - base` compare, within one tensor or all of them.

    Attributes:
        norms: Euclidean lengths `[models]`.
        cosines: `[models, models]`; NaN where a vector is zero.
        conflicts: `[models, models]`: share of the entries whose signs are opposite, among those
            that both models changed; NaN if there are none.
        any_conflict: Share of the entries that some models raised and others lowered, among those
            that any changed; NaN if there are none.
    """

    norms: NDArray[np.float64]
    cosines: NDArray[np.float64]
    conflicts: NDArray[np.float64]
    any_conflict: float


@dataclass(frozen=True, eq=False)
class WeightHistogram:
    """How the implied weights of gradient matching are distributed (Eq. 12).

    Attributes:
        edges: Edges of the bins `[bins + 1]`.
        counts: Entries in each bin `[models, bins]`; those beyond the edges are in the outermost.
        means: `[models]`.
        quartiles: `[models, 3]`: lower quartile, median, upper quartile.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    means: NDArray[np.float64]
    quartiles: NDArray[np.float64]


def compare_task_vectors(base: StateDict, models: Sequence[StateDict]) -> TaskVectors:
    """Compare task vectors over all floating tensors.

    Args:
        base: What the models were fine-tuned from.
        models: State dicts of the same names and shapes.

    Returns:
        Lengths, cosines and conflicts.

    Raises:
        MergingError: If there are no models.

    Example:
        >>> base, up = {"w": torch.zeros(2)}, {"w": torch.ones(2)}
        >>> found = compare_task_vectors(base, [up, {"w": torch.tensor([1.0, -1.0])}])
        >>> found.conflicts[0, 1], found.any_conflict, found.cosines[0, 1]
        (np.float64(0.5), 0.5, np.float64(0.0))
    """
    return _summary([_counts(base, models, name) for name in floating(base)])


def compare_by_tensor(base: StateDict, models: Sequence[StateDict]) -> dict[str, TaskVectors]:
    """Compare task vectors within each floating tensor.

    Args:
        base: What the models were fine-tuned from.
        models: State dicts of the same names and shapes.

    Returns:
        By name. The squared length of a tensor's part, over that of the whole task vector, is what
        the tensor contributes.

    Raises:
        MergingError: If there are no models.
    """
    return {name: _summary([_counts(base, models, name)]) for name in floating(base)}


def weight_histogram(
    problem: FusionProblem, *, delta: float = 1e-12, bins: int = 40, top: float | None = None
) -> WeightHistogram:
    """Count the values of `a_t (H_0 + H_t) / (H_0 + sum_s a_s H_s)` over all tensors' entries.

    Args:
        problem: The models, the base, and their curvatures, buffers left out.
        delta: The prior's precision.
        bins: Number of bins, of equal width.
        top: Upper edge; by default the largest weight that can be, which is the largest `a_t`
            where that is at least 1.

    Returns:
        One histogram per model over common bins.

    Raises:
        MergingError: If a curvature is missing.
    """
    if problem.fishers is None:
        raise MergingError("implied weights need `fishers`, one per model: see diagonal_fisher")
    flat = [implied_weights(problem, n, delta).flatten(1) for n in floating(problem.fishers[0])]
    values = torch.cat(flat, 1).double().numpy()
    edges = np.linspace(0.0, top or max(1.0, *problem.weights), bins + 1)
    inside = values.clip(edges[0], edges[-1])
    return WeightHistogram(
        edges=edges,
        counts=np.stack([np.histogram(row, edges)[0] for row in inside]),
        means=values.mean(1),
        quartiles=np.quantile(values, (0.25, 0.5, 0.75), axis=1).T,
    )


@dataclass(frozen=True, eq=False)
class _Counts:
    """Sums over the entries of a tensor, which add up over tensors."""

    products: NDArray[np.float64]  # inner products [models, models]
    both: NDArray[np.float64]  # entries that both models changed [models, models]
    opposite: NDArray[np.float64]  # those of them with opposite signs
    changed: int  # entries that any model changed
    mixed: int  # those of them that were changed both ways


def _counts(base: StateDict, models: Sequence[StateDict], name: str) -> _Counts:
    if not models:
        raise MergingError("there are no models to compare; give at least one")
    start = base[name].double().flatten()
    steps = torch.stack([model[name].double().flatten() - start for model in models])
    up, down = (steps > 0).double(), (steps < 0).double()
    opposite = up @ down.T
    any_up, any_down = up.any(0), down.any(0)
    return _Counts(
        products=(steps @ steps.T).numpy(),
        both=((up + down) @ (up + down).T).numpy(),
        opposite=(opposite + opposite.T).numpy(),
        changed=int((any_up | any_down).sum()),
        mixed=int((any_up & any_down).sum()),
    )


def _summary(counts: Sequence[_Counts]) -> TaskVectors:
    products = np.sum([c.products for c in counts], axis=0)
    norms = np.sqrt(np.diag(products))
    changed = sum(c.changed for c in counts)
    with np.errstate(invalid="ignore", divide="ignore"):
        return TaskVectors(
            norms=norms,
            cosines=(products / np.outer(norms, norms)).clip(-1, 1),
            conflicts=np.sum([c.opposite for c in counts], axis=0)
            / np.sum([c.both for c in counts], axis=0),
            any_conflict=sum(c.mixed for c in counts) / changed if changed else float("nan"),
        )
