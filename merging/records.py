"""What was found, as frozen records of numpy arrays: curves, surfaces, alignments, symmetries.

This module needs numpy only, so that the interface process can hold and draw results without
loading torch. Loss is in nats per example, accuracy a fraction, time in seconds. `lam` runs from
0 (model A) to 1 (model B).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from merging.errors import UnknownNameError

Baseline = Literal["endpoints-mean", "linear"]
Metric = Literal["loss", "accuracy"]


def _loss_unit(accuracy: NDArray[np.float64]) -> str:
    return "squared error" if accuracy.size and np.isnan(accuracy).all() else "nats"


@dataclass(frozen=True)
class Barrier:
    """The highest rise of a curve above its baseline.

    For accuracy the rise is the drop below the baseline, so a barrier is bad for either metric.
    """

    value: float
    lam: float
    standard_error: float
    baseline: Baseline
    metric: Metric


@dataclass(frozen=True)
class Curve:
    """Loss and accuracy along the line from model A to model B.

    Attributes:
        lams: `[k]` positions; within `[0, 1]` unless the curve overshoots.
        loss: `[k]` mean loss, nats per example.
        accuracy: `[k]` fraction of the examples that are classified rightly.
        example_losses: `[k, n]` the loss of every example, float32.
        example_correct: `[k, n]` whether every example is classified rightly (of tokens the share;
            NaN where the targets are numbers).
        statistics: What was done about the statistics of hidden units, in words.
        split: The examples' name, such as `"test"`.
    """

    lams: NDArray[np.float64]
    loss: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    example_losses: NDArray[np.float32]
    example_correct: NDArray[np.bool_] | NDArray[np.float32]
    statistics: str = "interpolated"
    split: str = ""

    @property
    def examples(self) -> int:
        """Number of examples behind every value."""
        return int(self.example_losses.shape[1])

    @property
    def loss_unit(self) -> str:
        """Nats; or squared error, where numbers are predicted and nothing is right or wrong."""
        return _loss_unit(self.accuracy)

    def standard_error(self, metric: Metric = "loss") -> NDArray[np.float64]:
        """Standard error over the examples, `[k]`."""
        values = self._example_values(metric)
        return values.std(axis=1, ddof=1) / np.sqrt(values.shape[1])

    def barrier(self, baseline: Baseline = "endpoints-mean", metric: Metric = "loss") -> float:
        """The loss barrier, or the accuracy barrier.

        Args:
            baseline: `"endpoints-mean"` measures above the mean of the two end points (Frankle et
                al. 2020; Ainsworth et al. 2023, Definition 2.2), `"linear"` above the straight
                line between them (Entezari et al. 2022, Eq. 1).
            metric: `"loss"`, or `"accuracy"` for the drop in accuracy.

        Returns:
            The largest rise over the positions in `[0, 1]`. NaN if any value there is NaN.

        Raises:
            UnknownNameError: If `baseline` or `metric` is neither of its choices.
        """
        return self.locate_barrier(baseline, metric).value

    def locate_barrier(
        self, baseline: Baseline = "endpoints-mean", metric: Metric = "loss"
    ) -> Barrier:
        """The barrier with its position and its standard error over the (paired) examples.

        Args:
            baseline: As in `barrier`.
            metric: As in `barrier`.

        Returns:
            The barrier.

        Raises:
            UnknownNameError: If `baseline` or `metric` is neither of its choices.
        """
        values = -self.accuracy if metric == "accuracy" else self.loss
        inside = np.flatnonzero((self.lams >= 0) & (self.lams <= 1))
        first, last = int(inside[0]), int(inside[-1])
        weight = self._end_weight(baseline, inside)
        rise = values[inside] - ((1 - weight) * values[first] + weight * values[last])
        top = int(np.argmax(rise))  # argmax treats NaN as the largest: a NaN rise is reported
        examples = self._example_values(metric) * (-1 if metric == "accuracy" else 1)
        with np.errstate(invalid="ignore"):
            paired = examples[inside[top]] - (
                (1 - weight[top]) * examples[first] + weight[top] * examples[last]
            )
            error = float(paired.std(ddof=1) / np.sqrt(paired.size))
        return Barrier(float(rise[top]), float(self.lams[inside[top]]), error, baseline, metric)

    def at(self, lam: float) -> tuple[float, float]:
        """Loss and accuracy at the position nearest to `lam`."""
        k = int(np.argmin(np.abs(self.lams - lam)))
        return float(self.loss[k]), float(self.accuracy[k])

    def _end_weight(self, baseline: Baseline, inside: NDArray[np.intp]) -> NDArray[np.float64]:
        if baseline == "linear":
            return self.lams[inside]
        if baseline == "endpoints-mean":
            return np.full(inside.size, 0.5)
        raise UnknownNameError(
            f"unknown barrier baseline {baseline!r}; choose from 'endpoints-mean', 'linear'"
        )

    def _example_values(self, metric: Metric) -> NDArray[np.float64]:
        if metric == "loss":
            return self.example_losses.astype(np.float64)
        if metric == "accuracy":
            return self.example_correct.astype(np.float64)
        raise UnknownNameError(f"unknown metric {metric!r}; choose from 'loss', 'accuracy'")


@dataclass(frozen=True)
class PlanePoint:
    """A model drawn on a plane: its coordinates, and how far it lies off the plane."""

    name: str
    x: float
    y: float
    residual: float = 0.0


@dataclass(frozen=True)
class PlanePath:
    """A trained path projected on a plane.

    Attributes:
        kind: `"bezier"`, `"chain"` or `"neb"`.
        x: `[k]` coordinates of points along the path.
        y: `[k]` coordinates.
        residual: `[k]` their distances from the plane.
    """

    kind: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    residual: NDArray[np.float64]


@dataclass(frozen=True)
class Surface:
    """Loss and accuracy on a grid of a plane through weight space.

    Coordinates are distances in weight space (the plane's basis is orthonormal), unless the plane
    is spanned by filter-normalized directions: then they are multiples of the directions.

    Attributes:
        x: `[c]` coordinates along the first basis vector.
        y: `[r]` coordinates along the second.
        loss: `[r, c]`, nats per example; NaN and infinity are kept as they came out.
        accuracy: `[r, c]` fractions.
        standard_error: `[r, c]` standard error of the loss over the examples.
        evaluated: `[r, c]` which points have been evaluated so far.
        points: The models that span the plane, and others projected on it.
        scale: Length that a screen calls 1: the distance from A to B, or 1.
        split: The examples' name.
        examples: Number of examples behind every value.
        statistics: What was done about the statistics of hidden units, in words.
        paths: Trained paths, projected on the plane.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    loss: NDArray[np.float64]
    accuracy: NDArray[np.float64]
    standard_error: NDArray[np.float64]
    evaluated: NDArray[np.bool_]
    points: tuple[PlanePoint, ...] = ()
    scale: float = 1.0
    split: str = ""
    examples: int = 0
    statistics: str = "interpolated"
    paths: tuple[PlanePath, ...] = ()

    @property
    def loss_unit(self) -> str:
        """As of a curve."""
        return _loss_unit(self.accuracy[self.evaluated])

    @property
    def non_finite(self) -> int:
        """Number of evaluated points whose loss is NaN or infinite."""
        return int((self.evaluated & ~np.isfinite(self.loss)).sum())

    @property
    def complete(self) -> bool:
        """Whether every point of the grid has been evaluated."""
        return bool(self.evaluated.all())


@dataclass(frozen=True)
class GroupCertificate:
    """One permutation group of a certified spec."""

    name: str
    units: int
    axes: tuple[str, ...]


@dataclass(frozen=True)
class FrozenAxis:
    """A parameter's axis that must not be permuted, and why."""

    parameter: str
    axis: int
    units: int
    reason: str


@dataclass(frozen=True)
class SymmetrySummary:
    """The permutation groups of a model, what is fixed and why, and the certificate.

    `spec` is the whole spec as JSON, as `PermutationSpec.from_json` reads it.
    """

    groups: tuple[GroupCertificate, ...]
    frozen: tuple[FrozenAxis, ...]
    unknown_operators: tuple[str, ...]
    log10_orderings: float
    max_relative_difference: float
    tolerance: float
    certified: bool
    share_moved: float
    seconds: float
    spec: str = "{}"

    @property
    def keeps_statistics(self) -> bool:
        """Whether the model keeps running statistics (BatchNorm)."""
        return any("running_mean" in axis for group in self.groups for axis in group.axes)


@dataclass(frozen=True)
class Diagnosis:
    """Two models examined.

    Attributes:
        equal_share: Share of the numbers that are equal in both.
        cosine: Of the weights of A and B as they are.
        shared_start: Whether they must have been trained from one initialisation.
        norms: The kinds of norms, with their numbers.
        dead_a: Units of A that nothing enters or nothing leaves.
        dead_b: The same of B.
        units: Units in all groups.
        recovered: Units of a planted permutation of A that weight matching put back.
        sweeps: Sweeps that it took.
        matched_cosine: Of the weights of A and of B, matched.
        null_cosine: Of the weights of A and of a network that learned nothing, matched.
    """

    equal_share: float
    cosine: float
    shared_start: bool
    norms: tuple[str, ...]
    dead_a: int
    dead_b: int
    units: int
    recovered: int
    sweeps: int
    matched_cosine: float
    null_cosine: float


@dataclass(frozen=True)
class Forecast:
    """What matching two models will take on this machine, and what is odd about their numbers.

    Attributes:
        equal_share: Share of the numbers that are equal in both.
        cosine: Of the weights of A and B as they are.
        shared_start: Whether they must have been trained from one initialisation.
        dtypes_a: How many tensors of A there are of each dtype, in words.
        dtypes_b: The same of B.
        warnings: What is odd about precision, in sentences.
        groups: Number of permutation groups.
        largest_group: Units of the largest.
        sweep_seconds: One sweep of weight matching over all groups, on one core.
        match_seconds: A usual number of sweeps, in all runs.
        model_bytes: Memory of both models while they are matched.
        similarity_bytes: Memory of the similarity matrices.
        examples: Examples that curves are computed on.
        points_per_second: Points of a curve on these examples, on one core; NaN without any.
    """

    equal_share: float
    cosine: float
    shared_start: bool
    dtypes_a: tuple[str, ...]
    dtypes_b: tuple[str, ...]
    warnings: tuple[str, ...]
    groups: int
    largest_group: int
    sweep_seconds: float
    match_seconds: float
    model_bytes: int
    similarity_bytes: int
    examples: int
    points_per_second: float


@dataclass(frozen=True)
class EndPoint:
    """What one model does by itself on one split."""

    split: str
    examples: int
    loss: float
    loss_standard_error: float
    accuracy: float

    @property
    def loss_unit(self) -> str:
        """As of a curve."""
        return _loss_unit(np.array([self.accuracy]))


@dataclass(frozen=True)
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


@dataclass(frozen=True)
class GroupUnits:
    """How the units of one group are paired: the similarity before and after, margins, cycles.

    Attributes:
        group: The group's name.
        permutation: int64 `[n]`; of a nested group, its units in all positions of its parents.
        before: Cosine similarity of A's units (rows) with B's units in their own order (columns),
            int8 in units of 1/127, at most 256 x 256: larger groups keep the largest absolute
            value of every block.
        after: The same with B's units in the order of the permutation.
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
        cosine_after: The same with the aligned B.
        barrier_before: Loss barrier when only this layer goes from A to B; NaN if not asked for.
        barrier_after: The same towards the aligned B.
        variance_before: Variance of the layer's outputs at the midpoint, as a share of the mean
            of the end points' variances; NaN for layers without units of their own.
        variance_after: The same at the aligned midpoint.
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
