"""What to know of two models before they are matched: their numbers' precision, time, memory.

Times are measured on this machine, in a fraction of a second: one assignment problem, one product
of matrices, one evaluation. From them follows what the groups of these models will take.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from merging.files.data.batches import Batches
from merging.landscape import evaluate_family
from merging.matching.checks.diagnosis import SHARED_START, equal_share, weight_cosine
from merging.matching.search.assignment import solve_assignment
from merging.matching.search.nested import children_of
from merging.matching.search.weight_similarity import compared_bytes
from merging.models.dtypes import HALF
from merging.models.state_dict import floating
from merging.schema.records.diagnosis import Forecast
from merging.symmetry.spec import PermutationSpec

SWEEPS = 10  # the bundled pairs take 2 to 24
_CALIBRATION = (64, 320)  # sizes of the assignment problems that are timed
# Operators that every axis of a tensor takes in a sweep, however small it is: in small networks
# with many tensors they take most of the time.
_OPERATORS = 100
_EVALUATED = 100  # examples of the evaluation that is timed
_POINTS = 3
# Of a tensor's largest number to the median of its sizes: trained layers stay far below.
_HUGE_RANGE = 1e4
_SHOWN = 3
_WORTH_SAYING = 0.01  # share of numbers


@dataclass(frozen=True)
class MachineSpeed:
    """How fast this machine is, as measured.

    Attributes:
        assignment_seconds: Of a problem of `_CALIBRATION[1]` units.
        exponent: How the time of a problem grows with its units, from 2 to 3.
        flops: Float64 operations per second in products of matrices.
        operator_seconds: Of an operator on next to nothing.
    """

    assignment_seconds: float
    exponent: float
    flops: float
    operator_seconds: float

    def assignment(self, units: int) -> float:
        """Return the seconds of an assignment problem."""
        return float(self.assignment_seconds * (units / _CALIBRATION[1]) ** self.exponent)


def foresee(
    model: nn.Module,
    spec: PermutationSpec,
    params_a: Mapping[str, Tensor],
    params_b: Mapping[str, Tensor],
    batches: Batches,
    *,
    restarts: int = 3,
) -> Forecast:
    """Say what matching two models will take, and what is unusual about their numbers.

    Args:
        model: The architecture.
        spec: Its permutation spec.
        params_a: State dict of model A, in the dtypes of its file.
        params_b: State dict of model B.
        batches: Examples that curves are computed on; may be empty.
        restarts: Runs of weight matching.

    Returns:
        The forecast.
    """
    speed = calibrate()
    sweep = sum(
        _assignments(spec, speed, group)
        + _product_flops(spec, params_a, group) / speed.flops
        + _OPERATORS * len(spec.places()[group]) * speed.operator_seconds
        for group in spec.sizes
    )
    squares = [_rows(spec, group) ** 2 for group in spec.sizes]
    numbers = sum(params_a[name].numel() for name in floating(params_a))
    cosine = weight_cosine(params_a, params_b)
    return Forecast(
        equal_share=equal_share(params_a, params_b),
        cosine=cosine,
        shared_start=cosine > SHARED_START,
        dtypes_a=dtype_words(params_a),
        dtypes_b=dtype_words(params_b),
        warnings=precision_warnings(params_a, params_b),
        groups=len(squares),
        largest_group=max(spec.sizes.values(), default=0),
        sweep_seconds=sweep,
        match_seconds=restarts * SWEEPS * sweep,
        # Both models, as they are computed (float32) and as they are compared.
        model_bytes=2 * (4 * numbers + compared_bytes(params_a)),
        # One matrix a group is kept; the solver works on four of the largest.
        similarity_bytes=8 * (sum(squares) + 4 * max(squares, default=0)),
        examples=len(batches),
        points_per_second=_points_per_second(model, params_a, params_b, batches),
    )


def calibrate() -> MachineSpeed:
    """Measure how fast this machine solves assignments, multiplies matrices, and does nothing."""
    generator = torch.Generator().manual_seed(0)
    seconds = []
    for units in _CALIBRATION:
        values = torch.randn(units, units, generator=generator, dtype=torch.float64)
        seconds.append(_seconds(lambda values=values: solve_assignment(values)))  # type: ignore[misc]
    growth = math.log(seconds[1] / seconds[0]) / math.log(_CALIBRATION[1] / _CALIBRATION[0])
    product = _seconds(lambda: values @ values)
    flops = 2 * _CALIBRATION[1] ** 3 / product
    operator = _seconds(lambda: [values[:8, :8] @ values[:8, 0] for _ in range(_OPERATORS)])
    return MachineSpeed(
        assignment_seconds=seconds[1],
        exponent=min(3.0, max(2.0, growth)),
        flops=flops,
        operator_seconds=operator / _OPERATORS,
    )


def precision_warnings(
    params_a: Mapping[str, Tensor], params_b: Mapping[str, Tensor]
) -> tuple[str, ...]:
    """Say what is unusual about the numbers of two models.

    Args:
        params_a: State dict of model A, in the dtypes of its file.
        params_b: State dict of model B.

    Returns:
        One sentence each.
    """
    lines = [*_of_one("A", params_a), *_of_one("B", params_b)]
    mixed = [
        name
        for name in floating(params_a)
        if name in params_b and params_a[name].dtype != params_b[name].dtype
    ]
    if mixed:
        a, b = (_name(params[mixed[0]].dtype) for params in (params_a, params_b))
        lines.append(
            f"In {_count(len(mixed), 'tensor')} A and B differ in precision (the first is "
            f"{mixed[0]}: {a} and {b}). Both are computed in float32; a merged file is in A's."
        )
    return tuple(lines)


def dtype_words(params: Mapping[str, Tensor]) -> tuple[str, ...]:
    """Say how many tensors there are of each dtype: `("8 × float32",)`."""
    counts = Counter(_name(value.dtype) for value in params.values())
    return tuple(f"{count} × {dtype}" for dtype, count in counts.most_common())


def _of_one(letter: str, params: Mapping[str, Tensor]) -> list[str]:
    lines = []
    values = {name: params[name] for name in floating(params) if params[name].numel()}
    kinds = {value.dtype for value in values.values()}
    for dtype in sorted(kinds & set(HALF), key=str):
        digits = 3 if dtype == torch.float16 else 2
        lines.append(
            f"{letter} is in {_name(dtype)}, about {digits} decimal digits. It is computed in "
            f"float32; what is merged is rounded to {_name(dtype)} again when it is written."
        )
    if torch.float64 in kinds:
        lines.append(f"{letter} is in float64. It is computed in float32, about 7 decimal digits.")
    lines += _numbers_lines(letter, values)
    lines += _range_lines(letter, values)
    return lines


def _numbers_lines(letter: str, values: Mapping[str, Tensor]) -> list[str]:
    """Say how many numbers are subnormal, or cannot be held in half precision."""
    total = max(1, sum(value.numel() for value in values.values()))
    subnormal = sum(_below(value, torch.finfo(value.dtype).tiny) for value in values.values())
    wide = [value for value in values.values() if value.dtype not in HALF]
    over = {dtype: sum(_above(v, torch.finfo(dtype).max) for v in wide) for dtype in HALF}
    lost = sum(_below(value, torch.finfo(torch.float16).smallest_normal / 2**11) for value in wide)
    lines = []
    if subnormal:
        lines.append(
            f"{_count(subnormal, 'number')} of {letter} {_are(subnormal)} subnormal: so near to 0 "
            "that digits are lost, and slow to compute with."
        )
    for dtype, count in over.items():
        if count:
            largest = torch.finfo(dtype).max
            lines.append(
                f"{_count(count, 'number')} of {letter} {_are(count)} beyond {largest:.3g} in "
                f"size: {_name(dtype)} cannot hold them. Keep this model in float32."
            )
    if lost / total > _WORTH_SAYING:
        lines.append(
            f"{lost / total:.0%} of the numbers of {letter} are too small for float16 and would "
            "become 0 in it."
        )
    return lines


def _range_lines(letter: str, values: Mapping[str, Tensor]) -> list[str]:
    """Name the tensors in which a few numbers outweigh all others."""
    wide = []
    for name, value in values.items():
        sizes = value.detach().float().abs().flatten()
        sizes = sizes[sizes > 0]
        if len(sizes) > 2 and float(sizes.max()) > _HUGE_RANGE * float(sizes.median()):
            wide.append(f"{name} ({float(sizes.max()) / float(sizes.median()):.0e} times)")
    if not wide:
        return []
    rest = f" and {len(wide) - _SHOWN} more" if len(wide) > _SHOWN else ""
    return [
        f"In {letter}, the largest number is far above the median one: "
        f"{', '.join(wide[:_SHOWN])}{rest}. Such numbers decide weight matching alone; "
        "correlations of activations do not mind them."
    ]


def _below(value: Tensor, limit: float) -> int:
    """Count the numbers that are smaller in size than a limit, zeros left out."""
    sizes = value.detach().abs().double()
    return int(((sizes > 0) & (sizes < limit)).sum())


def _above(value: Tensor, limit: float) -> int:
    return int((value.detach().abs().double() > limit).sum())


def _product_flops(spec: PermutationSpec, params: Mapping[str, Tensor], group: str) -> float:
    """Count the operations of a group's similarity: its tensors, as `[n, rest]`, with another's.

    Where others are nested in the group, their units are compared for every pair of its own.
    """
    rows = 2.0 * _rows(spec, group)
    return sum(rows * params[name].numel() for name, _ in spec.places()[group])


def _rows(spec: PermutationSpec, group: str) -> int:
    """Return how many units are compared with one another at a time."""
    sizes = spec.sizes
    return sizes[group] * max((sizes[child] for child in children_of(spec, group)), default=1)


def _assignments(spec: PermutationSpec, speed: MachineSpeed, group: str) -> float:
    """Return the seconds of a group's assignment problems, those inside its pairs included."""
    *above, units = spec.shapes[group]
    inside = sum(speed.assignment(spec.sizes[child]) for child in children_of(spec, group))
    return math.prod(above) * (speed.assignment(units) + units**2 * inside)


def _points_per_second(
    model: nn.Module,
    params_a: Mapping[str, Tensor],
    params_b: Mapping[str, Tensor],
    batches: Batches,
) -> float:
    """Return the points of a curve per second; NaN without examples."""
    if not len(batches):
        return float("nan")
    few = batches.take(_EVALUATED)
    lams = np.linspace(0.25, 0.75, _POINTS)
    weights = np.stack([1 - lams, lams], axis=1)
    corners = [
        {k: v.float() if v.is_floating_point() else v for k, v in params.items()}
        for params in (params_a, params_b)
    ]
    evaluate_family(model, corners, weights, few.take(2))  # traces the graph
    seconds = _seconds(lambda: evaluate_family(model, corners, weights, few), runs=1)
    return _POINTS * len(few) / len(batches) / seconds


def _seconds(work: Callable[[], object], *, runs: int = 3) -> float:
    found = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        found.append(time.perf_counter() - start)
    return max(1e-9, median(found))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"
