"""Paths between two models, as affine combinations of a few corners.

A path runs from `t = 0` (model A) to `t = 1` (model B) through the span of its corners: A, the
bends, B. Whatever is asked along it is asked of a family of points in that span, so
`evaluate_family` evaluates it at full speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from merging.files.checkpoints.lazy_params import Params
from merging.files.data.batches import BatchesLike
from merging.landscape.evaluate.evaluation import Prepare, evaluate_family
from merging.landscape.line import curve_of, line_positions
from merging.models.state_dict import combine, distance, dot, subtract
from merging.schema.progress import Progress
from merging.schema.records.curve import Curve

PathKind = Literal["bezier", "chain", "neb"]


@dataclass(frozen=True, eq=False)
class Path:
    """A trained path from model A to model B.

    Attributes:
        kind: `"bezier"`, `"chain"` or `"neb"`.
        corners: State dicts: model A, one bend or the pivots of a band, model B.
        knots: Position of every corner of a chain or band, ascending from 0 to 1; none for a
            Bézier curve, which does not pass through its bend.
        history: Training loss (nats per example), averaged over runs of steps.
        converged: Whether the training loss had stopped falling; for AutoNEB, whether no part of
            the band called for a further pivot.
        stopped: Whether the caller stopped it; the corners are what was reached by then.
        seconds: Wall-clock time of the training.
        options: The options that were used.
        seed: The seed that was used.
    """

    kind: PathKind
    corners: tuple[Params, ...]
    knots: tuple[float, ...] = ()
    history: tuple[float, ...] = ()
    converged: bool = False
    stopped: bool = False
    seconds: float = 0.0
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0

    def weights(self, ts: ArrayLike) -> NDArray[np.float64]:
        """Return the weights of the corners at positions on the path.

        Args:
            ts: `[k]` positions in `[0, 1]`.

        Returns:
            `[k, corners]`; every row sums to 1, and the ends are the models alone.
        """
        if self.kind == "bezier":
            return bezier_weights(ts)
        return polyline_weights(ts, self.knots)

    def at(self, t: float) -> Params:
        """Return the state dict at a position; at 0 and 1 the models bit for bit."""
        return combine(self.corners, self.weights([t])[0].tolist())

    @property
    def bend(self) -> Params:
        """The corner between the models that is farthest from the straight line."""
        inner = self.corners[1:-1]
        return max(inner, key=lambda corner: off_line(self.corners[0], self.corners[-1], corner))

    @property
    def length(self) -> float:
        """Length in weight space, measured along 100 straight pieces."""
        rows = self.weights(np.linspace(0, 1, 101))
        gram = np.array([[dot(p, q) for q in self.corners] for p in self.corners])
        steps = np.diff(rows, axis=0)
        squares = np.einsum("ki,ij,kj->k", steps, gram, steps)
        return float(np.sqrt(np.clip(squares, 0, None)).sum())


def off_line(params_a: Params, params_b: Params, params: Params) -> float:
    """Return the distance of a network from the straight line through two models."""
    line, step = subtract(params_b, params_a), subtract(params, params_a)
    share = dot(step, line) / max(dot(line, line), 1e-300)
    return distance(params, combine([params_a, params_b], [1 - share, share]))


def bezier_weights(ts: ArrayLike) -> NDArray[np.float64]:
    """Return the weights of A, bend and B on a quadratic Bézier curve (Garipov et al. 2018, Eq. 4).

    Example:
        >>> bezier_weights([0, 0.5, 1]).tolist()
        [[1.0, 0.0, 0.0], [0.25, 0.5, 0.25], [0.0, 0.0, 1.0]]
    """
    t = np.asarray(ts, dtype=np.float64)
    return np.stack([(1 - t) ** 2, 2 * t * (1 - t), t**2], axis=1)


def polyline_weights(ts: ArrayLike, knots: ArrayLike) -> NDArray[np.float64]:
    """Return the corners' weights on straight pieces (Garipov et al. 2018, Eq. 3, for one bend).

    Args:
        ts: `[k]` positions in `[0, 1]`.
        knots: Positions of the corners, ascending from 0 to 1.

    Returns:
        `[k, corners]`, two neighbours at most in every row.

    Example:
        >>> polyline_weights([0.25, 0.5], [0, 0.5, 1]).tolist()
        [[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]
    """
    t, at = np.asarray(ts, dtype=np.float64), np.asarray(knots, dtype=np.float64)
    return np.stack([np.interp(t, at, row) for row in np.eye(at.size)], axis=1)


def evaluate_path(
    model: nn.Module,
    path: Path,
    batches: BatchesLike,
    lams: int | Sequence[float] = 25,
    *,
    prepare: Prepare | None = None,
    statistics: str = "interpolated",
    split: str = "",
    on_progress: Progress | None = None,
) -> Curve:
    """Evaluate loss and accuracy along a path.

    Args:
        model: The architecture.
        path: The path.
        batches: Any re-iterable of `(inputs, targets)`.
        lams: Number of even positions in `[0, 1]`, or the positions themselves.
        prepare: Called with the parameters of every position; what it returns is evaluated.
            For models with BatchNorm use `plane_policy("reset", ...)`: mixed statistics of three
            networks are nobody's.
        statistics: What `prepare` does, in words.
        split: Name of the examples.
        on_progress: Called with positions done and in all.

    Returns:
        The curve; its `lams` are the positions on the path.

    Raises:
        DataError: If there are no examples, or they do not fit the model.
        StoppedError: If `on_progress` raises it.
    """
    positions = line_positions(lams)
    found = evaluate_family(
        model,
        path.corners,
        path.weights(positions),
        batches,
        prepare=prepare,
        on_progress=on_progress,
    )
    return curve_of(positions, found, statistics=statistics, split=split)


def path_of(
    kind: PathKind,
    corners: Sequence[dict[str, Tensor]],
    knots: Sequence[float] = (),
    **described: Any,
) -> Path:
    """Make a path from its corners, with the rest of what `Path` holds by name."""
    own = (0.0, 0.5, 1.0) if kind == "chain" and not knots else tuple(knots)
    return Path(kind, tuple(corners), own, **described)
