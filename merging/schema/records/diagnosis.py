"""Two models examined, and what matching them will take."""

from __future__ import annotations

from dataclasses import dataclass

from merging.schema.records.loss_unit import LossUnit, unit_of_loss


@dataclass(frozen=True)
class Diagnosis:
    """Two models examined.

    Attributes:
        equal_share: Share of the numbers that are equal in both.
        cosine: Cosine of the weights of A and B, not aligned.
        shared_start: Whether they must have been trained from one initialisation.
        norms: The kinds of norms, with their numbers.
        dead_a: Units of A that nothing enters or nothing leaves.
        dead_b: Units of B that nothing enters or nothing leaves.
        units: Units in all groups.
        recovered: Units of a planted permutation of A that weight matching put back.
        sweeps: Sweeps that it took.
        matched_cosine: Cosine of the weights of A and of the matched B.
        null_cosine: Cosine of the weights of A and of a matched network that learned nothing.
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
    """What matching two models will take on this machine, and what is unusual about their numbers.

    Attributes:
        equal_share: Share of the numbers that are equal in both.
        cosine: Cosine of the weights of A and B, not aligned.
        shared_start: Whether they must have been trained from one initialisation.
        dtypes_a: How many tensors of A there are of each dtype, in words.
        dtypes_b: How many tensors of B there are of each dtype, in words.
        warnings: What is unusual about precision, in sentences.
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
    """Loss and accuracy of one model on one split."""

    split: str
    examples: int
    loss: float
    loss_standard_error: float
    accuracy: float

    @property
    def loss_unit(self) -> LossUnit:
        """Nats; or squared error, where numbers are predicted."""
        return unit_of_loss(self.accuracy)
