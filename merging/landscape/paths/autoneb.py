"""AutoNEB: a band of networks between two models that slides off high ground (Draxler et al. 2018).

Every pivot follows the part of its gradient that is across the band; along it, nothing but the
re-spacing moves it. After every round the band is evaluated densely, and a pivot is put in where
a straight piece rises above its own ends.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from merging.files.checkpoints.lazy_params import Params
from merging.landscape.evaluate.evaluation import evaluate_family
from merging.landscape.paths.path import polyline_weights
from merging.landscape.paths.trained_space import RESET_EXAMPLES, TrainedSpace
from merging.landscape.paths.training_log import MOMENTUM, TrainingLog
from merging.landscape.statistics.repair import plane_policy
from merging.schema.cards.paths import NebOptions
from merging.schema.errors import StoppedError

Rest = Callable[[float], Params]

# Points inside every straight piece when the band is evaluated densely.
_BETWEEN = 5
# A piece gets a pivot where it rises above its ends by this share of the band's range of losses.
_EXCESS = 0.2
_MOST_PIVOTS = 16


@dataclass(frozen=True, eq=False)
class Band:
    """Pivots `[k, n]` with both models, their positions by length, and how the training ended."""

    pivots: Tensor
    knots: tuple[float, ...]
    converged: bool = False
    stopped: bool = False


def train_band(
    space: TrainedSpace,
    ends: tuple[Tensor, Tensor],
    rest: Rest,
    options: NebOptions,
    generator: torch.Generator,
    log: TrainingLog,
    on_partial: Callable[[Band], None],
) -> Band:
    """Train a band of pivots, and insert pivots where it is high.

    Args:
        space: The loss.
        ends: Vectors of model A and model B.
        rest: Tensors that are not trained, by position on the band.
        options: Options.
        generator: Source of the batches.
        log: Told of every step.
        on_partial: Called with the band after every round and now and then.

    Returns:
        The band; what was reached so far, if `log` was told to stop.
    """
    knots = np.linspace(0, 1, options.pivots + 2)
    pivots = torch.lerp(ends[0], ends[1], torch.from_numpy(knots)[:, None].to(ends[0].dtype))
    draws = space.draws(options.batch_size, generator)
    converged = False
    try:
        for cycle in range(options.cycles):
            velocity = torch.zeros_like(pivots[1:-1])
            log.words = f"round {cycle + 1}, {len(pivots) - 2} pivots, "
            for _ in range(options.steps):
                losses, slopes = _slopes(space, pivots, knots, rest, next(draws), options)
                velocity = MOMENTUM * velocity + across(slopes, pivots, losses)
                inner = pivots[1:-1] - options.lr * 0.5**cycle * velocity
                pivots = respaced(torch.cat([pivots[:1], inner, pivots[-1:]]), knots)
                if log.note(float(np.mean(losses[1:-1]))):
                    on_partial(Band(pivots, tuple(knots)))
            places = _places_for_pivots(space, pivots, knots, rest)
            converged = not places
            if converged or cycle + 1 == options.cycles:
                break
            pivots, knots = inserted(pivots, knots, places)
    except StoppedError:
        return Band(pivots, _by_length(pivots), stopped=True)
    return Band(pivots, _by_length(pivots), converged=converged)


def _slopes(
    space: TrainedSpace,
    pivots: Tensor,
    knots: NDArray[np.float64],
    rest: Rest,
    chosen: Tensor,
    options: NebOptions,
) -> tuple[list[float], Tensor]:
    """Return the losses of all pivots and both models on one batch, and the pivots' gradients."""
    found = [
        space.gradient(pivot, rest(t), chosen, options.weight_decay)
        for pivot, t in zip(pivots[1:-1], knots[1:-1].tolist(), strict=True)
    ]
    with torch.no_grad():
        first, last = (float(space.loss(pivots[k], rest(float(-k)), chosen)) for k in (0, -1))
    return [first, *(loss for loss, _ in found), last], torch.stack([slope for _, slope in found])


def across(slopes: Tensor, pivots: Tensor, losses: list[float]) -> Tensor:
    """Return the part of every gradient that is across the band, `g - (g · tau) tau`.

    The tangent `tau` of a pivot points along the piece to its higher neighbour (Draxler et al.
    2018, §3.1): at a pass it would else point past the ridge.

    Args:
        slopes: `[k, n]` gradients of the inner pivots.
        pivots: `[k + 2, n]` with both ends.
        losses: Loss of every pivot and both ends.

    Returns:
        `[k, n]`, each row at right angles to its tangent.
    """
    level = torch.tensor(losses)
    upward = (level[2:] >= level[:-2])[:, None]
    tangent = torch.where(upward, pivots[2:] - pivots[1:-1], pivots[1:-1] - pivots[:-2])
    tangent = tangent / tangent.norm(dim=1, keepdim=True).clamp_min(1e-12)
    return slopes - (slopes * tangent).sum(1, keepdim=True) * tangent


def respaced(pivots: Tensor, knots: NDArray[np.float64]) -> Tensor:
    """Move the pivots along the band until they are at their shares of its length again.

    Args:
        pivots: `[k, n]`.
        knots: `[k]` shares of the length, from 0 to 1.

    Returns:
        `[k, n]`; the ends stay bit for bit.
    """
    rows = polyline_weights(knots, _by_length(pivots))
    moved = torch.from_numpy(rows).to(pivots.dtype) @ pivots
    return torch.cat([pivots[:1], moved[1:-1], pivots[-1:]])


def _by_length(pivots: Tensor) -> tuple[float, ...]:
    """Return the share of the band's length at which every pivot lies."""
    steps = (pivots[1:] - pivots[:-1]).norm(dim=1).double().numpy()
    reached = np.concatenate([[0.0], np.cumsum(steps)])
    return tuple((reached / reached[-1]).tolist())


def _places_for_pivots(
    space: TrainedSpace, pivots: Tensor, knots: NDArray[np.float64], rest: Rest
) -> list[float]:
    """Return where the band, evaluated densely, rises far above the ends of a straight piece."""
    share = np.arange(_BETWEEN + 1) / (_BETWEEN + 1)
    pieces = len(knots) - 1
    ts = np.append((knots[:-1, None] + np.diff(knots)[:, None] * share).ravel(), 1.0)
    few = [(space.inputs[:RESET_EXAMPLES], space.targets[:RESET_EXAMPLES])]
    policy = plane_policy("reset" if space.normed else "interpolated", space.model, few)
    corners = [space.finished(v, rest(t)) for v, t in zip(pivots, knots.tolist(), strict=True)]
    found = evaluate_family(space.model, corners, polyline_weights(ts, knots), few, prepare=policy)
    losses = found.loss
    even = np.interp(ts, knots, losses[:: _BETWEEN + 1])
    excess = (losses - even)[:-1].reshape(pieces, _BETWEEN + 1)
    room = max(0, _MOST_PIVOTS - (len(knots) - 2))
    high = excess.max(axis=1) > _EXCESS * float(np.ptp(losses)) + 1e-12
    wanted = sorted(np.flatnonzero(high), key=lambda k: -excess[k].max())[:room]
    return [float(ts[k * (_BETWEEN + 1) + int(excess[k].argmax())]) for k in wanted]


def inserted(
    pivots: Tensor, knots: NDArray[np.float64], places: list[float]
) -> tuple[Tensor, NDArray[np.float64]]:
    """Return the same band with further pivots on it.

    Args:
        pivots: `[k, n]`.
        knots: `[k]` their positions.
        places: Where to insert one, none of them a knot.

    Returns:
        Pivots and knots with the new ones in their places.
    """
    finer = np.sort(np.append(knots, places))
    rows = torch.from_numpy(polyline_weights(finer, knots)).to(pivots.dtype)
    return torch.cat([pivots[:1], (rows @ pivots)[1:-1], pivots[-1:]]), finer
