"""SWAG: a Gaussian from the networks that SGD visits (Maddox et al. 2019, §3.2).

Its covariance is half a diagonal plus half a low-rank part: the running variance of every weight,
and the latest deviations from the running mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from merging.files.checkpoints.lazy_params import Params
from merging.files.data.batches import BatchesLike
from merging.landscape.paths.trained_space import TrainedSpace
from merging.landscape.paths.training_log import MOMENTUM, TrainingLog
from merging.models.state_dict import check_same_architecture, floating
from merging.schema.cards.matching import read_options
from merging.schema.cards.paths import SWAG_CARD
from merging.schema.errors import MergingError, StoppedError
from merging.schema.progress import Progress


@dataclass(frozen=True, eq=False)
class Swag:
    """Moments of the networks of a run.

    Attributes:
        mean: State dict of the mean (the SWA solution).
        variance: Variance of every weight, by the names of floating tensors.
        deviations: The latest deviations from the running mean, oldest first.
        snapshots: Networks that the moments were taken of.
        stopped: Whether the caller stopped the collection.
    """

    mean: Params
    variance: Params
    deviations: tuple[Params, ...]
    snapshots: int
    stopped: bool = False

    def sample(self, generator: torch.Generator, scale: float = 0.5) -> Params:
        """Draw a network.

        Running statistics of norms belong to the mean; re-estimate them (RESET) before use.

        Args:
            generator: Source of the draws.
            scale: Share of the covariance that is used; at the paper's ½ the draw is
                `mean + sqrt(variance / 2) z1 + D z2 / sqrt(2 (K - 1))`.

        Returns:
            A new state dict.
        """
        rank = len(self.deviations)
        loads = torch.randn(rank, generator=generator) * (scale / max(1, rank - 1)) ** 0.5
        drawn = dict(self.mean)
        for name, variance in self.variance.items():
            mean = self.mean[name]
            noise = torch.randn(mean.shape, generator=generator).to(mean.dtype)
            moved = mean + (scale * variance).sqrt() * noise
            for load, deviation in zip(loads.tolist(), self.deviations, strict=True):
                moved = moved + load * deviation[name]
            drawn[name] = moved
        return drawn


def swag_moments(checkpoints: Iterable[Mapping[str, Tensor]], rank: int = 10) -> Swag:
    """Return the moments of the checkpoints of a run, in their order.

    Args:
        checkpoints: State dicts; read one at a time.
        rank: Deviations that are kept.

    Returns:
        The moments; sums are in float64.

    Raises:
        MergingError: If there are fewer than two checkpoints.
        ArchitectureMismatchError: If they do not fit.
    """
    moments = _Moments(rank)
    for checkpoint in checkpoints:
        moments.add(checkpoint)
    return moments.result()


def collect_swag(
    model: nn.Module,
    params: Mapping[str, Tensor],
    batches: BatchesLike,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    on_progress: Progress | None = None,
) -> Swag:
    """Go on training a model by SGD with a constant step size, and take the moments on the way.

    Args:
        model: The architecture.
        params: State dict to start from; left as it is.
        batches: Training examples; any re-iterable of `(inputs, targets)`.
        options: Options by name, see `merging.schema.cards.paths.SwagOptions`.
        seed: Seed of the order of examples.
        on_progress: Called with steps done, steps in all and a note; if it raises `StoppedError`
            after two snapshots, the moments so far are returned, `stopped`.

    Returns:
        The moments.

    Raises:
        UnknownNameError: If there is no such option.
        DataError: If there are no examples.
        StoppedError: If it was stopped before there were two snapshots.
        MergingError: If the loss is no longer finite.
    """
    chosen = read_options(SWAG_CARD, options)
    space = TrainedSpace(model, params, batches)
    moments = _Moments(chosen.rank)
    point = space.vector(params)
    velocity = torch.zeros_like(point)
    draws = space.draws(chosen.batch_size, torch.Generator().manual_seed(seed))
    log = TrainingLog(on_progress, total=chosen.snapshots * chosen.every)
    try:
        for step in range(1, chosen.snapshots * chosen.every + 1):
            loss, slope = space.gradient(point, params, next(draws))
            velocity = MOMENTUM * velocity + slope
            point = point - chosen.lr * velocity
            if step % chosen.every == 0:
                moments.add(space.params(point, params))
            log.note(loss)
    except StoppedError:
        if moments.count < 2:
            raise
        return moments.result(stopped=True)
    return moments.result()


class _Moments:
    """Running sums over networks, in float64."""

    def __init__(self, rank: int) -> None:
        self.count = 0
        self._rank = rank
        self._first: Mapping[str, Tensor] = {}
        self._mean: Params = {}
        self._square: Params = {}
        self._deviations: list[Params] = []

    def add(self, params: Mapping[str, Tensor]) -> None:
        """Count a network in (Maddox et al. 2019, Algorithm 1)."""
        if not self.count:
            self._first = dict(params)
            wide = {name: params[name].double() for name in floating(params)}
            self._mean = {name: torch.zeros_like(value) for name, value in wide.items()}
            self._square = {name: torch.zeros_like(value) for name, value in wide.items()}
        check_same_architecture(self._first, params)
        self.count += 1
        deviation: Params = {}
        for name, mean in self._mean.items():
            value = params[name].detach().double()
            self._mean[name] = mean + (value - mean) / self.count
            square = self._square[name]
            self._square[name] = square + (value.square() - square) / self.count
            deviation[name] = (value - self._mean[name]).to(params[name].dtype)
        self._deviations = [*self._deviations, deviation][-self._rank :]

    def result(self, *, stopped: bool = False) -> Swag:
        """Return the moments of what was counted.

        Raises:
            MergingError: If that is fewer than two networks.
        """
        if self.count < 2:
            raise MergingError(
                f"SWAG needs at least two checkpoints of a run, and got {self.count}"
            )
        first = self._first
        mean = {n: self._mean[n].to(v.dtype) if n in self._mean else v for n, v in first.items()}
        variance = {
            name: (self._square[name] - value.square()).clamp_min(0).to(first[name].dtype)
            for name, value in self._mean.items()
        }
        return Swag(
            mean=mean,
            variance=variance,
            deviations=tuple(self._deviations),
            snapshots=self.count,
            stopped=stopped,
        )
