"""Low-loss paths between two models, trained (Garipov et al. 2018; Draxler et al. 2018).

With one bend, a path `phi` is trained by SGD on the mean loss along it, `E_t L(phi(t))` with `t`
uniform in [0, 1]: every step draws a position and a batch. The end points never move.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from merging.files.checkpoints.lazy_params import Params
from merging.files.data.batches import BatchesLike
from merging.landscape.paths.autoneb import train_band
from merging.landscape.paths.path import Path, PathKind, bezier_weights, path_of, polyline_weights
from merging.landscape.paths.trained_space import TrainedSpace
from merging.landscape.paths.training_log import MOMENTUM, TrainingLog, falling
from merging.models.state_dict import check_same_architecture, distance, lerp
from merging.schema.cards.matching import read_options
from merging.schema.cards.paths import BendOptions, find_path_card
from merging.schema.errors import MergingError, StoppedError
from merging.schema.progress import Progress

_CHAIN = (0.0, 0.5, 1.0)


@dataclass(frozen=True, eq=False)
class _Ends:
    """The models at the ends, as state dicts and as vectors."""

    space: TrainedSpace
    params_a: Params
    params_b: Params
    a: Tensor
    b: Tensor

    def rest(self, t: float) -> Params:
        """Return what is not trained, mixed."""
        return lerp(self.params_a, self.params_b, t)

    def path(
        self, kind: PathKind, inner: Tensor, knots: tuple[float, ...] = (), **how: Any
    ) -> Path:
        """Return a path with these inner corners, `[k, n]`, finished as networks."""
        places = knots[1:-1] or (0.5,)
        bends = [self.space.finished(v, self.rest(t)) for v, t in zip(inner, places, strict=True)]
        return path_of(kind, [self.params_a, *bends, self.params_b], knots, **how)

    def sketch(
        self, kind: PathKind, inner: Tensor, knots: tuple[float, ...] = (), **how: Any
    ) -> Path:
        """Return a path as `path` does, but with mixed statistics of norms.

        Estimating them takes too long to do often.
        """
        places = knots[1:-1] or (0.5,)
        bends = [
            self.space.params(v.clone(), self.rest(t)) for v, t in zip(inner, places, strict=True)
        ]
        return path_of(kind, [self.params_a, *bends, self.params_b], knots, **how)


def connect(
    model: nn.Module,
    params_a: Mapping[str, Tensor],
    params_b: Mapping[str, Tensor],
    batches: BatchesLike,
    kind: PathKind = "bezier",
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    on_progress: Progress | None = None,
    on_partial: Callable[[Path], None] | None = None,
) -> Path:
    """Train a low-loss path from model A to model B.

    Align B first, and compare: a straight line between aligned models may need no bend. Models
    with BatchNorm are trained with the statistics of every batch; the running statistics of the
    bends are then re-estimated on the first 1,000 examples (RESET), and those of the points
    between are for whoever evaluates them (`evaluate_path`).

    Args:
        model: The architecture.
        params_a: State dict of model A, where the path begins.
        params_b: State dict of model B, where it ends; permute it first for an aligned path.
        batches: Training examples; any re-iterable of `(inputs, targets)`.
        kind: `"bezier"`, `"chain"` or `"neb"`.
        options: Options by name, see `BendOptions` and `NebOptions` in
            `merging.schema.cards.paths`.
        seed: Seed of positions and batches.
        on_progress: Called with steps done, steps in all and a note; if it raises `StoppedError`,
            the path so far is returned, `stopped`.
        on_partial: Called now and then with the path so far, the statistics of norms of its bends
            not yet re-estimated.

    Returns:
        The path. Its ends are the models themselves.

    Raises:
        UnknownNameError: If there is no such kind or option.
        ArchitectureMismatchError: If the models do not fit.
        DataError: If there are no examples, or they do not fit the model.
        MergingError: If the models are equal, or the loss is no longer finite.
    """
    card = find_path_card(kind)
    chosen = read_options(card, options)
    check_same_architecture(params_a, params_b)
    if distance(params_a, params_b) == 0:
        raise MergingError("the two models are equal, so there is no path to train; choose others")
    start = time.perf_counter()
    space = TrainedSpace(model, params_a, batches)
    ends = _Ends(
        space=space,
        params_a=dict(params_a),
        params_b=dict(params_b),
        a=space.vector(params_a),
        b=space.vector(params_b),
    )
    described: dict[str, Any] = {"options": asdict(chosen), "seed": seed}
    log = TrainingLog(on_progress, total=_steps(chosen))
    train = _train_band if kind == "neb" else partial(_train_bend, kind)
    generator = torch.Generator().manual_seed(seed)

    def so_far(path: Path) -> None:
        if on_partial is not None:
            seconds = time.perf_counter() - start
            on_partial(replace(path, stopped=True, seconds=seconds, **described))

    path = train(ends, chosen, generator, log, so_far)
    return replace(path, seconds=time.perf_counter() - start, **described)


def _steps(options: Any) -> int:
    return int(options.steps * getattr(options, "cycles", 1))


def _train_bend(
    kind: PathKind,
    ends: _Ends,
    options: BendOptions,
    generator: torch.Generator,
    log: TrainingLog,
    on_partial: Callable[[Path], None],
) -> Path:
    """Run SGD on the loss at random positions of a path with one bend."""
    bend = (ends.a + ends.b) / 2
    velocity = torch.zeros_like(bend)
    draws = ends.space.draws(options.batch_size, generator)
    rest = ends.rest(0.5)
    stopped = False
    try:
        for step in range(options.steps):
            t = float(torch.rand((), generator=generator))
            w_a, w, w_b = _weights(kind, t)
            point = w_a * ends.a + w * bend + w_b * ends.b
            loss, slope = ends.space.gradient(point, rest, next(draws), options.weight_decay)
            velocity.mul_(MOMENTUM).add_(slope, alpha=w)
            bend = bend - options.lr * falling(step / options.steps) * velocity
            if log.note(loss):
                on_partial(ends.sketch(kind, bend[None], history=log.history))
    except StoppedError:
        stopped = True
    settled = not stopped and log.settled
    return ends.path(kind, bend[None], history=log.history, converged=settled, stopped=stopped)


def _weights(kind: PathKind, t: float) -> list[float]:
    row = bezier_weights([t]) if kind == "bezier" else polyline_weights([t], _CHAIN)
    return row[0].tolist()


def _train_band(
    ends: _Ends,
    options: Any,
    generator: torch.Generator,
    log: TrainingLog,
    on_partial: Callable[[Path], None],
) -> Path:
    """Run AutoNEB: the band's pivots become the corners of a path of straight pieces."""
    band = train_band(
        ends.space,
        (ends.a, ends.b),
        ends.rest,
        options,
        generator,
        log,
        lambda b: on_partial(ends.sketch("neb", b.pivots[1:-1], b.knots, history=log.history)),
    )
    return ends.path(
        "neb",
        band.pivots[1:-1],
        band.knots,
        history=log.history,
        converged=band.converged,
        stopped=band.stopped,
    )
