"""Alignments: the permutation that was found, its units, and what it did to every layer.

This module needs numpy only, so that the interface process can hold and draw results without
loading torch. Times are in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from merging.schema.records.loss_unit import LossUnit


@dataclass(frozen=True, eq=False)
class Alignment:
    """A permutation of model B, how it was found and what it did.

    Attributes:
        method: The method's name.
        permutations: `{group: int64 [n]}`; `perm[i]` is B's unit that plays A's unit `i`. Of
            nested groups `[*parents, n]`: a row for every position of A's parents.
        objective: The method's own objective, per sweep or step.
        objective_name: What the objective is, in words with its unit.
        converged: Whether the method stopped by itself.
        stopped: Whether a person stopped it.
        seconds: Wall-clock time.
        restarts: Final objective of every restart (one entry where there was one run).
        options: The method's options as they were used.
        seed: The seed.
        max_relative_difference: The certificate of the aligned model: the largest relative
            difference between the outputs of B and of the permuted B, in float64.
    """

    method: str
    permutations: Mapping[str, NDArray[np.int64]]
    objective: tuple[float, ...]
    objective_name: str
    converged: bool
    stopped: bool
    seconds: float
    restarts: tuple[float, ...] = ()
    options: Mapping[str, object] = field(default_factory=dict)
    seed: int = 0
    max_relative_difference: float = float("nan")

    @property
    def units(self) -> int:
        """Number of units in all groups."""
        return sum(perm.size for perm in self.permutations.values())

    @property
    def units_moved(self) -> int:
        """Number of units that did not stay in their place; of nested ones, in their parent's."""
        moved = (perm != np.arange(perm.shape[-1]) for perm in self.permutations.values())
        return sum(int(found.sum()) for found in moved)


@dataclass(frozen=True, eq=False)
class GroupUnits:
    """How the units of one group are paired: the similarity before and after, margins, cycles.

    Attributes:
        group: The group's name.
        permutation: int64 `[n]`; of a nested group, its units in all positions of its parents.
        before: Cosine similarity of A's units (rows) with B's units in their own order (columns),
            int8 in units of 1/127, at most 256 x 256: larger groups keep the largest absolute
            value of every block.
        after: Cosine similarity with B's units in the order of the permutation, as `before`.
        block: How many units one row of `before` stands for.
        matched: `[n]` cosine similarity of every unit of A with its match.
        margin: `[n]` that similarity less the best of any other unit of B.
        fixed_points: Units that stay in their place.
        cycles: Lengths of the permutation's cycles, longest first.
        parents: Sizes of the groups that this one is nested in.
        fixed_parents: Number of positions of what it is nested in that keeps its order.
    """

    group: str
    permutation: NDArray[np.int64]
    before: NDArray[np.int8]
    after: NDArray[np.int8]
    block: int
    matched: NDArray[np.float64]
    margin: NDArray[np.float64]
    fixed_points: int
    cycles: tuple[int, ...]
    parents: tuple[int, ...] = ()
    fixed_parents: int = 1

    @property
    def run(self) -> int:
        """Units in one position of the parents; all of them where there are none."""
        return self.permutation.size // (int(np.prod(self.parents)) * self.fixed_parents)


@dataclass(frozen=True)
class LayerRow:
    """One layer of the two models, before and after alignment.

    Attributes:
        layer: The layer's name.
        distance_before: `||A - B||` over the layer's parameters.
        distance_after: `||A - pi(B)||`.
        cosine_before: Cosine of the angle between A's and B's parameters.
        cosine_after: Cosine of the angle between A's and the aligned B's parameters.
        barrier_before: Loss barrier, in `loss_unit`, when only this layer goes from A to B; NaN if
            it was not asked for.
        barrier_after: Loss barrier when only this layer goes from A to the aligned B.
        variance_before: Variance of the layer's outputs at the midpoint, as a share of the mean
            of the end points' variances; NaN for layers without units of their own.
        variance_after: Variance of the layer's outputs at the midpoint of A and the aligned B.
        loss_unit: Unit of the barriers. Results that were kept before this lack it.
    """

    layer: str
    distance_before: float
    distance_after: float
    cosine_before: float
    cosine_after: float
    barrier_before: float = float("nan")
    barrier_after: float = float("nan")
    variance_before: float = float("nan")
    variance_after: float = float("nan")
    loss_unit: LossUnit = "nats"
